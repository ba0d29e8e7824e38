"""One message that comes alone is the same as when it is taken apart frame by frame."""

import hypothesis
from envoy.service.discovery.v3 import discovery_pb2
from h2_client import Client
from hypothesis import strategies

from isthmus.wire.h2 import connection, frames, inlet, singles, stream

LIMITS = connection.Limits(window=1000, connection_window=frames.USUAL_WINDOW)


def framed(message, *, kind=frames.DATA, flags=0, stream=1, mark=b"\0"):
    body = mark + len(message).to_bytes(4, "big") + message
    return frames.head(kind, size=len(body), flags=flags, stream=stream) + body


def test_an_acknowledgement_is_known_whole():
    said = discovery_pb2.DeltaDiscoveryRequest(type_url="t", response_nonce="1").SerializeToString()

    found = singles.single(framed(said, stream=7))

    assert found == (7, len(said) + singles.PREFIX_BYTES, said)
    assert singles.single(framed(said, stream=7)) is found


@hypothesis.given(
    message=strategies.binary(min_size=1, max_size=600),
    kind=strategies.sampled_from([frames.DATA, frames.DATA, frames.HEADERS, frames.PING]),
    flags=strategies.sampled_from([0, 0, 0, frames.END_STREAM, frames.PADDED]),
    stream=strategies.sampled_from([0, 1, 3, 2**31 - 1]),
    mark=strategies.sampled_from([b"\0", b"\0", b"\1"]),
    more=strategies.sampled_from([b"", b"", b"\0", framed(b"x")]),
    less=strategies.sampled_from([0, 0, 1, 5]),
)
def test_nothing_else_is_taken_for_one(message, kind, flags, stream, mark, more, less):
    whole = framed(message, kind=kind, flags=flags, stream=stream, mark=mark)
    content = whole[:-less] if less else whole + more
    is_one = (kind, flags, mark) == (frames.DATA, 0, b"\0") and stream > 0 and content == whole

    found = singles.single(content)

    assert found == ((stream, len(message) + 5, message) if is_one else None)
    assert singles.single(content) == found


@hypothesis.given(strategies.lists(strategies.integers(min_value=1, max_value=501), max_size=200))
def test_what_passes_leaves_the_same_windows_as_what_is_taken_bit_by_bit(sizes):
    quick, slow = Client(LIMITS), Client(LIMITS)
    for client in (quick, slow):
        client.open(1)
        client.heard()
    for size in sizes:
        frame = frames.head(frames.DATA, size=size, stream=1) + b"x" * size
        if not quick.server.passes(quick.server.stream(1), size):
            quick.say(frame)
            quick.server.taken(1, size)
        slow.say(frame)
        slow.server.taken(1, size)

        assert quick.heard() == slow.heard()


def test_more_than_a_window_never_passes():
    windows = inlet.Inlet(LIMITS, lambda _: None)
    one = stream.Stream(1)

    assert windows.passes(one, 499)
    windows.arrived(one, 400)
    assert not windows.passes(one, 102)


def test_what_comes_within_a_frame_does_not_pass():
    client = Client()
    client.open(1)
    client.say(frames.head(frames.DATA, size=6, stream=1))

    assert not client.server.passes(client.server.stream(1), 6)
