"""What is measured: every name that a result may have, its unit and what it means.

A figure without an entry here is refused, so that the page, the table and the file agree.
"""

import itertools
import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from isthmus.cli import walkthrough

NEWEST: Final = Path(__file__).parent / "out" / "latest.json"
CASES: Final = {
    "direct": "from pod to pod, in plain text, without proxies",
    "sidecars": "through two sidecars, over mutual TLS",
    "gateway": "through two sidecars and the gateway of another network",
    "ambient": "through the proxies of two nodes, over mutual TLS",
    "ambient-gateway": "through the proxies of two nodes and the gateway of another network",
}
"""The ways from client to server, in the order in which they are compared."""

CONNECTIONS: Final = (1, 10, 100)
"""So many of them send the next request as soon as the one before was answered."""

TOPOLOGY: Final = "primary-remote"
SIZES: Final = (100, 1000)
"""Services in each of two clusters."""

PART_TITLES: Final = {
    "traffic": "Traffic",
    "boot": "From nothing to a mesh",
    "step": "The walkthrough's steps",
    "activation": "A new pod in the other cluster",
    "memory": "Memory",
    "cpu": "CPU time",
    "start": "Programs' start",
    "compile": "Computing configuration",
    "push": "Telling proxies",
    "csr": "Certificates",
    "node": "A node of 100 pods in ambient mode",
    "scale": "At scale",
    "growth": "Growth",
}


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a figure says."""

    text: str
    unit: str
    must: float | None = None
    aim: float | None = None


POINTS: Final = {
    "short": "2 clusters, 200 services, 4,000 endpoints, 100 proxies",
    "base": "10 clusters, 1,000 services, 100,000 endpoints, 2,000 proxies",
}
"""The sizes of fleets at which the control plane is measured; what it must reach is for the last."""

_AT_SCALE: Final = {
    "p50": Meaning("an endpoint's change, until half of the proxies have it", "ms", 60, 40),
    "p99": Meaning("the same, until 99 of 100 do", "ms", 200, 100),
    "busy": Meaning("how busy the clients' core was meanwhile", "%"),
    "poisson100-p99": Meaning("100 changes a second, 99 of 100 are known within", "s", 2, 0.5),
    "cpu": Meaning("the control plane's CPU time for a change, for each proxy told", "µs", 45, 30),
    "endpoint": Meaning("memory for each endpoint, with its pod and its encoding", "B", 800, 600),
    "proxy": Meaning("memory for each connected proxy", "KiB", 30, 20),
    "memory": Meaning("memory in all (PSS), with all proxies, at rest", "MiB", 300, 200),
    "cold": Meaning("from its start to the first complete configuration", "s", 8, 5),
    "restart": Meaning("from its start until all proxies that wait are in sync", "s", 20, 10),
    "restart-bytes": Meaning("told meanwhile to each of them, which have all but one pod", "B"),
    "peak": Meaning("the most memory that it ever held (VmHWM)", "MiB"),
    "join": Meaning("until all proxies that know nothing have everything", "s"),
    "bytes": Meaning("told to a proxy for a change", "B"),
    "poisson10-p99": Meaning("10 changes a second, 99 of 100 are known within", "ms"),
    "poisson50-p99": Meaning("50 changes a second, 99 of 100 are known within", "ms"),
    "poisson100-p50": Meaning("100 changes a second, half are known within", "ms"),
    "poisson100-cpu": Meaning("100 changes a second, CPU time of a core", "%"),
    "settled100-p50": Meaning("the same, when it has gone on for a minute, half", "ms"),
    "settled100-p99": Meaning(
        "the same, when it has gone on for a minute, 99 of 100 are known within", "s", 2, 0.5
    ),
    "settled100-cpu": Meaning(
        "the same, when it has gone on for a minute, CPU time of a core", "%"
    ),
    "settled100-bytes": Meaning(
        "the same, when it has gone on for a minute, told to a proxy for a change", "B"
    ),
    "rollout-p99": Meaning("1,000 pods replaced at 400 a second, 99 of 100 are known within", "s"),
    "rollout-cpu": Meaning("the same, CPU time in all", "s"),
    "node-p99": Meaning("a node is lost with all pods, 99 of 100 proxies know within", "ms"),
    "service-added": Meaning("a service is made, 99 of 100 proxies have its endpoints", "ms"),
    "service-removed": Meaning("a service is deleted, 99 of 100 proxies know", "ms"),
    "policy-p99": Meaning("one policy for all changes, 99 of 100 proxies obey", "ms"),
    "relist-cpu": Meaning("one API server lists everything anew, CPU time", "s"),
    "relist-messages": Meaning("the same, messages to proxies", "messages"),
    "unreachable-p99": Meaning("one API server is away, changes in others are known within", "ms"),
    "deaf-p99": Meaning("one proxy of a hundred reads nothing, the others know within", "ms"),
    "deaf-memory": Meaning("the same, memory for each of them", "MiB"),
    "envoys": Meaning("five real Envoys, the last has a new pod, asked every 50 ms", "ms"),
    "idle-cpu": Meaning("nothing happens, CPU time of a core", "%"),
}

_FLAVOURS: Final = {
    "whole": "100 sidecars that take the state of the world",
    "nodes": "20 proxies of nodes in ambient mode",
}
_OF_FLAVOURS: Final = ("p50", "p99", "cpu", "bytes", "proxy")

FORMS: Final = {
    "often": "large sets of endpoints that go on changing are told in parts (LEDS)",
    "parts": "each endpoint always told by itself (LEDS)",
}
"""How endpoints can be told, other than whole."""

OF_FORMS: Final = (
    "p50",
    "p99",
    "busy",
    "cpu",
    "bytes",
    "poisson100-p99",
    "settled100-p99",
    "restart",
    "restart-bytes",
)
_MUST_OF_FORMS: Final = {
    ("often", "settled100-p99"): (1, 0.5),
    ("parts", "poisson100-p99"): (1, 0.5),
}

_GROWING: Final = {
    "services": "services",
    "clusters": "clusters, with as many endpoints in all",
    "unaffected": "proxies that are not concerned",
    "affected": "proxies that must be told",
}


def _scale() -> dict[str, Meaning]:
    found = {
        f"scale/{point}/{name}": Meaning(
            f"{point}: {meaning.text}",
            meaning.unit,
            *((meaning.must, meaning.aim) if point == "base" else ()),
        )
        for point in reversed(POINTS)
        for name, meaning in _AT_SCALE.items()
    }
    for point, form in itertools.product(reversed(POINTS), FORMS):
        for name in OF_FORMS:
            meaning = _AT_SCALE[name]
            found[f"scale/{point}-{form}/{name}"] = Meaning(
                f"{point}, {FORMS[form]}: {meaning.text}",
                meaning.unit,
                *(_MUST_OF_FORMS.get((form, name), ()) if point == "base" else ()),
            )
    for flavour, text in _FLAVOURS.items():
        for name in _OF_FLAVOURS:
            meaning = _AT_SCALE[name]
            if flavour == "nodes" and name == "bytes":
                continue
            found[f"scale/{flavour}/{name}"] = Meaning(f"{text}: {meaning.text}", meaning.unit)
    found["scale/remote/memory"] = Meaning(
        "memory for an added remote cluster of 300 services, 4,200 endpoints", "MiB", 12, 6
    )
    for factor, text in _GROWING.items():
        limits = () if factor == "affected" else (0.2, 0.1)
        found[f"growth/{factor}/slope"] = Meaning(
            f"CPU time for a change against {text}: slope of the logarithms", "", *limits
        )
        limits = () if factor == "affected" else (1.6, 1.25)
        found[f"growth/{factor}/ratio"] = Meaning(
            f"the same, the largest number against the smallest: {text}", "x", *limits
        )
    return found


def _traffic() -> dict[str, Meaning]:
    found: dict[str, Meaning] = {}
    for case, way in CASES.items():
        for count in CONNECTIONS:
            name, of = f"traffic/{case}/{count}", f"{count} connections, {way}"
            found[f"{name}/rate"] = Meaning(f"{of}: requests answered", "requests/s")
            found[f"{name}/p50"] = Meaning(f"{of}: half are answered within", "ms")
            found[f"{name}/p99"] = Meaning(f"{of}: 99 of 100 are answered within", "ms")
            found[f"{name}/proxies"] = Meaning(f"{of}: all proxies' CPU time for one", "µs")
            found[f"{name}/generator"] = Meaning(f"{of}: how busy the load generator was", "%")
        if case != "direct":
            found[f"traffic/{case}/memory"] = Meaning(f"{way}: a proxy's memory (PSS)", "MiB")
    found["traffic/generator/ceiling"] = Meaning(
        "what the load generator could send if nothing else ran", "requests/s"
    )
    found["traffic/failed"] = Meaning("requests that were not answered", "requests")
    return found


def _steps() -> dict[str, Meaning]:
    titles = [step.title for step in walkthrough.TOPOLOGIES[TOPOLOGY].steps if step.title]
    return {step_name(title): Meaning(title, "s") for title in titles}


def step_name(title: str) -> str:
    """Return the name of the measure of a walkthrough's step."""
    words = "".join(each if each.isalnum() else " " for each in title.lower()).split()
    return "step/" + "-".join(words)


