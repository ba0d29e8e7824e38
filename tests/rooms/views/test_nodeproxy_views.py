"""What the one Envoy of a node must have, and what a change computes again."""

import dataclasses

import pytest

from isthmus.engine import graph
from isthmus.mesh.authorization import Action
from isthmus.mesh.identities import ClusterId, NetworkId, SpiffeId, TrustDomain
from isthmus.mesh.localities import Locality
from isthmus.resources.nodeproxy import build
from isthmus.views import nodeproxy, nodeslices, wds

DOMAIN = TrustDomain("cluster.local")
HERE = Locality("r1", "z1")
NODE = nodeslices.Node("node-1", ClusterId("c"), NetworkId("n"), (DOMAIN,), locality=HERE)
PORT = wds.AddressPort(80, 8080)
CLUSTER = "tunnelled|10.96.0.1:80"


def workload(name, address="10.0.0.1", **more):
    usual = {
        "uid": name,
        "name": name,
        "namespace": "default",
        "cluster": ClusterId("c"),
        "network": NetworkId("n"),
        "addresses": (address,),
        "service_account": name,
        "trust_domain": DOMAIN,
        "takes_tunnels": True,
        "services": (("default/web", (PORT,)),),
    }
    return wds.WorkloadSlice(**(usual | more))


def service(host="web", vip="10.96.0.1", **more):
    where = wds.NetworkAddress(NetworkId("n"), vip)
    return wds.ServiceSlice(host, "default", host, (where,), (wds.AddressPort(80, 0),), **more)


def pod(name):
    return nodeslices.PlacedPod(f"uid-{name}", name, f"/netns/{name}")


class Told:
    """What is told, and to which slices it leads."""

    def __init__(self):
        self.graph = graph.Graph()
        self.proxy = nodeproxy.build(self.graph)
        self.put(nodes={"node-1": NODE})

    def put(self, **sources):
        with self.graph.transaction() as writes:
            for name, entries in sources.items():
                source = getattr(self.proxy.sources, name)
                for key, value in entries.items():
                    if value is None:
                        writes.delete(source, key)
                    else:
                        writes.put(source, key, value)
        return self

    def slices(self, kind):
        found = self.graph.items(self.proxy.slices).values()
        return {nodeslices.name_of(one): one for one in found if isinstance(one, kind)}

    @property
    def endpoints(self):
        return self.slices(nodeslices.ServiceEndpoints)[CLUSTER].endpoints

    @property
    def others(self):
        return self.slices(nodeslices.OtherWays)[nodeslices.OTHERS]

    @property
    def plain_endpoints(self):
        return self.slices(nodeslices.ServiceEndpoints)["plain|10.96.0.1:80"].endpoints

    @property
    def ways(self):
        return self.slices(nodeslices.Ways)[nodeslices.WAYS]


@pytest.fixture
def told():
    return Told()


def names(endpoints):
    return [one.identity.service_account for one in endpoints]


def test_a_services_address_leads_to_its_workloads_at_their_own_port(told):
    told.put(services={"default/web": service()}, workloads={"a": workload("a")})

    assert told.ways.services == (nodeslices.ServiceWay("10.96.0.1", 80),)
    identity = SpiffeId(DOMAIN, "default", "a")
    assert told.endpoints == (nodeslices.Endpoint("10.0.0.1", 8080, identity),)


def test_a_workload_that_takes_no_tunnels_has_no_identity_to_expect(told):
    told.put(
        services={"default/web": service()}, workloads={"a": workload("a", takes_tunnels=False)}
    )

    assert [one.identity for one in told.plain_endpoints] == [None]
    assert told.ways.services == (nodeslices.ServiceWay("10.96.0.1", 80, "plain"),)
    assert told.others.workloads == ()


def test_whoever_is_not_ready_gets_no_calls_unless_the_service_wants_that(told):
    told.put(workloads={"a": workload("a", is_healthy=False)})

    assert told.put(services={"default/web": service()}).endpoints == ()
    assert told.put(services={"default/web": service(takes_unready=True)}).endpoints


def test_nearer_workloads_are_preferred(told):
    told.put(
        services={"default/web": service(nearness=(wds.Nearness.REGION, wds.Nearness.ZONE))},
        workloads={
            "near": workload("near", locality=HERE),
            "farther": workload("farther", "10.0.0.2", locality=Locality("r1", "z2")),
            "far": workload("far", "10.0.0.3", locality=Locality("r2", "z1")),
        },
    )

    assert names(told.endpoints) == ["near"]
    assert names(told.put(workloads={"near": None}).endpoints) == ["farther"]
    assert names(told.put(workloads={"farther": None}).endpoints) == ["far"]


