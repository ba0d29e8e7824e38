"""`isthmus waypoint`: what it prints and makes, held against what Istio's own command does."""

import asyncio
import json

import pytest
import yaml
from click.testing import CliRunner

from fakes import lab_cluster
from isthmus.base import tasks
from isthmus.cli import main, waypoint
from isthmus.install import gateway_crds
from isthmus.kube import access, apply, client, problems
from isthmus.lab.apiserver import pki
from isthmus.runtime import deploying

GATEWAYS = "gateways.gateway.networking.k8s.io"

PRINTED = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: waypoint
spec:
  gatewayClassName: istio-waypoint
  listeners:
  - name: mesh
    port: 15008
    protocol: HBONE
"""
PRINTED_WITH_ALL = """\
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  labels:
    istio.io/rev: canary
    istio.io/waypoint-for: all
  name: edge
  namespace: apps
spec:
  gatewayClassName: istio-waypoint
  listeners:
  - name: mesh
    port: 15008
    protocol: HBONE
"""


@pytest.fixture
async def cluster():
    async with lab_cluster.running_cluster() as found, lab_cluster.served(found):
        await found.node("n1")
        _ = found.nursery.start("fake kubelet", found.run_pods())
        await found.namespace("apps", **{"istio.io/dataplane-mode": "ambient"})
        yield found


@pytest.fixture
def ran(cluster, tmp_path):
    """Returns what `isthmus waypoint` does in the cluster, with each of its words."""
    file = tmp_path / "config"
    file.write_text(pki.kubeconfig(cluster.authority, name="c1", server=cluster.url))

    async def runs(*words):
        return await asyncio.to_thread(run, *words, "--kubeconfig", str(file))

    return runs


@pytest.fixture
async def classes(cluster, ran, tmp_path):
    """The kinds, and the classes that a control plane makes; it runs nothing yet."""
    reached = access.from_kubeconfig(str(tmp_path / "config"), context=None)
    async with client.Client(reached) as writes:
        await apply.apply(writes, gateway_crds.manifests())
        running = deploying.Gateways(writes, lambda: True, place=deploying.Place())
        async with tasks.Nursery() as nursery:
            kept = nursery.keep("gateways", running.run)
            name = "gatewayclasses.gateway.networking.k8s.io"
            await cluster.until(name, lambda one: one["metadata"]["name"] == "istio-waypoint", "")
            yield kept


def run(*words):
    return CliRunner().invoke(main.command, ["waypoint", *words])


@pytest.mark.parametrize(
    ("words", "printed"),
    [
        ((), PRINTED),
        (("--for", "all", "-r", "canary", "-n", "apps", "--name", "edge"), PRINTED_WITH_ALL),
    ],
)
def test_what_is_generated_is_what_istios_command_prints_byte_for_byte(words, printed):
    assert run("generate", *words).stdout == printed


@pytest.mark.parametrize("words", [("--for", "some"), ("--name", "none"), ("--name", "")])
def test_a_waypoint_that_nobody_could_use_is_refused(words):
    assert run("generate", *words).exit_code == 2
    assert not yaml.safe_load(run("generate", *words).stdout)


async def test_a_waypoint_is_made_awaited_and_used_and_once_more_nothing_changes(
    cluster, ran, classes
):
    words = ("apply", "-n", "apps", "--enroll-namespace", "--wait")
    first, again = await ran(*words), await ran(*words)

    assert first.stdout == again.stdout
    assert first.stdout.splitlines() == [
        "✅ waypoint apps/waypoint applied",
        "✅ waypoint apps/waypoint is ready!",
        '✅ namespace apps labeled with "istio.io/use-waypoint: waypoint"',
    ]
    found = await cluster.api.get("namespaces", "apps", "")
    assert found["metadata"]["labels"]["istio.io/use-waypoint"] == "waypoint"
    assert found["metadata"]["labels"]["istio.io/dataplane-mode"] == "ambient"


async def test_a_namespace_with_a_waypoint_keeps_it_unless_told_otherwise(cluster, ran, classes):
    words = ("apply", "-n", "apps", "--enroll-namespace")
    await ran(*words)
    kept = await ran(*words, "--name", "other")

    assert kept.exit_code == 0
    assert "--overwrite" in kept.stderr
    assert not await cluster.exists(GATEWAYS, "other", "apps")

    await ran(*words, "--name", "other", "--overwrite")
    found = await cluster.api.get("namespaces", "apps", "")
    assert found["metadata"]["labels"]["istio.io/use-waypoint"] == "other"


async def test_of_a_namespace_that_is_not_ambient_a_warning_is_given(cluster, ran, classes):
    made = await ran("apply", "--enroll-namespace")

    assert "kubectl label namespace default istio.io/dataplane-mode=ambient" in made.stderr
    assert "waypoint default/waypoint applied" in made.stdout


async def test_waypoints_alone_are_listed_with_what_they_are_for(cluster, ran, classes):
    await cluster.api.create(GATEWAYS, gateway("web", "istio"))
    await ran("apply", "-n", "apps", "--for", "all", "-r", "v2", "--name", "b")
    await ran("apply", "-n", "apps", "--name", "a", "--wait")

    listed = (await ran("list", "-n", "apps")).stdout.splitlines()
    assert [line.split() for line in listed] == [
        ["NAME", "REVISION", "TRAFFIC", "TYPE", "PROGRAMMED"],
        ["a", "default", "service", "True"],
        ["b", "v2", "all", "False"],
    ]
    [first, second] = json.loads((await ran("list", "-A", "-o", "json")).stdout)
    assert (first["namespace"], first["name"], first["programmed"]) == ("apps", "a", True)
    assert (second["trafficType"], second["revision"]) == ("all", "v2")
    assert (await ran("list", "-A")).stdout.split()[0] == "NAMESPACE"


async def test_where_there_is_no_waypoint_it_is_said(ran):
    assert (await ran("list")).stdout == "No waypoints found.\n"
    assert (await ran("status", "-A")).stdout == "No waypoints found.\n"
    assert (await ran("list", "-o", "json")).stdout == "[]\n"


async def test_the_status_waits_until_all_are_up_and_fails_if_they_are_not(ran, classes):
    await ran("apply", "-n", "apps")
    up = (await ran("status", "-n", "apps")).stdout.splitlines()
    assert up[0].split() == ["NAME", "STATUS", "TYPE", "REASON", "MESSAGE"]
    assert up[1].split()[:4] == ["waypoint", "True", "Programmed", "Programmed"]

    await ran("apply", "-n", "apps", "--name", "late", "-r", "nobody")
    late = await ran("status", "-n", "apps", "--waypoint-timeout", "300ms")
    assert isinstance(late.exception, problems.WaitEnded)
    asked = await ran("status", "-n", "apps", "--wait=false", "-o", "json")
    assert [one["programmed"] for one in json.loads(asked.stdout)] == [False, True]


async def test_exactly_the_named_waypoints_go(cluster, ran, classes):
    await cluster.api.create(GATEWAYS, gateway("web", "istio"))
    for name in ("a", "b", "c"):
        await ran("apply", "-n", "apps", "--name", name, *(("-r", "v2") if name == "b" else ()))

    gone = await ran("delete", "-n", "apps", "a", "web", "absent")
    assert gone.exit_code == 0
    assert gone.stdout.splitlines() == [
        "waypoint apps/a deleted",
        "waypoint apps/web not found",
        "waypoint apps/absent not found",
    ]
    assert (await ran("delete", "-n", "apps", "-r", "v2")).stdout == "waypoint apps/b deleted\n"
    assert (await ran("delete", "-n", "apps", "--all")).stdout == "waypoint apps/c deleted\n"
    assert await cluster.exists(GATEWAYS, "web", "apps")


@pytest.mark.parametrize("words", [(), ("--all", "a"), ("-r", "v2", "a")])
def test_what_to_delete_must_be_said_in_one_way(words):
    assert run("delete", *words).exit_code == 2


async def test_no_waypoint_is_made_that_nobody_would_run(cluster, ran):
    refused = await ran("apply", "-n", "apps", "--enroll-namespace")

    assert isinstance(refused.exception, waypoint.WaypointsUnserved)
    found = await cluster.api.get("namespaces", "apps", "")
    assert "istio.io/use-waypoint" not in found["metadata"]["labels"]


def gateway(name, class_):
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": name, "namespace": "apps"},
        "spec": {
            "gatewayClassName": class_,
            "listeners": [{"name": "x", "port": 80, "protocol": "HTTP"}],
        },
    }
