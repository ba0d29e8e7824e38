"""One connection of HTTP/2 from the server's side: what is said for what was heard.

Source: RFC 9113; numbers in the names of cases are its sections.
"""

import hypothesis
import pytest
from h2_client import CALL, Client, data, frame, goaway
from hypothesis import strategies

from isthmus.wire.h2 import connection, frames, headers
from isthmus.wire.h2.connection import Broken, Finished, Heard, Limits, Opened
from isthmus.wire.h2.frames import Code

TEN = (10).to_bytes(4, "big")
SMALL = Limits(streams=2, window=100, connection_window=70_000, header_bytes=400, odd_frames=20)


def sent(heard, stream):
    return b"".join(body for kind, _, at, body in heard if (kind, at) == (frames.DATA, stream))


def test_a_call_travels_both_ways():
    client = Client()
    assert client.open(1) == [Opened(1, CALL)]
    assert client.say(data(1, b"question")) == [Heard(1, b"question")]
    assert client.say(data(1, b"", flags=frames.END_STREAM)) == [Finished(1)]
    client.heard()
    client.server.answer(1, headers.ANSWER)
    client.server.outlet.send(client.server.stream(1), (b"ans", b"wer"))
    client.server.end(1, headers.trailers(0, "", alone=False))

    (_, _, _, begin), (kind, _, _, body), (_, flags, _, ending) = client.heard()
    assert client.decoded(begin) == [(":status", "200"), ("content-type", "application/grpc")]
    assert (kind, body) == (frames.DATA, b"answer")
    assert (flags & frames.END_STREAM, client.decoded(ending)) == (1, [("grpc-status", "0")])


def test_bytes_may_arrive_one_by_one():
    client = Client()
    whole = client.headers(1) + data(1, b"word", flags=frames.END_STREAM)
    events = [event for byte in whole for event in client.say(bytes((byte,)))]
    assert events == [Opened(1, CALL), Heard(1, b"word"), Finished(1)]


def test_settings_are_acknowledged_before_content_that_they_allow():
    client = Client(settings=[(frames.INITIAL_WINDOW_SIZE, 10)])
    client.open(1)
    client.server.outlet.send(client.server.stream(1), (b"x" * 30,))
    assert sent(client.heard(), 1) == b"x" * 10
    client.say(frames.settings([(frames.INITIAL_WINDOW_SIZE, 25)]))
    (kind, flags, _, _), *rest = client.heard()
    assert (kind, flags) == (frames.SETTINGS, frames.ACK)
    assert sent(rest, 1) == b"x" * 15


def test_a_window_that_shrinks_is_made_up_for():
    client = Client(settings=[(frames.INITIAL_WINDOW_SIZE, 10)])
    client.open(1)
    client.server.outlet.send(client.server.stream(1), (b"x" * 30,))
    client.say(frames.settings([(frames.INITIAL_WINDOW_SIZE, 4)]))
    client.say(frames.window_update(1, more=8))
    assert sent(client.heard(), 1) == b"x" * 12


def test_content_goes_out_in_frames_that_everybody_takes():
    client = Client(settings=[(frames.INITIAL_WINDOW_SIZE, 60_000)])
    client.open(1)
    client.server.outlet.send(client.server.stream(1), (b"12345", b"x" * 50_000))
    heard = [body for kind, _, _, body in client.heard() if kind == frames.DATA]
    assert b"".join(heard) == b"12345" + b"x" * 50_000
    assert [len(body) for body in heard] == [16_384, 16_384, 16_384, 853]


def test_streams_that_wait_for_the_connections_window_take_turns():
    client = Client(settings=[(frames.INITIAL_WINDOW_SIZE, 200_000)])
    for stream in (1, 3):
        client.open(stream)
        client.server.outlet.send(client.server.stream(stream), (b"x" * 100_000,))
    client.say(frames.window_update(0, more=60_000))
    heard = client.heard()
    assert len(sent(heard, 1)) + len(sent(heard, 3)) == frames.USUAL_WINDOW + 60_000
    assert len(sent(heard, 3)) > 25_000


def test_a_status_follows_all_that_was_to_be_sent():
    client = Client(settings=[(frames.INITIAL_WINDOW_SIZE, 3)])
    client.open(1)
    client.server.outlet.send(client.server.stream(1), (b"answer",))
    client.server.end(1, headers.trailers(0, "", alone=False))
    assert not [each for each in client.heard() if each[0] == frames.HEADERS]
    client.say(frames.window_update(1, more=3))
    kinds = [kind for kind, *_ in client.heard()]
    assert kinds == [frames.DATA, frames.HEADERS, frames.RST_STREAM]