def test_who_is_strict_calls_nobody_rather_than_somebody_farther(told):
    strict = service(nearness=(wds.Nearness.NODE,), is_strict=True)
    told.put(services={"default/web": strict}, workloads={"a": workload("a", node="node-2")})

    assert told.endpoints == ()


def test_what_is_in_another_network_is_not_dialled(told):
    behind = workload("a", network=NetworkId("other"), addresses=())
    vip = dataclasses.replace(
        service(), addresses=(wds.NetworkAddress(NetworkId("other"), "10.96.0.1"),)
    )
    told.put(services={"default/web": vip}, workloads={"a": behind})

    assert told.slices(nodeslices.ServiceEndpoints) == {}
    assert told.ways == nodeslices.Ways(())


def test_a_pod_that_nobody_knows_yet_has_no_listeners(told):
    told.put(pods={"uid-a": pod("a")})
    assert told.slices(nodeslices.PodListener) == {}

    told.put(workloads={"a": workload("a")})
    assert len(told.slices(nodeslices.PodListener)) == 3


def test_a_pod_waits_for_a_policy_that_it_names(told):
    policy = wds.AuthorizationSlice("default", "p", wds.Reach.NAMED, Action.DENY, ((),))
    told.put(pods={"uid-a": pod("a")}, workloads={"a": workload("a", policies=("default/p",))})
    assert told.slices(nodeslices.PodListener) == {}

    told.put(policies={"default/p": policy})
    assert told.slices(nodeslices.TunnelPolicies)["deny|uid-a"].policies == (policy,)


@pytest.mark.parametrize(
    ("reach", "namespace", "holds"),
    [
        (wds.Reach.MESH, "istio-system", True),
        (wds.Reach.NAMESPACE, "default", True),
        (wds.Reach.NAMESPACE, "other", False),
        (wds.Reach.NAMED, "default", False),
    ],
)
def test_policies_hold_where_they_reach(told, reach, namespace, holds):
    policy = wds.AuthorizationSlice(namespace, "p", reach, Action.DENY, ((),))
    told.put(
        pods={"uid-a": pod("a")},
        workloads={"a": workload("a")},
        policies={f"{namespace}/p": policy},
    )

    assert bool(told.slices(nodeslices.TunnelPolicies)["deny|uid-a"].policies) is holds


def test_a_services_address_is_no_workloads(told):
    told.put(services={"default/web": service(vip="10.0.0.1")}, workloads={"a": workload("a")})

    assert told.others.workloads == ()


def test_a_workload_that_becomes_ready_changes_one_set_of_endpoints(told):
    """However many services and pods there are."""
    many = {f"default/s{one}": service(f"s{one}", f"10.96.1.{one}") for one in range(50)}
    told.put(
        services=many | {"default/web": service()},
        workloads={"a": workload("a"), "b": workload("b", "10.0.0.2", is_healthy=False)},
        pods={"uid-a": pod("a")},
    )
    seen = []
    told.graph.listen(lambda batch: seen.append(batch.of(told.proxy.slices)))

    told.put(workloads={"b": workload("b", "10.0.0.2")})

    assert [key.name for key in seen[0]] == [CLUSTER]
    # The endpoints, whether tunnels lead to the service, and the way to this workload.
    assert told.graph.recomputed() == 3


def pushed_for_one_more(services):
    """Return the names and sizes of what is told when one service more is there."""
    told = Told()
    many = {f"default/s{one}": service(f"s{one}", f"10.96.1.{one}") for one in range(services)}
    pods = {
        name: workload(name, f"10.1.0.{one}", services=((key, (PORT,)),))
        for one, (key, name) in enumerate((key, key.partition("/")[2]) for key in many)
    }
    told.put(services=many, workloads=pods | {"a": workload("a")})
    sizes = {}
    told.graph.listen(
        lambda batch: sizes.update(
            (key.name, sizes.get(key.name, 0) + len(build.build(new).body))
            for key, (_, new) in batch.of(told.proxy.slices).items()
        )
    )
    before = len(build.build(told.ways).body)
    told.put(services={"default/web": service()})
    return sizes, sizes.pop(nodeslices.WAYS) - before


def test_a_new_service_is_told_by_itself_however_many_there_are():
    """Its cluster and endpoints; what all calls have in common grows by its address."""
    few, many = pushed_for_one_more(10), pushed_for_one_more(100)

    assert few == many
    assert few[0].keys() == {CLUSTER}
    assert few[1] < 32


