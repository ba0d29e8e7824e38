"""Addresses of our own making: the same everywhere, never one for two, and they stay."""

import ipaddress
import itertools

from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.engine import graph
from isthmus.mesh import allocations
from isthmus.mesh.identities import Hostname
from isthmus.mesh.services import Resolution, Service, ServiceKey
from isthmus.views import allocation


class World:
    """Services, and the addresses that follow."""

    def __init__(self):
        self.graph = graph.Graph()
        self.services = self.graph.source("services")
        self.recorded = self.graph.source("recorded")
        self.allocated = allocation.declare(self.graph, self.services, recorded=self.recorded)

    def put(self, *services):
        with self.graph.transaction() as transaction:
            for one in services:
                transaction.put(self.services, one.key, one)

    def delete(self, *services):
        with self.graph.transaction() as transaction:
            for one in services:
                transaction.delete(self.services, one.key)

    @property
    def addresses(self):
        found = self.graph.items(self.allocated).items()
        return {key.name: address for key, address in found}


def service(name, created="", resolution=Resolution.VIP):
    host = Hostname(f"{name}.default.svc.cluster.local")
    return Service(ServiceKey("default", name), host, (), resolution, created=created)


def rivals(count):
    """Return names whose first places are the same."""
    by_place = {}
    numbers, same = itertools.count(), []
    while len(same) < count:
        name = f"s{next(numbers)}"
        same = by_place.setdefault(allocation.place_of(service(name).hostname), [])
        same.append(name)
    return same


def test_the_address_of_a_name_is_always_this_one():
    world = World()
    world.put(service("helloworld"))

    assert world.addresses == {"helloworld": "240.240.20.173"}


def test_all_addresses_are_usable_ones_of_the_range():
    world = World()
    world.put(*(service(f"s{number}") for number in range(3000)))
    found = [ipaddress.IPv4Address(one) for one in world.addresses.values()]

    assert len(set(found)) == 3000
    assert all(one in allocations.USUAL.ipv4 and one.packed[3] not in (0, 255) for one in found)


def test_the_older_service_keeps_its_address():
    first, second = rivals(2)
    world = World()
    world.put(service(second, created="2026-01-01T00:00:00Z"))
    before = world.addresses[second]
    world.put(service(first, created="2026-01-02T00:00:00Z"))

    assert world.addresses[second] == before
    assert world.addresses[first] != before


def test_a_service_that_moved_returns_when_its_place_is_free():
    first, second = rivals(2)
    world = World()
    world.put(service(first), service(second))
    moved = world.addresses[second]
    world.delete(service(first))

    assert world.addresses[second] != moved
    assert world.addresses[second] == allocations.USUAL.address_at(
        allocation.place_of(service(second).hostname)
    )


def test_headless_services_and_other_names_need_none():
    world = World()
    world.put(service("a", resolution=Resolution.HEADLESS))
    world.put(service("b", resolution=Resolution.ALIAS))

    assert world.addresses == {}


def test_one_more_service_computes_no_other_again():
    world = World()
    world.put(*(service(f"s{number}") for number in range(500)))
    world.put(service("another"))

    assert world.graph.recomputed() < 6


NAMES = [*rivals(4), *(f"other{number}" for number in range(4))]
CHANGES = st.lists(
    st.tuples(st.sampled_from(NAMES), st.sampled_from(["", "2026-01-01", "2026-01-02", "gone"])),
    max_size=12,
)


@settings(max_examples=100, deadline=None)
@given(CHANGES)
def test_addresses_follow_from_what_there_is_and_not_from_how_it_came(history):
    world, there = World(), {}
    for name, created in history:
        if created == "gone":
            there.pop(name, None)
            world.delete(service(name))
        else:
            there[name] = service(name, created)
            world.put(there[name])
    fresh = World()
    fresh.put(*reversed(list(there.values())))

    assert world.addresses == fresh.addresses
    assert len(set(world.addresses.values())) == len(there)
