"""How long a new pod in one cluster waits for its first request from the other one.

The clock starts when a watch of the pod's API server shows its condition Ready, and stops when the
caller in the other cluster holds the pod's first answer. Both read the machine's one monotonic
clock. Each request has a connection of its own: a gateway that passes encrypted connections on can
choose a pod for a connection only, and proxies keep those that they have.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, Final

from bench import measures, meshes, pods, server, traffic, usage
from isthmus.base import clock
from isthmus.kube import apply, client, kinds

TIMES: Final = 12
_RATE: Final = 100
_WATCHER: Final = "watcher"
_LIMIT_S: Final = 30.0


async def measure(results: measures.Results, mesh: meshes.Mesh, *, times: int = TIMES) -> None:
    """Scale the far server from one pod to two and back, again and again."""
    async with mesh.client("cluster1") as one, mesh.client("cluster2") as two:
        await _watch_from(one)
        # Until its proxy was ready, nothing could be answered.
        failed_before = int((await _seen(one))["failed"])
        cpu_before = usage.cpu_s(mesh.pid, "control-plane")
        waits_us: list[int] = []
        for _ in range(times):
            pod, ready_at = await _one_more(two)
            answered_at = await _answered(one, pod)
            waits_us.append(round((answered_at - ready_at) * 1e6))
            await _one_less(two)
        cpu_s = usage.cpu_s(mesh.pid, "control-plane") - cpu_before
        failed = int((await _seen(one))["failed"]) - failed_before
        await one.delete(kinds.DEPLOYMENT, _WATCHER, namespace=pods.MESH)
    results.add("activation/p50", traffic.percentile(waits_us, 50) / 1000)
    results.add("activation/max", max(waits_us) / 1000)
    results.add("activation/failed", failed)
    results.add("activation/cpu", cpu_s * 1000 / times)


async def _watch_from(one: client.Client) -> None:
    argv = ("load.py", "watch", pods.FAR, str(server.RAW_PORT), "--rate", str(_RATE))
    watcher = pods.deployment(_WATCHER, pods.MESH, argv=argv, node="cluster1-node1")
    await apply.apply(one, [watcher])
    await pods.ready(one, pods.MESH)

    async def somebody() -> bool:
        return bool((await _seen(one))["seen"])

    await pods.until(somebody)


async def _one_more(two: client.Client) -> tuple[str, float]:
    """Add a pod; return its name and the moment at which it was seen to be ready."""
    known = {each["metadata"]["name"] for each in await pods.running(two, pods.MESH, pods.FAR)}
    page = json.loads(await two.raw("GET", kinds.POD.path(namespace=pods.MESH)))
    events = two.watch(
        kinds.POD,
        namespace=pods.MESH,
        labels=f"app={pods.FAR}",
        resource_version=page["metadata"]["resourceVersion"],
    )
    await _scale(two, 2)
    async with asyncio.timeout(_LIMIT_S), contextlib.aclosing(events):
        async for pod, moment in _ready(events):
            if pod not in known:
                return pod, moment
    raise AssertionError("watches end with their time")


async def _ready(events: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, float]]:
    system_clock = clock.SystemClock()
    async for line in events:
        moment = system_clock.monotonic()
        pod = json.loads(line)["object"]
        conditions = pod.get("status", {}).get("conditions", ())
        if any(each["type"] == "Ready" and each["status"] == "True" for each in conditions):
            yield pod["metadata"]["name"], moment


async def _answered(one: client.Client, pod: str) -> float:
    async def moment() -> float | None:
        found = (await _seen(one))["seen"].get(pod)
        return None if found is None else float(found)

    return await pods.until(moment)


async def _one_less(two: client.Client) -> None:
    await _scale(two, 1)

    async def alone() -> bool:
        return len(await pods.running(two, pods.MESH, pods.FAR)) == 1

    await pods.until(alone)


async def _scale(two: client.Client, count: int) -> None:
    change = {"spec": {"replicas": count}}
    await two.patch(kinds.DEPLOYMENT, pods.FAR, change, namespace=pods.MESH)


async def _seen(one: client.Client) -> dict[str, Any]:
    """Return what the watching client said last."""
    pod = (await pods.running(one, pods.MESH, _WATCHER))[0]["metadata"]["name"]
    said = (await one.logs(pods.MESH, pod, "main", tail=1)).strip()
    found = json.loads(said) if said else {"seen": {}, "failed": 0}
    assert isinstance(found, dict)
    return found
