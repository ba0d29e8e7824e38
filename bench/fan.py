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
import os
import pathlib
import pstats
import selectors
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from envoy.service.discovery.v3 import discovery_pb2

from bench.scale import http2
from isthmus.base import clock, memory, metrics, tasks
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.resources import snapshot
from isthmus.runtime import catalog, watching
from isthmus.runtime.fanout import crowd
from isthmus.runtime.fanout import messages as fanout
from isthmus.testing import certificates
from isthmus.views import view
from isthmus.wire import ads, callers, grpc_tls, listening, nodes, tls

NAME: Final = "istiod.istio-system.svc"
WATCHED: Final = "outbound|80||s0.default.svc.cluster.local"
SCOPE: Final = view.OutboundScope(ClusterId("c1"), NetworkId("n1"), "default")
METHOD: Final = f"/{ads.SERVICE}/DeltaAggregatedResources"
WAIT_S: Final = 120.0


class _Discovery:
    """Everybody may come, and has one endpoint set."""

    def __init__(self, size: int) -> None:
        self.authenticator: callers.Authenticator = self
        self._size = size
        self._shelves = catalog.Catalog[view.Scope]()
        self.change(0)

    async def authenticate(self, credentials: callers.Credentials) -> callers.Caller:
        pod = credentials.token
        return callers.Caller(ClusterId("c1"), "default", "default", pod=pod, pod_uid=pod)

    def open(self, caller: callers.Caller, node: nodes.Node) -> watching.ProxyWatch[view.Scope]:
        del caller, node
        watch = watching.ProxyWatch(self, "")
        watch.move((SCOPE,))
        return watch

    @property
    def catalog(self) -> catalog.Catalog[view.Scope]:
        return self._shelves

    def see(self, fresh: object, *, instead_of: object) -> None:
        """All is there."""

    def implied_of(self, key: str) -> frozenset[str]:
        del key
        return frozenset()

    def close(self, key: str) -> None:
        """Nobody leaves before the end."""

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
    parser.add_argument("--workers", type=int, default=0, help="by so many processes")
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
    if chosen.workers:
        server, port = await _by_workers(discovery, serving, chosen.workers)
    else:
        server, port = await _listening(service, serving, is_reference=chosen.reference)
    served = [f"{one.pid}" for one in server.workers] if chosen.workers else []
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    before = _memory(served)
    proxies = spawning.Process(target=_proxies, args=(port, count, theirs), daemon=True)
    proxies.start()
    rounds = asyncio.Queue[int]()
    asyncio.get_running_loop().add_reader(
        ours.fileno(), lambda: rounds.put_nowait(int(ours.recv()))
    )
    await asyncio.wait_for(rounds.get(), WAIT_S)
    await asyncio.sleep(1)
    took_s, spent_s, theirs_s = await _told(discovery, rounds, chosen, served)
    await asyncio.sleep(1)
    kept = (_memory(served) - before) / count
    told = count * chosen.rounds
    cost = (spent_s + sum(theirs_s)) / told * 1e6
    busiest = max(spent_s, *theirs_s) if theirs_s else spent_s
    print(
        f"{count} proxies: {cost:.1f} µs of CPU for each message, of which the busiest process "
        f"spends {busiest / told * 1e6:.1f} and the control plane {spent_s / told * 1e6:.1f}, {kept:.1f} KB for each proxy, "
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


async def _by_workers(discovery: _Discovery, serving: tls.Serving, count: int) -> tuple[Any, int]:
    async def refuse(*_: object) -> tuple[str, ...]:
        return ()

    shown = serving.certificate
    limits = ads.Limits(streams_per_s=1_000_000)
    state = fanout.State(shown.chain_pem, shown.key_pem, "c1", limits)
    workers = crowd.Crowd(
        count,
        proxies=discovery,
        certify=refuse,
        asides=lambda: None,
        state=lambda: state,
        registered=metrics.Metrics(),
        limits=limits,
        log_level="warning",
    )
    door = socket.socket()
    door.bind(("127.0.0.1", 0))
    workers.serve(door, tasks.Nursery())
    workers.look()
    await workers.serving()
    return workers, int(door.getsockname()[1])


async def _told(
    discovery: _Discovery,
    rounds: "asyncio.Queue[int]",
    chosen: argparse.Namespace,
    served: Sequence[str],
) -> tuple[float, float, list[float]]:
    before = [_cpu_s(one) for one in served]
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
    after = [_cpu_s(one) for one in served]
    return took_s, spent_s, [now - then for now, then in zip(after, before, strict=True)]


def _cpu_s(process: str) -> float:
    fields = pathlib.Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    user, system = fields.split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _memory(served: Sequence[str]) -> float:
    """Return what this process takes, and those that serve for it, in KB."""
    found = 0.0
    for process in ("self", *served):
        rollup = pathlib.Path(f"/proc/{process}/smaps_rollup").read_text(encoding="ascii")
        found += float(rollup.split("Pss:")[1].split()[0])
    return found


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
        while True:
            content = sock.recv(1 << 16)
            if not content:
                raise SystemExit("the server is gone")
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
