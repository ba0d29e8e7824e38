"""What Istio's node proxy hears, wildcard and on demand, over several streams."""

import node_proxy
import pytest

from isthmus.mesh.proxies import ProxyKind
from isthmus.resources.snapshot import ADDRESSES, AUTHORIZATIONS, Leads, Snapshot
from isthmus.testing import builders, shapes
from isthmus.testing.shapes import Shape

ZTUNNEL = Shape(proxy=ProxyKind.ZTUNNEL, account="ztunnel")
STRICT = "istio-system/istio_converted_static_strict"
REVIEWS = "default/reviews.default.svc.cluster.local"
RATINGS = "default/ratings.default.svc.cluster.local"


def uid(name):
    return f"east//Pod/default/{name}"


class Mesh:
    """A cluster with two services, and its node proxy's pod."""

    def __init__(self):
        self.mesh = builders.Mesh()
        self.east = self.mesh.cluster("east", network="n1")
        self.node = self.east.pod("ztunnel-1", namespace="istio-system", shape=ZTUNNEL)
        self.east.service("reviews", ready=["10.0.0.1", "10.0.0.2"], shape=shapes.CAPTURED)
        self.east.service("ratings", ready=["10.0.1.1"], shape=shapes.CAPTURED)
        self.client = node_proxy.NodeProxy()
        self.snapshot = self.told()

    def told(self):
        return self.mesh.snapshot_of(self.node)

    def connected(self, *, on_demand=False):
        self.client.on_demand = on_demand
        self.client.connect()
        self.client.given(self.told())
        return self.client

    def changed(self):
        before, self.snapshot = self.snapshot, self.told()
        self.client.given(self.snapshot, before)

    def unready(self, name, address):
        self.east.endpoints(name, ready=[], unready=[address], ports={"http": 80})


def told(client):
    """Return what was told in one message, but for names that are no resources."""
    (names,) = client.heard
    return [name for name in names if not name.startswith("-n1/")]


@pytest.fixture
def mesh():
    return Mesh()


def test_all_is_told_to_who_asks_for_nothing_in_particular(mesh):
    client = mesh.connected()

    assert set(client.holds[ADDRESSES]) == {
        "east//Pod/istio-system/ztunnel-1",
        uid("reviews-10-0-0-1"),
        uid("reviews-10-0-0-2"),
        uid("ratings-10-0-1-1"),
        REVIEWS,
        RATINGS,
    }
    assert set(client.holds[AUTHORIZATIONS]) == {STRICT}
    assert not client.unready


def test_policies_are_told_before_the_workloads_that_name_them(mesh):
    client = mesh.connected()

    assert STRICT in client.heard[0]
    mesh.mesh.peer_authentication("default", "STRICT")
    mesh.mesh.authorization_policy("new", {"selector": {"matchLabels": {"app": "ratings"}}})
    client.heard.clear()
    mesh.changed()

    assert client.heard[0] == ["default/new"]
    assert uid("ratings-10-0-1-1") in client.heard[1]


def test_only_what_changed_is_told_again(mesh):
    client = mesh.connected()
    client.heard.clear()

    mesh.unready("ratings", "10.0.1.1")
    mesh.changed()

    assert client.heard == [[uid("ratings-10-0-1-1")]]


def test_what_is_gone_is_told_as_removed(mesh):
    client = mesh.connected()
    client.heard.clear()
    with mesh.mesh.graph.transaction() as transaction:
        for source, name in (
            (mesh.mesh.sources.services, "ratings"),
            (mesh.mesh.sources.endpoint_slices, "ratings-1"),
            (mesh.mesh.sources.pods, "ratings-10-0-1-1"),
        ):
            transaction.delete(source, mesh.east._key("default", name))

    mesh.changed()

    assert client.heard == [sorted([f"-{RATINGS}", f"-{uid('ratings-10-0-1-1')}"])]
    assert RATINGS not in client.holds[ADDRESSES]


def test_who_comes_again_hears_only_what_is_different_and_is_ready(mesh):
    client = mesh.connected()
    mesh.unready("ratings", "10.0.1.1")
    client.known[ADDRESSES]["east//Pod/default/long-gone"] = "1"
    client.unready = set(node_proxy.TYPES)

    mesh.connected()

    assert client.heard == [[], sorted(["-east//Pod/default/long-gone", uid("ratings-10-0-1-1")])]
    assert not client.unready


