"""What is recognised of those who come again is what parsing it would give."""

import random

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.resources.snapshot import CLUSTERS, ENDPOINTS
from isthmus.wire import encoding, printing, returning
from isthmus.xds.messages import Flavour

NODE = {"id": "sidecar~10.0.0.1~a-1.shop~shop.svc.cluster.local"}
HAS = {
    f"outbound|80||{'*.' * (number % 3)}s{number}{'x' * (number % 60)}.shop.svc": f"{number:012x}"
    for number in range(200)
}
"""Of all lengths, so that bytes that begin an entry stand in others, too."""


def asked(*, names=(), **more):
    return discovery_pb2.DeltaDiscoveryRequest(
        **{"type_url": ENDPOINTS, "resource_names_subscribe": names, **more}
    )


def claim(versions, *, seed=0, names=tuple(HAS)[:40], **more):
    """Return a request as Envoy sends it: its table of versions is in no order."""
    said = asked(names=names, **more).SerializeToString()
    entries = [
        asked(type_url="", initial_resource_versions=dict([one])) for one in versions.items()
    ]
    random.Random(seed).shuffle(entries)
    return said + b"".join(one.SerializeToString() for one in entries)


def parsed(content):
    return encoding.request(content, flavour=Flavour.DELTA)


def opened(press, content):
    return press.opening(content, flavour=Flavour.DELTA)


def test_the_same_versions_are_recognised_in_any_order_and_of_any_node():
    press = printing.Press()
    first, _ = opened(press, claim(HAS, seed=1, node=NODE))
    other = {**NODE, "id": NODE["id"].replace("a-1", "b-1")}
    again, node = opened(press, claim(HAS, seed=2, node=other))

    assert again is first
    assert first == parsed(claim(HAS))[0]
    assert node.id == other["id"]


def test_what_is_made_of_them_is_made_once():
    press, calls = printing.Press(), []

    def counted(versions):
        calls.append(versions)
        return len(versions)

    found = [opened(press, claim(HAS, seed=seed))[0].made(counted) for seed in range(3)]

    assert found == [len(HAS)] * 3
    assert len(calls) == 1


MORE = {**HAS, "more": "1"}
LESS = dict(list(HAS.items())[1:])
OTHER = {**HAS, next(iter(HAS)): "another"}
SWAPPED = {**HAS, **dict(zip(list(HAS)[:2], [HAS[one] for one in list(HAS)[1::-1]], strict=True))}


@pytest.mark.parametrize(
    "content",
    [
        claim(MORE),
        claim(LESS),
        claim(OTHER),
        claim(SWAPPED),
        claim(HAS, names=tuple(HAS)[:39]),
        claim(HAS, type_url=CLUSTERS),
        claim(HAS) + asked(type_url="", response_nonce="n").SerializeToString(),
        claim(HAS) + asked(type_url="", initial_resource_versions={"s": "1"}).SerializeToString(),
        claim(HAS) + claim(dict([next(iter(HAS.items()))]), names=(), type_url=""),
    ],
)
def test_what_is_anything_else_is_read_as_it_is(content):
    press = printing.Press()
    first, _ = opened(press, claim(HAS))

    assert opened(press, content) == parsed(content)
    assert opened(press, content)[0] is not first


def test_a_node_that_cannot_be_read_is_refused_however_well_the_rest_is_known():
    press = printing.Press()
    opened(press, claim(HAS, node=NODE))

    with pytest.raises(encoding.MessageRefused):
        opened(press, b"\x0a\x02\xff\xff" + claim(HAS))


TEXTS = st.text("*\n\x12 a|é", max_size=9)
SEVERAL = st.lists(st.dictionaries(TEXTS, TEXTS, min_size=16, max_size=18), min_size=1, max_size=3)


@settings(max_examples=100)
@given(SEVERAL, st.lists(TEXTS, max_size=3), st.booleans())
def test_what_is_recognised_is_what_was_said(several, names, has_node):
    press, node = printing.Press(), {"node": NODE} if has_node else {}
    for seed in range(2):
        for versions in several:
            content = claim(versions, seed=seed, names=names, **node)
            request, said = opened(press, content)
            wanted, wanted_node = parsed(content)
            assert request == wanted
            assert (said is None) is (wanted_node is None)


@settings(max_examples=50)
@given(st.binary(max_size=200), st.integers(0, 300))
def test_odd_bytes_are_left_to_the_parser(odd, at):
    press, good = printing.Press(), claim(HAS, node=NODE)
    opened(press, good)
    for content in (odd, good[:at] + odd + good[at:], good[:at] + odd):
        try:
            wanted = parsed(content)
        except encoding.MessageRefused:
            with pytest.raises(encoding.MessageRefused):
                opened(press, content)
        else:
            assert opened(press, content)[0] == wanted[0]


def test_only_so_much_is_remembered_and_not_for_long():
    contents = [claim({**HAS, "more": "x" * number}) for number in range(1, 9)]
    known = returning.Returns(4 * returning.HELD * len(contents[-1]))
    for content in contents:
        known.note(content, parsed(content)[0])

    assert 0 < sum(known.request(one) is not None for one in contents) < len(contents)
    assert known.age()
    assert not known.age()
    assert known.request(contents[-1]) is None