def test_nobody_gets_around_a_waypoint(told):
    waypoint = wds.GatewayAddress(15008, host=("default", "waypoint"))
    told.put(
        services={"default/web": service(waypoint=waypoint)},
        workloads={"a": workload("a", waypoint=waypoint)},
    )

    name = "waypoint|15008||default/waypoint"
    assert told.endpoints == ()
    assert told.ways.services == (nodeslices.ServiceWay("10.96.0.1", 80, name),)
    (way,) = told.others.workloads
    assert way.waypoint == name


def test_a_waypoint_is_asked_by_tunnels_of_its_pods(told):
    ports = (wds.AddressPort(15008, 15008),)
    answers = {"services": (("default/waypoint", ports),)}
    told.put(
        services={"default/waypoint": dataclasses.replace(service("waypoint"), ports=ports)},
        workloads={
            "w": workload("w", **answers),
            "plain": workload("plain", takes_tunnels=False, **answers),
            "gone": workload("gone", is_healthy=False, **answers),
        },
    )

    found = told.slices(nodeslices.ServiceEndpoints)
    (endpoint,) = found["waypoint|15008||default/waypoint"].endpoints
    assert (endpoint.port, endpoint.is_asked) == (15008, True)
    assert endpoint.identity.service_account == "w"


def test_calls_that_a_service_passes_through_go_where_they_were_going(told):
    told.put(services={"default/web": service(is_passed_through=True)})

    assert told.ways.services == ()


def test_a_policy_that_changes_leaves_open_tunnels_open(told):
    """Their listener stays; what it goes by is told apart."""
    told.put(pods={"uid-a": pod("a")}, workloads={"a": workload("a")})
    before = told.slices(nodeslices.TunnelListener)
    policy = wds.AuthorizationSlice("default", "p", wds.Reach.NAMESPACE, Action.DENY, ((),))

    told.put(policies={"default/p": policy})

    assert told.slices(nodeslices.TunnelListener) == before
    assert told.slices(nodeslices.TunnelPolicies)["deny|uid-a"].policies == (policy,)
    assert told.slices(nodeslices.TunnelPolicies)["allow|uid-a"].policies == ()


def test_the_way_to_another_network_is_there_before_it_is_needed(told):
    """When the last near pod goes, nothing changes but endpoints."""
    elsewhere = NetworkId("other")
    where = wds.NetworkAddress(elsewhere, "10.9.9.9")
    door = workload(
        "NetworkGateway/other/10.9.9.9/15008", "10.9.9.9", network=elsewhere, services=()
    )
    hidden = workload(
        "hidden",
        network=elsewhere,
        addresses=(),
        gateway=wds.GatewayAddress(15008, address=where),
        capacity=3,
    )
    shared = service(nearness=(wds.Nearness.NETWORK,), sans=("spiffe://cluster.local/ns/a/sa/b",))
    told.put(
        services={"default/web": shared},
        workloads={"near": workload("near"), door.uid: door, "hidden": hidden},
    )
    seen = []
    told.graph.listen(lambda batch: seen.append(set(batch.of(told.proxy.slices))))
    doors = told.slices(nodeslices.Doors)

    assert [one.doors[0].weight for one in doors.values()] == [3]
    assert names(told.endpoints) == ["near"]
    told.put(workloads={"near": workload("near", is_healthy=False)})

    assert told.endpoints == ()
    assert told.slices(nodeslices.ServiceEndpoints)[CLUSTER].far == next(iter(doors))
    assert [{key.name for key in keys} for keys in seen] == [{CLUSTER}]


def test_each_pod_gets_its_share_wherever_it_is_where_all_are_alike(told):
    """A gateway stands for as many pods as are behind it."""
    elsewhere = NetworkId("other")
    where = wds.NetworkAddress(elsewhere, "10.9.9.9")
    door = workload(
        "NetworkGateway/other/10.9.9.9/15008", "10.9.9.9", network=elsewhere, services=()
    )
    gateway = wds.GatewayAddress(15008, address=where)
    hidden = workload("hidden", network=elsewhere, addresses=(), gateway=gateway, capacity=3)
    told.put(
        services={"default/web": service(sans=("spiffe://cluster.local/ns/a/sa/b",))},
        workloads={"near": workload("near"), door.uid: door, "hidden": hidden},
    )

    (found,) = [
        one for name, one in told.slices(nodeslices.ServiceEndpoints).items() if name == CLUSTER
    ]

    assert ([one.weight for one in found.endpoints], found.far_weight) == ([1], 3)