def test_room_is_given_back_as_content_is_taken():
    client = Client(SMALL)
    client.open(1)
    client.say(data(1, b"x" * 100))
    client.heard()
    client.server.taken(1, 49)
    assert client.heard() == []
    client.server.taken(1, 1)
    assert client.heard() == [(frames.WINDOW_UPDATE, 0, 1, (50).to_bytes(4, "big"))]
    assert client.say(data(1, b"y" * 50)) == [Heard(1, b"y" * 50)]


def test_content_of_an_ended_stream_still_uses_the_connections_window_and_gives_it_back():
    client = Client(SMALL)
    client.open(1)
    client.server.reset(1, Code.CANCEL)
    client.heard()
    for _ in range(3):
        assert client.say(data(1, b"x" * 16_000)) == []
    assert (frames.WINDOW_UPDATE, 0) in {(kind, at) for kind, _, at, _ in client.heard()}


def test_padding_is_no_content_and_its_room_is_given_back():
    client = Client(SMALL)
    client.open(1)
    padded = bytes((60,)) + b"word" + bytes(60)
    assert client.say(data(1, padded, flags=frames.PADDED)) == [Heard(1, b"word")]
    assert (frames.WINDOW_UPDATE, 1) in {(kind, at) for kind, _, at, _ in client.heard()}


def test_one_stream_too_many_is_refused_and_the_others_go_on():
    client = Client(SMALL)
    client.open(1)
    client.open(3)
    client.heard()
    assert client.open(5) == []
    assert client.heard() == [(frames.RST_STREAM, 0, 5, Code.REFUSED_STREAM.to_bytes(4, "big"))]
    assert client.say(data(3, b"on")) == [Heard(3, b"on")]


def test_a_stream_whose_answer_is_not_read_counts_as_open():
    client = Client(SMALL, settings=[(frames.INITIAL_WINDOW_SIZE, 0)])
    for stream in (1, 3):
        client.open(stream)
        client.server.outlet.send(client.server.stream(stream), (b"answer",))
        client.server.end(stream, headers.trailers(0, "", alone=False))
    assert client.open(5) == []


def test_a_ping_is_answered_with_its_own_content():
    client = Client()
    client.heard()
    client.say(frames.ping(b"12345678"))
    assert client.heard() == [(frames.PING, frames.ACK, 0, b"12345678")]


def test_whoever_leaves_finishes_what_was_begun():
    client = Client()
    client.open(1)
    client.server.leave("come again")
    assert goaway(client.heard()) == (Code.NO_ERROR, "come again")
    assert client.open(3) == []
    assert client.say(data(1, b"more")) == [Heard(1, b"more")]


def test_unknown_frames_mean_nothing():
    client = Client()
    assert client.say(frame(0x42, b"whatever", stream=7)) == []
    assert client.open(1) == [Opened(1, CALL)]


