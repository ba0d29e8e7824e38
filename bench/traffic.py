"""What the ways from client to server cost: the same client and server, three ways between them."""

import math
from collections.abc import Sequence
from typing import Any, Final

from bench import measures, meshes, pods, server, usage
from isthmus.kube import client

CONNECTIONS: Final = 8
RATE: Final = 200
CLOSED_S: Final = 3.0
OPEN_S: Final = 5.0

_WAYS: Final = {
    "direct": (pods.PLAIN, pods.NEAR),
    "sidecars": (pods.MESH, pods.NEAR),
    "gateway": (pods.MESH, pods.FAR),
}
"""For each case the caller's namespace and whom it calls."""


async def measure(results: measures.Results, mesh: meshes.Mesh, *, rounds: int) -> None:
    """Measure all cases in turn, several times over; their order changes with each round."""
    latencies: dict[str, list[int]] = {case: [] for case in _WAYS}
    ceilings: list[float] = []
    failed = 0
    async with mesh.client("cluster1") as one:
        for namespace, host in _WAYS.values():
            await pods.answered(one, namespace, host)
        for number in range(rounds):
            cases = list(_WAYS)
            for case in cases[number % 3 :] + cases[: number % 3]:
                fast = await _closed(results, mesh, one, case)
                ceilings.append(fast["ceiling"])
                slow = await _opened(one, case)
                latencies[case] += slow["latencies_us"]
                failed += fast["failed"] + slow["failed"]
    for case, found in latencies.items():
        results.add(f"traffic/{case}/p50", percentile(found, 50) / 1000)
        results.add(f"traffic/{case}/p99", percentile(found, 99) / 1000)
    results.add("traffic/generator/ceiling", max(ceilings))
    results.add("traffic/failed", failed)


async def _closed(
    results: measures.Results, mesh: meshes.Mesh, one: client.Client, case: str
) -> dict[str, Any]:
    namespace, host = _WAYS[case]
    before_s = usage.cpu_s(mesh.pid, "envoy")
    found = await pods.load(
        one, namespace, "closed", host, str(server.PORT),
        "--connections", str(CONNECTIONS), "--seconds", str(CLOSED_S),
    )  # fmt: skip
    used_s = usage.cpu_s(mesh.pid, "envoy") - before_s
    results.add(f"traffic/{case}/rate", found["requests"] / found["seconds"])
    results.add(f"traffic/{case}/generator", found["busy"] * 100)
    # The time before the counting is proxies' time, too.
    results.add(f"traffic/{case}/proxies", used_s * 1e6 / found["answered"])
    return found


async def _opened(one: client.Client, case: str) -> dict[str, Any]:
    namespace, host = _WAYS[case]
    return await pods.load(
        one, namespace, "open", host, str(server.PORT),
        "--rate", str(RATE), "--seconds", str(OPEN_S),
    )  # fmt: skip


def percentile(values: Sequence[int], share: float) -> float:
    """Return the value that `share` percent of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share / 100) - 1)]
