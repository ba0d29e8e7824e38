"""What is waited for and what is found again, against an API server in memory."""

import pytest

from fakes import kube_server
from isthmus.install import installing, labels, manifests, operator, options, reader, webhook
from isthmus.kube import client, kinds

CANARY = "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {profile: minimal}\n"


def chosen(*flags):
    return options.of_spec(operator.read([("file.yaml", CANARY)], flags=flags))


@pytest.fixture
async def server():
    async with kube_server.serving() as running:
        yield running


def put(server, manifest):
    kind = kinds.of_manifest(manifest)
    metadata = dict(manifest["metadata"])
    name, namespace = metadata.pop("name"), metadata.pop("namespace", "")
    rest = {key: value for key, value in manifest.items() if key not in {"metadata", "kind"}}
    rest.pop("apiVersion")
    return server.put(kind, name, namespace, metadata=metadata, **rest)


async def names(server, revision):
    async with client.Client(server.access()) as opened:
        found = await installing.installed(opened, revision=revision)
    return {(one["kind"], one["metadata"]["name"]) for one in found}


async def test_removing_one_revision_leaves_the_account_that_remote_secrets_use(server):
    for manifest in manifests.of_options(chosen("revision=canary")):
        if manifest["kind"] in {"ServiceAccount", "Service"}:
            put(server, manifest)

    assert await names(server, "canary") == {
        ("ServiceAccount", "istiod-canary"),
        ("Service", "istiod-canary"),
    }


async def test_removing_the_default_revision_removes_that_account_too(server):
    for manifest in manifests.of_options(chosen()):
        if manifest["kind"] == "ServiceAccount":
            put(server, manifest)

    assert ("ServiceAccount", reader.SERVICE_ACCOUNT) in await names(server, "")
    assert (
        labels.OWNER
        in server.get(kinds.SERVICE_ACCOUNT, reader.SERVICE_ACCOUNT, "istio-system")["metadata"][
            "labels"
        ]
    )


async def test_installing_beside_another_control_plane_of_that_revision_leaves_it_alone(server):
    for namespace in ("istio-system", "external-istiod"):
        for manifest in manifests.of_options(chosen(f"namespace={namespace}")):
            if manifest["kind"] == "Service":
                put(server, manifest)
    moved = chosen("namespace=external-istiod", "components.pilot.enabled=true")

    async with client.Client(server.access()) as opened:
        left = await installing.leftovers(opened, moved, [])

    assert {one["metadata"]["namespace"] for one in left} == {"external-istiod"}


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ((), "istio-sidecar-injector"),
        (("revision=canary",), "istio-sidecar-injector-canary"),
        (("revision=canary", "namespace=mesh-two"), "istio-sidecar-injector-canary-mesh-two"),
    ],
)
def test_the_injector_of_each_installation_has_a_name_of_its_own(flags, name):
    assert (
        webhook.manifest(chosen(*flags))["metadata"]["name"] == name == webhook.name(chosen(*flags))
    )