FAULTS = {
    "3.4 another protocol": (b"GET / HTTP/1.1\r\n\r\n", Code.PROTOCOL_ERROR),
    "3.4 no settings first": (frames.PREFACE + frames.ping(b"12345678"), Code.PROTOCOL_ERROR),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_beginning_that_is_none_ends_the_connection(name):
    said, code = FAULTS[name]
    server = connection.Connection()
    server.outlet.ready()
    assert server.receive(said, now=0.0) == []
    assert server.is_over
    (last,) = server.outlet.ready()
    assert goaway([(frames.GOAWAY, 0, 0, last[frames.HEAD_BYTES :])])[0] is code


BREACHES = {
    "4.2 frame too large": (frames.head(frames.DATA, size=16_385, stream=1), Code.FRAME_SIZE_ERROR),
    "4.3 unreadable headers": (
        frame(frames.HEADERS, b"\xff\xff\xff\xff\xff", flags=frames.END_HEADERS, stream=3),
        Code.COMPRESSION_ERROR,
    ),
    "5.1.1 even stream": (frame(frames.HEADERS, b"", flags=4, stream=2), Code.PROTOCOL_ERROR),
    "6.1 data of the connection": (data(0, b"x"), Code.PROTOCOL_ERROR),
    "6.1 data of an idle stream": (data(9, b"x"), Code.PROTOCOL_ERROR),
    "6.1 more padding than content": (
        data(1, b"\x05abc", flags=frames.PADDED),
        Code.PROTOCOL_ERROR,
    ),
    "6.2 a stream that depends on itself": (
        frame(frames.HEADERS, b"\0\0\0\x03\0", flags=0x24, stream=3),
        Code.PROTOCOL_ERROR,
    ),
    "6.4 reset of an idle stream": (frames.reset(9, Code.CANCEL), Code.PROTOCOL_ERROR),
    "6.5 settings of odd size": (frame(frames.SETTINGS, b"12345"), Code.FRAME_SIZE_ERROR),
    "6.5 settings of a stream": (frame(frames.SETTINGS, b"", stream=1), Code.PROTOCOL_ERROR),
    "6.5.2 push neither on nor off": (
        frames.settings([(frames.ENABLE_PUSH, 2)]),
        Code.PROTOCOL_ERROR,
    ),
    "6.5.2 window too wide": (
        frames.settings([(frames.INITIAL_WINDOW_SIZE, 2**31)]),
        Code.FLOW_CONTROL_ERROR,
    ),
    "6.5.2 frames too small": (frames.settings([(frames.MAX_FRAME_SIZE, 1)]), Code.PROTOCOL_ERROR),
    "6.6 promise": (frame(frames.PUSH_PROMISE, TEN, stream=1), Code.PROTOCOL_ERROR),
    "6.7 ping of a stream": (frame(frames.PING, b"12345678", stream=1), Code.PROTOCOL_ERROR),
    "6.7 ping of odd size": (frame(frames.PING, b"123"), Code.FRAME_SIZE_ERROR),
    "6.8 a stream leaves": (frame(frames.GOAWAY, TEN + TEN, stream=1), Code.PROTOCOL_ERROR),
    "6.9 window of odd size": (frame(frames.WINDOW_UPDATE, b"1"), Code.FRAME_SIZE_ERROR),
    "6.9 nothing more": (frames.window_update(0, more=0), Code.PROTOCOL_ERROR),
    "6.9 window of an idle stream": (frames.window_update(9, more=1), Code.PROTOCOL_ERROR),
    "6.9.1 window beyond its most": (
        frames.window_update(0, more=frames.MOST_WINDOW),
        Code.FLOW_CONTROL_ERROR,
    ),
    "6.9.1 more than the window": (data(1, b"x" * 101), Code.FLOW_CONTROL_ERROR),
    "6.10 headers go on without a beginning": (
        frame(frames.CONTINUATION, b"", stream=1),
        Code.PROTOCOL_ERROR,
    ),
    "6.10 something between headers": (
        frame(frames.HEADERS, b"", stream=3) + frames.ping(b"12345678"),
        Code.PROTOCOL_ERROR,
    ),
}


@pytest.mark.parametrize("name", BREACHES)
def test_a_breach_ends_the_connection_and_says_why(name):
    said, code = BREACHES[name]
    client = Client(SMALL)
    client.open(1)
    client.heard()
    assert client.say(said) == [Broken(1)]
    found, text = goaway(client.heard())
    assert (found, client.server.is_over) == (code, True)
    assert text == client.server.why
    assert client.say(client.headers(3)) == []


FLOODS = {
    "pings": lambda _: frames.ping(b"12345678"),
    "settings": lambda _: frames.settings(()),
    "priorities": lambda _: frame(frames.PRIORITY, b"12345", stream=1),
    "empty data": lambda _: data(1, b""),
    "unknown frames": lambda _: frame(0x42),
    "windows of streams that are gone": lambda each: frames.window_update(1, more=1 + each),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_of_what_brings_nothing_ends_the_connection(name):
    client = Client(SMALL)
    client.open(1)
    if "gone" in name:
        client.server.reset(1, Code.CANCEL)
    client.say(b"".join(FLOODS[name](each) for each in range(30)))
    assert goaway(client.heard())[0] is Code.ENHANCE_YOUR_CALM


def test_streams_that_are_taken_back_at_once_are_a_flood():
    client = Client(SMALL)
    for each in range(30):
        client.say(client.headers(2 * each + 1) + frames.reset(2 * each + 1, Code.CANCEL))
    assert goaway(client.heard())[0] is Code.ENHANCE_YOUR_CALM


def test_a_ping_now_and_then_is_no_flood():
    client = Client(SMALL)
    for _ in range(200):
        client.now += 1.0
        client.say(frames.ping(b"12345678"))
    assert not client.server.is_over


@pytest.mark.parametrize("pieces", [17, 40])
def test_headers_without_end_are_not_kept(pieces):
    client = Client(SMALL)
    client.say(frame(frames.HEADERS, b"", stream=1))
    more = b"" if pieces == 40 else b"x" * 100
    client.say(b"".join(frame(frames.CONTINUATION, more, stream=1) for _ in range(pieces)))
    assert goaway(client.heard())[0] is Code.ENHANCE_YOUR_CALM


def test_headers_that_grow_when_decoded_are_too_large():
    client = Client(SMALL)
    client.open(1, (*CALL, ("x", "y" * 40)))
    client.heard()
    # The table remembers it: a byte each time.
    client.open(3, (*CALL, *[("x", "y" * 40)] * 10))
    assert goaway(client.heard())[0] is Code.ENHANCE_YOUR_CALM


REFUSED = {
    "capital letters": (*CALL, ("X-Large", "1")),
    "no path": CALL[:2],
    "a path twice": (CALL[0], *CALL),
    "an unknown pseudo header": ((":status", "200"), *CALL),
    "a pseudo header late": (*CALL, (":authority", "x")),
    "a header of connections": (*CALL, ("connection", "close")),
    "another transfer": (*CALL[:4], ("te", "gzip")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_request_that_is_none_costs_its_stream_alone(name):
    client = Client()
    client.open(1)
    client.heard()
    assert client.open(3, REFUSED[name]) == []
    assert client.heard() == [(frames.RST_STREAM, 0, 3, Code.PROTOCOL_ERROR.to_bytes(4, "big"))]
    assert client.say(data(1, b"on")) == [Heard(1, b"on")]


@hypothesis.given(strategies.binary(max_size=400), strategies.booleans())
@hypothesis.settings(max_examples=300, deadline=None)
def test_whatever_arrives_nothing_is_raised(content, as_frames):
    client = Client(SMALL)
    client.open(1)
    if as_frames:
        pairs = zip(content[::2], content[1::2], strict=False)
        content = b"".join(frame(a % 11, content[:b], flags=b, stream=a % 5) for a, b in pairs)
    for event in client.say(content):
        assert isinstance(event, connection.Event)
    assert client.server.is_over == bool(
        [each for each in client.heard() if each[0] == frames.GOAWAY]
    )


SAID = strategies.lists(
    strategies.one_of(
        strategies.tuples(
            strategies.just("send"), strategies.sampled_from([1, 3]), strategies.integers(1, 40_000)
        ),
        strategies.tuples(
            strategies.just("widen"),
            strategies.sampled_from([0, 1, 3]),
            strategies.integers(1, 50_000),
        ),
        strategies.tuples(
            strategies.just("first"), strategies.just(0), strategies.integers(0, 90_000)
        ),
    ),
    max_size=40,
)


@hypothesis.given(SAID)
@hypothesis.settings(max_examples=200, deadline=None)
def test_nothing_is_sent_beyond_a_window_and_all_of_it_in_order(said):
    client = Client()
    windows, first = {0: frames.USUAL_WINDOW}, frames.USUAL_WINDOW
    wanted, got = {1: b"", 3: b""}, {1: b"", 3: b""}
    for stream in wanted:
        client.open(stream)
        windows[stream] = first
    for number, (act, stream, amount) in enumerate(said):
        if act == "send":
            content = bytes((number % 251,)) * amount
            wanted[stream] += content
            client.server.outlet.send(client.server.stream(stream), (content[:3], content[3:]))
        elif act == "widen":
            windows[stream] += amount
            client.say(frames.window_update(stream, more=amount))
        else:
            windows |= {each: windows[each] + amount - first for each in wanted}
            first = amount
            client.say(frames.settings([(frames.INITIAL_WINDOW_SIZE, amount)]))
        for kind, _, at, content in client.heard():
            if kind == frames.DATA:
                got[at] += content
                windows[at] -= len(content)
                windows[0] -= len(content)
                assert min(windows[at], windows[0]) >= 0
    for stream, content in wanted.items():
        assert content.startswith(got[stream])
        is_stuck = len(got[stream]) < len(content)
        assert not is_stuck or windows[0] == 0 or windows[stream] <= 0


SECRET = (*CALL, ("authorization", "bearer secret"))
KNOWS = frame(frames.SETTINGS, flags=frames.ACK)


def test_headers_of_earlier_requests_are_forgotten_as_soon_as_the_client_knows():
    client = Client()
    client.open(1, SECRET)

    client.say(KNOWS)
    client.open(3, SECRET)  # refers to what it said first

    assert goaway(client.heard())[0] is Code.COMPRESSION_ERROR


def test_until_then_it_may_refer_to_them_and_from_then_on_it_says_all_anew():
    client = Client()
    client.open(1, SECRET)
    (again,) = client.open(3, SECRET)
    client.say(KNOWS)
    client.remembers_nothing()

    first, second = (event for number in (5, 7) for event in client.open(number, SECRET))

    assert again.headers == first.headers == second.headers == SECRET
