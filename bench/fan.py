"""`python -m bench.fan`: what one message to one connected proxy costs, over real sockets with TLS.

The server of discovery runs in this process; the proxies are one process of their own, each with
a connection and a delta stream on it. A resource changes again and again; each time all of them
are told and acknowledge. Prints CPU time of the server for one message and its acknowledgement,
and its memory for one connected proxy.
"""

import argparse
import asyncio
import cProfile
import datetime
import multiprocessing
import multiprocessing.connection
import pathlib
import pstats
import selectors
import socket
import ssl
import time
from collections.abc import Mapping
from typing import Any, Final

from envoy.service.discovery.v3 import discovery_pb2

from bench.scale import http2
from isthmus.base import clock, memory
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.resources import snapshot
from isthmus.resources.snapshot import TypeUrl
from isthmus.runtime import catalog
from isthmus.testing import certificates
from isthmus.views import view
from isthmus.wire import ads, callers, grpc_tls, listening, nodes, tls
from isthmus.xds import messages

NAME: Final = "istiod.istio-system.svc"
WATCHED: Final = "outbound|80||s0.default.svc.cluster.local"
SCOPE: Final = view.OutboundScope(ClusterId("c1"), NetworkId("n1"), "default")
METHOD: Final = f"/{ads.SERVICE}/DeltaAggregatedResources"
WAIT_S: Final = 120.0


class _Watch:
    """Sees one scope."""

    __slots__ = ("_sees", "_wake")

    def __init__(self, shelves: catalog.Catalog) -> None:
        self._sees = shelves.read((SCOPE,), self)
        self._wake: catalog.Wake | None = None

    def __call__(self, changed: ads.Changed) -> None:
        if self._wake is not None:
            self._wake(changed)

    def snapshot(self) -> snapshot.Snapshot:
        return self._sees.snapshot

    def on_change(self, wake: catalog.Wake) -> None:
        self._wake = wake

    def heeds(self, type_url: TypeUrl, names: frozenset[str]) -> None:
        self._sees.want(self, type_url, names)

    def status(self, report: messages.Report) -> None:
        del report

    def close(self) -> None:
        """Nobody leaves before the end."""


