"""Who is called first when some are nearer: YAML goes in, decisions come out."""

import pytest
import yaml

from isthmus.testing import builders, shapes

NETWORK = "topology.istio.io/network"
CLUSTER = "topology.istio.io/cluster"


@pytest.fixture
def mesh():
    """Two clusters in two regions and networks, with a version of `web` in each."""
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n2")
    for number, (cluster, region) in enumerate(((east, "us"), (west, "eu")), start=1):
        cluster.gateway(external=f"172.30.0.1{number}")
        cluster.node("node", region=region, zone="a")
        shape = shapes.Shape(node="node", labels={"version": f"v{number}"})
        cluster.service("web", ready=[f"10.{number}.0.1"], shape=shape)
        cluster.pod("client", shape=shapes.Shape(node="node"))
        cluster.pod("client", namespace="other", shape=shapes.Shape(node="node"))
    mesh.expose_services()
    return mesh


def rule(mesh, text, *, namespace="default"):
    mesh.destination_rule("web", yaml.safe_load(text), namespace=namespace)


def answering(mesh, client):
    """Return the clusters that answer a client; none may refuse."""
    landings = mesh.proxy(client).calls("http://web.default/").landings
    assert [landing.refused for landing in landings if landing.refused] == []
    return {landing.cluster for landing in landings}


def test_without_a_rule_all_answer(mesh):
    assert answering(mesh, "east/client") == {"east", "west"}


def test_with_outlier_detection_the_own_region_answers(mesh):
    rule(mesh, "{host: web, trafficPolicy: {outlierDetection: {interval: 1s}}}")

    assert answering(mesh, "east/client") == {"east"}
    assert answering(mesh, "west/client") == {"west"}


def test_the_other_region_answers_while_the_own_one_has_nobody(mesh):
    rule(mesh, "{host: web, trafficPolicy: {outlierDetection: {interval: 1s}}}")

    mesh.clusters["east"].service("web", unready=["10.1.0.1"])

    assert answering(mesh, "east/client") == {"west"}


def test_a_rule_of_the_clients_namespace_holds_for_it_alone(mesh):
    rule(mesh, "{host: web, trafficPolicy: {outlierDetection: {interval: 1s}}}")
    rule(mesh, "{host: web.default.svc.cluster.local}", namespace="other")

    assert answering(mesh, "east/client") == {"east"}
    assert answering(mesh, "east/other/client") == {"east", "west"}


def test_a_service_may_ask_for_near_endpoints_itself(mesh):
    for cluster in mesh.clusters.values():
        key = builders.ObjectKey(cluster.id, "default", "web")
        known = mesh.graph.get(mesh.sources.services, key)
        said = {"networking.istio.io/traffic-distribution": "PreferClose"}
        meta = type(known.metadata)("web", namespace="default", annotations=said)
        mesh.put(mesh.sources.services, key, type(known)(meta, spec=known.spec))

    assert answering(mesh, "east/client") == {"east"}
    assert answering(mesh, "west/other/client") == {"west"}


def test_a_subset_may_be_a_cluster(mesh):
    rule(mesh, f"{{host: web, subsets: [{{name: far, labels: {{{CLUSTER}: west}}}}]}}")
    route = {"route": [{"destination": {"host": "web", "subset": "far"}}]}
    mesh.virtual_service("web", {"hosts": ["web"], "http": [route]})

    assert answering(mesh, "east/client") == {"west"}
    assert answering(mesh, "west/client") == {"west"}


def test_routes_may_keep_calls_in_the_callers_cluster(mesh):
    subsets = [{"name": one, "labels": {CLUSTER: one}} for one in ("east", "west")]
    mesh.destination_rule("web", {"host": "web", "subsets": subsets})
    routes = [
        {
            "match": [{"sourceLabels": {CLUSTER: one}}],
            "route": [{"destination": {"host": "web", "subset": one}}],
        }
        for one in ("east", "west")
    ]
    mesh.virtual_service("web", {"hosts": ["web"], "http": routes})

    assert answering(mesh, "east/client") == {"east"}
    assert answering(mesh, "west/client") == {"west"}


@pytest.mark.parametrize(
    ("setting", "expected"),
    [
        ({"failoverPriority": [NETWORK]}, {"east"}),
        ({"failoverPriority": ["version=v2"]}, {"west"}),
        ({"distribute": [{"from": "us/*", "to": {"eu/*": 100}}]}, {"west"}),
        ({"distribute": [{"from": "us/*", "to": {"us/*": 50, "eu": 50}}]}, {"east", "west"}),
        ({"enabled": False}, {"east", "west"}),
    ],
)
def test_a_setting_says_what_is_near(mesh, setting, expected):
    policy = {
        "outlierDetection": {"interval": "1s"},
        "loadBalancer": {"localityLbSetting": setting},
    }

    mesh.destination_rule("web", {"host": "web", "trafficPolicy": policy})

    assert answering(mesh, "east/client") == expected


def test_the_mesh_may_say_it_for_all_rules(mesh):
    rule(mesh, "{host: web, trafficPolicy: {outlierDetection: {interval: 1s}}}")

    mesh.configure(localityLbSetting={"enabled": False})

    assert answering(mesh, "east/client") == {"east", "west"}


def test_the_mesh_may_notice_failures_everywhere(mesh):
    mesh.configure(defaultTrafficPolicy={"outlierDetection": {"interval": "1s"}})

    assert answering(mesh, "east/client") == {"east"}


def test_a_port_may_differ(mesh):
    ports = {"http": 80, "http-more": 81}
    for number, cluster in enumerate(mesh.clusters.values(), start=1):
        cluster.service("web", ready=[f"10.{number}.0.1"], ports=ports)
    settings = {"port": {"number": 81}, "outlierDetection": {"interval": "1s"}}
    mesh.destination_rule(
        "web", {"host": "web", "trafficPolicy": {"portLevelSettings": [settings]}}
    )
    client = mesh.proxy("east/client")

    def clusters(url):
        return {landing.cluster for landing in client.calls(url).landings}

    assert clusters("http://web.default/") == {"east", "west"}
    assert clusters("http://web.default:81/") == {"east"}
