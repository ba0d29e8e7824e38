"""Looks on while things happen: clients in each cluster, the pods that answer, the wires.

Everything that is seen goes into the record as it comes; nothing is judged here.
"""

import asyncio
import contextlib
import json
import secrets
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Final

from drill import mesh as meshes
from drill import observing
from drill.ambient import records
from isthmus.base import tasks
from isthmus.kube import kinds

HOST, PORT, PATH = "helloworld.sample.mesh.internal", "5000", "/hello"
CLIENT, SERVER = "sleep", "helloworld"
ENOUGH: Final = 20
"""So many new connections in a row tell who answers."""
_PODS_EVERY_S: Final = 0.2
_POLL_S: Final = 0.05
_LONGEST_S: Final = 3600.0
_LIMIT_S: Final = 60.0
_ROOT: Final = Path(__file__).resolve().parents[2]
_SENDER: Final = (_ROOT / "drill/sender.py").read_text(encoding="utf-8")
_NODES_OWN: Final = "169.254.7.127"
"""From here a node asks its pods how they are, without TLS: nobody else sees it."""


class Observer:
    """Fills a record.

    Attributes:
        pods: The pods that answer, as they were seen last, by cluster.
    """

    def __init__(self, mesh: meshes.Mesh, record: records.Record, nursery: tasks.Nursery) -> None:
        self._mesh = mesh
        self._record = record
        self._nursery = nursery
        self._stop = f"/tmp/drill-{secrets.token_hex(4)}"
        self._senders: list[asyncio.Task[None]] = []
        self._clients: dict[str, str] = {}
        self.pods: dict[str, list[dict[str, Any]]] = {}

    async def start(self) -> None:
        """Begin to look on, and to send."""
        for cluster in self._mesh.clusters:
            await self._look_at_pods(cluster)
            _ = self._nursery.keep(f"pods of {cluster}", self._watcher(cluster))
        for cluster in self._mesh.clusters:
            self._clients[cluster] = await self._mesh.pod(cluster, meshes.SAMPLE, CLIENT)
            self._senders.append(self._nursery.start(f"send in {cluster}", self._send(cluster)))

    async def end(self) -> None:
        """Send no more, and wait for every answer."""
        for cluster, pod in self._clients.items():
            argv = ["touch", f"{self._stop}-{cluster}"]
            await self._mesh.clients[cluster].exec(
                meshes.SAMPLE, pod, argv, container=CLIENT, timeout_s=_LIMIT_S
            )
        async with asyncio.timeout(_LIMIT_S):
            for sending in self._senders:
                await sending
        self._record.ended = time.time()

    # --- who answers ----------------------------------------------------------------------------

    async def until_answered(self, places: Mapping[str, frozenset[str]], limit_s: float) -> bool:
        """Wait until new connections of callers reach these clusters alone; whether they do."""
        since = time.time()
        return await until(
            lambda: all(self._reaches(c, p, since) for c, p in places.items()), limit_s
        )

    def _reaches(self, caller: str, places: frozenset[str], since: float) -> bool:
        last: list[records.Request] = []
        for each in reversed(self._record.requests):
            if each.at < since or len(last) == ENOUGH:
                break
            if each.client == caller and each.fresh:
                last.append(each)
        return len(last) == ENOUGH and all(
            not each.is_lost and self._record.place(each) in places for each in last
        )

    def is_ready(self, cluster: str) -> bool:
        """Whether a cluster has a pod that can answer."""
        return any(map(meshes.is_ready, self.pods[cluster]))

    def _watcher(self, cluster: str) -> "Callable[[], Any]":
        async def watch() -> None:
            while True:
                await asyncio.sleep(_PODS_EVERY_S)
                await self._look_at_pods(cluster)

        return watch

    async def _look_at_pods(self, cluster: str) -> None:
        reached = self._mesh.clients[cluster]
        found = await reached.list_(kinds.POD, namespace=meshes.SAMPLE, labels=f"app={SERVER}")
        self.pods[cluster] = found
        for pod in found:
            self._record.instances[pod["metadata"]["name"]] = cluster

    # --- traffic --------------------------------------------------------------------------------

    async def _send(self, cluster: str) -> None:
        stop = f"{self._stop}-{cluster}"
        rate = str(self._record.rate)
        argv = ["python3", "-c", _SENDER, HOST, PORT, PATH, stop, rate, str(_LONGEST_S)]
        ended = await self._mesh.clients[cluster].exec(
            meshes.SAMPLE,
            self._clients[cluster],
            argv,
            container=CLIENT,
            timeout_s=None,
            on_output=observing.Lines(lambda said: self._requested(cluster, said), self._note),
        )
        if ended.code:
            self._note(f"the client in {cluster} ended with status {ended.code}")

    def _requested(self, cluster: str, said: dict[str, Any]) -> None:
        if "sent" in said:
            self._record.sent[cluster] = said["sent"]
            return
        del said["number"]
        self._record.requests.append(records.Request(client=cluster, **said))

    def _note(self, text: str) -> None:
        self._record.notes.append((time.time(), text))

    # --- wires ----------------------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def listening(self, step: records.Step, *clusters: str) -> AsyncIterator[None]:
        """Listen between the clusters, and to the pods of some, until the end of this."""
        wires = {"transit": ("", "transit")}
        for cluster in clusters:
            client = await self._mesh.clients[cluster].get(
                kinds.POD, self._clients[cluster], namespace=meshes.SAMPLE
            )
            for pod in (client, *self.pods[cluster]):
                if meshes.is_ready(pod):
                    named = f"{cluster} {pod['metadata']['name']}"
                    wires[named] = (str(pod["status"]["podIP"]), "eth0")
        async with contextlib.AsyncExitStack() as taps:
            for name, (address, interface) in wires.items():
                await taps.enter_async_context(self._tap(step, name, address, interface))
            yield

    @contextlib.asynccontextmanager
    async def _tap(
        self, step: records.Step, name: str, address: str, interface: str
    ) -> AsyncIterator[None]:
        task = {"pid": self._mesh.root, "address": address, "interface": interface}
        pipe = asyncio.subprocess.PIPE
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "drill.tap"), cwd=_ROOT, stdin=pipe, stdout=pipe, stderr=pipe
        )
        try:
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdin.write(json.dumps({**task, "spared": [_NODES_OWN]}).encode() + b"\n")
            async with asyncio.timeout(_LIMIT_S):
                await program.stdout.readline()
            yield
            program.stdin.close()
            async with asyncio.timeout(_LIMIT_S):
                output, errors = await program.communicate()
        finally:
            if program.returncode is None:
                program.kill()
                await program.wait()
        if program.returncode:
            self._note(f"nobody listened to {name}: {errors.decode()[-400:]}")
            return
        heard = json.loads(output)
        heard["faults"] = tuple(heard["faults"])
        step.wires.append(records.Wire(name, **heard))


async def until(holds: Callable[[], bool], limit_s: float) -> bool:
    """Wait until something holds; whether it came in time."""
    deadline = time.monotonic() + limit_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True
