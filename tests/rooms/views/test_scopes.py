"""Which clusters' endpoints a service has, by what each cluster's own object says of its scope."""

import ipaddress
import re

import pytest
from scoped_clusters import (
    ABSENT,
    EVERYWHERE,
    NOTHING,
    OWN,
    PAGE,
    SEED,
    SHARED,
    TABLE,
    UNSAID,
    findings,
    leads,
    shaped,
    told,
    two_clusters,
)

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.testing import builders, shapes
from isthmus.testing.shapes import Shape
from isthmus_proto.istio.workload import workload_pb2


@pytest.mark.parametrize("networks", [("n1", "n2"), ("n1", "n1")], ids=["two networks", "one"])
@pytest.mark.parametrize(("here", "there", "shared", "own"), TABLE)
def test_each_cluster_gives_what_its_own_object_says(here, there, shared, own, networks):
    _, east, _ = two_clusters(here, there, networks=networks)

    found = told(east)

    assert (leads(found, SHARED), leads(found, OWN)) == (shared, own)


@pytest.mark.parametrize(("here", "there", "shared", "own"), TABLE)
def test_the_page_says_the_same(here, there, shared, own):
    page = PAGE.read_text()
    rows = [[cell.strip(" `") for cell in row.split("|")[1:-1]] for row in page.splitlines()]

    assert [here, there, shared, own] in rows


def test_a_namespace_says_it_for_the_services_in_it_that_say_nothing():
    mesh, east, _ = two_clusters(UNSAID, ABSENT)
    east.service("kept", ready=["10.0.0.2"], shape=shaped("cluster"))
    label = {"solo.io/service-scope": "global"}
    key = ObjectKey(east.id, "", "default")
    namespace = objects.Namespace(shapes.metadata("default", "", label))

    mesh.put(mesh.sources.namespaces, key, namespace)
    assert leads(told(east), SHARED) == "local"
    assert "default/kept.default.mesh.internal" not in told(east)

    with mesh.graph.transaction() as transaction:
        transaction.delete(mesh.sources.namespaces, key)
    assert leads(told(east), SHARED) == NOTHING


@pytest.mark.parametrize("scope", ["Global", "everywhere", "x" * 63])
def test_a_scope_that_nobody_knows_shares_nothing_and_is_named(scope):
    mesh, east, _ = two_clusters(scope, "global")

    (found,) = findings(mesh, "ISM-REG-020")

    assert found.subject == "Service default/reviews in cluster `east`"
    assert scope in found.happened
    assert leads(told(east), SHARED) == "remote"


def test_an_unknown_scope_of_a_namespace_is_named_once():
    mesh, east, _ = two_clusters(UNSAID, ABSENT)
    namespace = objects.Namespace(
        shapes.metadata("default", "", {"solo.io/service-scope": "planet"})
    )

    mesh.put(mesh.sources.namespaces, ObjectKey(east.id, "", "default"), namespace)

    assert [one.subject for one in findings(mesh, "ISM-REG-020")] == [
        "Namespace default in cluster `east`"
    ]


def test_a_name_in_another_namespace_is_another_service():
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n1")
    east.service("reviews", ready=["10.0.0.1"], shape=shaped("global"))
    west.service("reviews", ready=["10.1.0.1"], namespace="other", shape=shaped("global"))

    found = told(east)

    assert leads(found, SHARED) == "local"
    assert leads(found, "other/reviews.other.mesh.internal") == "remote"


def test_a_shared_service_has_an_address_ports_and_everybodys_identity():
    _, east, _ = two_clusters("global", ABSENT)
    west = east.mesh.clusters["west"]
    west.service("reviews", ready=["10.1.0.1"], shape=shaped("global", account="west-reviews"))

    said = told(east)[SHARED].service

    assert said.hostname == "reviews.default.mesh.internal"
    addresses = [ipaddress.ip_address(one.address) for one in said.addresses]
    assert any(one in ipaddress.ip_network("240.240.0.0/16") for one in addresses)
    assert [port.service_port for port in said.ports] == [80]
    assert list(said.subject_alt_names) == [
        f"spiffe://cluster.local/ns/default/sa/{account}" for account in ("default", "west-reviews")
    ]
    assert list(said.load_balancing.routing_preference) == [
        workload_pb2.LoadBalancing.Scope.NETWORK
    ]


def test_the_older_label_shares_a_service_under_its_own_name_alone():
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n1")
    for number, cluster in enumerate((east, west)):
        shape = Shape(proxy=None, is_captured=True, is_global=True)
        cluster.service("reviews", ready=[f"10.{number}.0.1"], shape=shape)

    found = told(east)

    assert (leads(found, SHARED), leads(found, OWN)) == (NOTHING, EVERYWHERE)
    assert not found[OWN].service.HasField("load_balancing")


