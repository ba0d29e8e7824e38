"""Our gRPC server on real sockets, asked by gRPC's own client and by clients that misbehave."""

import asyncio
import contextlib
import datetime
import gc
import ssl

import grpc
import pytest
from h2_client import CALL, Client

from fakes import kube_server
from isthmus.base import clock, tasks
from isthmus.testing import certificates, pace
from isthmus.wire import tls
from isthmus.wire.h2 import connection, frames, headers, lines, server

NAME = "istiod.istio-system.svc"
NOW = clock.SystemClock().now() - datetime.timedelta(minutes=1)


async def _echo(_requests, context):
    while (content := await context.read()) is not grpc.aio.EOF:
        await context.write(content)


async def _shout(request, context):
    if not request:
        await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "nothing said: 100 %")
    metadata = dict(context.invocation_metadata())
    return request.upper() + metadata.get("x-bin", b"") + context.peer().encode()


async def _forget(_request, _context):
    await asyncio.Event().wait()


async def _fail(_request, _context):
    raise ValueError("secret")


def _service():
    return grpc.method_handlers_generic_handler(
        "test",
        {
            "Echo": grpc.stream_stream_rpc_method_handler(_echo),
            "Shout": grpc.unary_unary_rpc_method_handler(_shout),
            "Forget": grpc.unary_unary_rpc_method_handler(_forget),
            "Fail": grpc.unary_unary_rpc_method_handler(_fail),
        },
    )


@contextlib.asynccontextmanager
async def listening(*, secured=None, **limits):
    running = server.Server([_service()], limits=server.Limits(**limits))
    context = secured.discovery_context if secured else None
    port = running.listen("127.0.0.1:0", tls=context)
    try:
        yield running, port
    finally:
        await running.stop(None)


@contextlib.asynccontextmanager
async def called(**limits):
    async with listening(**limits) as (_, port):
        options = (("grpc.max_receive_message_length", -1),)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options) as channel:
            yield channel


async def refused(call):
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await call
    return error.value.code(), error.value.details()


@pytest.fixture
def secured():
    signer = certificates.signer(now=NOW)
    return tls.Serving(tls.issue(signer, names=(NAME,), now=NOW))


async def test_messages_larger_than_any_window_come_and_go():
    content = bytes(range(256)) * 12_000
    async with called() as channel:
        stream = channel.stream_stream("/test/Echo")()
        for _ in range(3):
            await stream.write(content)
            assert await stream.read() == content
        await stream.done_writing()
        assert await stream.code() is grpc.StatusCode.OK


async def test_a_call_with_one_answer_hears_what_the_caller_told_beside_it():
    async with called() as channel:
        answer = await channel.unary_unary("/test/Shout")(b"hello", metadata=(("x-bin", b"\0\1"),))
    assert answer.startswith(b"HELLO\0\1ipv4:127.0.0.1:")


async def test_a_status_says_what_its_service_says():
    async with called() as channel:
        told = await refused(channel.unary_unary("/test/Shout")(b""))
    assert told == (grpc.StatusCode.INVALID_ARGUMENT, "nothing said: 100 %")


async def test_what_is_not_served_is_unimplemented():
    async with called() as channel:
        code, _ = await refused(channel.unary_unary("/test/Whisper")(b"x"))
    assert code is grpc.StatusCode.UNIMPLEMENTED


async def test_a_service_that_fails_tells_callers_nothing_of_why():
    async with called() as channel:
        told = await refused(channel.unary_unary("/test/Fail")(b"x"))
    assert told == (grpc.StatusCode.UNKNOWN, "the call has failed")


async def test_a_caller_that_waits_no_longer_is_told_so():
    async with called() as channel:
        code, _ = await refused(channel.unary_unary("/test/Forget")(b"x", timeout=0.05))
    assert code is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_message_beyond_its_limit_is_refused_before_it_has_come():
    async with called(message_bytes=1000) as channel:
        code, text = await refused(channel.unary_unary("/test/Shout")(b"x" * 1001))
    assert (code, text) == (
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "message of 1001 bytes; the most is 1000",
    )


