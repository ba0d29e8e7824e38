"""Whatever is demanded, and however the mesh changes: nothing stale, nothing missing, nobody waits."""

import node_proxy
from hypothesis import example, given, settings
from hypothesis import strategies as st

from isthmus.resources import versions
from isthmus.resources.snapshot import ADDRESSES, Leads, Snapshot
from isthmus.runtime import catalog
from isthmus_proto.istio.workload import workload_pb2

SERVICES = [f"default/s{number}" for number in range(3)]
WORKLOADS = [f"east//Pod/default/w{number}" for number in range(4)]
NODE = frozenset({"//Node/east/n"})
NAMES = [*SERVICES, *WORKLOADS, *(f"n1/{number}" for number in range(8)), "default/nobody"]

RESOURCES = st.sampled_from([*SERVICES, *WORKLOADS])
ACTIONS = st.one_of(
    st.tuples(st.just("demand"), st.sampled_from(NAMES)),
    st.tuples(st.just("put"), RESOURCES, st.integers(0, 3), st.sets(st.sampled_from(SERVICES))),
    st.tuples(st.just("remove"), RESOURCES),
    st.tuples(st.just("listen")),
    st.tuples(st.just("come again")),
)


class World:
    """What there is, and a node proxy that demands of it."""

    def __init__(self, wholes):
        self.there = {name: (0, set()) for name in SERVICES}
        self.there |= {name: (0, of) for name, of in zip(WORKLOADS, wholes, strict=True)}
        self.client = node_proxy.NodeProxy(on_demand=True)
        self.demanded = set()
        self.before = self.told()
        self.client.connect()
        self.client.talk.given(self.before)

    def told(self):
        shelf = catalog.Shelf()
        for name, (version, wholes) in self.there.items():
            shelf.put(ADDRESSES, name, resource(name, version, wholes))
        leads = {kind: Leads(related, NODE) for kind, related in shelf.related.items()}
        return Snapshot(shelf.by_type, leads)

    def act(self, what, *said):
        match what:
            case "demand":
                self.demanded.add(said[0])
                self.client.demand(said[0])
            case "put":
                name, version, wholes = said
                self.there[name] = (version, wholes if name in WORKLOADS else set())
                self.changed()
            case "remove":
                self.there.pop(said[0], None)
                self.changed()
            case "listen":
                self.client.listen()
            case _:
                # Names are not told again on a new stream: what they led to is.
                self.client.listen()
                self.demanded &= self.client.known[ADDRESSES].keys()
                self.client.connect()
                self.client.talk.given(self.before)

    def changed(self):
        now = self.told()
        self.client.talk.given(now, node_proxy.difference(self.before, now))
        self.before = now

    def missing(self):
        resources, leads = self.before.of(ADDRESSES), self.before.leads_of(ADDRESSES)
        wanted = set(self.demanded)
        for _ in range(2):
            wanted |= {one for name in wanted for one in leads.related.get(name, ())}
        wanted |= {one for name in NODE for one in leads.related.get(name, ())}
        return (wanted & resources.keys()) - self.client.holds[ADDRESSES].keys()


def resource(name, version, wholes):
    """Return a resource of which the last digit of the name is its address, too."""
    number = NAMES.index(name)
    if name in SERVICES:
        namespace, host = name.split("/")
        said = workload_pb2.Service(namespace=namespace, hostname=host, name=str(version))
        body = workload_pb2.Address(service=said)
    else:
        said = workload_pb2.Workload(uid=name, name=str(version))
        body = workload_pb2.Address(workload=said)
    parts = (*sorted(wholes), *(NODE if number % 2 and name in WORKLOADS else ()))
    return versions.resource(ADDRESSES, body, name=name, aliases=(f"n1/{number}",), parts_of=parts)


WHOLES = st.tuples(*[st.sets(st.sampled_from(SERVICES))] * len(WORKLOADS))


ALL = [{SERVICES[0]}] * len(WORKLOADS)
HEARD = [("demand", SERVICES[0]), ("listen",)]


@example(ALL, [*HEARD, ("remove", WORKLOADS[1])])
@example(ALL, [*HEARD, ("put", WORKLOADS[1], 1, set())])
@example(ALL, [*HEARD, ("come again",), ("put", WORKLOADS[1], 1, set())])
@settings(max_examples=300, deadline=None)
@given(WHOLES, st.lists(ACTIONS, max_size=25))
def test_what_was_demanded_is_held_as_it_is(wholes, history):
    world = World(wholes)
    for action in history:
        world.act(*action)
    world.client.listen()

    held = world.client.holds[ADDRESSES]
    there = world.before.of(ADDRESSES)
    assert held.keys() <= there.keys()
    assert {name: one.SerializeToString() for name, one in held.items()} == {
        name: there[name].body for name in held
    }
    assert not world.missing()
    assert not world.client.waits_for
