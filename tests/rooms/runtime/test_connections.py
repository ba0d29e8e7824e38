"""What each connected proxy should have, from the objects of clusters."""

import asyncio

import pytest
import shop_objects

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import snapshot
from isthmus.runtime import assembly, connections, viewing
from isthmus.wire import ads, callers, nodes

C1 = ClusterId("c1")
NAME = "outbound|80||web.shop.svc.cluster.local"


class Setting:
    """A compiler with one service, and a door for proxies."""

    def __init__(self, most_views=10):
        self.mesh = assembly.assemble(
            config_cluster=C1, revision="", system_namespace="istio-system", domain="cluster.local"
        )
        self.reason = self.unlinked = ""
        self.connections = connections.Connections(
            self.mesh,
            authenticator=None,
            unready=lambda cluster: self.reason,
            unlinked=lambda: self.unlinked,
            node_accounts=[("istio-system", "ztunnel")],
        )
        self.connections.views = viewing.Views(most=most_views)
        self.service("web")
        self.endpoint("10.0.0.1")

    def service(self, name):
        self.put(self.mesh.sources.services, name, shop_objects.service(name))

    def endpoint(self, *addresses):
        slice_ = objects.EndpointSlice(
            objects.Metadata(
                name="web-1", namespace="shop", labels={"kubernetes.io/service-name": "web"}
            ),
            endpoints=tuple(objects.SliceEndpoint(addresses=(one,)) for one in addresses),
            ports=(objects.EndpointPort(port=8080, name="http"),),
        )
        self.put(self.mesh.sources.endpoint_slices, "web-1", slice_)

    def put(self, source, name, value):
        with self.mesh.graph.transaction() as transaction:
            transaction.put(source, ObjectKey(C1, "shop", name), value)

    def connect(self, pod="a-1", namespace="shop", kind=ProxyKind.SIDECAR, account="default"):
        node = shop_objects.node(pod, namespace, kind)
        return self.connections.open(callers.Caller(C1, namespace, account, pod), node)


def addresses(watch):
    assignment = snapshot.Resource
    found = watch.snapshot().of(snapshot.ENDPOINTS)
    assert all(isinstance(one, assignment) for one in found.values())
    return found[NAME].body


async def test_a_proxy_is_given_the_services_of_the_mesh():
    setting = Setting()

    watch = setting.connect()

    assert NAME in watch.snapshot().of(snapshot.CLUSTERS)
    assert b"10.0.0.1" in addresses(watch)


async def test_a_change_wakes_those_who_see_it_with_the_names_that_changed():
    setting = Setting()
    watch, woken = setting.connect(), []
    watch.on_change(woken.append)

    setting.endpoint("10.0.0.1", "10.0.0.2")

    assert woken == [{snapshot.ENDPOINTS: frozenset({NAME})}]
    assert b"10.0.0.2" in addresses(watch)


async def test_nothing_is_handed_out_before_the_mesh_is_known():
    setting = Setting()
    setting.reason = "not all clusters are known yet"

    with pytest.raises(ads.NotReady, match="not all clusters"):
        setting.connect()


async def test_proxies_that_see_the_same_share_one_resource():
    setting = Setting()

    one = setting.connect("a-1").snapshot().of(snapshot.CLUSTERS)[NAME]
    two = setting.connect("a-2").snapshot().of(snapshot.CLUSTERS)[NAME]

    assert one is two


async def test_what_nobody_sees_is_not_kept():
    setting = Setting()
    watches = [setting.connect("a-1"), setting.connect("a-2")]
    assert setting.mesh.graph.items(setting.mesh.resources)

    watches[0].close()
    assert setting.mesh.graph.items(setting.mesh.resources)
    watches[1].close()
    watches[1].close()

    assert not setting.mesh.graph.items(setting.mesh.resources)
    assert not setting.mesh.graph.items(setting.mesh.views.proxies)


