"""What a mesh uses while nothing happens: memory by part, and CPU time."""

import statistics
import time
from typing import Final

from bench import measures, meshes, usage

REST_S: Final = 5.0
_SETTLE_S: Final = 2.0


def measure(results: measures.Results, mesh: meshes.Mesh) -> None:
    """Let the mesh rest, and look at what it uses."""
    time.sleep(_SETTLE_S)
    began = time.monotonic()
    before = {part: usage.cpu_s(mesh.pid, part) for part in ("", "control-plane")}
    time.sleep(REST_S)
    took_s = time.monotonic() - began
    for part, name in (("", "cpu/lab/idle"), ("control-plane", "cpu/control-plane/idle")):
        results.add(name, (usage.cpu_s(mesh.pid, part) - before[part]) / took_s * 100)
    processes = usage.below(mesh.pid)
    for part in ("control-plane", "agent", "envoy", "cluster"):
        held = [usage.memory(each.pid) for each in usage.of_part(processes, part)]
        known = [each for each in held if each is not None]
        if known:
            results.add(f"memory/{part}", statistics.mean(each.pss for each in known))
            results.add(f"memory/{part}/private", statistics.mean(each.private for each in known))


def measure_nodes(results: measures.Results, mesh: meshes.Mesh) -> None:
    """Let a mesh without sidecars rest, and look at what a node's agent and its Envoy hold."""
    time.sleep(_SETTLE_S)
    processes = usage.below(mesh.pid)
    agents = usage.of_part(processes, "node-agent")
    own = {each.pid for each in agents}
    proxies = [each for each in usage.of_part(processes, "envoy") if each.parent in own]
    for name, found in (("node-agent", agents), ("node-proxy", proxies)):
        held = [usage.memory(each.pid) for each in found]
        known = [each.pss for each in held if each is not None]
        if known:
            results.add(f"memory/{name}", statistics.mean(known))