def _compiling() -> dict[str, Meaning]:
    found: dict[str, Meaning] = {}
    for size in SIZES:
        name = f"compile/{size}"
        found[f"{name}/whole"] = Meaning(f"two clusters of {size} services, from nothing", "ms")
        found[f"{name}/change"] = Meaning("one endpoint's change, to encoded resources", "µs")
        found[f"{name}/nodes"] = Meaning("functions that ran for it", "functions")
    return found


CATALOG: Final[Mapping[str, Meaning]] = {
    **_traffic(),
    "boot/lab": Meaning("both clusters' API servers answer, all nodes are ready", "s"),
    "boot/first-answer": Meaning("first answer from another cluster, from the lab's start", "s"),
    "boot/demo": Meaning("the whole walkthrough with its verification", "s"),
    "boot/down": Meaning("the lab is gone", "s"),
    **_steps(),
    "activation/p50": Meaning("from ready to the first answer, half of the times within", "ms"),
    "activation/max": Meaning("the slowest time", "ms"),
    "activation/failed": Meaning("requests lost while pods came and went", "requests"),
    "activation/cpu": Meaning("the control plane's CPU time for one pod that comes and goes", "ms"),
    "memory/control-plane": Meaning("the control plane (PSS)", "MiB"),
    "memory/control-plane/private": Meaning("the same, what is its own alone", "MiB"),
    "memory/agent": Meaning("an agent beside a proxy, on average (PSS)", "MiB"),
    "memory/agent/private": Meaning("the same, what is its own alone", "MiB"),
    "memory/envoy": Meaning("an Envoy, on average (PSS)", "MiB"),
    "memory/envoy/private": Meaning("the same, what is its own alone", "MiB"),
    "memory/node-agent": Meaning("the agent of a node in ambient mode, on average (PSS)", "MiB"),
    "memory/node-proxy": Meaning("the Envoy of a node in ambient mode, on average (PSS)", "MiB"),
    "memory/cluster": Meaning("a lab's cluster: API server, controllers, nodes (PSS)", "MiB"),
    "memory/cluster/private": Meaning("the same, what is its own alone", "MiB"),
    "cpu/control-plane/joining": Meaning("the control plane, from its start to the mesh", "s"),
    "cpu/control-plane/idle": Meaning("the control plane, at rest, of one core", "%"),
    "cpu/lab/idle": Meaning("everything in the lab, at rest, of one core", "%"),
    "start/version": Meaning("`isthmus version`", "ms"),
    "start/install-help": Meaning("`isthmus install --help`", "ms"),
    "start/control-plane": Meaning("importing the control plane's program", "ms"),
    "start/agent": Meaning("importing the agent's program", "ms"),
    **_compiling(),
    "push/proxy": Meaning("one changed endpoint set of 100 pods, per proxy, encoded", "µs"),
    "csr/rate": Meaning(
        "certificates requested, checked and signed, on one core", "1/s", 3000, 4000
    ),
    "node/up": Meaning("all pods' listeners are up, from when they are told", "s", 1, 0.5),
    "node/memory": Meaning("the node's Envoy, what is its own alone", "MiB"),
    "node/memory/pod": Meaning("of it, for each pod's listeners", "KiB"),
    "node/push/pod": Meaning("told to Envoy for a pod that joins", "B"),
    "node/push/endpoint": Meaning("told to Envoy for a pod that is ready or not", "B"),
    "node/push/service": Meaning("told to Envoy for a new service, the hundred-first", "B"),
    **_scale(),
}


