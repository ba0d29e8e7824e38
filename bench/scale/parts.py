"""The figures at scale, by the names that the results know: which points, and what is told of them."""

import contextlib
import dataclasses
import functools
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from bench import measures
from bench.scale import point as points
from bench.scale import shapes

MIB: Final = 1 << 20
SHORT: Final = shapes.POINTS["short"]
BASE: Final = shapes.POINTS["base"]

REMOTE_SERVICES, REMOTE_ENDPOINTS = 300, 4_200
"""A remote cluster as targets know it; services have whole numbers of endpoints."""

INCOMPLETE: Final = 3
"""How a point ends of which a workload has no figures."""

SETTINGS: Final[Mapping[str, Mapping[str, str]]] = {
    "often": {"ISTHMUS_ENABLE_LEDS": "true"},
    "parts": {"ISTHMUS_ENABLE_LEDS": "true", "ISTHMUS_LEDS_AFTER": "0"},
}
"""By which settings endpoints are told in another form than all whole."""

OF_FORMS: Final = ("singles", "poisson100", "restart")
OF_LARGE_FORMS: Final = (*OF_FORMS[:-1], "settled100", OF_FORMS[-1])

Found = Mapping[str, Any]


class Failed(Exception):  # noqa: N818  # it is told, not shown
    """A point has no figures."""


FIGURES: Final[Mapping[str, Callable[[Found], float]]] = {
    "p50": lambda found: found["singles"]["p50_ms"],
    "p99": lambda found: found["singles"]["p99_ms"],
    "busy": lambda found: found["singles"]["client_busy_percent"],
    "cpu": lambda found: found["singles"]["cpu_us_per_proxy"],
    "bytes": lambda found: found["singles"]["bytes_per_proxy"],
    "poisson10-p99": lambda found: found["poisson10"]["p99_ms"],
    "poisson50-p99": lambda found: found["poisson50"]["p99_ms"],
    "poisson100-p50": lambda found: found["poisson100"]["p50_ms"],
    "poisson100-p99": lambda found: found["poisson100"]["p99_ms"] / 1000,
    "poisson100-cpu": lambda found: found["poisson100"]["cpu_percent"],
    "settled100-p50": lambda found: found["settled100"]["p50_ms"],
    "settled100-p99": lambda found: found["settled100"]["p99_ms"] / 1000,
    "settled100-cpu": lambda found: found["settled100"]["cpu_percent"],
    "settled100-bytes": lambda found: found["settled100"]["bytes_per_proxy"],
    "rollout-p99": lambda found: found["rollout"]["p99_ms"] / 1000,
    "rollout-cpu": lambda found: found["rollout"]["cpu_s"],
    "node-p99": lambda found: found["node"]["p99_ms"],
    "service-added": lambda found: found["service"]["added"]["p99_ms"],
    "service-removed": lambda found: found["service"]["removed"]["p99_ms"],
    "policy-p99": lambda found: found["policy"]["p99_ms"],
    "relist-cpu": lambda found: found["relist"]["cpu_s"],
    "relist-messages": lambda found: found["relist"]["messages"],
    "unreachable-p99": lambda found: found["unreachable"]["p99_ms"],
    "deaf-p99": lambda found: found["deaf"]["p99_ms"],
    "deaf-memory": lambda found: found["deaf"]["more_mib"] / found["deaf"]["deaf"],
    "envoys": lambda found: max(found["envoys"]["changed_ms"]),
    "idle-cpu": lambda found: found["idle"]["cpu_percent"],
    "proxy": lambda found: found["memory"]["proxy_kib"],
    "memory": lambda found: found["memory"]["pss_mib"],
    "peak": lambda found: found["peak_mib"],
    "cold": lambda found: found["cold"]["first_s"],
    "join": lambda found: found["join"]["all_s"],
    "restart": lambda found: found["restart"]["all_s"],
    "restart-bytes": lambda found: found["restart"]["bytes_per_proxy"],
}

