"""Whatever a client says: no task fails, what is kept is bounded, and nothing outlives it."""

import fuzzing
import hypothesis
import pytest
from hypothesis import strategies

OPEN, ASK, CHANGE = b"\x00\x00\x00", b"\x01\x00\x00\x01\x41\x00", b"\x0b"

CORPUS = {
    "a proxy that is told of changes": OPEN + ASK + CHANGE * 3,
    "two streams of one pod and one more": (OPEN + ASK) * 3 + CHANGE,
    "a stream that is taken back while it is told": OPEN + ASK + b"\x06\x01" + CHANGE,
    "streams that are taken back at once": (OPEN + b"\x06\x01") * 50,
    "a flood of pings": b"\x09\xff" * 3,
    "windows that shrink while much waits": OPEN + b"\x07\x04\x00\x00" + ASK + CHANGE * 5,
    "windows that overflow": OPEN + ASK + b"\x05\x01\xff\x1f" * 3,
    "a stream that ends with its first message": b"\x00\x00\x01" + ASK,
    "no protobuf": OPEN + ASK + b"\x03\x03\xff\xff\xff\x00",
    "a nonce that nobody gave": OPEN + b"\x01\x00\x02ab\x01\x41\x00" * 3,
    "headers without end": b"\x08\x01\x04aaaa\x01\x00" + b"\x08\x09\x04aaaa\x01\x00" * 20,
}


@pytest.mark.parametrize("name", CORPUS)
def test_what_was_once_tried_holds(name):
    fuzzing.run(CORPUS[name])


@hypothesis.given(
    strategies.lists(
        strategies.one_of(
            strategies.sampled_from([OPEN, ASK, CHANGE]), strategies.binary(max_size=30)
        ),
        max_size=20,
    ).map(b"".join)
)
@hypothesis.settings(max_examples=150, deadline=None)
def test_whatever_a_client_does_it_harms_nobody_else(content):
    fuzzing.run(content)
