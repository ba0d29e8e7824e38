"""`python -m bench`: measure everything side by side in one run, print it, and keep it."""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from bench import (
    activation,
    machine,
    measures,
    meshes,
    nodes,
    page,
    pipeline,
    pods,
    resting,
    traffic,
)
from bench.scale import parts as scale
from isthmus.base import errors
from isthmus.cli import render

PARTS: Final = {
    "boot": "boot a lab, install, join; the time to the first answer",
    "traffic": "requests without proxies, through sidecars and across the gateway",
    "activation": "from a pod's readiness to its first request from the other cluster",
    "resting": "memory and CPU time of a mesh at rest",
    "start": "how long programs take to start",
    "pipeline": "computing configuration, telling proxies, signing certificates",
    "node": "a node's proxy with the listeners of a hundred pods",
    "scale": "a control plane among API servers and proxies of a made-up fleet",
}
BUSY_CORES: Final = 0.2
"""What others may use before it is said that figures are not worth much."""
_IN_A_MESH: Final = ("boot", "traffic", "activation", "resting")


def main(argv: list[str] | None = None) -> int:
    """Measure, or write the page from what was measured last."""
    chosen = _parser().parse_args(argv)
    if chosen.page:
        page.write(measures.read())
        return 0
    if chosen.base:
        return _with_base(Path(chosen.base))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        run = _measured(set(chosen.only or PARTS), chosen.repeat, is_full=chosen.full)
    except errors.IsthmusError as error:
        render.error(error)
        return 1
    print("\n".join(page.table(run)))
    if not chosen.only:
        measures.write(run)
        print(f"\nwritten to {os.path.relpath(measures.NEWEST)}")
    for part in run["failed"]:
        print(f"failed, without figures: {part}", file=sys.stderr)
    return 1 if run["failed"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measures this product on this machine, in labs that it boots and takes down. "
        "Takes some minutes. Prints a table and keeps the figures in bench/out/latest.json.",
        epilog="parts: " + "; ".join(f"{name}: {text}" for name, text in PARTS.items()),
    )
    parser.add_argument(
        "--repeat",
        type=int,
        default=2,
        metavar="N",
        help="boot, and send traffic, N times; figures are medians (default: 2)",
    )
    parser.add_argument(
        "--full",
        action="store_true",
        help="also fleets of thousands of proxies, and a grid around them: an hour or two",
    )
    parser.add_argument(
        "--only",
        action="append",
        choices=PARTS,
        metavar="PART",
        help="measure this part alone, may be repeated; nothing is kept then",
    )
    parser.add_argument(
        "--page",
        action="store_true",
        help="measure nothing; write docs/explanation/performance.md from the figures kept last",
    )
    parser.add_argument(
        "--base",
        metavar="FILE",
        help="measure nothing; add what `python -m bench.scale --point base > FILE` has found on "
        "this machine to the figures kept last",
    )
    return parser


def _with_base(file: Path) -> int:
    results = measures.Results()
    try:
        scale.take(results, json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, KeyError, TypeError, scale.Failed) as error:
        print(f"error: {file} has no figures of the base point: {error}", file=sys.stderr)
        return 1
    measures.write(measures.joined(measures.read(), results, apart=machine.moment()))
    return 0


def _measured(parts: set[str], repeat: int, *, is_full: bool) -> dict[str, Any]:
    results = measures.Results()
    if (busy := machine.busy_cores()) > BUSY_CORES:
        print(
            f"warning: other programs keep {busy:.1f} cores busy; figures will say less: see `top`",
            file=sys.stderr,
        )
    facts: dict[str, object] = {
        "machine": machine.described(),
        "date": machine.moment(),
        "commit": machine.commit(),
        "repeat": repeat,
    }
    stolen_before, all_before = machine.stolen()
    before_ms = machine.calibration()
    if "pipeline" in parts:
        _tell("computing, telling, signing", lambda: pipeline.measure(results))
    if "start" in parts:
        _tell("programs' start", lambda: _starts(results))
    if "node" in parts:
        for _ in range(repeat):
            _tell("a node of many pods", lambda: nodes.measure(results))
    if "scale" in parts:
        _tell("a fleet of proxies", lambda: scale.measure(results, is_full=is_full))
    if parts & set(_IN_A_MESH):
        _in_meshes(results, parts, repeat)
    stolen_after, all_after = machine.stolen()
    share = (stolen_after - stolen_before) / max(1, all_after - all_before)
    facts["failed"] = results.failed
    facts["stolen_percent"] = round(share * 100, 1)
    facts["calibration"] = {
        "before_ms": round(before_ms, 1),
        "after_ms": round(machine.calibration(), 1),
    }
    return measures.document(results.measures(), facts, results.traces)


def _in_meshes(results: measures.Results, parts: set[str], repeat: int) -> None:
    if "boot" in parts:
        for number in range(1, repeat):
            with _told(f"mesh {number} of {repeat}"), meshes.booted(results):
                pass
    with _told("the mesh to measure in"), meshes.booted(results) as mesh:
        if "resting" in parts:
            _tell("at rest", lambda: resting.measure(results, mesh))
        if parts & {"traffic", "activation"}:
            _tell("pods for traffic", lambda: asyncio.run(_deploy(mesh)))
        if "traffic" in parts:
            _traffic(results, mesh, repeat)
        if "activation" in parts:
            _tell("new pods", lambda: asyncio.run(activation.measure(results, mesh)))


def _traffic(results: measures.Results, mesh: meshes.Mesh, repeat: int) -> None:
    with _told("a mesh without sidecars beside it"), meshes.ambient() as ambient:
        asyncio.run(_deploy_ambient(ambient))
        act = traffic.measure(results, mesh, ambient, rounds=repeat)
        _tell("traffic", lambda: asyncio.run(act))
        _tell("proxies of nodes at rest", lambda: resting.measure_nodes(results, ambient))


async def _deploy_ambient(mesh: meshes.Mesh) -> None:
    async with mesh.client("cluster1") as one, mesh.client("cluster2") as two:
        await pods.deploy_ambient(one, two)


async def _deploy(mesh: meshes.Mesh) -> None:
    async with mesh.client("cluster1") as one, mesh.client("cluster2") as two:
        await pods.deploy(one, two)


def _starts(results: measures.Results) -> None:
    for name, words in {
        "version": ("-m", "isthmus", "version"),
        "install-help": ("-m", "isthmus", "install", "--help"),
        "control-plane": ("-c", "import isthmus.runtime.program"),
        "agent": ("-c", "import isthmus.node.agent, isthmus.node.certificates"),
    }.items():
        results.add(f"start/{name}", machine.start_ms(*words))


def _tell(what: str, act: Callable[[], None]) -> None:
    with _told(what):
        act()


@contextlib.contextmanager
def _told(what: str) -> Iterator[None]:
    """Say on standard error what is being measured, and how long it took."""
    began = time.monotonic()
    sys.stderr.write(f"{what} ...\n")
    yield
    sys.stderr.write(f"{what}: {time.monotonic() - began:.1f} s\n")


if __name__ == "__main__":
    sys.exit(main())
