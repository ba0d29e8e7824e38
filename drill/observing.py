"""Looks on while things happen: traffic of a client in each cluster, proxies, pods, memory.

Everything that is seen goes into the record as it comes; nothing is judged here.
"""

import asyncio
import json
import re
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from drill import mesh as meshes
from drill import records, verdict
from isthmus.base import tasks
from isthmus.kube import kinds

HOST, PORT, PATH = "helloworld.sample", "5000", "/hello"
CLIENT, SERVER = "sleep", "helloworld"
LOG_EVERY_S: Final = 10.0
MEMORY_EVERY_S: Final = 2.0
LONGEST_S: Final = 3600.0
_SENDER: Final = Path(__file__).with_name("sender.py").read_text(encoding="utf-8")
_WATCHER: Final = Path(__file__).with_name("watcher.py").read_text(encoding="utf-8")
_ARRIVAL = re.compile(r'"GET \S+\?id=(\S+) HTTP/1\.1" 200 xfcc="(.*)"')
_LIMIT_S: Final = 300.0
_BUSY: Final = (f"|{meshes.CONTROL_PLANE}.", "|istiod-remote.")
"""Services whose only pod a drill kills: they have no endpoint then, and should have none."""


class Observer:
    """Fills a record."""

    def __init__(self, mesh: meshes.Mesh, record: records.Record, nursery: tasks.Nursery) -> None:
        self._mesh = mesh
        self._record = record
        self._nursery = nursery
        self._latest: dict[records.Proxy, frozenset[records.Endpoint]] = {}
        self._places = verdict.Places({})
        self._changed = asyncio.Event()
        self._stop = f"/tmp/drill-{secrets.token_hex(4)}"
        self._senders: list[asyncio.Task[None]] = []
        self._clients: dict[str, str] = {}
        self._log_moments: dict[str, str] = {}

    async def start(self, rate: float) -> None:
        """Begin to look on, and to send so many requests a second from all clients together."""
        self._record.owners = await self._mesh.owners()
        self._places = verdict.Places(self._record.owners)
        for proxy in await self._mesh.proxies():
            _ = self._nursery.start(f"watch {proxy.pod}", self._watch(proxy))
            self._record.failed_tries[proxy] = 0
        each = rate / len(self._mesh.clusters)
        for cluster in self._mesh.clusters:
            self._clients[cluster] = await self._mesh.pod(cluster, meshes.SAMPLE, CLIENT)
            sending = self._nursery.start(f"send in {cluster}", self._send(cluster, each))
            self._senders.append(sending)
        _ = self._nursery.keep("read logs", self._read_logs_at_times)
        _ = self._nursery.keep("read memory", self._read_memory)

    async def settle(self) -> None:
        """Wait until every proxy knows all clusters, and take that as what they should know."""
        everywhere = set(self._mesh.clusters)

        def is_whole() -> bool:
            return len(self._latest) == len(self._record.failed_tries) and all(
                self._places.of(endpoints, service=SERVER)
                == (everywhere if proxy.pod.startswith(meshes.SAMPLE) else {proxy.cluster})
                for proxy, endpoints in self._latest.items()
            )

        if not await self.until(is_whole, limit_s=_LIMIT_S):
            self._note("the mesh was not whole before the first fault")
        self._record.expected = dict(self._latest)
        self._record.glances.clear()
        for proxy, endpoints in self._latest.items():
            self._record.glances.append(records.Glance(proxy, time.time(), endpoints))

    async def end(self) -> None:
        """Send no more, wait for every answer, and read what has arrived."""
        for cluster, pod in self._clients.items():
            argv = ["touch", f"{self._stop}-{cluster}"]
            await self._mesh.clients[cluster].exec(
                meshes.SAMPLE, pod, argv, container=CLIENT, timeout_s=_LIMIT_S
            )
        async with asyncio.timeout(_LIMIT_S):
            for sending in self._senders:
                await sending
        await self._read_logs()
        self._record.ended = time.time()

    # --- what is known now ----------------------------------------------------------------------

    def knows(self, watcher: str, cluster: str) -> bool:
        """Whether any proxy of `watcher` has an endpoint that leads to `cluster`."""
        return any(
            cluster in self._places.of(endpoints)
            for proxy, endpoints in self._latest.items()
            if proxy.cluster == watcher
        )

    def is_whole(self, watcher: str) -> bool:
        """Whether every proxy of `watcher` has all that it should have."""
        expected = self._record.expected
        return all(
            self._latest[proxy] >= expected[proxy] for proxy in expected if proxy.cluster == watcher
        )

    async def until(self, holds: Callable[[], bool], *, limit_s: float) -> bool:
        """Wait until something holds of what is known; whether it came in time."""
        try:
            async with asyncio.timeout(limit_s):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    # --- traffic --------------------------------------------------------------------------------

    async def _send(self, cluster: str, rate: float) -> None:
        stop = f"{self._stop}-{cluster}"
        argv = ["python3", "-c", _SENDER, HOST, PORT, PATH, stop, str(rate), str(LONGEST_S)]
        argv.append("x-isthmus-verify: {id}")
        ended = await self._mesh.clients[cluster].exec(
            meshes.SAMPLE,
            self._clients[cluster],
            argv,
            container=CLIENT,
            timeout_s=None,
            on_output=Lines(lambda said: self._requested(cluster, said), self._note),
        )
        if ended.code:
            self._note(f"the client in {cluster} ended with status {ended.code}")

    def _requested(self, cluster: str, said: dict[str, Any]) -> None:
        if "sent" in said:
            self._record.sent[cluster] = said["sent"]
            return
        name = f"{self._stop.rpartition('/')[2]}-{cluster}-{said['number']}"
        request = records.Request(
            cluster, name, said["at"], said["took_s"], said["status"], said["body"]
        )
        self._record.requests.append(request)

    # --- proxies --------------------------------------------------------------------------------

    async def _watch(self, proxy: records.Proxy) -> None:
        namespace, _, name = proxy.pod.partition("/")
        ended = await self._mesh.clients[proxy.cluster].exec(
            namespace,
            name,
            ["python3", "-c", _WATCHER],
            container=meshes.PROXY,
            timeout_s=None,
            on_output=Lines(lambda said: self._glanced(proxy, said), self._note),
        )
        self._note(f"the watcher of {proxy.pod} ended with status {ended.code}")

    def _glanced(self, proxy: records.Proxy, said: dict[str, Any]) -> None:
        if "error" in said:
            return
        seen = self._record.seen.get(proxy, said["at"])
        gap = max(said["at"] - seen, self._record.gaps_s.get(proxy, 0.0))
        self._record.seen[proxy], self._record.gaps_s[proxy] = said["at"], gap
        self._record.failed_tries[proxy] = said["failed"]
        if "endpoints" in said:
            pairs = (each.partition(" ")[::2] for each in said["endpoints"])
            endpoints = frozenset(
                (service, address)
                for service, address in pairs
                if not any(busy in service for busy in _BUSY)
            )
            self._latest[proxy] = endpoints
            self._record.glances.append(records.Glance(proxy, said["at"], endpoints))
            self._changed.set()

    def _note(self, text: str) -> None:
        self._record.notes.append((time.time(), text))

    # --- logs and memory ------------------------------------------------------------------------

    async def _read_logs_at_times(self) -> None:
        while True:
            await asyncio.sleep(LOG_EVERY_S)
            await self._read_logs()

    async def _read_logs(self) -> None:
        for cluster, reached in self._mesh.clients.items():
            pod = await self._mesh.pod(cluster, meshes.SAMPLE, SERVER)
            path = kinds.POD.path(pod, namespace=meshes.SAMPLE, subresource="log")
            query = {"container": SERVER, "timestamps": "true"}
            since = self._log_moments.get(cluster, "")
            text = await reached.raw("GET", path, query={**query, "sinceTime": since})
            for line in text.decode(errors="replace").splitlines():
                moment, _, said = line.partition(" ")
                if moment <= since:
                    continue
                self._log_moments[cluster] = moment
                arrival = _ARRIVAL.search(said)
                if arrival and arrival[1].startswith(self._stop.rpartition("/")[2]):
                    caller = arrival[2].rpartition("URI=")[2]
                    self._record.arrivals.append(records.Arrival(cluster, arrival[1], caller))
        await self._read_flags()

    async def _read_memory(self) -> None:
        while True:
            for cluster in self._mesh.clusters:
                pid = self._mesh.control_plane(cluster)
                held = self._mesh.holding(cluster, pid, at=time.time()) if pid else None
                if held is not None:
                    self._record.holdings.append(held)
            await asyncio.sleep(MEMORY_EVERY_S)

    async def _read_flags(self) -> None:
        """Find what the clients' proxies logged of lost requests."""
        lost = {
            each.id: each.client
            for each in self._record.requests
            if each.is_lost and each.id not in self._record.flags
        }
        for cluster in sorted(set(lost.values())):
            pod = self._clients[cluster]
            text = await self._mesh.clients[cluster].logs(meshes.SAMPLE, pod, meshes.PROXY)
            for line in text.splitlines():
                entry = json.loads(line) if line.startswith('{"') else {}
                if entry.get("isthmus_verify") in lost and entry.get("reporter") == "source":
                    said = f"{entry.get('response_flags')}, upstream {entry.get('upstream_host')}"
                    self._record.flags[entry["isthmus_verify"]] = said


class Lines:
    """Turns a program's output into documents, line by line."""

    def __init__(
        self, take: Callable[[dict[str, Any]], None], complain: Callable[[str], None]
    ) -> None:
        self._take = take
        self._complain = complain
        self._rest = b""

    def __call__(self, channel: int, content: bytes) -> None:
        """Take what came on a channel: 1 is standard output, all else a complaint."""
        if channel != 1:
            self._complain(content.decode(errors="replace").strip()[-400:])
            return
        *whole, self._rest = (self._rest + content).split(b"\n")
        for line in whole:
            self._take(json.loads(line))
