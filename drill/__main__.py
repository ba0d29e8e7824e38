"""`python -m drill`: boot three clusters, disturb them under load, and count what it cost."""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from bench import machine

from drill import faults as doing
from drill import mesh as meshes
from drill import observing, page, records, verdict
from drill import plan as plans
from drill.ambient import page as ambient_page
from drill.ambient import plan as ambient_plan
from drill.ambient import program as ambient
from isthmus.base import tasks

OUT: Final = Path(__file__).with_name("out") / "latest.json"
KEPT: Final = Path(__file__).with_name("results") / "ambient.json"
"""What the page's figures of ambient mode were written from."""
TOPOLOGY: Final = "multi-primary-multi-network"
TOPOLOGIES: Final = (TOPOLOGY, ambient.TOPOLOGY)
_TELL_EVERY_S: Final = 15.0
_CALM_S: Final = 3.0
_BOOT_S: Final = 900.0
_CHANCES: Final = ("seed", "rotations", "removals", "blackouts", "kills", "blackout_s")
"""Options that mean nothing where faults come in an order of their own."""


def main(argv: list[str] | None = None) -> int:
    """Drill, or write the page from what was seen last."""
    parser = _parser()
    chosen = parser.parse_args(argv)
    is_ambient = chosen.topology == ambient.TOPOLOGY
    without = [*_CHANCES] if is_ambient else ["only", "silent_s"]
    for name in without:
        if getattr(chosen, name) is not None:
            option = name.replace("_", "-")
            parser.error(f"--{option} says nothing with --topology {chosen.topology}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    if chosen.page:
        _write_page(is_ambient=is_ambient)
        return 0
    facts = {"machine": machine.described(), "date": machine.moment(), "commit": machine.commit()}
    with _lab(chosen.lab, chosen.topology, keep=chosen.keep) as (environment, lab):
        drilled_in = _ambient if is_ambient else _sidecars
        run, lines = drilled_in(chosen, environment, lab, facts)
    print(json.dumps(run, indent=1) if chosen.output == "json" else "\n".join(lines))
    out = _out(is_ambient=is_ambient)
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    return 1 if run["violations"] else 0


Shown = tuple[dict[str, Any], list[str]]
"""What is kept of a drill, and the same for a terminal."""


def _sidecars(
    chosen: argparse.Namespace,
    environment: Mapping[str, str],
    lab: str,
    facts: Mapping[str, object],
) -> Shown:
    plan = plans.SHORT if chosen.short else plans.LONG
    names = _CHANCES[1:]
    given = {name: getattr(chosen, name) for name in names if getattr(chosen, name) is not None}
    plan = replace(plan, **given)
    seed = chosen.seed if chosen.seed is not None else secrets.randbelow(10**6)
    record = asyncio.run(drilled(environment, lab, plan=plan, seed=seed))
    run = page.document(record, plan, facts)
    return run, list(page.table(run))


def _ambient(
    chosen: argparse.Namespace,
    environment: Mapping[str, str],
    lab: str,
    facts: Mapping[str, object],
) -> Shown:
    plan = ambient_plan.SHORT if chosen.short else ambient_plan.LONG
    if chosen.silent_s is not None:
        plan = replace(plan, silent_s=chosen.silent_s)
    groups = tuple(chosen.only or ambient_plan.PROMISED)
    record = asyncio.run(ambient.drilled(environment, lab, wanted=plan, groups=groups, tell=_tell))
    run = ambient_page.document(record, plan, {**facts, "groups": groups})
    return run, list(ambient_page.table(run))


def _out(*, is_ambient: bool) -> Path:
    return OUT.with_name("ambient.json") if is_ambient else OUT


def _write_page(*, is_ambient: bool) -> None:
    text = page.PAGE.read_text(encoding="utf-8")
    run = json.loads(_out(is_ambient=is_ambient).read_text("utf-8"))
    if is_ambient:
        KEPT.parent.mkdir(exist_ok=True)
        KEPT.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    written = ambient_page.page(text, run) if is_ambient else page.page(text, run)
    page.PAGE.write_text(written, encoding="utf-8")


def _groups(text: str) -> list[str]:
    names = text.split(",")
    unknown = [each for each in names if each not in ambient_plan.GROUPS]
    if unknown:
        known = ", ".join(ambient_plan.GROUPS)
        raise argparse.ArgumentTypeError(f"`{unknown[0]}` is none of: {known}")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m drill",
        description="Boots three clusters with a control plane each, sends requests all the time, "
        "and disturbs the mesh. With sidecars it replaces credentials, takes clusters away, lets "
        "API servers fail and kills control planes; in ambient mode it takes copies of a service, "
        "gateways, node proxies, control planes and links away. Exit status: 0 no promise was "
        "broken; 1 one was.",
        epilog="example: python -m drill --topology ambient --short --only copies,gateways",
    )
    parser.add_argument("--topology", choices=TOPOLOGIES, default=TOPOLOGY, help="which mesh")
    parser.add_argument("--short", action="store_true", help="what takes long takes less")
    parser.add_argument("--lab", help="use this lab, which the demo has joined, and leave it")
    parser.add_argument("--keep", action="store_true", help="leave the lab, and say where it is")
    parser.add_argument("--page", action="store_true", help="write the page of the documentation")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--seed", type=int, help="what the order of faults follows from")
    for name in ("rotations", "removals", "blackouts", "kills"):
        parser.add_argument(f"--{name}", type=int, metavar="N", help="so many instead")
    parser.add_argument("--blackout-s", type=float, metavar="S", help="how long API servers fail")
    parser.add_argument(
        "--only", type=_groups, metavar="GROUPS", help=f"of {', '.join(ambient_plan.GROUPS)}"
    )
    parser.add_argument("--silent-s", type=float, metavar="S", help="how long a link is broken")
    return parser