GROWN: Final[Mapping[str, Sequence[shapes.Shape]]] = {
    "services": (
        dataclasses.replace(SHORT, services=100, endpoints=2_000, proxies=50),
        dataclasses.replace(SHORT, services=1_000, endpoints=20_000, proxies=50),
    ),
    "clusters": (
        dataclasses.replace(SHORT, clusters=1, endpoints=4_000, proxies=50),
        dataclasses.replace(SHORT, clusters=10, endpoints=4_000, proxies=50),
    ),
    "unaffected": (
        dataclasses.replace(SHORT, proxies=50, apart=50),
        dataclasses.replace(SHORT, proxies=50, apart=500),
    ),
    "affected": (
        dataclasses.replace(SHORT, proxies=50),
        dataclasses.replace(SHORT, proxies=500),
    ),
}
"""By factor the fleets of which only that one differs; `make bench` measures these."""

GRID: Final[Mapping[str, Sequence[shapes.Shape]]] = {
    "services": [
        dataclasses.replace(BASE, services=count, endpoints=count * 100, proxies=200)
        for count in (100, 300, 1_000)
    ],
    "clusters": [
        dataclasses.replace(BASE, clusters=count, proxies=200) for count in (1, 5, 10, 20)
    ],
    "unaffected": [
        dataclasses.replace(BASE, proxies=200, apart=count) for count in (200, 600, 2_000)
    ],
    "affected": [dataclasses.replace(BASE, proxies=count) for count in (100, 500, 1_000)],
}
"""The same around the base point, for `make bench-full`."""

SIZES: Final[Mapping[str, Callable[[shapes.Shape], int]]] = {
    "services": lambda shape: shape.services,
    "clusters": lambda shape: shape.clusters,
    "unaffected": lambda shape: shape.apart,
    "affected": lambda shape: shape.proxies,
}


def measure(results: measures.Results, *, is_full: bool) -> None:
    """Measure the points of the grid; one that fails has no figures, and the others are measured."""
    # Sets as small as these settle at once: they are told in one form whatever they do.
    brief = tuple(name for name in points.WORKLOADS if name != "settled100")
    short = functools.partial(point, SHORT, workloads=brief, rest_s=10)
    steps: list[tuple[str, Callable[[], None]]] = [
        ("short", lambda: _note(results, "short", short(), empty_mib=_empty_mib())),
        *(
            (f"short, {form}", functools.partial(_note_form, results, "short", SHORT, form))
            for form in SETTINGS
        ),
        ("flavours", lambda: _note_flavours(results)),
        ("remote clusters", lambda: _note_remotes(results, more=10 if is_full else 2)),
    ]
    if is_full:
        # Envoys of that size would take the clients' core for themselves.
        named = tuple(name for name in points.WORKLOADS if name != "envoys")
        base = functools.partial(point, BASE, workloads=named, seconds=20, changes=40, rest_s=40)
        steps.append(("base", lambda: _note(results, "base", base(), empty_mib=_empty_mib())))
        # Told in parts from the first on, such a fleet would not have all of it in an hour.
        form = functools.partial(_note_form, results, "base", BASE, "often")
        steps.append(("base, often", form))
    for factor, grown in (GRID if is_full else GROWN).items():
        steps.append((factor, functools.partial(_note_growth, results, factor, grown)))
    for name, step in steps:
        try:
            step()
        except Failed:
            results.failed.append(f"at scale: {name}")


def take(results: measures.Results, found: Found) -> None:
    """Take in what `python -m bench.scale --point base` has found, by itself, on this machine.

    Raises:
        Failed: It is another point.
    """
    if shapes.Shape(**found["shape"]) != BASE:
        raise Failed("these are figures of another point")
    chosen = found.get("settings", {})
    for form, settings in SETTINGS.items():
        if chosen == settings:
            _note_figures(results, f"base-{form}", found, names=measures.OF_FORMS)
            return
    if chosen:
        raise Failed(f"nobody knows what these settings are measured for: {chosen}")
    _note(results, "base", found, empty_mib=_empty_mib())


def _empty_mib() -> float:
    """Return what a control plane holds whose fleet is one pod."""
    found = point(shapes.POINTS["tiny"], workloads=("idle",), seconds=1)
    return float(found["memory"]["alone_mib"])


