"""How much is computed again when something changes, in exact numbers."""

import sys

import pytest

from isthmus.mesh.services import ServiceKey
from isthmus.testing import builders, shapes
from isthmus.views import view

# The slice (three ways), service and identities in the registry; candidates, also in bunches, served ports and headless
# flag; what is behind gateways; the endpoints seen from two networks and passed on by two gateways. The same at any size.
NODES = 14

MOST_CALLS = 1800
"""Some hundreds more than today. When there were 3,100, a change took twice the time."""

SIZES = pytest.mark.parametrize("size", [100, 1000])


def built(size):
    """Return two clusters with `size` services each, and proxies of two namespaces in both."""
    mesh = builders.Mesh()
    clusters = [mesh.cluster("east", network="n1"), mesh.cluster("west", network="n2")]
    for number, cluster in enumerate(clusters):
        cluster.gateway(external=f"172.30.0.1{number}")
    mesh.expose_services()
    with mesh.one_change():
        for number, cluster in enumerate(clusters):
            for index in range(size):
                address = f"10.{number}.{index // 250}.{index % 250 + 1}"
                cluster.service(f"s{index}", ready=[address], ports={"http": 80, "tcp": 9000})
    for path in ("east/default/client", "east/other/client", "west/default/client"):
        mesh.scopes_of(mesh.proxy(path).pod)
    for external in ("172.30.0.10", "172.30.0.11"):
        mesh.scopes_of(mesh.pod_at(external, network=""))
    return mesh


def change_of(mesh, act):
    """Return what `act` made the graph publish, and how many functions ran."""
    seen = []
    mesh.graph.listen(seen.append)
    act()
    (batch,) = seen
    return batch.of(mesh.views.slices), mesh.graph.recomputed()


def flip(mesh):
    east = mesh.clusters["east"]
    ports = {"http": 80, "tcp": 9000}
    east.endpoints("s7", ready=["10.0.0.8", "10.0.9.200"], ports=ports)


@SIZES
def test_an_endpoint_computes_only_its_own_services_endpoints_again(size):
    mesh = built(size)
    mesh.clusters["east"].pod("s7-more", address="10.0.9.200", labels={"app": "s7"})

    changed, computed = change_of(mesh, lambda: flip(mesh))

    assert {key.kind for key in changed} == {view.Kind.ENDPOINTS}
    assert {key.name.split(".")[0].split("|")[-1] for key in changed} == {"s7", "outbound_"}
    # Two ports, seen from two networks and passed on by the gateway of the pod's own network.
    assert len(changed) == 2 * 2 + 2
    assert computed == NODES


def calls_of(act):
    """Return how many functions of Python's `act` calls."""
    count = 0

    def note(_, event, __):
        nonlocal count
        count += event == "call"

    sys.setprofile(note)
    try:
        act()
    finally:
        sys.setprofile(None)
    return count


def test_what_an_endpoint_costs_is_the_same_at_any_size_and_no_more_than_before():
    counts = []
    for size in (50, 200):
        mesh = built(size)
        east, ports = mesh.clusters["east"], {"http": 80, "tcp": 9000}
        east.pod("s7-more", address="10.0.9.200", labels={"app": "s7"})
        flip(mesh)  # What is remembered between changes is remembered now.
        east.endpoints("s7", ready=["10.0.0.8"], ports=ports)
        counts.append(calls_of(lambda mesh=mesh: flip(mesh)))

    # A call or two depend on the order of a set; one for each service would be 150 more.
    assert abs(counts[0] - counts[1]) < 10
    assert max(counts) < MOST_CALLS


@SIZES
def test_where_near_counts_endpoints_are_computed_once_more_for_each_place(size):
    mesh = built(size)
    mesh.destination_rule(
        "near", {"host": "*", "trafficPolicy": {"outlierDetection": {}}}, namespace="istio-system"
    )
    mesh.clusters["east"].pod("s7-more", address="10.0.9.200", labels={"app": "s7"})

    changed, computed = change_of(mesh, lambda: flip(mesh))

    # Seen from a cluster each, and from a place in each.
    assert len(changed) == 2 * (2 + 2) + 2
    assert computed == NODES + 2


@SIZES
def test_a_new_identity_changes_clusters_of_its_service_alone(size):
    mesh = built(size)
    mesh.clusters["east"].pod(
        "s7-more", address="10.0.9.200", labels={"app": "s7"}, shape=shapes.Shape(account="another")
    )

    changed, _ = change_of(mesh, lambda: flip(mesh))

    kinds = {key.kind for key in changed}
    assert kinds == {view.Kind.ENDPOINTS, view.Kind.CLUSTER}
    # Two ports in each of two networks, whatever namespaces and clusters their proxies are in.
    assert sum(key.kind is view.Kind.CLUSTER for key in changed) == 2 * 2


@SIZES
def test_a_new_namespace_with_proxies_computes_no_endpoints(size):
    mesh = built(size)
    pod = mesh.clusters["east"].pod("client", namespace="third")

    changed, _ = change_of(
        mesh,
        lambda: mesh.put(mesh.views.scopes, view.OutboundScope("east", "n1", pod.namespace), 1),
    )

    assert view.Kind.ENDPOINTS not in {key.kind for key in changed}