async def test_many_calls_on_one_connection_do_not_wait_for_each_other():
    async with called() as channel:
        waiting = [channel.unary_unary("/test/Forget")(b"x") for _ in range(40)]
        asked = [channel.unary_unary("/test/Shout")(b"%d" % each) for each in range(50)]
        answers = [await call for call in asked]
        for call in waiting:
            call.cancel()
    assert [answer.split(b"IPV")[0][:2] for answer in answers[:3]] == [b"0i", b"1i", b"2i"]


class Raw:
    """A client of sockets and bytes."""

    def __init__(self, reader, writer):
        self._reader, self._writer = reader, writer
        self.client = Client()

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, port, **options):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
        try:
            yield cls(reader, writer)
        finally:
            writer.close()

    def say(self, content):
        self._writer.write(content)

    def begin(self, path="/test/Echo", *, window=frames.USUAL_WINDOW):
        call = tuple((name, path if name == ":path" else value) for name, value in CALL)
        self.say(frames.PREFACE + frames.settings(((frames.INITIAL_WINDOW_SIZE, window),)))
        if window > frames.USUAL_WINDOW:
            self.say(frames.window_update(0, more=window - frames.USUAL_WINDOW))
        self.say(self.client.headers(1, call))

    async def hear(self, kind):
        """Wait for the next frame of a kind; return its flags and content."""
        async with asyncio.timeout(pace.patience(10)):
            while True:
                head = await self._reader.readexactly(frames.HEAD_BYTES)
                size, found, flags, _ = frames.head_at(head, 0)
                content = await self._reader.readexactly(size)
                if found == kind:
                    return flags, content

    async def ended(self):
        async with asyncio.timeout(pace.patience(10)):
            return await self._reader.read()


async def test_a_web_browser_is_told_what_this_port_is():
    async with listening() as (running, port), Raw.connected(port) as raw:
        raw.say(b"GET / HTTP/1.1\r\nHost: istiod\r\n\r\n")
        assert b"this port speaks HTTP/2" in await raw.ended()
        assert running.connections == 0


async def test_a_request_that_is_no_call_is_answered_as_one_of_http():
    async with listening() as (_, port), Raw.connected(port) as raw:
        raw.say(frames.PREFACE + frames.settings(()))
        raw.say(raw.client.headers(1, (*CALL[:5], ("content-type", "text/html"))))
        _, block = await raw.hear(frames.HEADERS)
        assert raw.client.decoded(block) == [(":status", "415")]


async def test_a_compressed_message_is_refused():
    async with listening() as (_, port), Raw.connected(port) as raw:
        raw.begin()
        raw.say(frames.head(frames.DATA, size=6, stream=1) + b"\1\0\0\0\1x")
        _, block = await raw.hear(frames.HEADERS)
        assert ("grpc-status", "12") in raw.client.decoded(block)


async def test_a_message_that_stops_in_its_middle_is_no_message():
    async with listening() as (_, port), Raw.connected(port) as raw:
        raw.begin("/test/Shout")
        raw.say(frames.head(frames.DATA, size=6, flags=frames.END_STREAM, stream=1))
        raw.say(b"\0\0\0\0\2x")
        _, block = await raw.hear(frames.HEADERS)
        assert ("grpc-status", "13") in raw.client.decoded(block)


async def test_whoever_does_not_read_is_waited_for_and_costs_one_message():
    written = []

    async def talk(_requests, context):
        await context.read()
        for _ in range(1000):
            written.append(1)
            await context.write(bytes(100_000))

    handler = grpc.method_handlers_generic_handler(
        "test", {"Echo": grpc.stream_stream_rpc_method_handler(talk)}
    )
    running = server.Server([handler])
    port = running.listen("127.0.0.1:0")
    async with Raw.connected(port, limit=100) as raw:
        raw.begin()
        raw.say(frames.head(frames.DATA, size=5, stream=1) + bytes(5))
        await raw.hear(frames.DATA)
        raw.say(frames.ping(b"12345678"))
        # Pings are answered while content waits, and nothing more is written meanwhile.
        await raw.hear(frames.PING)
        assert written == [1]
    await running.stop(None)