def point(
    shape: shapes.Shape,
    *,
    workloads: Sequence[str] = (),
    changes: int = 20,
    seconds: float = 5,
    rest_s: float = 5,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Measure one point, in a program of its own."""
    words = ["--shape", shape.write(), "--changes", str(changes), "--seconds", str(seconds)]
    words += ["--rest", str(rest_s)]
    for one in workloads:
        words += ["--workload", one]
    for name, value in settings.items():
        words += ["--set", f"{name}={value}"]
    command = [sys.executable, "-m", "bench.scale", *words]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if ended.returncode and (len(workloads) == 1 or ended.returncode != INCOMPLETE):
        raise Failed(f"{shape} ended with status {ended.returncode}")
    found = json.loads(ended.stdout)
    assert isinstance(found, dict)
    return found


def _note_form(results: measures.Results, name: str, shape: shapes.Shape, form: str) -> None:
    """Measure a point whose endpoints are told in another form."""
    # Small sets never turn, so that nothing settles there.
    workloads = OF_LARGE_FORMS if shape == BASE else OF_FORMS
    found = point(shape, workloads=workloads, changes=10, settings=SETTINGS[form])
    _note_figures(results, f"{name}-{form}", found, names=measures.OF_FORMS)


def _note_figures(
    results: measures.Results, name: str, found: Found, *, names: Iterable[str]
) -> None:
    results.failed += [f"{name}: {text}" for text in found.get("failed", ())]
    for figure in names:
        with contextlib.suppress(KeyError):  # It has failed, or was not asked for.
            results.add(f"scale/{name}/{figure}", FIGURES[figure](found))


def _note(results: measures.Results, name: str, found: Found, *, empty_mib: float) -> None:
    _note_figures(results, name, found, names=FIGURES)
    for rate in (10, 50, 100):
        if f"poisson{rate}" not in found:
            continue
        results.trace(f"staleness/{name} p50", rate, found[f"poisson{rate}"]["p50_ms"])
        results.trace(f"staleness/{name} p99", rate, found[f"poisson{rate}"]["p99_ms"])
    alone = (found["memory"]["alone_mib"] - empty_mib) * MIB / found["shape"]["endpoints"]
    results.add(f"scale/{name}/endpoint", alone)


def _note_flavours(results: measures.Results) -> None:
    """Measure clients that take the state of the world, and proxies of nodes."""
    found = point(
        dataclasses.replace(SHORT, whole=SHORT.proxies), workloads=("singles",), changes=10
    )
    for figure in ("p50", "p99", "cpu", "bytes", "proxy"):
        results.add(f"scale/whole/{figure}", FIGURES[figure](found))
    nodes = dataclasses.replace(SHORT, clusters=1, proxies=1, nodes=20)
    found = point(nodes, workloads=("poisson10",), seconds=5)
    for figure, value in {
        "p50": found["poisson10"]["p50_ms"],
        "p99": found["poisson10"]["p99_ms"],
        "cpu": found["poisson10"]["cpu_s"] / found["poisson10"]["count"] * 1e6,
        "proxy": found["memory"]["proxy_kib"],
    }.items():
        results.add(f"scale/nodes/{figure}", value)


def _note_remotes(results: measures.Results, *, more: int) -> None:
    """Measure what a remote cluster costs, by the difference of fleets with and without."""
    held = []
    for clusters in (1, 1 + more):
        shape = shapes.Shape(clusters, REMOTE_SERVICES, REMOTE_ENDPOINTS * clusters, 1)
        held.append(point(shape, workloads=("idle",), seconds=1)["memory"]["alone_mib"])
    results.add("scale/remote/memory", (held[1] - held[0]) / more)


def _note_growth(results: measures.Results, factor: str, grown: Sequence[shapes.Shape]) -> None:
    """Measure how the CPU time for a change grows with one factor."""
    costs = list[tuple[float, float]]()
    for shape in grown:
        found = point(shape, workloads=("singles",), changes=10, rest_s=1)
        costs.append((SIZES[factor](shape), found["singles"]["cpu_ms"]))
    results.add(f"growth/{factor}/slope", slope(costs))
    results.add(f"growth/{factor}/ratio", costs[-1][1] / costs[0][1])
    for size, cost in costs:
        results.trace(f"growth/{factor}", size, cost)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Return the slope of the line that fits the points' logarithms best."""
    places = [(math.log(size), math.log(cost)) for size, cost in points]
    middle = sum(one for one, _ in places) / len(places)
    height = sum(one for _, one in places) / len(places)
    above = sum((one - middle) * (other - height) for one, other in places)
    return above / sum((one - middle) ** 2 for one, _ in places)
