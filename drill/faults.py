"""What is done to the mesh: credentials, secrets, API servers, control planes.

Each kind of fault comes again and again, in a random order that follows from the seed; several go
on at once. What cannot be asked for together is kept apart by claims: a cluster whose removal is
timed has an API server and a control plane that work.
"""

import asyncio
import base64
import contextlib
import itertools
import random
import time
from collections.abc import AsyncIterator
from typing import Any, Final

import yaml

from drill import mesh as meshes
from drill import observing, records, verdict
from isthmus.kube import kinds

READER: Final = "istio-reader-service-account"
TOKEN_S: Final = 86_400
GONE_PATIENCE_S: Final = 30.0
READY_PATIENCE_S: Final = 150.0
_POLL_S: Final = 0.1
_BREATH_S: Final = 0.3


class Claims:
    """What is in use: an API server, a control plane, a secret."""

    def __init__(self) -> None:
        self._held: set[str] = set()
        self._freed = asyncio.Condition()

    def are_free(self, *names: str) -> bool:
        """Whether nobody holds any of the names."""
        return not self._held & set(names)

    @contextlib.asynccontextmanager
    async def hold(self, *names: str) -> AsyncIterator[None]:
        """Wait until none of the names is held, and hold all of them."""
        async with self._freed:
            await self._freed.wait_for(lambda: self.are_free(*names))
            self._held |= set(names)
        try:
            yield
        finally:
            async with self._freed:
                self._held -= set(names)
                self._freed.notify_all()


class Faults:
    """Does things to a mesh, and writes down what and when."""

    def __init__(
        self, mesh: meshes.Mesh, record: records.Record, observer: observing.Observer
    ) -> None:
        self._mesh = mesh
        self._record = record
        self._observer = observer
        self._claims = Claims()

    def dice(self, kind: str, *, part: str = "") -> random.Random:
        """Return the chances of one kind of fault: the same for the same seed."""
        return random.Random(f"{self._record.seed} {kind} {part}")  # noqa: S311, RUF100  # no secret

    def _begun(
        self, kind: str, cluster: str, *, watcher: str = "", detail: str = ""
    ) -> records.Fault:
        fault = records.Fault(kind, cluster, time.time(), watcher, detail)
        self._record.faults.append(fault)
        return fault

    # --- credentials ----------------------------------------------------------------------------

    async def rotate(self, cluster: str) -> None:
        """Give every other cluster a new credential of a cluster."""
        secrets = [f"secret of {cluster} at {each}" for each in self._mesh.others(cluster)]
        async with self._claims.hold(*secrets):
            fault = self._begun(records.ROTATION, cluster)
            token = await self._mesh.clients[cluster].token_request(
                meshes.SYSTEM, READER, seconds=TOKEN_S
            )
            for watcher in self._mesh.others(cluster):
                await self._put_token(watcher, cluster, token)
            fault.ended = time.time()

    async def _put_token(self, watcher: str, cluster: str, token: str) -> None:
        reached = self._mesh.clients[watcher]
        name = f"istio-remote-secret-{cluster}"
        secret = await reached.get(kinds.SECRET, name, namespace=meshes.SYSTEM)
        kubeconfig = yaml.safe_load(base64.b64decode(secret["data"][cluster]))
        kubeconfig["users"][0]["user"] = {"token": token}
        patch = {"stringData": {cluster: yaml.safe_dump(kubeconfig)}}
        await reached.patch(kinds.SECRET, name, patch, namespace=meshes.SYSTEM)

    # --- secrets --------------------------------------------------------------------------------

    async def remove(self, dice: random.Random, *, killing: bool = False) -> None:
        """Take a cluster away from another, time how soon its proxies forget it, give it back.

        Both are such that their API servers work, if there are any. With `killing`, the control
        plane starts anew in between and must not remember the cluster.
        """
        pairs = list(itertools.permutations(self._mesh.clusters, 2))
        dice.shuffle(pairs)
        free = (pair for pair in pairs if self._claims.are_free(*_for_removal(*pair)))
        watcher, cluster = next(free, pairs[0])
        async with self._claims.hold(*_for_removal(watcher, cluster)):
            reached = self._mesh.clients[watcher]
            name = f"istio-remote-secret-{cluster}"
            secret = await reached.get(kinds.SECRET, name, namespace=meshes.SYSTEM)
            fault = self._begun(records.REMOVAL, cluster, watcher=watcher)
            await reached.delete(kinds.SECRET, name, namespace=meshes.SYSTEM)
            if await self._observer.until(
                lambda: not self._observer.knows(watcher, cluster),
                limit_s=GONE_PATIENCE_S * self._record.slowness,
            ):
                fault.gone_s = time.time() - fault.began
            if killing:
                await self._kill(watcher)
            await asyncio.sleep(_BREATH_S)
            if fault.gone_s is not None and self._observer.knows(watcher, cluster):
                self._record.notes.append((time.time(), f"{fault}: it came back by itself"))
            given_back = time.time()
            await reached.create(kinds.SECRET, _anew(secret))
            if await self._observer.until(
                lambda: self._observer.is_whole(watcher),
                limit_s=verdict.BACK_LIMIT_S * self._record.slowness,
            ):
                fault.ended = time.time()
                fault.back_s = fault.ended - given_back

    # --- API servers ----------------------------------------------------------------------------

    async def black_out(self, cluster: str, *, seconds: float, mode: str) -> None:
        """Let an API server fail for a while."""
        async with self._claims.hold(f"API server of {cluster}"):
            fault = self._begun(records.BLACKOUT, cluster, detail=f"{seconds:g} s, {mode}")
            try:
                await self._mesh.api_server(cluster, "stop", "--mode", mode, "--only-inside")
                await asyncio.sleep(seconds)
            finally:
                await self._mesh.api_server(cluster, "start")
            fault.ended = time.time()

    # --- control planes -------------------------------------------------------------------------

    async def kill(self, dice: random.Random) -> None:
        """Kill a control plane as the kernel would for want of memory; wait for the next one."""
        cluster = dice.choice(self._mesh.clusters)
        async with self._claims.hold(f"control plane of {cluster}"):
            await self._kill(cluster)

    async def _kill(self, cluster: str) -> None:
        restarts, _ = await self._mesh.standing(cluster)
        fault = self._begun(records.KILL, cluster)
        self._mesh.kill_control_plane(cluster)
        deadline = time.monotonic() + READY_PATIENCE_S * self._record.slowness
        while time.monotonic() < deadline:
            await asyncio.sleep(_POLL_S)
            now, is_ready = await self._mesh.standing(cluster)
            if now > restarts and is_ready:
                fault.ended = time.time()
                fault.back_s = fault.ended - fault.began
                return


def _for_removal(watcher: str, cluster: str) -> tuple[str, ...]:
    return (
        f"secret of {cluster} at {watcher}",
        f"API server of {watcher}",
        f"API server of {cluster}",
        f"control plane of {watcher}",
    )


def _anew(secret: dict[str, Any]) -> dict[str, Any]:
    """Return a secret as it was given first."""
    kept = ("name", "namespace", "labels", "annotations")
    metadata = {key: secret["metadata"][key] for key in kept if key in secret["metadata"]}
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": secret["type"],
        "metadata": metadata,
        "data": secret["data"],
    }
