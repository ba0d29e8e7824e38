"""What is installed where a control plane runs outside of its mesh, and where its mesh is."""

from fakes import kube_server
from isthmus.cli import external_walkthrough
from isthmus.install import manifests, operator, options, settings_check
from isthmus.kube import client

ADDRESS = "172.30.0.10"
NAMES = {**external_walkthrough.NAMES, "EXTERNAL_ISTIOD_ADDR": ADDRESS}


def chosen(command, *flags):
    """Return the options in the file that a step of the guide writes."""
    text = command.partition("\n")[2].removesuffix("EOF")
    for name, value in NAMES.items():
        text = text.replace(f"${{{name}}}", value)
    return options.of_spec(operator.read([("file.yaml", text)], flags=flags))


def brought(wanted):
    """Return the objects but for definitions of kinds."""
    found = {}
    for manifest in manifests.of_options(wanted):
        kind, namespace, name = manifests.identity(manifest)
        if kind != "CustomResourceDefinition":
            found[kind, namespace, name] = manifest
    return found


CONFIG = chosen(external_walkthrough.CONFIG_CLUSTER)
PLANE = chosen(external_walkthrough.CONTROL_PLANE)
SECOND = chosen(external_walkthrough.SECOND_CLUSTER)
ROLE = ("ClusterRole", "", "istiod-clusterrole-external-istiod")
NAMESPACE = "external-istiod"


def test_the_config_cluster_gets_the_account_but_no_control_plane():
    found = brought(CONFIG)

    assert ("ServiceAccount", NAMESPACE, "istiod") in found
    assert ROLE in found
    assert ("ConfigMap", NAMESPACE, "istio") in found
    assert ("ConfigMap", NAMESPACE, "istio-sidecar-injector") not in found
    assert not any(kind == "Deployment" for kind, _, _ in found)


def test_another_cluster_of_the_mesh_gets_neither():
    found = brought(SECOND)

    assert ("ServiceAccount", NAMESPACE, "istiod") not in found
    assert not any(kind == "ConfigMap" for kind, _, _ in found)
    assert ("Service", NAMESPACE, "istiod") in found


def test_where_the_control_plane_only_runs_it_reads_its_own_namespace_alone():
    found = brought(PLANE)
    roles = [manifest for (kind, _, _), manifest in found.items() if kind == "Role"]

    assert not any(kind == "ClusterRole" for kind, _, _ in found)
    assert [role["rules"] for role in roles] == [
        [{"apiGroups": [""], "resources": ["configmaps", "secrets"], "verbs": ["list", "watch"]}]
    ]
    assert not any(kind == "MutatingWebhookConfiguration" for kind, _, _ in found)


def test_the_way_to_the_config_cluster_is_mounted_but_need_not_be_there():
    pod = brought(PLANE)["Deployment", NAMESPACE, "istiod"]["spec"]["template"]["spec"]
    [volume] = [one for one in pod["volumes"] if one["name"] == "istio-kubeconfig"]
    env = {one["name"]: one.get("value") for one in pod["containers"][0]["env"]}

    assert volume["secret"] == {"secretName": "istio-kubeconfig", "optional": True}
    assert env["KUBECONFIG"] == "/var/run/secrets/remote/config"
    assert env["CLUSTER_ID"] == "cluster1"


def test_an_injector_behind_a_url_needs_no_service_and_no_address():
    url = "https://mesh.example.com:15017/inject/cluster/c/net/n"
    flags = (f"values.istiodRemote.injectionURL={url}", "values.global.remotePilotAddress=")
    found = brought(chosen(external_walkthrough.SECOND_CLUSTER, *flags))

    [hooks] = [one for (kind, _, _), one in found.items() if kind.startswith("Mutating")]
    assert ("Service", NAMESPACE, "istiod") not in found
    assert {one["clientConfig"]["url"] for one in hooks["webhooks"]} == {url}


async def test_a_missing_way_to_the_config_cluster_is_said_before_anything_waits():
    said = []
    async with (
        kube_server.serving() as server,
        client.Client(server.access()) as opened,
    ):
        await settings_check.authority(opened, PLANE, judge=lambda _: None, warn=said.append)

    assert [finding.code for finding in said] == ["ISM-INST-010", "ISM-INST-004"]
