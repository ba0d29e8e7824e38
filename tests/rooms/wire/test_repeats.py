"""What is recognised by its bytes is what parsing it would give."""

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.resources.snapshot import CLUSTERS, ENDPOINTS
from isthmus.wire import encoding, repeats
from isthmus.xds.messages import Flavour

NAMES = tuple(f"outbound|80||s{number}.shop.svc.cluster.local" for number in range(50))


def said(names=NAMES, *, kind=ENDPOINTS, version="v1", nonce="n1", **more):
    whole = discovery_pb2.DiscoveryRequest(
        type_url=kind, resource_names=names, version_info=version, response_nonce=nonce, **more
    )
    return whole.SerializeToString()


def parsed(content):
    return encoding.request(content, flavour=Flavour.STATE_OF_THE_WORLD)[0]


def noted(*contents):
    known = repeats.Repeats()
    for content in contents:
        known.note(content, parsed(content))
    return known


def test_the_same_names_are_recognised_with_another_version_and_nonce():
    known = noted(said())
    again = said(version="another", nonce="2-v2")

    assert known.request(again) == parsed(again)
    assert known.request(again).names is known.request(said()).names


@pytest.mark.parametrize(
    "other",
    [
        said((*NAMES[:-1], NAMES[-1].replace("s49", "s94"))),
        said((*NAMES, "more")),
        said(NAMES[1:]),
        said(kind=CLUSTERS),
        said(version=""),
        said(nonce=""),
        said(version="v" * 200),
        said(error_detail={"code": 3, "message": f"{ENDPOINTS} is odd"}),
        said(node={"id": "sidecar~10.0.0.1~a.b~b"}),
        said()[:-1],
        said() + b"\x2a\x00",
        b"",
    ],
)
def test_what_is_anything_else_is_left_to_the_parser(other):
    assert noted(said()).request(other) is None


TEXTS = st.text("a|é", max_size=9)


@settings(max_examples=50)
@given(
    st.lists(st.lists(TEXTS, min_size=16, max_size=18), min_size=1, max_size=3),
    TEXTS,
    TEXTS,
    st.sampled_from([ENDPOINTS, CLUSTERS, "x"]),
)
def test_what_is_recognised_is_what_was_said(lists, version, nonce, kind):
    known = noted(*(said(names, version="v", nonce="n", kind=kind) for names in lists))
    for names in lists:
        content = said(names, version=version, nonce=nonce, kind=kind)
        assert known.request(content) in (None, parsed(content))


@settings(max_examples=50)
@given(st.binary(max_size=200))
def test_odd_bytes_are_left_to_the_parser(content):
    assert noted(said()).request(content) is None
    assert noted(said()).request(said()[:20] + content) is None


def test_only_so_much_is_remembered():
    known = repeats.Repeats(4 * len(said()))
    contents = [said((*NAMES, "x" * number)) for number in range(1, 9)]
    for content in contents:
        known.note(content, parsed(content))

    assert 0 < sum(known.request(content) is not None for content in contents) < len(contents)
