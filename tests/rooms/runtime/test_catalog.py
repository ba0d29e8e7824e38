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


def test_who_says_what_it_wants_is_woken_for_that_alone():
    shelves = catalog.Catalog()
    some, all_, none = [], [], []
    for woken, names in ((some, {"one"}), (all_, {"*"}), (none, {"three"})):
        shelves.read([NEAR, FAR], woken.append).want(woken.append, CLUSTERS, frozenset(names))

    shelves.change([change(NEAR, "one"), change(FAR, "two")])

    assert some == all_ == [{CLUSTERS: frozenset({"one", "two"})}]
    assert none == []


def test_what_is_wanted_can_change_and_ends_with_the_reading():
    shelves = catalog.Catalog()
    woken = []
    seen = shelves.read([NEAR], woken.append)
    for names in ({"one"}, {"two"}):
        seen.want(woken.append, CLUSTERS, frozenset(names))

    shelves.change([change(NEAR, "one")])
    assert woken == []
    assert shelves.leave([NEAR], woken.append) == {CLUSTERS: frozenset({"two"})}
    shelves.change([change(NEAR, "two")])
    assert woken == []


def test_proxies_with_equal_scopes_share_one_view():
    shelves = catalog.Catalog()

    one, two = shelves.read([NEAR, FAR], [].append), shelves.read([NEAR, FAR], [].append)

    assert one is two
    assert one is not shelves.read([NEAR], [].append)


def test_equal_resources_have_equal_stamps_and_others_never():
    shelves = catalog.Catalog()
    one, two = shelves.snapshot([NEAR]), shelves.snapshot([NEAR, FAR])
    stamps = [(one.stamp_of(CLUSTERS), two.stamp_of(CLUSTERS))]
    for changed in (change(NEAR, "one"), change(NEAR, "one", "v2"), change(FAR, "one")):
        shelves.change([changed])
        stamps.append((one.stamp_of(CLUSTERS), two.stamp_of(CLUSTERS)))

    assert [mine == yours for mine, yours in stamps] == [True, True, True, False]
    assert len({mine for mine, _ in stamps}) == 3
    assert len({yours for _, yours in stamps}) == 4


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