async def test_a_proxy_whose_pod_becomes_part_of_a_service_is_told_its_inbound_port():
    setting = Setting()
    watch, woken = setting.connect(), []
    watch.on_change(woken.append)
    before = watch.snapshot().of(snapshot.LISTENERS)["virtualInbound"].version

    setting.endpoint("10.0.0.1", "10.0.0.7")
    await asyncio.sleep(0)

    assert watch.snapshot().of(snapshot.LISTENERS)["virtualInbound"].version != before
    assert any("virtualInbound" in names.get(snapshot.LISTENERS, ()) for names in woken)


async def test_what_a_proxy_goes_on_seeing_stays_when_it_sees_something_else_besides():
    setting = Setting()
    watch = setting.connect()

    setting.endpoint("10.0.0.1", "10.0.0.7")
    await asyncio.sleep(0)

    assert NAME in watch.snapshot().of(snapshot.CLUSTERS)
    assert b"10.0.0.7" in addresses(watch)


async def test_a_proxy_is_told_the_names_that_it_no_longer_sees():
    setting = Setting()
    setting.endpoint("10.0.0.1", "10.0.0.7")
    watch, woken = setting.connect(), []
    watch.on_change(woken.append)
    before = watch.snapshot()
    seen = {kind: set(before.of(kind)) for kind in snapshot.PUSH_ORDER}

    setting.endpoint("10.0.0.1")
    await asyncio.sleep(0)

    after = watch.snapshot()
    for kind in snapshot.PUSH_ORDER:
        gone = seen[kind] - set(after.of(kind))
        assert gone <= {name for names in woken for name in names.get(kind, ())}
    assert "inbound|8080||" in seen[snapshot.CLUSTERS] - set(after.of(snapshot.CLUSTERS))


def test_a_node_proxy_is_told_of_workloads_and_nobody_else_is():
    setting = Setting()
    watch = setting.connect("ztunnel-1", "istio-system", ProxyKind.ZTUNNEL, "ztunnel")

    assert "shop/web.shop.svc.cluster.local" in watch.snapshot().of(snapshot.ADDRESSES)
    assert not watch.snapshot().of(snapshot.CLUSTERS)
    assert not setting.connect().snapshot().of(snapshot.ADDRESSES)


async def test_who_would_lose_what_linked_clusters_share_waits_for_these_and_nobody_else():
    setting = Setting()
    setting.unlinked = "linked clusters were not heard yet: beta"
    with pytest.raises(ads.NotReady, match="beta"):
        setting.connect("ztunnel-1", "istio-system", ProxyKind.ZTUNNEL, "ztunnel")
    # Links lead through gateways, which must learn of a new control plane for that.
    setting.connect("gateway-1", kind=ProxyKind.ROUTER)
    setting.connect()

    setting.unlinked = ""
    setting.connect("ztunnel-1", "istio-system", ProxyKind.ZTUNNEL, "ztunnel")


async def test_where_there_are_enough_views_those_who_need_another_wait_and_others_do_not():
    setting = Setting(most_views=1)
    watch = setting.connect("a-1")

    with pytest.raises(ads.NotReady, match="views of the mesh"):
        setting.connect("a-2", "other")

    assert len(setting.mesh.graph.items(setting.mesh.views.proxies)) == 1
    setting.connect("a-3")
    watch.close()


async def test_no_control_plane_of_another_cluster_is_told_what_proxies_are():
    with pytest.raises(nodes.NodeRefused):
        Setting().connect("istiod-1", "istio-system", ProxyKind.CONTROL_PLANE, "istiod")


@pytest.mark.parametrize(("namespace", "account"), [("shop", "ztunnel"), ("istio-system", "other")])
def test_who_only_says_that_it_is_a_node_proxy_is_refused(namespace, account):
    setting = Setting()
    with pytest.raises(nodes.NodeRefused, match="none of a node proxy") as refused:
        setting.connect("ztunnel-1", namespace, ProxyKind.ZTUNNEL, account)

    assert refused.value.status == "PERMISSION_DENIED"
