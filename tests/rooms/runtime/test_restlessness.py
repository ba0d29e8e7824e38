"""Sets of endpoints that change often are told in parts to those who can be, one after the other."""

import pytest
import shop_objects

from isthmus.base import clock
from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.mesh.identities import ClusterId
from isthmus.resources import snapshot
from isthmus.runtime import assembly, connections, dumps, restlessness
from isthmus.wire import callers

C1 = ClusterId("c1")
AFTER = 3
READERS = 1000
SIZE = 80


def name_of(service):
    return f"outbound|80||{service}.shop.svc.cluster.local"


class Turned(clock.SystemClock):
    """Time that passes when a test says so."""

    def __init__(self):
        self.now_s = 1000.0

    def monotonic(self):
        return self.now_s


class Setting:
    """A compiler with two services, and one proxy that can be told in parts, or cannot."""

    def __init__(self, *, ways=assembly.USUAL, can=True):
        self.clock = Turned()
        self.changes = 0
        self.mesh = assembly.assemble(
            config_cluster=C1,
            revision="",
            system_namespace="istio-system",
            domain="cluster.local",
            ways=ways,
        )
        self.connections = connections.Connections(
            self.mesh, authenticator=None, unready=lambda _: ""
        )
        self.connections.tells_apart = True
        self.restlessness = restlessness.Restlessness(
            self.mesh, readers=self.readers, after=AFTER, system_clock=self.clock
        )
        for service in ("web", "api"):
            self.service(service)
            self.endpoints(service, 0)
        self.watch = self.come("a-1", can=can)
        self.size = len(self.watch.snapshot().of(snapshot.ENDPOINTS)[name_of("web")].body)
        # One more, because those before have faded a little by then.
        self.enough = restlessness.enough(self.size, after=AFTER) + 1

    def readers(self, scope):
        """Return how many proxies see a place, if each were a thousand."""
        return READERS * self.connections.seeing(scope)

    def come(self, pod, *, can=True, cluster=C1, network="n1"):
        """Let a proxy come."""
        node = shop_objects.node(pod=pod, follows_collections=can, network=network)
        return self.connections.open(callers.Caller(cluster, "shop", "default", pod), node)

    def service(self, name):
        self.put(self.mesh.sources.services, name, shop_objects.service(name))

    def endpoints(self, service, first, *, size=SIZE):
        """Give a service these endpoints, one of which is another one with each `first`."""
        labels = {"kubernetes.io/service-name": service}
        members = [objects.SliceEndpoint(addresses=(f"10.2.{first // 250}.{first % 250 + 1}",))]
        members += [
            objects.SliceEndpoint(addresses=(f"10.1.{n // 250}.{n % 250 + 1}",))
            for n in range(1, size)
        ]
        slice_ = objects.EndpointSlice(
            objects.Metadata(name=f"{service}-1", namespace="shop", labels=labels),
            endpoints=tuple(members),
            ports=(objects.EndpointPort(port=8080, name="http"),),
        )
        self.put(self.mesh.sources.endpoint_slices, f"{service}-1", slice_)

    def put(self, source, name, value):
        with self.mesh.graph.transaction() as transaction:
            transaction.put(source, ObjectKey(C1, "shop", name), value)

    def change(self, service, times, **fields):
        """Change it so often, each time a while after the last."""
        for _ in range(times):
            self.clock.now_s += restlessness.TOGETHER_S
            self.replace(service, **fields)

    def replace(self, service, **fields):
        """Replace one of its endpoints."""
        self.changes += 1
        self.endpoints(service, self.changes, **fields)

    def in_parts(self, watch=None):
        """Return the services whose endpoints are told in parts, to the first proxy or another."""
        found = (watch or self.watch).snapshot().of(snapshot.ENDPOINTS)
        assert set(found) == {name_of("web"), name_of("api")}
        return {name for name in ("web", "api") if found[name_of(name)].collections}


def test_what_has_changed_often_enough_is_told_in_parts_and_nothing_else():
    setting = Setting()
    setting.change("web", setting.enough - 1)
    assert setting.restlessness.step() is None
    assert setting.in_parts() == set()

    setting.change("web", 1)
    assert setting.restlessness.step() > 0
    assert setting.in_parts() == {"web"}
    assert setting.restlessness.step() is None


def test_what_changes_all_at_once_counts_once():
    setting = Setting()
    for _ in range(3 * setting.enough):
        setting.replace("web")

    assert setting.restlessness.step() is None
    assert setting.in_parts() == set()