async def test_what_the_socket_did_not_take_goes_out_although_the_client_says_nothing():
    """Clients with wide windows need not say anything until they have all."""
    size = 20_000_000

    async def talk(_requests, context):
        await context.read()
        await context.write(bytes(size))

    handler = grpc.method_handlers_generic_handler(
        "test", {"Echo": grpc.stream_stream_rpc_method_handler(talk)}
    )
    running = server.Server([handler])
    port = running.listen("127.0.0.1:0")
    async with Raw.connected(port) as raw:
        raw.begin(window=frames.MOST_WINDOW)
        raw.say(frames.head(frames.DATA, size=5, stream=1) + bytes(5))
        heard = 0
        while heard < size:
            heard += len((await raw.hear(frames.DATA))[1])
    await running.stop(None)


class Follower:
    """Notes what a call brings until it is lost."""

    def __init__(self):
        self.heard_all = asyncio.Queue()
        self.heard = self.heard_all.put_nowait

    def heard_out(self):
        pass

    def drained(self):
        pass

    def lost(self):
        self.heard(None)


async def test_what_was_said_before_a_client_went_is_heard_to_its_end(secured):
    follower = Follower()

    async def follow(_requests, context):
        context.follow(follower)

    handler = grpc.method_handlers_generic_handler(
        "test", {"Echo": grpc.stream_stream_rpc_method_handler(follow)}
    )
    running = server.Server([handler])
    port = running.listen("127.0.0.1:0", tls=secured.discovery_context)
    context = ssl.create_default_context(cadata=secured.certificate.roots_pem)
    context.set_alpn_protocols(["h2"])
    words = [b"%d" % number for number in range(300)]
    async with Raw.connected(port, ssl=context, server_hostname=NAME) as raw:
        raw.begin()
        for word in words:
            head = frames.head(frames.DATA, size=5 + len(word), stream=1)
            raw.say(head + b"\0" + len(word).to_bytes(4, "big") + word)
    async with asyncio.timeout(pace.patience(10)):
        assert [await follower.heard_all.get() for _ in words] == words
        assert await follower.heard_all.get() is None
    await running.stop(None)


async def test_those_who_leave_are_waited_for_and_newcomers_refused():
    async with listening() as (running, port), Raw.connected(port) as raw:
        raw.begin()
        raw.say(frames.head(frames.DATA, size=6, stream=1) + b"\0\0\0\0\1x")
        await raw.hear(frames.DATA)
        async with asyncio.TaskGroup() as group:
            _ = group.create_task(running.stop(10))
            await raw.hear(frames.GOAWAY)
            raw.say(frames.head(frames.DATA, size=6, flags=frames.END_STREAM, stream=1))
            raw.say(b"\0\0\0\0\1y")
            assert (await raw.hear(frames.DATA))[1] == b"\0\0\0\0\1y"
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)


async def test_tls_is_spoken_with_the_newest_certificate(secured):
    async with listening(secured=secured) as (_, port):
        seen = []
        for _ in range(2):
            roots = secured.certificate.roots_pem.encode()
            options = (("grpc.ssl_target_name_override", NAME),)
            credentials = grpc.ssl_channel_credentials(roots)
            async with grpc.aio.secure_channel(
                f"127.0.0.1:{port}", credentials, options=options
            ) as channel:
                seen.append(await channel.unary_unary("/test/Shout")(b"x" * 300_000))
            signer = certificates.signer(now=NOW)
            secured.replace(tls.issue(signer, names=(NAME,), now=NOW))
        assert [len(each) > 300_000 for each in seen] == [True, True]


