"""Which endpoints a service has that linked clusters tell of."""

import ipaddress

import pytest
from scoped_clusters import ABSENT, OWN, SHARED, TABLE, findings, leads, shaped, told, two_clusters

from fakes import links
from isthmus.mesh.ambient import Scope
from isthmus.testing import builders

# --- what linked clusters tell

SCOPES = {
    "global": Scope(derives=True),
    "global-only": Scope(derives=True, takes_over=True),
}


def linked(here, there):
    """Return a cluster whose Service has a scope, and that is linked to one of another scope."""
    mesh = builders.Mesh()
    east = mesh.cluster("east", network="n1")
    if here != ABSENT:
        east.service("reviews", ready=["10.0.0.1"], shape=shaped(here))
    links.put(mesh, peer="west", network="n2")
    if there in SCOPES:  # Who shares nothing tells nothing.
        links.tell(mesh, "west", "default/reviews", SCOPES[there])
    return mesh, east


@pytest.mark.parametrize(("here", "there", "shared", "own"), TABLE)
def test_linked_clusters_give_what_their_own_objects_say(here, there, shared, own):
    _, east = linked(here, there)

    found = told(east)

    assert (leads(found, SHARED), leads(found, OWN)) == (shared, own)


def test_what_a_linked_cluster_shares_is_called_through_its_gateway():
    mesh, east = linked("global", "global")
    links.tell(mesh, "west", "default/reviews", SCOPES["global"], pods=3)

    found = told(east)

    (hidden,) = [one.workload for name, one in found.items() if "SplitHorizon" in name]
    assert (hidden.network, hidden.capacity.value) == ("n2", 3)
    assert (hidden.locality.region, hidden.locality.zone) == ("r", "z")
    assert list(found[SHARED].service.subject_alt_names) == [
        "spiffe://cluster.local/ns/default/sa/default",
        "spiffe://cluster.local/ns/default/sa/reviews",
    ]
    assert not found[OWN].service.subject_alt_names


def test_a_name_that_only_a_linked_cluster_has_is_there_without_its_namespace():
    mesh, east = linked(ABSENT, "global")

    said = told(east)[SHARED].service
    links.withdraw(mesh, "west", "default/reviews")

    assert said.addresses
    assert (said.name, said.namespace) == ("reviews.default.mesh.internal", "default")
    assert SHARED not in told(east)


def test_a_linked_cluster_that_has_no_ready_pod_keeps_the_name():
    mesh, east = linked(ABSENT, "global")
    links.tell(mesh, "west", "default/reviews", SCOPES["global"], pods=0)

    found = told(east)

    assert SHARED in found
    assert not [name for name in found if "SplitHorizon" in name]


def test_a_linked_cluster_is_called_on_the_ports_that_it_has():
    mesh, east = linked(ABSENT, "global")
    ports = {"http": 80, "more": 81}
    east.service("reviews", ready=["10.0.0.1"], ports=ports, shape=shaped("global"))
    links.tell(mesh, "west", "default/reviews", SCOPES["global"], ports=(80, 99))

    (hidden,) = [one.workload for name, one in told(east).items() if "SplitHorizon" in name]
    (finding,) = findings(mesh, "ISM-REG-010")

    assert [port.service_port for port in hidden.services[SHARED].ports] == [80]
    assert [port.service_port for port in told(east)[SHARED].service.ports] == [80, 81]
    assert finding.subject == "Service default/reviews in cluster `west`"
    assert finding.happened.endswith("it lacks 81 and has 99 besides")


def doors(found):
    """Return how many pods are behind which gateway, and in which network, as it is told."""
    hidden = [one.workload for name, one in found.items() if "SplitHorizon" in name]
    gateways = {one.network_gateway.address.address: one for one in hidden}
    there = {
        bytes(one.workload.addresses[0])
        for one in found.values()
        if one.HasField("workload") and one.workload.addresses
    }
    assert set(gateways) <= there
    return {
        str(ipaddress.ip_address(at)): (one.network, one.capacity.value or 1)
        for at, one in gateways.items()
    }


@pytest.mark.parametrize(
    ("networks", "expected"),
    [
        (("n1",), {"203.0.113.10": ("n1~west0", 1)}),
        (
            ("n1", "n1"),
            {"203.0.113.10": ("n1~west0", 1), "203.0.113.11": ("n1~west1", 2)},
        ),
        (
            ("n2", "n2"),
            {"203.0.113.10": ("n2~west0", 1), "203.0.113.11": ("n2~west1", 2)},
        ),
        (("n2", "n3"), {"203.0.113.10": ("n2", 1), "203.0.113.11": ("n3", 2)}),
    ],
)
def test_linked_clusters_of_one_network_are_each_called_through_their_own_gateway(
    networks, expected
):
    mesh = builders.Mesh()
    east = mesh.cluster("east", network="n1")
    east.service("reviews", ready=["10.0.0.1"], shape=shaped("global"))
    for number, network in enumerate(networks):
        peer = f"west{number}"
        links.put(mesh, peer=peer, network=network, address=f"203.0.113.1{number}")
        links.tell(mesh, peer, "default/reviews", SCOPES["global"], pods=number + 1)

    assert doors(told(east)) == expected


def test_a_linked_cluster_in_the_network_of_a_followed_one_has_its_own_gateway():
    mesh, east, west = two_clusters("global", "global")
    west.gateway(external="203.0.113.9", ports={"hbone": 15008})
    links.put(mesh, peer="far", network="n2", address="203.0.113.10")
    links.tell(mesh, "far", "default/reviews", SCOPES["global"], pods=3)

    assert doors(told(east)) == {
        "203.0.113.9": ("n2", 1),
        "203.0.113.10": ("n2~far", 3),
    }
