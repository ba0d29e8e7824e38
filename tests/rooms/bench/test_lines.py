"""The connections of the made-up fleet's clients, and the servers that they and the subject meet."""

import contextlib
import json
import select
import socket
import ssl
import subprocess
import sys

import pytest
from aiohttp import test_utils
from bench.scale import apiserver, point, shapes, subject, tls

SMALL = shapes.Shape(2, 3, 24, 4, is_flat=False)


class Server:
    """The other end of connections, which are served one by one."""

    def __init__(self, folder):
        point._write_authority(folder, SMALL)
        self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._tls.load_cert_chain(folder / "api.pem", folder / "api.key")
        self._tls.set_alpn_protocols(["h2"])
        self._listening = socket.create_server(("127.0.0.1", 0))

    def joined(self, buffers):
        """Return a connection that is ready, and its other end."""
        line = tls.Connection(buffers, self._listening.getsockname())
        other = End(self._listening.accept()[0], self._tls)
        line.begin()
        while not line.is_shaken or not other.is_shaken:
            other.turn()
            line.read()
        return line, other

    def close(self):
        self._listening.close()


class End:
    """One connection as its server has it."""

    def __init__(self, accepted, context):
        self.socket = accepted
        self.socket.setblocking(False)
        self.is_shaken = False
        self.heard = b""
        self._coming, self._going = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._coming, self._going, server_side=True)

    def turn(self):
        with contextlib.suppress(BlockingIOError):
            self._coming.write(self.socket.recv(1 << 20))
        with contextlib.suppress(ssl.SSLWantReadError):
            if not self.is_shaken:
                self._tls.do_handshake()
                self.is_shaken = True
            while True:
                self.heard += self._tls.read(1 << 20)
        self.socket.sendall(self._going.read())

    def encrypted(self, content):
        self._tls.write(content)
        return self._going.read()


def read(line):
    """Wait until something has come, and read it."""
    select.select([line.socket], [], [], 10)
    return line.read()


@pytest.fixture
def server(tmp_path):
    one = Server(tmp_path)
    yield one
    one.close()


def test_connections_that_share_buffers_hear_each_their_own(server):
    buffers = tls.Buffers()
    (line, end), (other, other_end) = (server.joined(buffers) for _ in range(2))
    first = end.encrypted(b"first" * 100)

    end.socket.sendall(first[:200])
    assert read(line) == 0  # A record has begun.
    other_end.socket.sendall(other_end.encrypted(b"other"))
    assert buffers.heard(read(other)) == b"other"
    end.socket.sendall(first[200:] + end.encrypted(b"second"))

    assert buffers.heard(read(line)) == b"first" * 100 + b"second"
    for each in (line, other, end, other_end):
        (each if isinstance(each, tls.Connection) else each.socket).close()


def test_what_a_socket_does_not_take_is_written_later(server):
    buffers, content = tls.Buffers(), bytes(range(256)) * (1 << 12)
    line, end = server.joined(buffers)
    line.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
    end.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)

    line.write(content)
    assert line.unsent
    while line.unsent or len(end.heard) < len(content):
        line.flush()
        end.turn()

    assert end.heard == content
    line.close()
    end.socket.close()


def test_a_broken_connection_leaves_nothing_to_the_next_one(server):
    buffers = tls.Buffers()
    (line, end), (other, other_end) = (server.joined(buffers) for _ in range(2))
    end.socket.sendall(b"no record of TLS")

    with pytest.raises(OSError, match="SSL"):
        read(line)
    other_end.socket.sendall(other_end.encrypted(b"other"))

    assert buffers.heard(read(other)) == b"other"
    end.socket.close()
    line.close()
    other_end.socket.close()
    with pytest.raises(ConnectionResetError):
        read(other)
    other.close()


# --- API servers and the subject


def test_who_comes_back_is_told_what_happened_meanwhile():
    kind = apiserver.Kind()
    for version in range(1, apiserver.REMEMBERED + 2):
        kind.tell(version, b"%d" % version)

    assert list(kind.since(apiserver.REMEMBERED - 1)) == [
        b"%d" % (apiserver.REMEMBERED + more) for more in (0, 1)
    ]
    assert kind.forgotten == 1  # Who knows no more than what was before lists anew.


def test_what_is_made_ready_happens_when_it_is_its_turn():
    server = apiserver.ApiServer(SMALL, 0, "")
    before, pods = server._version, dict(server._kinds[shapes.PODS].objects)
    first, second = (server.replacing(0, number, 70 + number) for number in (1, 2))

    assert (server._version, server._kinds[shapes.PODS].objects) == (before, pods)
    server.happen(first)
    server.happen(second)

    versions = [step.version for step in (*first, *second)]
    assert versions == sorted(set(versions))
    assert server._version == versions[-1]
    names = {name for _, name in server._kinds[shapes.PODS].objects}
    assert {"s0-m71", "s0-m72"} <= names
    assert names.isdisjoint({"s0-1", "s0-2"})
    (_, slice_), *_ = [one for one in server._kinds[shapes.SLICES].events if b"s0-m72" in one[1]]
    assert b"s0-m71" in slice_


async def test_a_watch_begins_with_what_happened_since_its_version():
    server = apiserver.ApiServer(SMALL, 0, "")
    version = server._version
    server.ready(1, [0])  # While nobody watches.
    async with test_utils.TestClient(test_utils.TestServer(server.app())) as client:
        words = {"watch": "true", "resourceVersion": str(version)}
        async with client.get(shapes.SLICES, params=words) as answer:
            first = json.loads(await answer.content.readline())
            server.ready(2, [0])
            second = json.loads(await answer.content.readline())
        server.expire()
        async with client.get(shapes.SLICES, params=words) as answer:
            assert answer.status == 410

    names = [one["object"]["metadata"]["name"] for one in (first, second)]
    assert names == ["s1-x7k2p", "s2-x7k2p"]


async def test_what_was_not_told_stands_before_the_end_and_before_bookmarks():
    server = apiserver.ApiServer(SMALL, 0, "")
    events = apiserver.asyncio.Queue()
    for event in (b"a", b"b", None):
        events.put_nowait(event)

    assert [await server._next(events) for _ in range(2)] == [b"ab", b""]
    assert json.loads(server._bookmark())["type"] == "BOOKMARK"


def test_who_waits_for_a_control_plane_that_has_ended_hears_so_at_once():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    plane = subject.Subject("nowhere:1", pid=ended.pid)
    ended.wait()
    with subject.companion("bench.scale.clients", SMALL.write(), "127.0.0.1:1") as clients:
        clients.subject = plane
        with pytest.raises(subject.Ended):
            clients.ask(act="sync")
