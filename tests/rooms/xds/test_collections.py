"""Members of collections: who names a collection hears what it has not, and what is gone."""

import functools

from isthmus.resources.snapshot import ENDPOINTS, MEMBERS, Contents, Resource, Snapshot
from isthmus.xds import collections, session
from isthmus.xds.messages import Flavour, Request

WEB = "xdstp://isthmus/envoy.config.endpoint.v3.LbEndpoint/web/a/*"
WEB_LATER = WEB.replace("/a/", "/b/")


def members(versions):
    prefix = WEB.removesuffix("*")
    found = (Resource(MEMBERS, prefix + name, said, b"x") for name, said in versions.items())
    return {one.name: one for one in found}


def collection(**versions):
    edition = Contents.made(repr(sorted(versions.items())), functools.partial(members, versions))
    return Resource(MEMBERS, WEB, edition, b"")


def world(**versions):
    """Return a mesh of one service, whose endpoints have these versions; none without."""
    held = collection(**versions) if versions else None
    parts = (held,) if held else ()
    body = b"told in " + WEB.encode()
    assignment = Resource(ENDPOINTS, "web", "1-a", body, collections=parts)
    return Snapshot({ENDPOINTS: {"web": assignment}, MEMBERS: {WEB: held} if held else {}})


class Client:
    """Names one collection, and has what it was told."""

    def __init__(self, seen, name=WEB, **first):
        self.session = session.Session(Flavour.DELTA)
        self.session.given(seen)
        if first:
            self.session.heard(Request(ENDPOINTS, subscribe=("web",), **first))
            self.assignment = self.session.next()
        self.session.heard(Request(MEMBERS, subscribe=(name,)))

    def told(self, error=None):
        """Return what the next message says; refuse it with an error."""
        offer = self.session.next()
        if offer is None:
            return None
        self.session.heard(Request(MEMBERS, nonce=offer.nonce, error=error))
        names = {one.name.rpartition("/")[2]: one.version for one in offer.resources}
        return names, [name.rpartition("/")[2] for name in offer.removed]

    def given(self, seen):
        self.session.given(seen, {MEMBERS: frozenset({WEB})})


def test_who_names_a_collection_hears_its_members_and_then_their_changes_alone():
    client = Client(world(one="1", two="1"))
    assert client.told() == ({"one": "1", "two": "1"}, [])

    client.given(world(one="1", two="2", three="1"))
    assert client.told() == ({"two": "2", "three": "1"}, [])
    client.given(world(three="1"))
    assert client.told() == ({}, ["one", "two"])
    client.given(world(three="1"))
    assert client.told() is None


def test_who_waits_for_a_collection_that_is_not_there_hears_that():
    client = Client(world())
    assert client.told() == ({}, ["*"])

    client.given(world(one="1"))
    assert client.told() == ({"one": "1"}, [])


def test_all_is_told_again_after_a_refusal_as_soon_as_anything_changes():
    client = Client(world(one="1", two="1"))
    client.told()
    client.given(world(one="1", two="bad"))
    assert client.told(error="two is bad") == ({"two": "bad"}, [])
    assert client.told() is None

    client.given(world(one="1", two="2"))
    assert client.told() == ({"one": "1", "two": "2"}, [])


def test_who_comes_again_gets_other_collections_of_which_it_has_nothing():
    client = Client(world(one="1"), WEB_LATER, initial_versions={"web": "1-a"})

    [assignment] = client.assignment.resources
    assert (assignment.version, assignment.body) == ("1-b", b"told in " + WEB_LATER.encode())
    assert client.session.heeds(MEMBERS) == {WEB}
    offer = client.session.next()
    assert [one.name for one in offer.resources] == [WEB_LATER.replace("*", "one")]


def test_a_turn_is_taken_that_no_assignment_of_the_client_has():
    assert collections.turn_after({}) == "a"
    assert collections.turn_after({"x": "1-a", "y": "2-c", "z": "told whole"}) == "b"
    letters = "abcdefghijklmnopqrstuvwxyz"
    assert collections.turn_after({letter: f"1-{letter}" for letter in letters}) == "a"
