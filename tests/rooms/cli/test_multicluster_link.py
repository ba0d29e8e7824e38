"""`isthmus multicluster link` and `unlink`: what they print, make, refuse, and wait for."""

import asyncio
import base64
import contextlib
import json

import pytest
import yaml
from click.testing import CliRunner

from fakes import lab_cluster
from isthmus.base import clock
from isthmus.cli import main, multicluster_link
from isthmus.install import exposing, gateway_crds, links
from isthmus.kube import access, apply, client
from isthmus.lab.apiserver import pki
from isthmus.testing import certificates as material

GATEWAYS = "gateways.gateway.networking.k8s.io"
ROOT = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
WHEN = "2026-01-01T00:00:00Z"
OTHER_ROOT = ROOT.replace("AAAA", "BBBB")


def described(**changes):
    usual = {
        "title": "b",
        "cluster": "beta",
        "network": "n2",
        "trust_domain": "beta.local",
        "namespace": "istio-gateways",
        "addresses": ("203.0.113.2",),
        "roots": links.certificates(ROOT),
    }
    return links.Described(**usual | changes)


def run(*words):
    return CliRunner().invoke(main.command, ["multicluster", *words])


async def ran(config, *words):
    return await asyncio.to_thread(run, words[0], "--kubeconfig", config, *words[1:])


# --- what a link is


def test_a_link_names_all_that_another_cluster_must_know_and_no_secret():
    found = links.manifest(described())

    assert found["metadata"]["labels"] == {
        "topology.istio.io/cluster": "beta",
        "topology.istio.io/network": "n2",
    }
    assert found["metadata"]["annotations"] == {
        "gateway.istio.io/service-account": "istio-eastwest",
        "isthmus.dev/trust-domain": "beta.local",
    }
    assert found["spec"]["gatewayClassName"] == "istio-remote"
    assert found["spec"]["addresses"] == [{"type": "IPAddress", "value": "203.0.113.2"}]
    assert [one["port"] for one in found["spec"]["listeners"]] == [15008, 15012]
    assert "BEGIN" not in yaml.safe_dump(found)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"cluster": "beta"}, "both are called `beta`"),
        ({"roots": links.certificates(OTHER_ROOT)}, "different roots"),
        ({"roots": frozenset()}, "no ConfigMap"),
    ],
)
def test_clusters_that_would_be_taken_for_each_other_are_refused(changes, reason):
    here = described(**{"title": "a", "cluster": "alpha", "network": "n1"} | changes)
    with pytest.raises(links.PairRefused) as refused:
        links.check([here, described()])
    assert reason in refused.value.happened


def test_clusters_in_one_network_can_be_linked():
    links.check([described(title="a", cluster="alpha", network="n2"), described()])


def test_an_old_root_beside_a_new_one_does_not_part_clusters():
    here = described(cluster="alpha", network="n1", roots=links.certificates(OTHER_ROOT + ROOT))
    links.check([here, described()])


@pytest.mark.parametrize(
    ("contexts", "from_", "to", "pairs"),
    [
        ("a,b", "", "", (("a", "b"), ("b", "a"))),
        ("a, a,b", "", "", (("a", "b"), ("b", "a"))),
        ("", "a", "b", (("a", "b"),)),
    ],
)
def test_all_pairs_or_one(contexts, from_, to, pairs):
    assert multicluster_link.pairs_of(contexts, from_=from_, to=to) == pairs


@pytest.mark.parametrize(
    "words", [(), ("--contexts=a",), ("--from=a",), ("--contexts=a,b", "--from=a", "--to=b")]
)
def test_what_is_no_selection_is_said_so(words):
    assert run("link", *words).exit_code == 2


# --- between clusters


@contextlib.asynccontextmanager
async def started(name, *, network, domain="cluster.local", root=ROOT):
    """Run a cluster as an installation leaves it."""
    async with lab_cluster.running_cluster() as cluster, lab_cluster.served(cluster):
        await cluster.namespace("istio-gateways")
        await cluster.namespace("istio-system", **{exposing.NETWORK_LABEL: network})
        values = {"global": {"multiCluster": {"clusterName": name}}}
        maps = {
            "istio-sidecar-injector": {"values": json.dumps(values)},
            "istio": {"mesh": yaml.safe_dump({"trustDomain": domain})},
            "istio-ca-root-cert": {"root-cert.pem": root},
        }
        for one, content in maps.items():
            metadata = {"name": one, "namespace": "istio-system"}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
            await cluster.api.create("configmaps", body | {"data": content})
        cluster.name = name
        cluster.config = yaml.safe_load(
            pki.kubeconfig(cluster.authority, name=name, server=cluster.url)
        )
        yield cluster