RULE = {
    "scope": "GLOBAL",
    "servicesSelector": {
        "matchExpressions": [{"key": "app", "operator": "In", "values": ["reviews", "x"]}]
    },
    "namespaceSelector": {"matchLabels": {"team": "a"}},
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, EVERYWHERE),
        ({"scope": "LOCAL"}, "local"),
        ({"servicesSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]}},
         EVERYWHERE),
        ({"servicesSelector": {"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}},
         "local"),
        ({"namespaceSelector": {"matchLabels": {"team": "b"}}}, "local"),
        ({"namespaceSelector": None}, EVERYWHERE),
    ],
)  # fmt: skip
def test_the_settings_share_services_under_their_own_names(change, expected):
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n1")
    for number, cluster in enumerate((east, west)):
        labelled(mesh, mesh.sources.namespaces, ObjectKey(cluster.id, "", "default"), team="a")
        cluster.service("reviews", ready=[f"10.{number}.0.1"], shape=shapes.CAPTURED)
        key = ObjectKey(cluster.id, "default", "reviews")
        labelled(mesh, mesh.sources.services, key, app="reviews")
    mesh.configure(serviceScopeConfigs=[{**RULE, **change}])

    assert leads(told(east), OWN) == expected


def labelled(mesh, source, key, **labels):
    """Give an object labels; a namespace is made."""
    old = mesh.graph.get(source, key) or objects.Namespace(shapes.metadata(key.name, ""))
    meta = shapes.metadata(key.name, key.namespace, labels)
    fields = {"spec": old.spec} if isinstance(old, objects.Service) else {}
    mesh.put(source, key, type(old)(meta, **fields))


@pytest.mark.parametrize(
    "rule",
    [
        {"scope": "PLANET"},
        {"scope": "GLOBAL", "servicesSelector": {"matchExpressions": [{"key": "app"}]}},
        {"scope": "GLOBAL", "servicesSelector": {"matchExpressions": [{"operator": "Exists"}]}},
        {
            "scope": "GLOBAL",
            "servicesSelector": {"matchExpressions": [{"key": "app", "operator": "In"}]},
        },
        {"scope": "GLOBAL", "selector": {}},
    ],
)
def test_a_rule_that_is_not_understood_shares_nothing_and_is_named(rule):
    mesh, east, _ = two_clusters(UNSAID, UNSAID, networks=("n1", "n1"))

    mesh.configure(serviceScopeConfigs=[rule])

    assert leads(told(east), OWN) == "local"
    (found,) = findings(mesh, "ISM-REG-002")
    assert "serviceScopeConfigs[0]" in found.happened


def test_an_entry_of_a_user_does_not_take_the_host_of_a_shared_service():
    mesh, east, _ = two_clusters("global", ABSENT)
    mesh.service_entry(
        "mine",
        {
            "hosts": ["reviews.default.mesh.internal"],
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            "resolution": "STATIC",
            "endpoints": [{"address": "10.9.9.9"}],
        },
        namespace="other",
    )

    (found,) = findings(mesh, "ISM-REG-014")

    assert "shared Service default/reviews" in found.happened
    assert "other/reviews.default.mesh.internal" not in told(east)
    assert leads(told(east), SHARED) == "local"


def test_a_headless_service_is_shared_with_an_address():
    mesh = builders.Mesh()
    east = mesh.cluster("east", network="n1")
    east.service("reviews", ready=["10.0.0.1"], shape=shaped("global", is_headless=True))

    said = told(east)[SHARED].service

    assert said.addresses
    assert leads(told(east), SHARED) == "local"


@pytest.mark.parametrize("name", ["alias", "gate"])
def test_other_names_and_ways_into_networks_are_not_shared(name):
    mesh = builders.Mesh()
    east = mesh.cluster("east", network="n1")
    east.service("alias", shape=Shape(scope="global", alias_of="example.com"))
    labels = {"solo.io/service-scope": "global", "topology.istio.io/network": "n1"}
    gate = shapes.metadata("gate", "default", labels)
    spec = objects.ServiceSpec(cluster_ip="10.96.0.77", ports=(objects.ServicePort(80),))
    mesh.put(
        mesh.sources.services,
        ObjectKey(east.id, "default", "gate"),
        objects.Service(gate, spec=spec),
    )

    assert f"default/{name}.default.mesh.internal" not in told(east)


def test_an_address_that_is_no_pods_answers_for_a_shared_service_too():
    _, east, west = two_clusters(ABSENT, "global", networks=("n1", "n1"))
    west.endpoints("reviews", ready=["10.1.0.1", "192.0.2.7"], ports={"http": 80})

    (loose,) = [one for name, one in told(east).items() if "192.0.2.7" in name]

    assert list(loose.workload.services) == [SHARED]


def test_nobody_shares_what_the_settings_keep_in_each_cluster():
    mesh, east, _ = two_clusters("global", "global")
    host = "reviews.default.svc.cluster.local"

    mesh.configure(serviceSettings=[{"settings": {"clusterLocal": True}, "hosts": [host]}])

    assert (leads(told(east), SHARED), leads(told(east), OWN)) == (NOTHING, "local")


def test_one_more_shared_service_computes_no_other_again():
    def computed(size):
        mesh = builders.Mesh()
        east = mesh.cluster("east", network="n1")
        with mesh.one_change():
            for number in range(size):
                east.service(f"s{number}", ready=[f"10.0.{number}.1"], shape=shaped("global"))
        told(east)
        east.endpoints("s7", ready=[], unready=["10.0.7.1"], ports={"http": 80})
        return mesh.graph.recomputed()

    assert computed(10) == computed(100)


def test_the_table_of_the_seed_is_complete():
    """Six rows, as the seed prints them."""
    assert len({row[:2] for row in SEED}) == 6
    assert not re.search("global-only", repr(SEED))


def test_nobody_takes_the_address_of_a_shared_service_by_an_entry():
    mesh, east, _ = two_clusters("global", ABSENT)
    (given, _) = written_of(mesh)
    mesh.service_entry(
        "thief",
        {
            "hosts": ["thief.example.com"],
            "addresses": [given],
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            "resolution": "STATIC",
            "endpoints": [{"address": "10.9.9.9"}],
        },
    )
    stolen = told(east)["default/thief.example.com"].service

    assert written_of(mesh)[0] == given
    assert not stolen.addresses
    (finding,) = [
        one for one in mesh.graph.items(mesh.views.findings).values() if one.code == "ISM-VIEW-030"
    ]
    assert finding.subject == "ServiceEntry default/thief"


def written_of(mesh):
    """Return the addresses that are written down of the shared service."""
    (shared,) = mesh.graph.items(mesh.views.written.shared).values()
    return [value for _, value in shared.addresses]