def test_the_smaller_a_set_the_more_often_it_must_change():
    large = restlessness.enough(1_000_000, after=AFTER)
    assert large == AFTER
    assert (
        large < restlessness.enough(100_000, after=AFTER) < restlessness.enough(10_000, after=AFTER)
    )


def test_sets_that_wait_turn_together_and_a_rest_follows_twice_as_long_as_it_takes_to_tell():
    setting = Setting()
    setting.change("web", setting.enough)
    setting.change("api", setting.enough)

    rest_s = setting.restlessness.step()

    assert setting.in_parts() == {"web", "api"}
    cost_s = restlessness.MESSAGES_S + 2 * setting.size * restlessness.TURN * restlessness.BYTE_S
    assert rest_s == pytest.approx(2 * READERS * cost_s, rel=0.05)


def test_only_so_much_turns_together():
    setting = Setting()
    large = 1200
    for service in ("web", "api"):
        setting.endpoints(service, 0, size=large)
        setting.change(service, setting.enough, size=large)

    setting.restlessness.step()
    assert setting.in_parts() == {"web"}
    setting.restlessness.step()
    assert setting.in_parts() == {"web", "api"}


def test_proxies_of_one_network_turn_after_those_of_another():
    setting = Setting()
    other = setting.come("b-1", cluster=ClusterId("c2"), network="n2")
    setting.change("web", setting.enough)

    setting.restlessness.step()
    turned = [setting.in_parts(watch) for watch in (setting.watch, other)]
    assert sorted(map(len, turned)) == [0, 1]

    setting.restlessness.step()
    assert setting.in_parts() == setting.in_parts(other) == {"web"}
    assert setting.restlessness.step() is None


def test_what_rests_for_a_while_is_told_whole_again():
    setting = Setting()
    setting.change("web", setting.enough)
    setting.restlessness.step()
    setting.clock.now_s += restlessness.QUIET_S - 1
    assert setting.restlessness.step() is None
    setting.change("web", 1)
    setting.clock.now_s += 2
    assert setting.restlessness.step() is None
    assert setting.in_parts() == {"web"}

    setting.clock.now_s += restlessness.QUIET_S
    assert setting.restlessness.step() > 0
    assert setting.in_parts() == set()
    assert setting.restlessness.step() is None


def test_to_be_told_whole_again_is_no_change_of_a_set():
    setting = Setting()
    setting.change("web", setting.enough)
    setting.restlessness.step()
    setting.clock.now_s += restlessness.QUIET_S
    setting.restlessness.step()

    setting.change("web", setting.enough - 1)
    assert setting.restlessness.step() is None

    setting.change("web", 1)
    setting.restlessness.step()
    assert setting.in_parts() == {"web"}


def test_changes_fade_so_that_what_changes_now_and_then_is_told_whole_for_ever():
    setting = Setting()
    for _ in range(3 * setting.enough):
        setting.change("web", 1)
        setting.clock.now_s += restlessness.QUIET_S / 10
        assert setting.restlessness.step() is None

    assert setting.in_parts() == set()


def test_a_small_set_is_always_told_whole():
    setting = Setting()
    setting.change("web", 10 * setting.enough, size=2)

    assert setting.restlessness.step() is None


def test_nothing_turns_where_nobody_can_be_told_in_parts():
    setting = Setting(can=False)
    setting.change("web", 10 * setting.enough)

    assert setting.restlessness.step() is None
    assert setting.in_parts() == set()


def test_all_sets_are_told_in_parts_from_the_first_on_where_that_is_wished():
    assert Setting(ways=assembly.Ways(tells_all_in_parts=True)).in_parts() == {"web", "api"}


def test_what_is_told_in_parts_is_shown_as_what_is_told_whole():
    whole, parts = Setting(), Setting(ways=assembly.Ways(tells_all_in_parts=True))

    def shown(setting):
        found = dumps.assignments(setting.watch.snapshot())
        for group in (group for one in found for group in one["endpoints"]):
            group.pop("load_balancing_weight", None)  # Where nobody looks at it, it is left out.
        return found

    assert shown(parts) == shown(whole)
    assert len(shown(parts)[0]["endpoints"][0]["lb_endpoints"]) == SIZE


def test_a_change_of_what_is_told_in_parts_concerns_the_collection_alone():
    setting = Setting(ways=assembly.Ways(tells_all_in_parts=True))
    heard = []
    setting.watch.on_change(heard.append)

    setting.endpoints("web", 1)

    (changed,) = heard
    assert set(changed) == {snapshot.MEMBERS}
    assert len(changed[snapshot.MEMBERS]) == 1