@dataclass(frozen=True, slots=True)
class Measure:
    """One figure: the median of its runs, unless its meaning says otherwise."""

    name: str
    value: float
    unit: str
    runs: tuple[float, ...] = ()
    must: float | None = None
    aim: float | None = None


@dataclass(slots=True)
class Results:
    """Figures as they come in."""

    runs: dict[str, list[float]] = field(default_factory=dict)
    traces: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def trace(self, name: str, place: float, value: float) -> None:
        """Take in a point of a plot."""
        self.traces.setdefault(name, []).append((place, _rounded(value)))

    def add(self, name: str, value: float) -> None:
        """Take in one run's figure."""
        assert name in CATALOG, name
        self.runs.setdefault(name, []).append(value)

    def measures(self) -> list[Measure]:
        """Return all figures in the catalog's order."""
        return [
            Measure(
                name,
                _rounded(statistics.median(runs)),
                meaning.unit,
                tuple(runs),
                meaning.must,
                meaning.aim,
            )
            for name, meaning in CATALOG.items()
            if (runs := self.runs.get(name))
        ]


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")


def document(
    measures: Sequence[Measure],
    facts: Mapping[str, object],
    plots: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> dict[str, Any]:
    """Return the file of a run."""
    rows = [
        {
            "name": each.name,
            "value": each.value,
            "unit": each.unit,
            **({"must": each.must, "aim": each.aim} if each.must is not None else {}),
            "runs": [_rounded(run) for run in each.runs],
        }
        for each in measures
    ]
    drawn = {name: [list(place) for place in line] for name, line in (plots or {}).items()}
    return {**facts, "measures": rows, "plots": drawn}


def joined(run: Mapping[str, Any], more: Results, *, apart: str) -> dict[str, Any]:
    """Return a run with figures that were measured apart from it, at a moment."""
    added = document(more.measures(), {}, more.traces)
    names = {row["name"] for row in added["measures"]}
    rows = [row for row in run["measures"] if row["name"] not in names] + added["measures"]
    order = {name: place for place, name in enumerate(CATALOG)}
    rows.sort(key=lambda row: order.get(row["name"], len(order)))
    plots = {**run.get("plots", {}), **added["plots"]}
    failed = [*run.get("failed", ()), *more.failed]
    return {**run, "apart": apart, "failed": failed, "measures": rows, "plots": plots}


def write(content: Mapping[str, Any], path: Path = NEWEST) -> None:
    """Keep a run."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def read(path: Path = NEWEST) -> dict[str, Any]:
    """Return the run that was kept last."""
    found = json.loads(path.read_text(encoding="utf-8"))
    assert isinstance(found, dict)
    return found
