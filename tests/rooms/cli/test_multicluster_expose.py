"""`isthmus multicluster expose`: what it prints, what it makes, and what it says when it cannot."""

import asyncio

import pytest
import yaml
from click.testing import CliRunner

from fakes import lab_cluster
from isthmus.base import tasks
from isthmus.cli import main, multicluster_expose
from isthmus.install import exposing, gateway_crds
from isthmus.kube import access, apply, client
from isthmus.lab.apiserver import pki
from isthmus.runtime import deploying

PRINTED = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  labels:
    istio.io/expose-istiod: "15012"
    topology.istio.io/network: "my-network"
  name: istio-eastwest
  namespace: istio-gateways
spec:
  gatewayClassName: istio-eastwest
  listeners:
  - name: cross-network
    port: 15008
    protocol: HBONE
    tls:
      mode: Passthrough
  - name: xds-tls
    port: 15012
    protocol: TLS
    tls:
      mode: Passthrough
"""


@pytest.fixture
async def cluster():
    async with lab_cluster.running_cluster() as found, lab_cluster.served(found):
        await found.node("n1")
        _ = found.nursery.start("fake kubelet", found.run_pods())
        yield found


@pytest.fixture
def config(cluster, tmp_path):
    file = tmp_path / "config"
    file.write_text(pki.kubeconfig(cluster.authority, name="c1", server=cluster.url))
    return str(file)


@pytest.fixture
async def served(cluster, config):
    """The kinds, and a control plane that runs Gateways."""
    async with client.Client(access.from_kubeconfig(config, context=None)) as writes:
        await apply.apply(writes, gateway_crds.manifests())
        running = deploying.Gateways(writes, lambda: True, place=deploying.Place())
        async with tasks.Nursery() as nursery:
            _ = nursery.keep("gateways", running.run)
            name = "gatewayclasses.gateway.networking.k8s.io"
            await cluster.until(name, lambda one: one["metadata"]["name"] == "istio-eastwest", "")
            yield writes


def run(*words):
    return CliRunner().invoke(main.command, ["multicluster", "expose", *words])


async def system(cluster, **labels):
    await cluster.namespace("istio-system", **labels)


def test_what_is_generated_is_what_the_guide_prints():
    ran = run("--generate", "--network", "my-network", "--namespace", "istio-gateways")

    assert ran.exit_code == 0
    assert yaml.safe_load(ran.stdout) == yaml.safe_load(PRINTED)
    keys = [line.split(":")[0] for line in ran.stdout.splitlines()]
    assert keys == [line.split(":")[0] for line in PRINTED.strip().splitlines()]


async def test_what_is_generated_is_of_the_network_that_the_cluster_says(cluster, config):
    await system(cluster, **{"topology.istio.io/network": "n7"})
    ran = await asyncio.to_thread(run, "--kubeconfig", config, "--generate", "-n", "other")

    found = yaml.safe_load(ran.stdout)
    assert found["metadata"]["labels"]["topology.istio.io/network"] == "n7"
    assert found["metadata"]["namespace"] == "other"
    assert not await cluster.exists("namespaces", "other", "")


async def test_a_gateway_is_made_and_awaited_and_once_more_nothing_changes(cluster, config, served):
    await system(cluster, **{"topology.istio.io/network": "n7"})
    first = await asyncio.to_thread(run, "--kubeconfig", config)
    again = await asyncio.to_thread(run, "--kubeconfig", config)

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert first.stdout == again.stdout
    assert "is reached at 172.30.0.100" in first.stdout
    assert "istio-gateways/istio-eastwest: create" in first.stderr
    assert "istio-gateways/istio-eastwest: unchanged" in again.stderr


async def test_a_cluster_in_no_network_is_not_exposed(cluster, config, served):
    await system(cluster)
    ran = await asyncio.to_thread(run, "--kubeconfig", config)

    assert isinstance(ran.exception, multicluster_expose.NetworkUnknown)
    assert not await cluster.exists("namespaces", "istio-gateways", "")


async def test_a_cluster_whose_gateways_nobody_runs_is_not_exposed(cluster, config):
    ran = await asyncio.to_thread(run, "--kubeconfig", config, "--network", "n7")

    assert isinstance(ran.exception, multicluster_expose.GatewaysUnserved)
    assert not await cluster.exists("namespaces", "istio-gateways", "")


async def test_what_a_gateway_lacks_is_what_its_status_says(cluster, config, served):
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "istio-eastwest", "namespace": "istio-gateways"},
        "spec": {"ports": [{"port": 1}]},
    }
    await cluster.namespace("istio-gateways")
    await cluster.api.create("services", theirs)
    ran = await asyncio.to_thread(run, "--kubeconfig", config, "--network", "n7", "--no-wait")
    name = "gateways.gateway.networking.k8s.io"

    assert ran.exit_code == 0
    await cluster.until(
        name,
        lambda one: "does not belong to this Gateway" in exposing.lacks(one),
        "istio-gateways",
    )
