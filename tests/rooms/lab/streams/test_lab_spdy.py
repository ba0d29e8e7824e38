import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.lab.apiserver import spdy

_TEXT = st.text(st.characters(codec="ascii", min_codepoint=33), min_size=1, max_size=20)
_HEADERS = st.dictionaries(_TEXT.map(str.lower), _TEXT, max_size=5)
_STREAM = st.integers(1, 2**31 - 1)
_WORD = st.integers(0, 2**32 - 1)
_FRAMES = st.one_of(
    st.builds(spdy.Opened, _STREAM, _HEADERS, st.booleans()),
    st.builds(spdy.Replied, _STREAM, _HEADERS, st.booleans()),
    st.builds(spdy.Data, _STREAM, st.binary(max_size=200), st.booleans()),
    st.builds(spdy.Reset, _STREAM, _WORD),
    st.builds(spdy.Ping, _WORD),
    st.builds(spdy.GoAway, _STREAM, _WORD),
    st.builds(spdy.WindowUpdate, _STREAM, st.integers(0, 2**31 - 1)),
)


@given(frames=st.lists(_FRAMES, max_size=8), cut=st.integers(1, 50))
def test_what_one_side_sends_the_other_receives_however_it_is_cut(frames, cut):
    one, other = spdy.Connection(), spdy.Connection()
    wire = b"".join(one.send(frame) for frame in frames)

    received = []
    for start in range(0, len(wire), cut):
        received += other.receive(wire[start : start + cut])

    assert received == frames


def test_the_dictionary_is_the_one_of_the_protocol():
    assert zlib.adler32(spdy.DICTIONARY) == 0xE3C6A7C2


def test_frames_look_as_the_protocol_says():
    one = spdy.Connection()

    assert one.send(spdy.Ping(1)) == bytes.fromhex("80030006 00000004 00000001")
    assert one.send(spdy.Data(3, b"hi", is_last=True)) == bytes.fromhex("00000003 01000002 6869")
    assert one.send(spdy.Reset(3, 5)) == bytes.fromhex("80030003 00000008 00000003 00000005")


@pytest.mark.parametrize(
    "wire",
    [
        "80020006 00000004 00000001",
        "80030006 00000000",
        "00000001 00ffffff",
        "80030001 0000000e 00000001 00000000 0000 ffffffff",
    ],
)
def test_malformed_frames_are_refused(wire):
    with pytest.raises(spdy.ProtocolError):
        spdy.Connection().receive(bytes.fromhex(wire))


def test_headers_that_explode_are_refused():
    one = spdy.Connection()
    wire = one.send(spdy.Opened(1, {"a": "x" * 1_000_000}))

    with pytest.raises(spdy.ProtocolError, match="too large"):
        spdy.Connection().receive(wire)