async def expose(cluster, address):
    await cluster.api.create(GATEWAYS, exposing.manifest(network="any"))
    if address:
        await say(cluster, exposing.NAME, addresses=[{"type": "IPAddress", "value": address}])


async def say(cluster, name, **status):
    await cluster.api.patch(
        GATEWAYS, name, {"status": status}, namespace="istio-gateways", subresource="status"
    )


async def hears(cluster, name, status="True", message=""):
    """Let the cluster's control plane say how well it hears another one."""
    await cluster.until(GATEWAYS, lambda one: one["metadata"]["name"] == name, "istio-gateways")
    condition = {"type": "Connected", "status": status, "reason": "x", "message": message}
    await say(cluster, name, conditions=[condition | {"lastTransitionTime": WHEN}])


async def links_of(cluster):
    found = await cluster.api.list(GATEWAYS, "istio-gateways")
    return {one["metadata"]["name"] for one in found} - {exposing.NAME}


@pytest.fixture
async def clusters(tmp_path):
    async with started("alpha", network="n1") as alpha, started("beta", network="n2") as beta:
        merged = alpha.config
        for part in ("clusters", "users", "contexts"):
            merged[part] += beta.config[part]
        file = tmp_path / "config"
        file.write_text(yaml.safe_dump(merged))
        for cluster in (alpha, beta):
            reached_by = access.from_kubeconfig(str(file), context=cluster.name)
            async with client.Client(reached_by) as writes:
                await apply.apply(writes, gateway_crds.manifests())
        yield alpha, beta, str(file)


async def test_each_uses_each_and_once_more_nothing_changes(clusters):
    alpha, beta, config = clusters
    await expose(alpha, "203.0.113.1")
    await expose(beta, "203.0.113.2")
    async with asyncio.TaskGroup() as group:
        linking = group.create_task(ran(config, "link", "--contexts=alpha,beta"))
        await hears(alpha, "istio-remote-beta")
        await hears(beta, "istio-remote-alpha")
    first = linking.result()
    again = await ran(config, "link", "--contexts=alpha,beta")

    assert (first.exit_code, again.exit_code) == (0, 0)
    assert sorted(first.stdout.splitlines()) == ["✔ alpha hears beta", "✔ beta hears alpha"]
    assert again.stderr == ""
    found = await alpha.api.get(GATEWAYS, "istio-remote-beta", "istio-gateways")
    assert found["spec"]["addresses"][0]["value"] == "203.0.113.2"


async def test_one_way_changes_the_other_in_nothing(clusters):
    alpha, beta, config = clusters
    await expose(beta, "203.0.113.2")
    found = await ran(config, "link", "--from", "alpha", "--to", "beta", "--no-wait")

    assert found.exit_code == 0
    assert (await links_of(alpha), await links_of(beta)) == ({"istio-remote-beta"}, set())


async def test_what_is_printed_is_what_is_made(clusters):
    alpha, beta, config = clusters
    await expose(beta, "203.0.113.2")
    printed = await ran(config, "link", "--generate", "--context", "beta")
    as_json = await ran(config, "link", "--generate", "--context", "beta", "-o", "json")
    await ran(config, "link", "--from", "alpha", "--to", "beta", "--no-wait")

    found = yaml.safe_load(printed.stdout)
    assert json.loads(as_json.stdout) == found
    made = await alpha.api.get(GATEWAYS, "istio-remote-beta", "istio-gateways")
    assert made["spec"]["addresses"] == found["spec"]["addresses"]
    assert made["metadata"].items() >= found["metadata"].items()


