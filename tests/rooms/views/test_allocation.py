"""Addresses of our own making: the same everywhere, never one for two, and they stay."""

import ipaddress
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.engine import graph
from isthmus.mesh import allocations
from isthmus.mesh.identities import Hostname
from isthmus.mesh.services import Entry, Resolution, Service, ServiceKey
from isthmus.views import allocation


class World:
    """Services, and the addresses that follow."""

    def __init__(self, ranges=allocations.USUAL):
        self.graph = graph.Graph()
        self.services = self.graph.source("services")
        self.recorded = self.graph.source("recorded")
        self.nodes = allocation.declare(
            self.graph, self.services, recorded=self.recorded, ranges=ranges
        )

    def put(self, *services):
        with self.graph.transaction() as transaction:
            for one in services:
                transaction.put(self.services, one.key, one)

    def record(self, service, address):
        with self.graph.transaction() as transaction:
            written = allocations.Recorded(service.hostname, address)
            transaction.put(self.recorded, service.key, written)

    def delete(self, *services):
        with self.graph.transaction() as transaction:
            for one in services:
                transaction.delete(self.services, one.key)

    @property
    def refused(self):
        return dict(self.graph.items(self.nodes.refused))

    @property
    def addresses(self):
        found = self.graph.items(self.nodes.allocated).items()
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


# --- what was written down, and what somebody has chosen


def entry(name, *addresses, created=""):
    host = Hostname(f"{name}.example.com")
    said = Entry(name, addresses=addresses, wants_address=not addresses)
    return Service(ServiceKey("default", host), host, (), created=created, entry=said)


def test_an_address_that_was_written_down_is_kept():
    world = World()
    one = service("helloworld")
    world.put(one)
    world.record(one, "240.240.9.9")

    assert world.addresses == {"helloworld": "240.240.9.9"}


def test_of_two_that_were_written_down_the_older_keeps_it():
    world = World()
    young, old = service("a", created="2026-02-01"), service("b", created="2026-01-01")
    world.put(young, old)
    for one in (young, old):
        world.record(one, "240.240.9.9")

    assert world.addresses["b"] == "240.240.9.9"
    assert world.addresses["a"] == allocations.USUAL.address_at(allocation.place_of(young.hostname))


def test_what_was_written_down_counts_before_an_older_that_was_not():
    first, second = rivals(2)
    world = World()
    world.put(service(first, created="2026-02-01"))
    place = world.addresses[first]
    world.record(service(first), place)
    world.put(service(second, created="2026-01-01"))

    assert world.addresses[first] == place
    assert world.addresses[second] != place


@pytest.mark.parametrize("address", ["10.0.0.1", "240.240.0.0", "240.240.3.255", "2001:2::1", "x"])
def test_what_is_none_of_our_addresses_is_not_kept(address):
    world = World()
    one = service("helloworld")
    world.put(one)
    before = world.addresses
    world.record(one, address)

    assert world.addresses == before


def test_an_address_that_somebody_has_chosen_is_given_to_nobody_else():
    world = World()
    one = service("helloworld")
    world.put(one)
    (taken,) = world.addresses.values()
    world.put(entry("mine", taken, created="2026-03-01"))

    assert taken not in world.addresses.values()
    assert set(world.addresses) == {"helloworld"}
    assert world.refused == {}


@pytest.mark.parametrize("is_recorded", [True, False])
def test_an_address_that_was_given_before_stays_whose_it_is(is_recorded):
    """Or anybody could take calls from others by writing their address down."""
    world = World()
    one = entry("one", created="2026-03-01")
    world.put(one)
    (given_,) = world.addresses.values()
    if is_recorded:
        world.record(one, given_)
    thief = entry("thief", given_, created="2026-01-01" if is_recorded else "2026-04-01")
    world.put(thief)

    assert list(world.addresses.values()) == [given_]
    assert world.refused == {(thief.key, given_): one.key}


# --- ranges


@pytest.mark.parametrize(
    "ipv4", ["240.240.0.0/16", "198.18.0.0/24", "198.18.4.16/28", "10.0.0.0/8"]
)
def test_every_place_of_a_range_has_one_address(ipv4):
    found = allocations.ranges(ipv4, "2001:2::/48")
    places = [*range(min(found.places, 1000)), found.places - 1]
    addresses = [found.address_at(place) for place in places]

    assert [found.place_at(one) for one in addresses] == places
    assert all(found.contains(one) and found.contains(found.twin_of(one)) for one in addresses)
    assert len({found.twin_of(one) for one in addresses}) == len(set(places))


@pytest.mark.parametrize(
    ("ipv4", "ipv6"),
    [
        ("240.240.0.0/30", "2001:2::/48"),
        ("0.0.0.0/4", "2001:2::/48"),
        ("240.240.0.1/16", "2001:2::/48"),
        ("240.240.0.0/16", "2001:2::/120"),
        ("here", "2001:2::/48"),
        ("240.240.0.0/16", "240.0.0.0/8"),
    ],
)
def test_a_range_that_cannot_be_used_is_refused(ipv4, ipv6):
    with pytest.raises(allocations.RangeUnusable):
        allocations.ranges(ipv4, ipv6)


def test_a_range_that_is_full_gives_nobody_anothers_address():
    small = allocations.ranges("198.18.0.0/28", "2001:2::/48")
    world = World(small)
    world.put(*(service(f"s{number}", created=f"{number:02}") for number in range(20)))

    found = list(world.addresses.values())

    assert len(found) == len(set(found)) <= small.places