def test_what_was_refused_is_told_to_who_comes_again(mesh):
    mesh.client.refuses = {REVIEWS}
    client = mesh.connected()
    assert REVIEWS not in client.known[ADDRESSES]
    client.refuses.clear()

    mesh.connected()

    assert client.heard == [[], [REVIEWS]]


# --- on demand


def test_who_subscribes_to_nothing_hears_of_policies_alone(mesh):
    client = mesh.connected(on_demand=True)
    assert client.heard == [[STRICT], []]

    mesh.unready("ratings", "10.0.1.1")
    client.heard.clear()
    mesh.changed()

    assert client.heard == []


@pytest.mark.parametrize("name", [REVIEWS, "n1/10.96.0.1"])
def test_a_demand_for_a_service_brings_its_workloads_along(mesh, name):
    client = mesh.connected(on_demand=True)
    client.heard.clear()

    client.demand(name)
    client.listen()

    found = [REVIEWS, uid("reviews-10-0-0-1"), uid("reviews-10-0-0-2")]
    assert told(client) == found
    assert not client.waits_for


@pytest.mark.parametrize("name", [uid("ratings-10-0-1-1"), "n1/10.0.1.1"])
def test_a_demand_for_a_workload_brings_it_alone(mesh, name):
    client = mesh.connected(on_demand=True)
    client.heard.clear()

    client.demand(name)
    client.listen()

    assert told(client) == [uid("ratings-10-0-1-1")]
    assert not client.waits_for


def test_a_demand_for_what_is_not_there_is_answered_and_kept(mesh):
    client = mesh.connected(on_demand=True)
    client.demand("n1/10.0.7.7")
    client.listen()
    assert not client.waits_for
    client.heard.clear()

    mesh.east.pod("late", address="10.0.7.7", shape=shapes.CAPTURED)
    mesh.changed()

    assert client.heard == [[uid("late")]]


def test_what_was_demanded_is_followed_with_what_joins_it(mesh):
    client = mesh.connected(on_demand=True)
    client.demand("n1/10.96.0.1")
    client.listen()
    client.heard.clear()

    mesh.east.service("reviews", ready=["10.0.0.1", "10.0.0.3"], shape=shapes.CAPTURED)
    mesh.unready("ratings", "10.0.1.1")
    mesh.changed()

    # The second one is no member any more, and the third one is new.
    assert client.heard == [[uid("reviews-10-0-0-2"), uid("reviews-10-0-0-3")]]


def test_what_was_demanded_and_goes_is_told_as_removed(mesh):
    client = mesh.connected(on_demand=True)
    client.demand("n1/10.0.1.1")
    client.listen()
    client.heard.clear()
    with mesh.mesh.graph.transaction() as transaction:
        transaction.delete(mesh.mesh.sources.pods, mesh.east._key("default", "ratings-10-0-1-1"))

    mesh.changed()

    assert client.heard == [[f"-{uid('ratings-10-0-1-1')}"]]


def test_who_comes_again_on_demand_is_followed_as_before(mesh):
    client = mesh.connected(on_demand=True)
    client.demand("n1/10.0.1.1")
    client.demand("n1/10.0.7.7")
    client.listen()
    mesh.unready("ratings", "10.0.1.1")

    mesh.connected(on_demand=True)

    assert client.heard == [[], [uid("ratings-10-0-1-1")]]
    client.heard.clear()
    mesh.unready("reviews", "10.0.0.1")
    mesh.changed()
    assert client.heard == []


def test_a_demand_that_is_repeated_is_answered_again(mesh):
    client = mesh.connected(on_demand=True)
    for _ in range(2):
        client.heard.clear()
        client.demand("n1/10.0.1.1")
        client.listen()

        assert told(client) == [uid("ratings-10-0-1-1")]
        assert not client.waits_for


def test_what_runs_on_its_own_node_is_told_without_being_named(mesh):
    node = frozenset({"//Node/east/node-1"})
    shape = Shape(proxy=None, node="node-1", is_captured=True)
    mesh.east.pod("own", shape=shape)
    mesh.client.on_demand = True
    mesh.client.connect()

    mesh.client.given(implying(mesh.told(), node))
    before = implying(mesh.told(), node)
    mesh.east.pod("late", shape=shape)
    mesh.client.given(implying(mesh.told(), node), before)

    assert mesh.client.heard == [[STRICT], [uid("own")], [uid("late")]]


def implying(told, names):
    leads = {kind: Leads(one.related, names) for kind, one in told.leads.items()}
    return Snapshot(told.resources, leads)
