"""Who is told of which pods, over real sockets; `/dev/null` stands for networks."""

import asyncio
import contextlib
import os
import pathlib
import select
import socket

import pytest
import pytest_asyncio

from isthmus.node.cni import announcing, zds
from isthmus.testing import pace
from isthmus_proto.istio.workload import zds_pb2

ONE, TWO = zds.Add("u1", "one", "ns", "sa"), zds.Add("u2", "two", "ns", "sa")
LIMIT_S = pace.patience(5.0)


class Proxy:
    """A node's proxy that notes what it is told."""

    def __init__(self, path):
        self.end = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.end.connect(str(path))
        self.end.setblocking(False)
        self.say(zds_pb2.ZdsHello(version=zds_pb2.V1))

    def say(self, message):
        self.end.send(message.SerializeToString())

    def answer(self, error="", *, leaving=()):
        said = zds_pb2.WorkloadResponse(ack=zds_pb2.Ack(error=error)).SerializeToString()
        socket.send_fds(self.end, [said], leaving)

    async def hears(self):
        """Return the next order as text, with `+` if a descriptor came with it."""
        deadline = asyncio.get_running_loop().time() + LIMIT_S
        while True:
            with contextlib.suppress(BlockingIOError):
                packet, fds = self._received()
                for fd in fds:
                    os.close(fd)
                request = zds_pb2.WorkloadRequest.FromString(packet)
                kind = request.WhichOneof("payload")
                if not kind:
                    return "end"
                return f"{kind} {getattr(getattr(request, kind), 'uid', '')}{'+' * len(fds)}"
            assert asyncio.get_running_loop().time() < deadline, "nothing was said"
            await asyncio.sleep(0.005)

    def _received(self):
        try:
            packet, fds, _, _ = socket.recv_fds(self.end, 1024, 4)
        except ConnectionResetError:
            return b"", []
        return packet, fds

    async def follows(self, *orders):
        """Acknowledge exactly these orders."""
        for order in orders:
            assert await self.hears() == order
            self.answer()


def null():
    return os.open(os.devnull, os.O_RDONLY)


@pytest.fixture
def answered():
    return []


@pytest_asyncio.fixture
async def proxies(tmp_path, answered):
    made = announcing.Proxies(on_answer=answered.append, answer_s=0.3)
    with made.listening(tmp_path / "run" / "z.sock"):
        yield made


@pytest_asyncio.fixture
async def connect(proxies, tmp_path):
    with contextlib.ExitStack() as opened:

        def one():
            proxy = Proxy(tmp_path / "run" / "z.sock")
            opened.callback(proxy.end.close)
            return proxy

        yield one


def open_descriptors():
    return sum(1 for _ in pathlib.Path("/proc/self/fd").iterdir())


async def until(question):
    deadline = asyncio.get_running_loop().time() + LIMIT_S
    while not question():
        assert asyncio.get_running_loop().time() < deadline, "it did not come"
        await asyncio.sleep(0.005)


async def test_a_proxy_is_told_of_all_pods_with_their_networks(proxies, connect, answered):
    proxies.offer(ONE, null())
    proxies.keep(TWO)

    await connect().follows("add u1+", "keep u2", "snapshot_sent ")

    await until(lambda: proxies.answer_of("u1") == "")
    assert answered == ["u1"]
    assert proxies.answer_of("u2") is None


async def test_a_pod_is_handed_over_when_it_comes_and_taken_back_when_it_leaves(proxies, connect):
    proxy = connect()
    await proxy.follows("snapshot_sent ")

    proxies.offer(ONE, null())
    await proxy.follows("add u1+")
    proxies.remove("u1")

    await proxy.follows("del u1")
    assert proxies.answer_of("u1") is None


async def test_a_refusal_is_kept_until_the_pod_is_offered_again(proxies, connect):
    proxy = connect()
    await proxy.follows("snapshot_sent ")
    proxies.offer(ONE, null())
    await proxy.hears()
    proxy.answer("no room")
    await until(lambda: proxies.answer_of("u1") == "no room")

    proxies.offer(ONE, null())

    await proxy.follows("add u1+")
    await until(lambda: proxies.answer_of("u1") == "")