def test_pods_of_one_address_in_two_clusters_are_nothing_to_each_other():
    def computed(address):
        mesh = builders.Mesh()
        for name, own in (("east", "10.0.0.1"), ("west", address)):
            mesh.cluster(name, network=name).service("s", ready=[own])
        (pod,) = (key for key in mesh.graph.items(mesh.sources.pods) if key.cluster == "east")
        with mesh.graph.transaction() as change:
            change.delete(mesh.sources.pods, pod)
        return mesh.graph.recomputed()

    assert computed("10.0.0.1") == computed("10.0.0.2") > 1


def test_nobody_writes_down_which_slices_name_a_pod():
    mesh = built(100)

    assert not [key for key in mesh.model.workloads.readers if key.name.startswith("s")]


def computed_by_entries(size):
    """Return what an entry that selects pods, and then a pod that it selects, compute again."""
    mesh = built(size)
    entry = {
        "hosts": ["vm.shop.local"],
        "addresses": ["192.0.2.1"],
        "resolution": "STATIC",
        "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}],
        "workloadSelector": {"labels": {"app": "vm"}},
    }
    pod = mesh.clusters["west"].pod
    return [
        change_of(mesh, act)[1]
        for act in (
            lambda: mesh.service_entry("vm", entry),
            lambda: pod("vm", labels={"app": "vm"}),
            lambda: pod("no-vm", labels={"app": "other"}),
        )
    ]


def test_what_an_entry_computes_does_not_grow_with_the_mesh():
    assert computed_by_entries(100) == computed_by_entries(300)


def test_of_a_changed_slice_other_endpoints_are_told_as_before():
    mesh = built(1)
    east, ports = mesh.clusters["east"], {"http": 80, "tcp": 9000}
    many = [f"10.0.8.{number}" for number in range(1, 21)]
    for address in many:
        east.pod(f"s0-{address.replace('.', '-')}", address=address, labels={"app": "s0"})
    east.endpoints("s0", ready=many, ports=ports)

    def told():
        return {
            (key, one.address): one
            for key, slice_ in mesh.graph.items(mesh.views.slices).items()
            if key.kind is view.Kind.ENDPOINTS
            for group in slice_.groups
            for one in group.endpoints
            if one.address in many
        }

    before = told()
    east.endpoints("s0", ready=many[1:], ports=ports)
    after = told()

    assert len(after) * 20 == len(before) * 19 > 0
    assert all(one == before[place] for place, one in after.items())


def test_what_is_told_of_endpoints_of_other_clusters_is_not_made_anew():
    mesh = beside_each_other("east", "west")
    known = mesh.views.facts.in_bunches

    def told():
        return {
            one.like.cluster: one
            for one in mesh.graph.get(known, ServiceKey("default", "s"))["http"]
        }

    before = told()
    mesh.clusters["west"].service("s", ready=["10.1.0.1", "10.1.0.2"])
    after = told()

    assert after["east"] is before["east"]
    assert len(after["west"]) == 2


def beside_each_other(*names):
    """Return clusters of one network, all of which look at a service that all of them have."""
    mesh = builders.Mesh()
    clusters = [mesh.cluster(name, network="n1") for name in names]
    with mesh.one_change():
        for number, cluster in enumerate(clusters):
            cluster.service("s", ready=[f"10.{number}.0.1"])
            cluster.service("s", namespace="kube-system", ready=[f"10.{number}.9.1"])
    for name in names:
        mesh.scopes_of(mesh.proxy(f"{name}/client").pod)
    return mesh


def seen_of(mesh, cluster, namespace):
    told = mesh.slices_of(*mesh.scopes_of(mesh.proxy(f"{cluster}/client").pod))
    (found,) = (
        slice_
        for key, slice_ in told.items()
        if key.kind is view.Kind.ENDPOINTS and f"|s.{namespace}." in slice_.cluster_name
    )
    return found


def test_clusters_of_one_network_share_what_they_see_alike():
    mesh = beside_each_other("east", "west")

    assert seen_of(mesh, "east", "default") is seen_of(mesh, "west", "default")
    east, west = (seen_of(mesh, one, "kube-system") for one in ("east", "west"))
    # Services of `kube-system` are of their own cluster alone.
    assert [next(iter(group.endpoints)).address for group in east.groups] == ["10.0.9.1"]
    assert [next(iter(group.endpoints)).address for group in west.groups] == ["10.1.9.1"]


def test_one_more_cluster_that_looks_costs_the_same_however_many_endpoints_there_are():
    def calls(names, count):
        mesh = beside_each_other(*names)
        east, pods = mesh.clusters["east"], [f"10.0.0.{number}" for number in range(1, count)]
        east.service("s", ready=pods[1:])  # The first one is there as a pod already.
        return calls_of(lambda: east.endpoints("s", ready=pods, ports={"http": 80}))

    few, many = (
        calls(("east", "west", "north"), count) - calls(("east", "west"), count)
        for count in (20, 200)
    )
    # Of 180 more none takes a call of its own.
    assert many - few < 20


def test_a_cluster_that_looks_later_sees_what_others_saw_before_it():
    mesh = beside_each_other("east", "west")
    mesh.cluster("north", network="n1")
    pod = mesh.proxy("north/client").pod

    changed, _ = change_of(
        mesh, lambda: mesh.put(mesh.views.scopes, view.HorizonScope("north", "n1"), 1)
    )

    # Its own alone, which there are none of.
    assert {slice_.new.groups for slice_ in changed.values()} == {()}
    mesh.scopes_of(pod)
    assert seen_of(mesh, "north", "default") is seen_of(mesh, "east", "default")
