"""`isthmus multicluster trust`: who is listed where, and what stays listed."""

import asyncio
import base64
import json

import pytest
import yaml
from click.testing import CliRunner

from fakes import lab_cluster
from isthmus.base import clock
from isthmus.ca import listing, pem
from isthmus.cli import main, multicluster_trust
from isthmus.kube import access, client, kinds, objects
from isthmus.lab.apiserver import pki
from isthmus.mesh import trust as words
from isthmus.registry import trust
from isthmus.testing import certificates as material

NOW = clock.SystemClock().now()
SYSTEM = "istio-system"


def signing(name):
    return pem.certificates(material.files(name, now=NOW)["ca-cert.pem"], file="f")[0]


def signer(*names, cluster="a", domain="a.local"):
    return listing.Signer(cluster, domain, tuple(map(signing, names)))


def written(manifest):
    """Return what a control plane reads of a ConfigMap."""
    metadata = manifest["metadata"]
    found = objects.Metadata(metadata["name"], SYSTEM, labels=metadata["labels"])
    return trust.read_bundle(objects.ConfigMap(found, manifest["data"]))


def test_a_control_plane_reads_what_is_written():
    found = written(listing.manifest(signer("a"), namespace=SYSTEM))

    assert found.domain == "a.local"
    assert len(found.anchors) == 1


def test_what_was_listed_stays_until_it_ends():
    held = listing.manifest(signer("old"), namespace=SYSTEM)

    assert listing.with_listed(signer("new"), held, now=NOW) == signer("new", "old")
    ended = signing("old").not_valid_after_utc
    assert listing.with_listed(signer("new"), held, now=ended) == signer("new")


@pytest.mark.parametrize(
    "held",
    [
        None,
        listing.manifest(signer("old", domain="b.local"), namespace=SYSTEM),
        {"metadata": {"labels": {words.DOMAIN_LABEL: "a.local"}}, "data": {words.BUNDLE: "x"}},
    ],
)
def test_what_lists_something_else_counts_for_nothing(held):
    assert listing.with_listed(signer("new"), held, now=NOW) == signer("new")


# --- the command


@pytest.fixture
async def cluster():
    async with lab_cluster.running_cluster() as found, lab_cluster.served(found):
        yield found


@pytest.fixture
def config(cluster, tmp_path):
    file = tmp_path / "config"
    file.write_text(pki.kubeconfig(cluster.authority, name="c1", server=cluster.url))
    return str(file)


@pytest.fixture
async def writes(config):
    async with client.Client(access.from_kubeconfig(config, context=None)) as found:
        await found.create(
            kinds.NAMESPACE,
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}},
        )
        values = json.dumps({"global": {"multiCluster": {"clusterName": "a"}}})
        await put(found, kinds.CONFIG_MAP, "istio", {"mesh": "trustDomain: a.local"})
        await put(found, kinds.CONFIG_MAP, "istio-sidecar-injector", {"values": values})
        yield found


async def put(writes, kind, name, content):
    """Create something with content."""
    await writes.create(
        kind,
        {
            "apiVersion": "v1",
            "kind": kind.kind,
            "metadata": {"name": name, "namespace": SYSTEM},
            "data": content,
        },
    )


async def has_authority(writes, name="a"):
    content = {
        file: base64.b64encode(text.encode()).decode()
        for file, text in material.files(name, now=NOW).items()
    }
    await put(writes, kinds.SECRET, "cacerts", content)


async def run(*words_):
    asked = ["multicluster", "trust", *words_]
    return await asyncio.to_thread(CliRunner().invoke, main.command, asked)


async def test_it_prints_what_lists_a_cluster_and_never_a_key(writes, config):
    await has_authority(writes)

    done = await run("--kubeconfig", config, "--generate")

    assert done.exit_code == 0, done.output
    (manifest,) = yaml.safe_load_all(done.output)
    assert manifest["metadata"]["name"] == "isthmus-trust-a"
    assert manifest["metadata"]["labels"][words.DOMAIN_LABEL] == "a.local"
    assert manifest["data"][words.BUNDLE] == pem.written(signing("a"))
    assert "KEY" not in done.output


async def test_it_lists_beside_what_is_listed(writes, config):
    await has_authority(writes)
    assert (await run("--kubeconfig", config)).exit_code == 0
    await writes.delete(kinds.SECRET, "cacerts", namespace=SYSTEM)
    await has_authority(writes, "a2")

    done = await run("--kubeconfig", config)

    assert done.exit_code == 0, done.output
    assert "`a.local` is believed by what signs in cluster `a`" in done.output
    system = await writes.get(kinds.NAMESPACE, SYSTEM)
    assert system["metadata"]["labels"][words.DOMAIN_LABEL] == "a.local"
    held = await writes.get(kinds.CONFIG_MAP, "isthmus-trust-a", namespace=SYSTEM)
    assert set(pem.certificates(held["data"][words.BUNDLE], file="f")) == {
        signing("a"),
        signing("a2"),
    }


async def test_a_cluster_without_an_authority_is_named(writes, config):
    done = await run("--kubeconfig", config)

    assert done.exit_code == 1
    assert isinstance(done.exception, multicluster_trust.SignerUnknown)
    assert "cacerts is missing" in done.exception.detail
