"""What is shared between streams, and that it says what each would have been told alone."""

import dataclasses
import weakref

from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from isthmus.resources.snapshot import CLUSTERS, Resource
from isthmus.wire import encoding, printing
from isthmus.wire.h2 import frames, outlet
from isthmus.xds.messages import Flavour, Offer, Request

DELTA = Flavour.DELTA


def offer(*names, nonce="n", body=b"x"):
    resources = tuple(Resource(CLUSTERS, name, "1", body) for name in names)
    return Offer(CLUSTERS, "v", nonce, resources)


def test_equal_offers_are_printed_once():
    press, first = printing.Press(), offer("a", "b")
    second = dataclasses.replace(first, resources=(*first.resources,))

    assert press.printed(first, flavour=DELTA) is press.printed(second, flavour=DELTA)


def test_a_digest_alone_shares_nothing():
    """Whoever makes two resources with one digest reads nobody's but his own."""
    press = printing.Press()
    mine, theirs = offer("a", body=b"mine"), offer("a", body=b"theirs")

    assert b"theirs" not in press.printed(mine, flavour=DELTA).message.body
    assert b"theirs" in press.printed(theirs, flavour=DELTA).message.body
    assert b"mine" in press.printed(mine, flavour=DELTA).message.body


def test_what_is_kept_is_bounded():
    press = printing.Press()
    some = b"x" * (printing.MOST_KEPT_BYTES // 8)
    offers = [offer("a", nonce=str(number), body=some) for number in range(10)]
    printed = [weakref.ref(press.printed(each, flavour=DELTA)) for each in offers]

    assert [one() is None for one in printed] == [True] * 3 + [False] * 7


def test_what_somebody_has_not_sent_yet_is_shared_however_much_it_is():
    """Of clients that come together each would have a copy of its own."""
    press = printing.Press()
    some = b"x" * (printing.MOST_KEPT_BYTES // 2)
    offers = [offer("a", nonce=str(number), body=some) for number in range(4)]
    unsent = [press.printed(each, flavour=DELTA) for each in offers]

    assert [press.printed(each, flavour=DELTA) for each in offers] == unsent


def test_what_nobody_is_told_any_more_is_forgotten():
    press, mine = printing.Press(), offer("a")
    printed = weakref.ref(press.printed(mine, flavour=DELTA))

    assert press.age()
    assert press.printed(mine, flavour=DELTA) is printed()
    assert press.age()
    assert not press.age()
    assert printed() is None


requests = st.builds(
    discovery_pb2.DeltaDiscoveryRequest,
    type_url=st.sampled_from([CLUSTERS, "", "other"]),
    response_nonce=st.text(max_size=20),
    resource_names_subscribe=st.lists(st.text(max_size=5), max_size=3),
    initial_resource_versions=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)


@given(st.lists(requests, max_size=5))
def test_requests_that_are_remembered_are_what_the_library_reads(several):
    press = printing.Press()
    for parsed in several * 2:
        content = parsed.SerializeToString()
        found = press.request(content, flavour=DELTA)

        assert found == encoding.request(content, flavour=DELTA)[0]
        assert isinstance(found, Request)


@given(st.binary(max_size=40_000), st.integers(1, 9), st.integers(1, 9))
def test_a_message_is_framed_as_it_is(content, stream, other):
    message = outlet.Message(content)
    message.framed(other)
    framed, offset, found = message.framed(stream), 0, b""
    while offset < len(framed):
        size, kind, flags, of = frames.head_at(framed, offset)
        assert (kind, flags, of) == (frames.DATA, 0, stream)
        assert size <= frames.LARGEST
        offset += frames.HEAD_BYTES
        found += framed[offset : offset + size]
        offset += size

    assert found == b"\0" + len(content).to_bytes(4, "big") + content == message.body
    assert message.size == len(found)