class _Discovery:
    """Everybody may come, and has one endpoint set."""

    def __init__(self, size: int) -> None:
        self.authenticator: callers.Authenticator = self
        self._size = size
        self._shelves = catalog.Catalog()
        self.change(0)

    async def authenticate(self, credentials: callers.Credentials) -> callers.Caller:
        pod = credentials.token
        return callers.Caller(ClusterId("c1"), "default", "default", pod=pod, pod_uid=pod)

    def open(self, caller: callers.Caller, node: nodes.Node) -> _Watch:
        del caller, node
        return _Watch(self._shelves)

    def change(self, number: int) -> None:
        body = f"{number:08}".encode() * (self._size // 8)
        key = view.SliceKey(SCOPE, view.Kind.ENDPOINTS, WATCHED)
        one = snapshot.Resource(snapshot.ENDPOINTS, WATCHED, f"v{number}", body)
        self._shelves.change([(key, snapshot.ENDPOINTS, one)])


def main(argv: list[str] | None = None) -> None:
    """Measure at each number of proxies that was asked for."""
    parser = argparse.ArgumentParser(prog="python -m bench.fan", description=__doc__)
    parser.add_argument("proxies", type=int, nargs="*", default=[200, 1000, 2000])
    parser.add_argument("--rounds", type=int, default=20, help="changes (default: 20)")
    parser.add_argument("--size", type=int, default=304, help="bytes that change (default: 304)")
    parser.add_argument("--profile", type=int, default=0, metavar="LINES", help="where time goes")
    parser.add_argument("--reference", action="store_true", help="by gRPC's own server")
    chosen = parser.parse_args(argv)
    for count in chosen.proxies:
        asyncio.run(_measured(count, chosen))


async def _measured(count: int, chosen: argparse.Namespace) -> None:
    memory.collect_rarely()  # as the control plane does
    discovery = _Discovery(chosen.size)
    service = ads.Service(discovery, limits=ads.Limits(streams_per_s=1_000_000))
    now = clock.SystemClock().now() - datetime.timedelta(minutes=1)
    serving = tls.Serving(tls.issue(certificates.signer(now=now), names=(NAME,), now=now))
    server, port = await _listening(service, serving, is_reference=chosen.reference)
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    before = _memory()
    proxies = spawning.Process(target=_proxies, args=(port, count, theirs), daemon=True)
    proxies.start()
    rounds = asyncio.Queue[int]()
    asyncio.get_running_loop().add_reader(
        ours.fileno(), lambda: rounds.put_nowait(int(ours.recv()))
    )
    await asyncio.wait_for(rounds.get(), WAIT_S)
    await asyncio.sleep(1)
    took_s, spent_s = await _told(discovery, rounds, chosen)
    await asyncio.sleep(1)
    kept = (_memory() - before) / count
    cost = spent_s / count / chosen.rounds * 1e6
    print(
        f"{count} proxies: {cost:.1f} µs of CPU for each message, {kept:.1f} KB for each proxy, "
        f"{took_s / chosen.rounds * 1000:.0f} ms until the last has it",
        flush=True,
    )
    ours.close()
    proxies.terminate()
    proxies.join()
    await server.stop(0)


async def _listening(service: ads.Service, serving: tls.Serving, *, is_reference: bool) -> Any:  # noqa: ANN401  # either server
    handlers, address = (service.handler(),), "127.0.0.1:0"
    if not is_reference:
        return listening.listen(handlers, address=address, serving=serving)
    return await listening.listen_by_grpc(
        handlers, address=address, credentials=grpc_tls.server_credentials(serving)
    )


async def _told(
    discovery: _Discovery, rounds: "asyncio.Queue[int]", chosen: argparse.Namespace
) -> tuple[float, float]:
    profile = cProfile.Profile() if chosen.profile else None
    spent_s, began = time.process_time(), time.monotonic()
    if profile:
        profile.enable()
    for number in range(chosen.rounds):
        discovery.change(number + 1)
        await asyncio.wait_for(rounds.get(), WAIT_S)
    took_s = time.monotonic() - began
    await asyncio.sleep(0.2)
    spent_s = time.process_time() - spent_s
    if profile:
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(chosen.profile)
    return took_s, spent_s


def _memory() -> float:
    """Return what this process takes, in KB."""
    rollup = pathlib.Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return float(rollup.split("Pss:")[1].split()[0])


# --- the proxies ---------------------------------------------------------------------------------


def _proxies(port: int, count: int, tell: "multiprocessing.connection.Connection") -> None:
    """Connect, ask, acknowledge; tell whenever all have heard another message."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    waiting = selectors.DefaultSelector()
    heard = told = connected = 0
    while True:
        if connected < count:
            _connect(connected, port, context, waiting)
            connected += 1
        # Who connects answers pings all the same.
        for key, _ in waiting.select(0 if connected < count else None):
            heard += _hear(key.fileobj, key.data)
        if heard >= (told + 1) * count:
            told += 1
            tell.send(told)


def _connect(
    number: int, port: int, context: ssl.SSLContext, waiting: selectors.BaseSelector
) -> None:
    pod = f"p{number}"
    headers = (("authorization", f"Bearer {pod}"), ("clusterid", "c1"))
    stream = http2.Stream(METHOD, headers)
    first = discovery_pb2.DeltaDiscoveryRequest(type_url=snapshot.ENDPOINTS)
    first.node.id = f"sidecar~10.0.{number // 250}.{number % 250}~{pod}.default~default.svc.x"
    first.resource_names_subscribe.append(WATCHED)
    stream.send(first.SerializeToString())
    plain = socket.create_connection(("127.0.0.1", port))
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock = context.wrap_socket(plain, server_hostname=NAME)
    sock.sendall(stream.take())
    sock.setblocking(False)
    waiting.register(sock, selectors.EVENT_READ, stream)


def _hear(sock: Any, stream: http2.Stream) -> int:  # noqa: ANN401  # selectors know no sockets
    heard = 0
    try:
        while content := sock.recv(1 << 16):
            for message in stream.hear(content):
                heard += 1
                said: Mapping[str, Any] = _parsed(message)
                stream.send(discovery_pb2.DeltaDiscoveryRequest(**said).SerializeToString())
    except ssl.SSLWantReadError:
        pass
    if out := stream.take():
        sock.sendall(out)
    return heard


def _parsed(message: bytes) -> Mapping[str, Any]:
    answer = discovery_pb2.DeltaDiscoveryResponse.FromString(message)
    return {"type_url": answer.type_url, "response_nonce": answer.nonce}


if __name__ == "__main__":
    main()