@contextlib.contextmanager
def _lab(name: str | None, topology: str, *, keep: bool) -> Iterator[tuple[Mapping[str, str], str]]:
    """Yield an environment in which a lab of this name runs; boot one without a name."""
    if name is not None:
        yield os.environ, name
        return
    folder = tempfile.mkdtemp(prefix="isthmus-drill-")
    environment = {**os.environ, "ISTHMUS_LAB_HOME": folder}
    words = ["--topology", topology, "--clusters", "3", "--name", "drill", "--keep"]
    _tell("booting three clusters ...")
    try:
        asyncio.run(_command(environment, "demo", *words))
        yield environment, "drill"
    finally:
        if keep:
            _tell(f"the lab stays: ISTHMUS_LAB_HOME={folder} isthmus lab down --name drill")
        else:
            with contextlib.suppress(meshes.CommandFailedError, TimeoutError):
                asyncio.run(_command(environment, "lab", "down", "--name", "drill"))
            shutil.rmtree(folder, ignore_errors=True)


async def _command(environment: Mapping[str, str], *words: str) -> None:
    await meshes.Mesh(environment, "drill").command(*words, limit_s=_BOOT_S)


async def drilled(
    environment: Mapping[str, str],
    lab: str,
    *,
    plan: plans.Plan,
    seed: int,
    slowness: float = 1.0,
) -> records.Record:
    """Drill in a lab; return what was seen.

    Args:
        environment: In which `isthmus` finds the lab.
        lab: Its name.
        plan: How much of everything.
        seed: What the order of faults follows from.
        slowness: How many times longer than usual all may take on this machine; so many times less
            often clients send.
    """
    _tell(f"seed {seed}: {plan}")
    record = records.Record(seed, time.time(), slowness=slowness)
    async with meshes.Mesh(environment, lab) as mesh, tasks.Nursery() as nursery:
        observer = observing.Observer(mesh, record, nursery)
        await observer.start(plan.rate / slowness)
        await observer.settle()
        _ = nursery.start("tell", _tell_at_times(record))
        faults = doing.Faults(mesh, record, observer)
        try:
            await plans.Acts(plan, mesh=mesh, record=record, faults=faults).play()
        except* Exception as errors:
            record.notes += [(time.time(), repr(each)) for each in errors.exceptions]
        await asyncio.sleep(_CALM_S)
        await observer.end()
    return record


async def _tell_at_times(record: records.Record) -> None:
    while True:
        await asyncio.sleep(_TELL_EVERY_S)
        _tell(_progress(record))


def _progress(record: records.Record) -> str:
    lost = sum(each.is_lost for each in record.requests)
    counts: dict[str, Any] = {kind: record.count(kind) for kind in records.KINDS}
    done = ", ".join(f"{count} {kind}s" for kind, count in counts.items())
    shrunk = sum(each.rule == "endpoints shrank" for each in verdict.violations(record))
    after = time.time() - record.began
    return f"{after:5.0f} s  {len(record.requests):,} requests, {lost} lost; {done}; {shrunk} short"


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
