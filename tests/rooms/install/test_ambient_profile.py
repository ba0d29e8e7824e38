"""Profile `ambient`, and values as Helm's charts take them."""

import pytest
import yaml

from isthmus.install import helm, installing, manifests, operator, options
from isthmus.node import nodesettings

ISTIOD = """
meshConfig:
  # Optional: giving each cluster a unique trust domain
  trustDomain: "my-cluster.local"
global:
  multiCluster:
    clusterName: "my-cluster"
  network: "my-network"
env:
  PILOT_ENABLE_IP_AUTOALLOCATE: "true"
  PILOT_SKIP_VALIDATE_TRUST_DOMAIN: "true"
platforms:
  peering:
    enabled: true
"""
ZTUNNEL = """
env:
  SKIP_VALIDATE_TRUST_DOMAIN: "true"
network: "my-network"
"""
CNI = """
ambient:
  dnsCapture: true
"""


def flat(text):
    """Return a text as web pages print it: without indentation."""
    return "\n".join(line.strip() for line in text.splitlines())


def chosen(*texts, flags=()):
    values = [helm.read("values.yaml", text) for text in texts]
    return options.of_spec(operator.read([], flags=["profile=ambient", *flags], values=values))


def objects(*texts, **more):
    found = manifests.of_options(chosen(*texts, **more))
    return {manifests.identity(one)[::2]: one for one in found}


def container_of(found, name):
    return found["DaemonSet", name]["spec"]["template"]["spec"]["containers"][0]


def environment_of(found, name):
    return {one["name"]: one.get("value") for one in container_of(found, name)["env"]}


@pytest.mark.parametrize("form", [str, flat], ids=["nested", "flat"])
def test_values_of_the_guide_mean_the_same_in_either_form(form):
    given = chosen(form(ISTIOD), form(ZTUNNEL), form(CNI))

    assert (given.cluster, given.network) == ("my-cluster", "my-network")
    assert given.mesh_config["trustDomain"] == "my-cluster.local"
    assert given.pilot_env["PILOT_ENABLE_IP_AUTOALLOCATE"] == "true"
    assert given.pilot_env["PILOT_SKIP_VALIDATE_TRUST_DOMAIN"] == "true"
    assert given.pilot_env["ENABLE_PEERING_DISCOVERY"] == "true"
    assert given.nodes.proxy_env == {"SKIP_VALIDATE_TRUST_DOMAIN": "true"}
    assert given.nodes.captures_dns


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("netwrok: n", "`netwrok`"),
        ("global: {netwrok: n}", "`spec.values.global.netwrok`"),
        ("platforms: {peering: {enabeld: true}}", "enabeld"),
        ("env: [a]", "`env`"),
        ("- a", "values.yaml"),
        ("a: {", "values.yaml"),
    ],
)
def test_what_is_none_of_a_charts_values_is_named(text, named):
    with pytest.raises(operator.OptionsRefused, match=named):
        chosen(text)


def test_flags_win_over_values_and_values_over_the_profile():
    given = chosen(
        "env: {PILOT_ENABLE_GATEWAY_API: 'false'}", ISTIOD, flags=["values.global.network=n"]
    )

    assert given.network == "n"
    assert given.pilot_env["PILOT_ENABLE_GATEWAY_API"] == "false"
    assert given.pilot_env["PILOT_ENABLE_AMBIENT"] == "true"


def test_the_profile_brings_what_each_node_needs_and_no_gateway():
    found = objects()

    assert {("DaemonSet", "ztunnel"), ("DaemonSet", "istio-cni-node")} <= found.keys()
    assert {("ServiceAccount", "ztunnel"), ("ServiceAccount", "istio-cni")} <= found.keys()
    assert ("Deployment", "istio-ingressgateway") not in found
    config = yaml.safe_load(found["ConfigMap", "istio"]["data"]["mesh"])
    assert config["serviceScopeConfigs"][0]["scope"] == "GLOBAL"


def test_other_profiles_bring_nothing_of_it():
    spec = operator.read([], flags=["profile=default"])

    names = {manifests.identity(one) for one in manifests.of_options(options.of_spec(spec))}

    assert not [name for name in names if name[0] == "DaemonSet"]


def test_nodes_come_after_the_control_plane_that_they_ask():
    titles = [phase.title for phase in installing.phases(chosen())]

    assert titles == [installing.CONTROL_PLANE, installing.NODES]


def test_the_proxy_understands_what_is_written_for_it(tmp_path):
    found = objects(ISTIOD, ZTUNNEL, CNI)

    read = nodesettings.read(
        {key: value or "set" for key, value in environment_of(found, "ztunnel").items()},
        folder=tmp_path,
    )

    assert (read.node.cluster, read.node.network) == ("my-cluster", "my-network")
    assert read.node.trust_domains == ("my-cluster.local",)
    assert read.server_name == "istiod.istio-system.svc"
    assert read.discovery.port == 15012
    assert read.names is not None


def test_names_are_left_alone_on_demand():
    found = objects("ambient: {dnsCapture: false}")

    assert environment_of(found, "ztunnel")["ISTIO_META_DNS_CAPTURE"] == "false"
    assert found["ConfigMap", "istio-cni-config"]["data"]["AMBIENT_DNS_CAPTURE"] == "false"


@pytest.mark.parametrize("name", ["ztunnel", "istio-cni-node"])
def test_nodes_programs_come_first_and_have_no_more_power_than_they_need(name):
    pod = objects()["DaemonSet", name]["spec"]["template"]["spec"]
    security = pod["containers"][0]["securityContext"]

    assert pod["priorityClassName"] == "system-node-critical"
    assert {"effect": "NoSchedule", "operator": "Exists"} in pod["tolerations"]
    assert security["privileged"] is False
    assert security["capabilities"]["drop"] == ["ALL"]


def test_the_proxy_may_do_nothing_at_the_api_server():
    """Whoever takes a node over gets the certificates of its pods, and nothing of the cluster's."""
    bindings = [one for (kind, _), one in objects().items() if kind.endswith("Binding")]

    assert "ztunnel" not in {subject["name"] for one in bindings for subject in one["subjects"]}


def test_images_come_from_where_it_is_said():
    found = objects("global: {hub: example.com/mesh, tag: v2}")

    assert container_of(found, "ztunnel")["image"] == "example.com/mesh/ztunnel:v2"
    assert container_of(found, "istio-cni-node")["image"] == "example.com/mesh/install-cni:v2"


def test_what_is_written_of_addresses_is_granted_where_it_is_written_alone():
    def writers(*flags):
        found = objects(flags=flags)
        return {
            (kind, *rule["resources"], *rule["verbs"])
            for (kind, _), manifest in found.items()
            for rule in manifest.get("rules", ())
            if any("serviceentries" in one for one in rule["resources"])
            and not {*rule["verbs"]} <= {"list", "watch"}
        }

    assert writers() == {
        ("ClusterRole", "serviceentries/status", "patch"),
        ("Role", "serviceentries", "create", "patch", "delete"),
    }
    assert writers("values.pilot.env.PILOT_ENABLE_IP_AUTOALLOCATE=false") == set()


@pytest.mark.parametrize(("text", "expected"), [(ISTIOD, True), ("", False)])
def test_only_who_links_clusters_may_keep_what_they_tell(text, expected):
    roles = [one for (kind, _), one in objects(text).items() if kind == "Role"]
    names = {
        name
        for role in roles
        for rule in role["rules"]
        if rule["verbs"] == ["update"]
        for name in rule.get("resourceNames", ())
    }
    assert "istio-remote-snapshot-0" in names
    assert ("istio-link-snapshot-0" in names) is expected
