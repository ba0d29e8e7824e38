"""The figures at scale, by the names that the results know: which points, and what is told of them."""

import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any, Final

from bench import measures
from bench.scale import shapes

TINY: Final = shapes.Shape(1, 1, 1, 1)
POINTS: Final[Mapping[str, shapes.Shape]] = {
    "short": shapes.Shape(2, 200, 4_000, 100),
    "base": shapes.Shape(10, 1_000, 100_000, 2_000),
}
"""`make bench` measures the first one, `make bench-full` all."""

GROWN: Final = shapes.Shape(2, 2_000, 40_000, 100)
"""The first point with ten times the services, and as many endpoints behind each."""

MIB: Final = 1 << 20


def measure(results: measures.Results, *, is_full: bool) -> None:
    """Measure the points of the grid."""
    empty = _point(TINY)["memory"]["alone_mib"]
    found = {name: _point(POINTS[name]) for name in (POINTS if is_full else ("short",))}
    for name, one in found.items():
        _note(results, name, one, empty_mib=empty)
    if is_full:
        few, many = found["short"]["changes"]["cpu_ms"], _point(GROWN)["changes"]["cpu_ms"]
        results.add("scale/growth/services", many / few)


def _note(
    results: measures.Results, name: str, found: Mapping[str, Any], *, empty_mib: float
) -> None:
    if found["wrong"] or found["changes"]["lost"]:
        raise RuntimeError(f"clients do not have the truth, so that no figure counts: {found}")
    changes, memory = found["changes"], found["memory"]
    alone = (memory["alone_mib"] - empty_mib) * MIB / found["shape"]["endpoints"]
    for figure, value in {
        "p50": changes["p50_ms"],
        "p99": changes["p99_ms"],
        "cpu": changes["cpu_us_per_proxy"],
        "endpoint": alone,
        "proxy": memory["proxy_kib"],
        "memory": memory["pss_mib"],
        "cold": found["cold"]["first_s"],
        "restart": found["restart"]["all_s"],
    }.items():
        results.add(f"scale/{name}/{figure}", value)


def _point(shape: shapes.Shape) -> dict[str, Any]:
    sizes = ("clusters", "services", "endpoints", "proxies")
    words = [word for name in sizes for word in (f"--{name}", str(getattr(shape, name)))]
    command = [sys.executable, "-m", "bench.scale", *words]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(ended.stdout)
    assert isinstance(found, dict)
    return found
