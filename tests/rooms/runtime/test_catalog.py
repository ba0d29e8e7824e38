"""What each proxy should have, and who is woken by a change."""

from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.resources.snapshot import CLUSTERS, Resource
from isthmus.runtime import catalog
from isthmus.views import view

NEAR = view.OutboundScope(ClusterId("c1"), NetworkId("n1"), "a")
FAR = view.OutboundScope(ClusterId("c2"), NetworkId("n2"), "a")


def change(scope, name, version="v1"):
    key = view.SliceKey(scope, view.Kind.CLUSTER, name)
    resource = Resource(CLUSTERS, name, version, b"x") if version else None
    return key, CLUSTERS, resource


def reading(shelves, *scopes):
    woken = []
    shelves.read(scopes, woken.append)
    return woken


def test_only_those_who_read_a_scope_are_woken_by_its_changes():
    shelves = catalog.Catalog()
    near, far = reading(shelves, NEAR), reading(shelves, FAR)

    shelves.change([change(NEAR, "one")])

    assert near == [{CLUSTERS: frozenset({"one"})}]
    assert far == []


def test_one_batch_wakes_a_reader_once():
    shelves = catalog.Catalog()
    woken = reading(shelves, NEAR, FAR)

    shelves.change([change(NEAR, "one"), change(FAR, "two"), change(NEAR, "three")])

    assert woken == [{CLUSTERS: frozenset({"one", "two", "three"})}]


def test_of_equal_names_the_later_scope_counts_and_removal_uncovers_the_earlier():
    shelves = catalog.Catalog()
    shelves.change([change(NEAR, "one", "v1"), change(FAR, "one", "v2")])
    snapshot = shelves.snapshot((NEAR, FAR))

    assert snapshot.of(CLUSTERS)["one"].version == "v2"
    shelves.change([change(FAR, "one", None)])
    assert snapshot.of(CLUSTERS)["one"].version == "v1"


def test_a_scope_is_kept_while_somebody_reads_it():
    shelves = catalog.Catalog()
    woken = []
    shelves.read([NEAR], woken.append)
    shelves.change([change(NEAR, "one")])

    shelves.drop(NEAR)
    assert shelves.snapshot([NEAR]).of(CLUSTERS)
    shelves.leave([NEAR], woken.append)
    shelves.drop(NEAR)
    assert not shelves.snapshot([NEAR]).of(CLUSTERS)