async def test_the_newest_takes_new_pods_and_everybody_lets_go_of_old_ones(proxies, connect):
    proxies.offer(ONE, null())
    old = connect()
    await old.follows("add u1+", "snapshot_sent ")
    new = connect()
    await new.follows("add u1+", "snapshot_sent ")

    proxies.offer(TWO, null())
    await new.follows("add u2+")
    proxies.remove("u1")

    await old.follows("del u1")
    await new.follows("del u1")


async def test_what_the_newest_never_took_goes_to_who_is_left(proxies, connect):
    old = connect()
    await old.follows("snapshot_sent ")
    new = connect()
    await new.follows("snapshot_sent ")
    proxies.offer(ONE, null())
    await new.hears()

    new.end.close()

    await old.follows("add u1+")
    await until(lambda: proxies.answer_of("u1") == "")


async def test_a_proxy_that_comes_again_is_told_of_all_again(proxies, connect):
    proxies.offer(ONE, null())
    first = connect()
    await first.follows("add u1+", "snapshot_sent ")
    first.end.close()

    await connect().follows("add u1+", "snapshot_sent ")


async def test_what_a_proxy_leaves_with_a_pod_is_handed_to_the_next_and_ends_with_the_pod(
    proxies, connect
):
    before = open_descriptors()
    former = connect()
    await former.follows("snapshot_sent ")
    proxies.offer(ONE, null())
    assert await former.hears() == "add u1+"
    reading, writing = os.pipe()
    former.answer(leaving=[writing])
    os.close(writing)
    await until(lambda: proxies.answer_of("u1") == "")
    former.end.close()

    await connect().follows("add u1++", "snapshot_sent ")

    assert select.select([reading], [], [], 0)[0] == []
    proxies.remove("u1")
    assert select.select([reading], [], [], LIMIT_S)[0] == [reading]
    os.close(reading)
    await until(lambda: open_descriptors() == before + 2)


async def test_what_is_left_with_no_pod_is_closed(proxies, connect):
    proxy = connect()
    assert await proxy.hears() == "snapshot_sent "
    before = open_descriptors()

    proxy.answer(leaving=[proxy.end.fileno(), proxy.end.fileno()])

    proxies.offer(ONE, null())
    await proxy.follows("add u1+")
    assert open_descriptors() == before + 1


async def test_who_says_nothing_in_time_is_let_go(proxies, connect):
    silent = connect()
    assert await silent.hears() == "snapshot_sent "

    assert await silent.hears() == "end"
    assert proxies.count == 0


async def test_who_breaks_the_protocol_is_let_go_and_no_other(proxies, connect):
    good, bad = connect(), connect()
    await good.follows("snapshot_sent ")
    await bad.follows("snapshot_sent ")

    bad.answer()

    assert await bad.hears() == "end"
    proxies.offer(ONE, null())
    await good.follows("add u1+")


async def test_there_is_an_end_to_how_many_may_connect(proxies, connect):
    for _ in range(announcing.MOST_PROXIES):
        await connect().follows("snapshot_sent ")

    assert await connect().hears() == "end"


async def test_a_pod_that_left_before_its_turn_is_not_told(proxies, connect):
    first = [f"p{number}" for number in range(zds.MOST_AT_ONCE)]
    for uid in first:
        proxies.offer(zds.Add(uid, "p", "ns", "sa"), null())
    proxies.offer(TWO, null())
    proxy = connect()
    assert await proxy.hears() == "add p0+"
    proxies.remove("u2")

    proxy.answer()

    await proxy.follows(*(f"add {uid}+" for uid in first[1:]), "snapshot_sent ", "del u2")


async def test_an_agent_that_follows_another_replaces_its_socket(tmp_path):
    path = tmp_path / "z.sock"
    path.touch()

    with announcing.Proxies().listening(path):
        assert path.is_socket()
        assert path.stat().st_mode & 0o777 == 0o600


async def test_no_descriptor_is_left_open(tmp_path):
    before = open_descriptors()
    made = announcing.Proxies()
    with made.listening(tmp_path / "z.sock"):
        for _ in range(3):
            made.offer(ONE, null())
        made.offer(TWO, null())
        made.remove("u2")

    assert open_descriptors() == before
