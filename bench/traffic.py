"""What the ways from client to server cost: the same client and server, five ways between them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench import measures, meshes, pods, server, usage
from isthmus.kube import client

CONNECTIONS: Final = 8
RATE: Final = 200
CLOSED_S: Final = 3.0
OPEN_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Way:
    """From where a server is called, and by which name."""

    mesh: meshes.Mesh
    caller: client.Client
    namespace: str
    host: str


async def measure(
    results: measures.Results, mesh: meshes.Mesh, ambient: meshes.Mesh, *, rounds: int
) -> None:
    """Measure all cases in turn, several times over; their order changes with each round."""
    latencies: dict[str, list[int]] = {case: [] for case in measures.CASES}
    ceilings: list[float] = []
    failed = 0
    async with mesh.client("cluster1") as one, ambient.client("cluster1") as other:
        ways = {
            "direct": Way(mesh, one, pods.PLAIN, pods.NEAR),
            "sidecars": Way(mesh, one, pods.MESH, pods.NEAR),
            "gateway": Way(mesh, one, pods.MESH, pods.FAR),
            "ambient": Way(ambient, other, pods.MESH, pods.NEAR),
            "ambient-gateway": Way(
                ambient, other, pods.MESH, f"{pods.FAR}.{pods.MESH}.mesh.internal"
            ),
        }
        for way in ways.values():
            await pods.answered(way.caller, way.namespace, way.host)
        for number in range(rounds):
            cases = list(ways)
            first = number % len(cases)
            for case in cases[first:] + cases[:first]:
                fast = await _closed(results, ways[case], case)
                ceilings.append(fast["ceiling"])
                slow = await _opened(ways[case])
                latencies[case] += slow["latencies_us"]
                failed += fast["failed"] + slow["failed"]
    for case, found in latencies.items():
        results.add(f"traffic/{case}/p50", percentile(found, 50) / 1000)
        results.add(f"traffic/{case}/p99", percentile(found, 99) / 1000)
    results.add("traffic/generator/ceiling", max(ceilings))
    results.add("traffic/failed", failed)


async def _closed(results: measures.Results, way: Way, case: str) -> dict[str, Any]:
    before_s = usage.cpu_s(way.mesh.pid, "envoy")
    found = await pods.load(
        way.caller, way.namespace, "closed", way.host, str(server.PORT),
        "--connections", str(CONNECTIONS), "--seconds", str(CLOSED_S),
    )  # fmt: skip
    used_s = usage.cpu_s(way.mesh.pid, "envoy") - before_s
    results.add(f"traffic/{case}/rate", found["requests"] / found["seconds"])
    results.add(f"traffic/{case}/generator", found["busy"] * 100)
    # The time before the counting is proxies' time, too.
    results.add(f"traffic/{case}/proxies", used_s * 1e6 / found["answered"])
    return found


async def _opened(way: Way) -> dict[str, Any]:
    return await pods.load(
        way.caller, way.namespace, "open", way.host, str(server.PORT),
        "--rate", str(RATE), "--seconds", str(OPEN_S),
    )  # fmt: skip


def percentile(values: Sequence[int], share: float) -> float:
    """Return the value that `share` percent of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share / 100) - 1)]
