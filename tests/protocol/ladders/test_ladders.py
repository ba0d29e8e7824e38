"""Each rung of the way to another cluster breaks by itself, and is told with its own cause.

The gateway is a real Envoy where there is one, behind it a pod's end of the inner tunnel; what
breaks below is sockets and TLS by hand.
"""

import asyncio
import contextlib
import dataclasses
import datetime
import socket
import ssl

import pytest

from isthmus.base import clock
from isthmus.mesh import identities, probing
from isthmus.mesh.probing import Goal, Outcome, Rung, Shared, Way
from isthmus.testing import certificates as material
from isthmus.wire import ladders, pipes, tls

NOW = clock.SystemClock().now()
DOMAIN = identities.TrustDomain("cluster.local")
GATEWAY = str(identities.SpiffeId(DOMAIN, "istio-gateways", "istio-eastwest"))
POD = str(identities.SpiffeId(DOMAIN, "sample", "helloworld"))
HOST = "helloworld.sample.mesh.internal"
HERE = "127.0.0.1"
SHARED = Shared(HOST, 5000, (POD,), is_http=True)


def proven(namespace, account, *, of="root", cluster="east", now=NOW, days=1):
    signer = material.signer(cluster, of=of, now=now)
    identity = identities.SpiffeId(DOMAIN, namespace, account)
    life = datetime.timedelta(days=days)
    return tls.prove(signer, identity=identity, now=now, lifetime=life)


OURS = proven("istio-system", "istiod")
THEIRS = proven("istio-gateways", "istio-eastwest", cluster="west")
THE_PODS = proven("sample", "helloworld", cluster="west")


def server_context(proof, *, roots=None):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(cadata=roots or proof.roots_pem)
    context.set_alpn_protocols(["h2", "istio"])
    tls._load(context, proof)
    return context


@dataclasses.dataclass
class Far:
    """What answers at the other side, step by step.

    Attributes:
        statuses: For the outer tunnel, and for the inner one.
        answer: Of the application.
        pod: Who ends the inner tunnel.
    """

    statuses: tuple[int, int] = (200, 200)
    answer: bytes = b"HTTP/1.1 200 OK\r\n\r\n"
    pod: tls.Certificate = THE_PODS
    asked: list[str] = dataclasses.field(default_factory=list)

    async def serve(self, reader, writer):
        with contextlib.suppress(OSError, EOFError, ssl.SSLError, pipes.Broken):
            outer = Stream(pipes.SocketPipe(reader, writer))
            self.asked.append(await outer.accept(self.statuses[0]))
            if self.statuses[0] == 200 and not self.asked[-1].startswith("check."):
                inner = ServerTls(outer, server_context(self.pod))
                await inner.handshake()
                stream = Stream(inner)
                self.asked.append(await stream.accept(self.statuses[1]))
                await stream.read()
                await stream.write(self.answer)
            await reader.read()
        writer.close()


class ServerTls(pipes.TlsPipe):
    def __init__(self, inner, context):
        self._inner = inner
        self._there, self._here = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._there, self._here, server_side=True)


class Stream(pipes.Tunnel):
    """The other end of a tunnel."""

    async def accept(self, status):
        assert await self._exactly(len(pipes.PREFACE)) == pipes.PREFACE
        await self._inner.write(pipes._frame(pipes.SETTINGS))
        while True:
            kind, _, payload = await self._frame()
            if kind == pipes.HEADERS:
                break
        name = payload[payload.index(b"CONNECT") + 9 :].decode()
        block = b"\x88" if status == 200 else b"\x08\x03" + str(status).encode()
        await self._inner.write(
            pipes._frame(pipes.HEADERS, block, flags=pipes.END_HEADERS, stream=1)
        )
        return name


