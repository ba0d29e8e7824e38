"""What the ways from client to server cost: the same client and server, five ways between them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from bench import measures, meshes, pods, server, usage
from isthmus.kube import client

SECONDS: Final = 1.5


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
    ceilings, failed = list[float](), 0
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
                for connections in measures.CONNECTIONS:
                    found = await _closed(results, ways[case], case, connections=connections)
                    ceilings.append(found["ceiling"])
                    failed += found["failed"]
    for case, way in ways.items():
        if case != "direct" and (held := _held(way.mesh)):
            results.add(f"traffic/{case}/memory", held)
    results.add("traffic/generator/ceiling", max(ceilings))
    results.add("traffic/failed", failed)


async def _closed(
    results: measures.Results, way: Way, case: str, *, connections: int
) -> dict[str, Any]:
    before_s = usage.cpu_s(way.mesh.pid, "envoy")
    found = await pods.load(
        way.caller, way.namespace, "closed", way.host, str(server.PORT),
        "--connections", str(connections), "--seconds", str(SECONDS),
    )  # fmt: skip
    used_s = usage.cpu_s(way.mesh.pid, "envoy") - before_s
    name = f"traffic/{case}/{connections}"
    results.add(f"{name}/rate", found["requests"] / found["seconds"])
    results.add(f"{name}/p50", found["p50_ms"])
    results.add(f"{name}/p99", found["p99_ms"])
    # The time before the counting is proxies' time, too.
    results.add(f"{name}/proxies", used_s * 1e6 / found["answered"])
    results.add(f"{name}/generator", found["busy"] * 100)
    return found


def _held(mesh: meshes.Mesh) -> float:
    """Return what a proxy of the data path holds, on average."""
    processes = usage.below(mesh.pid)
    agents = {each.pid for each in usage.of_part(processes, "node-agent")}
    proxies = usage.of_part(processes, "envoy")
    # In ambient mode it is nodes' proxies that count; sidecars and gateways are alike.
    own = [each for each in proxies if each.parent in agents] or proxies
    found = [usage.memory(each.pid) for each in own]
    known = [each.pss for each in found if each is not None]
    return sum(known) / len(known) if known else 0.0


def percentile(values: Sequence[int], share: float) -> float:
    """Return the value that `share` percent of the values do not exceed."""
    return sorted(values)[max(0, math.ceil(len(values) * share / 100) - 1)]