@pytest.mark.parametrize("protocols", [["http/1.1"], []])
async def test_whoever_does_not_speak_http2_is_not_spoken_to(secured, protocols):
    context = ssl.create_default_context(cadata=secured.certificate.roots_pem)
    if protocols:
        context.set_alpn_protocols(protocols)
    async with (
        listening(secured=secured) as (running, port),
        Raw.connected(port, ssl=context, server_hostname=NAME) as raw,
    ):
        with contextlib.suppress(ssl.SSLError, ConnectionError):
            assert await raw.ended() == b""
        assert running.connections == 0


async def test_plain_text_where_tls_is_spoken_gets_nothing(secured):
    async with listening(secured=secured) as (_, port), Raw.connected(port) as raw:
        raw.begin()
        with contextlib.suppress(ConnectionError):
            assert b"grpc" not in await raw.ended()


async def test_a_handshake_that_does_not_end_is_ended(secured):
    async with (
        listening(secured=secured, shake_s=0.1) as (running, port),
        Raw.connected(port) as raw,
    ):
        assert await raw.ended() == b""
        assert running.connections == 0


async def test_a_handshake_that_no_call_follows_is_ended():
    async with listening(shake_s=0.1, quiet_s=0.1) as (running, port), Raw.connected(port) as raw:
        raw.say(frames.PREFACE + frames.settings(()))
        await raw.ended()
        assert running.connections == 0


async def test_a_server_that_ends_with_its_task_ends_its_connections_as_well():
    is_stopped = asyncio.Event()

    async def served(running):
        try:
            await asyncio.Event().wait()
        finally:
            await running.stop(0.01)
            is_stopped.set()

    async with listening() as (running, port), Raw.connected(port) as raw:
        async with tasks.Nursery() as nursery:
            nursery.start("serve", served(running))
            raw.begin()
            await raw.hear(frames.SETTINGS)
        assert is_stopped.is_set()
        await raw.ended()
        assert running.connections == 0


async def test_whoever_comes_while_too_many_shake_hands_waits_for_a_place(secured):
    roots = secured.certificate.roots_pem.encode()
    options = (("grpc.ssl_target_name_override", NAME),)
    async with (
        listening(secured=secured, shaking=1, shake_s=0.1) as (running, port),
        Raw.connected(port) as idle,
        grpc.aio.secure_channel(
            f"127.0.0.1:{port}", grpc.ssl_channel_credentials(roots), options=options
        ) as channel,
    ):
        assert (await channel.unary_unary("/test/Shout")(b"x")).startswith(b"X")
        # Its place was the one that the other waited for.
        assert await idle.ended() == b""
        assert running.connections == 1


async def test_whoever_has_gone_takes_no_room_until_somebody_would_have_looked():
    def held():
        _ = gc.collect()
        return sum(isinstance(one, lines.Line) for one in gc.get_objects())

    before = held()
    async with listening() as (running, port):
        for _ in range(3):
            async with Raw.connected(port) as raw:
                raw.begin()
                await raw.hear(frames.SETTINGS)
        await kube_server.eventually(lambda: running.connections == 0)
        assert held() == before


async def test_whoever_does_not_answer_is_gone():
    async with listening(quiet_s=0.1, answer_s=0.1) as (_, port), Raw.connected(port) as raw:
        raw.begin()
        await raw.hear(frames.PING)
        await raw.ended()


async def test_a_connection_without_calls_is_told_to_go():
    async with listening(idle_s=0.1) as (running, port), Raw.connected(port) as raw:
        raw.begin(path="/test/Nothing")
        await raw.hear(frames.GOAWAY)
        await raw.ended()
        assert running.connections == 0


def test_trailers_are_readable_by_whoever_reads_headers():
    state = connection.Connection()
    block = headers.trailers(13, "höchstens 3 %\n" + "x" * 300, alone=True)
    decoded = dict(Client().decoded(block))
    assert decoded["grpc-status"] == "13"
    assert decoded["grpc-message"].startswith("h%C3%B6chstens 3 %25%0Ax")
    assert state.streams == 0