@contextlib.asynccontextmanager
async def far(serve, context=None):
    server = await asyncio.start_server(serve, HERE, 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def goal(port, *, way=Way.TUNNELS, address=HERE, expected=GATEWAY, shared=SHARED):
    there = identities.ClusterId("west"), identities.NetworkId("n2")
    return Goal(way, *there, address, port, expected, shared)


async def climb(wanted, *, proof=OURS, rung_s=2.0):
    return await ladders.Climb(wanted, proof, rung_s=rung_s).run()


def broken(steps):
    """Return the one rung that broke; those above it must not have been tried."""
    found = [step for step in steps if step.outcome is Outcome.BROKEN]
    assert len(found) == 1
    (step,) = found
    assert step.fix
    place = [one.rung for one in steps].index(step.rung)
    assert all(one.outcome is Outcome.GOOD for one in steps[:place])
    assert all(one.outcome is Outcome.SKIPPED for one in steps[place + 1 :])
    return step.rung, step.found


async def test_the_whole_ladder_stands():
    other = Far()
    async with far(other.serve, server_context(THEIRS)) as port:
        steps = await climb(goal(port))

    assert [one.rung for one in steps] == list(Rung)
    assert {one.outcome for one in steps} == {Outcome.GOOD}
    assert steps[-1].found.endswith("answers HTTP/1.1 200 OK")
    assert other.asked == [f"{HOST}:5000"] * 2


async def test_a_name_that_nobody_knows():
    rung, found = broken(await climb(goal(1, address="gateway.check.invalid")))

    assert rung is Rung.DNS
    assert "gateway.check.invalid" in found


async def test_a_port_on_which_nobody_listens():
    with socket.socket() as unused:
        unused.bind((HERE, 0))
        rung, found = broken(await climb(goal(unused.getsockname()[1])))

    assert rung is Rung.TCP
    assert "refused" in found.lower()


async def test_an_address_that_swallows_everything():
    """Of a full queue: whoever connects hears nothing."""
    with socket.socket() as full:
        full.bind((HERE, 0))
        full.listen(0)
        port = full.getsockname()[1]
        with contextlib.ExitStack() as stack:
            for _ in range(3):
                one = stack.enter_context(socket.socket())
                one.setblocking(False)
                one.connect_ex((HERE, port))
            rung, found = broken(await climb(goal(port), rung_s=0.3))

    assert rung is Rung.TCP
    assert "nothing answers" in found


async def test_plain_text_where_tls_should_be():
    async def shout(_, writer):
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    async with far(shout) as port:
        rung, found = broken(await climb(goal(port)))

    assert rung is Rung.TLS
    assert "does not speak the mesh's TLS" in found


async def test_a_certificate_that_nobody_here_believes():
    stranger = proven("istio-gateways", "istio-eastwest", of="another root", cluster="west")
    async with far(Far().serve, server_context(stranger)) as port:
        rung, found = broken(await climb(goal(port)))

    assert rung is Rung.TLS
    assert "nobody whom this cluster believes" in found


async def test_a_certificate_that_has_ended():
    ended = proven(
        "istio-gateways", "istio-eastwest", cluster="west", now=NOW - datetime.timedelta(days=3)
    )
    ours = dataclasses.replace(OURS, roots_pem=ended.roots_pem)
    async with far(Far().serve, server_context(ended)) as port:
        rung, found = broken(await climb(goal(port), proof=ours))

    assert rung is Rung.TLS
    assert "has ended" in found


async def test_another_gateway_than_the_expected_one():
    somebody = proven("default", "somebody", cluster="west")
    async with far(Far().serve, server_context(somebody)) as port:
        rung, found = broken(await climb(goal(port)))

    assert rung is Rung.IDENTITY
    assert "/ns/default/sa/somebody, and not" in found


async def test_a_gateway_that_does_not_believe_us():
    foreign = material.signer("west", of="another root", now=NOW).roots_pem
    async with far(Far().serve, server_context(THEIRS, roots=foreign)) as port:
        rung, found = broken(await climb(goal(port)))

    assert rung is Rung.IDENTITY
    assert "hung up as soon as it saw this cluster's certificate" in found


async def test_a_gateway_that_says_why_it_does_not_believe_us():
    foreign = material.signer("west", of="another root", now=NOW).roots_pem

    async def doubt(reader, writer):
        pipe = ServerTls(pipes.SocketPipe(reader, writer), server_context(THEIRS, roots=foreign))
        with contextlib.suppress(ssl.SSLError):
            await pipe.handshake()
        await pipe._flush()
        writer.close()

    async with far(doubt) as port:
        rung, found = broken(await climb(goal(port)))

    assert rung is Rung.IDENTITY
    assert "does not believe this cluster's certificate: unknown ca" in found


async def test_tls_that_speaks_no_http2():
    async def shout(reader, writer):
        await reader.read(10)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        await reader.read(1000)
        writer.close()

    async with far(shout, server_context(THEIRS)) as port:
        rung, found = broken(await climb(goal(port)))

    assert rung is Rung.HBONE
    assert "no end of tunnels" in found


async def test_tls_that_ends_no_tunnels():
    async def mumble(reader, writer):
        await reader.read(10)
        writer.write(pipes._frame(pipes.SETTINGS))
        await reader.read(1000)
        writer.close()

    async with far(mumble, server_context(THEIRS)) as port:
        rung, found = broken(await climb(goal(port)))

    assert rung is Rung.HBONE
    assert "is not answered" in found


@pytest.mark.parametrize(
    ("status", "text"), [(404, "knows no"), (503, "no ready pod"), (500, "answers 500")]
)
async def test_a_gateway_that_leads_nowhere(status, text):
    async with far(Far((status, 200)).serve, server_context(THEIRS)) as port:
        rung, found = broken(await climb(goal(port)))

    assert rung is Rung.HBONE
    assert text in found


async def test_a_gateway_that_shares_nothing_only_has_to_say_so():
    async with far(Far((404, 200)).serve, server_context(THEIRS)) as port:
        steps = await climb(goal(port, shared=None))

    assert [one.outcome for one in steps] == [Outcome.GOOD] * 5 + [Outcome.SKIPPED]


async def test_whoever_makes_tunnels_to_anywhere_is_no_gateway():
    async with far(Far((200, 200)).serve, server_context(THEIRS)) as port:
        rung, _ = broken(await climb(goal(port, shared=None)))

    assert rung is Rung.HBONE


async def test_another_pod_than_the_services():
    pod = proven("default", "somebody", cluster="west")
    async with far(Far(pod=pod).serve, server_context(THEIRS)) as port:
        rung, found = broken(await climb(goal(port)))

    assert rung is Rung.HTTP
    assert "/sa/somebody" in found


async def test_a_pod_whose_application_is_not_there():
    async with far(Far((200, 503)).serve, server_context(THEIRS)) as port:
        rung, found = broken(await climb(goal(port)))

    assert rung is Rung.HTTP
    assert "answers 503" in found


async def test_a_policy_that_refuses_the_control_plane_is_no_broken_way():
    async with far(Far((200, 401)).serve, server_context(THEIRS)) as port:
        steps = await climb(goal(port))

    assert steps[-1].outcome is Outcome.GOOD
    assert "policy" in steps[-1].found


async def test_an_application_that_does_not_answer():
    async with far(Far(answer=b"220 hello\r\n").serve, server_context(THEIRS)) as port:
        rung, _ = broken(await climb(goal(port)))

    assert rung is Rung.HTTP


async def test_mutual_tls_by_server_name_ends_at_the_pod():
    asked = []

    async def answer(reader, writer):
        asked.append(await reader.read(1000))
        writer.write(b"HTTP/1.1 404 Not Found\r\n\r\n")
        await writer.drain()
        writer.close()

    wanted = goal(0, way=Way.MUTUAL_TLS, expected="")
    async with far(answer, server_context(THE_PODS)) as port:
        steps = await climb(dataclasses.replace(wanted, port=port))

    assert {one.outcome for one in steps} == {Outcome.GOOD}
    assert f"host: {HOST}:5000".encode() in asked[0]


async def test_a_gateway_that_knows_no_such_server_name_hangs_up():
    async def hang_up(_, writer):
        writer.transport.abort()

    wanted = goal(0, way=Way.MUTUAL_TLS, expected="")
    async with far(hang_up) as port:
        rung, _ = broken(await climb(dataclasses.replace(wanted, port=port)))

    assert rung is Rung.TLS


async def test_discovery_has_to_be_the_control_plane_of_that_cluster():
    name = "istiod.west.cluster.local"
    signer = material.signer("west", now=NOW)
    life = datetime.timedelta(days=1)
    right = tls.issue(signer, names=(name,), now=NOW, lifetime=life)
    wrong = tls.issue(signer, names=("istiod.north.cluster.local",), now=NOW, lifetime=life)
    wanted = goal(0, way=Way.DISCOVERY, expected=name, shared=None)

    async with far(Far().serve, server_context(right)) as port:
        steps = await climb(dataclasses.replace(wanted, port=port))
    async with far(Far().serve, server_context(wrong)) as port:
        rung, _ = broken(await climb(dataclasses.replace(wanted, port=port)))

    assert {one.outcome for one in steps} == {Outcome.GOOD}
    assert rung is Rung.IDENTITY


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"\x88", 200),
        (b"\x8d", 404),
        (b"\x48\x03503", 503),
        (b"\x48\x82\x68\x01", 401),
        (b"\x20\x88", 200),
        (b"\x08\x03429", 429),
    ],
)
def test_statuses_are_read_as_servers_write_them(block, status):
    assert pipes.status_of(block) == status


@pytest.mark.parametrize("block", [b"", b"\x82", b"\x48", b"\x48\x03abc", b"\x48\x82\xff\xff"])
def test_what_is_no_status_is_no_answer(block):
    with pytest.raises(pipes.Broken):
        pipes.status_of(block)


def test_every_way_begins_at_the_bottom():
    assert {way: rungs[:3] for way, rungs in probing.RUNGS.items()} == dict.fromkeys(
        Way, (Rung.DNS, Rung.TCP, Rung.TLS)
    )