async def test_a_cluster_without_a_gateway_or_its_address_is_not_linked_to(clusters):
    alpha, beta, config = clusters
    await expose(alpha, "203.0.113.1")
    none = await ran(config, "link", "--contexts=alpha,beta")
    await expose(beta, "")
    no_address = await ran(config, "link", "--contexts=alpha,beta")

    assert isinstance(none.exception, links.ClusterUnready)
    assert "has no east-west gateway" in none.exception.happened
    assert "has no address yet" in no_address.exception.happened
    assert (await links_of(alpha), await links_of(beta)) == (set(), set())


async def test_a_cluster_that_is_not_heard_is_named_with_the_reason(clusters):
    alpha, beta, config = clusters
    await expose(beta, "203.0.113.2")
    words = ("link", "--from", "alpha", "--to", "beta", "--timeout", "1")
    async with asyncio.TaskGroup() as group:
        linking = group.create_task(ran(config, *words))
        await hears(alpha, "istio-remote-beta", "False", "UNAVAILABLE: no route")
    found = linking.result()

    assert isinstance(found.exception, multicluster_link.LinkSilent)
    assert found.exception.detail == "alpha → beta: UNAVAILABLE: no route"


async def test_what_is_unlinked_is_gone_and_nothing_else(clusters):
    alpha, beta, config = clusters
    await expose(alpha, "203.0.113.1")
    await expose(beta, "203.0.113.2")
    await ran(config, "link", "--contexts=alpha,beta", "--no-wait")
    await ran(config, "unlink", "--from", "alpha", "--to", "beta")
    assert (await links_of(alpha), await links_of(beta)) == (set(), {"istio-remote-alpha"})

    gone = await ran(config, "unlink", "--from", "beta", "--cluster", "alpha")
    assert gone.stdout == "✔ beta no longer uses alpha\n"
    assert await links_of(beta) == set()
    assert await beta.exists(GATEWAYS, exposing.NAME, "istio-gateways")


# --- with trust domains of their own


@pytest.fixture
async def apart(clusters):
    """Two clusters with a trust domain and an authority each."""
    alpha, beta, config = clusters
    for cluster, address in ((alpha, "203.0.113.1"), (beta, "203.0.113.2")):
        await expose(cluster, address)
        mesh = {"data": {"mesh": yaml.safe_dump({"trustDomain": f"{cluster.name}.local"})}}
        await cluster.api.patch("configmaps", "istio", mesh, namespace="istio-system")
        files = material.files(cluster.name, now=clock.SystemClock().now())
        body = {"apiVersion": "v1", "kind": "Secret"}
        metadata = {"name": "cacerts", "namespace": "istio-system"}
        content = {key: base64.b64encode(text.encode()).decode() for key, text in files.items()}
        await cluster.api.create("secrets", body | {"metadata": metadata, "data": content})
    return alpha, beta, config


async def listed_in(cluster):
    found = await cluster.api.list("configmaps", "istio-system")
    label = "isthmus.dev/trust-domain"
    return {one["metadata"]["labels"][label] for one in found if one["metadata"].get("labels")}


async def test_a_link_lists_in_both_clusters_who_signs_in_both(apart):
    alpha, beta, config = apart
    found = await ran(config, "link", "--from", "alpha", "--to", "beta", "--no-wait")

    assert found.exit_code == 0, found.stderr
    both = {"alpha.local", "beta.local"}
    assert (await listed_in(alpha), await listed_in(beta)) == (both, both)
    assert (await links_of(alpha), await links_of(beta)) == ({"istio-remote-beta"}, set())


async def test_who_neither_uses_nor_is_used_is_listed_no_more(apart):
    alpha, beta, config = apart
    await ran(config, "link", "--contexts=alpha,beta", "--no-wait")
    await ran(config, "unlink", "--from", "alpha", "--to", "beta")
    assert "beta.local" in await listed_in(alpha)

    await ran(config, "unlink", "--from", "beta", "--to", "alpha")
    assert (await listed_in(alpha), await listed_in(beta)) == ({"alpha.local"}, {"beta.local"})


async def test_what_is_printed_lists_who_signs(apart):
    printed = await ran(apart[2], "link", "--generate", "--context", "beta")

    gateway, config_map = yaml.safe_load_all(printed.stdout)
    assert gateway["metadata"]["annotations"]["isthmus.dev/trust-domain"] == "beta.local"
    assert config_map["metadata"]["labels"]["isthmus.dev/trust-domain"] == "beta.local"
    assert "KEY" not in printed.stdout
