"""`python -m drill`: boot three clusters, disturb them under load, and count what it cost."""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
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
from isthmus.base import tasks

OUT: Final = Path(__file__).with_name("out") / "latest.json"
TOPOLOGY: Final = "multi-primary-multi-network"
_TELL_EVERY_S: Final = 15.0
_CALM_S: Final = 3.0


def main(argv: list[str] | None = None) -> int:
    """Drill, or write the page from what was seen last."""
    chosen = _parser().parse_args(argv)
    if chosen.page:
        text = page.PAGE.read_text(encoding="utf-8")
        page.PAGE.write_text(page.page(text, json.loads(OUT.read_text("utf-8"))), "utf-8")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    plan = plans.SHORT if chosen.short else plans.LONG
    given = {
        name: getattr(chosen, name)
        for name in ("rotations", "removals", "blackouts", "kills")
        if getattr(chosen, name) is not None
    }
    if chosen.blackout_s is not None:
        given["blackout_s"] = chosen.blackout_s
    plan = replace(plan, **given)
    seed = chosen.seed if chosen.seed is not None else secrets.randbelow(10**6)
    facts = {"machine": machine.described(), "date": machine.moment(), "commit": machine.commit()}
    with _lab(chosen.lab) as (environment, lab):
        record = asyncio.run(drilled(environment, lab, plan=plan, seed=seed))
    run = page.document(record, plan, facts)
    print("\n".join(page.table(run)))
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(run, indent=1) + "\n", encoding="utf-8")
    return 1 if run["violations"] else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m drill",
        description="Boots three clusters with a control plane each, sends requests all the time, "
        "replaces credentials, takes clusters away, lets API servers fail and kills control "
        "planes. Exit status: 0 no promise was broken; 1 one was.",
        epilog="example: python -m drill --short --seed 7",
    )
    parser.add_argument("--short", action="store_true", help="half a minute instead of 12")
    parser.add_argument("--seed", type=int, help="what the order of faults follows from")
    parser.add_argument("--lab", help="use this lab, which the demo has joined, and leave it")
    parser.add_argument("--page", action="store_true", help="write the page of the documentation")
    for name in ("rotations", "removals", "blackouts", "kills"):
        parser.add_argument(f"--{name}", type=int, metavar="N", help="so many instead")
    parser.add_argument("--blackout-s", type=float, metavar="S", help="how long API servers fail")
    return parser


@contextlib.contextmanager
def _lab(name: str | None) -> Iterator[tuple[Mapping[str, str], str]]:
    """Yield an environment in which a lab of this name runs; boot one without a name."""
    if name is not None:
        yield os.environ, name
        return
    with tempfile.TemporaryDirectory(prefix="isthmus-drill-") as folder:
        environment = {**os.environ, "ISTHMUS_LAB_HOME": folder}
        words = ["--topology", TOPOLOGY, "--clusters", "3", "--name", "drill", "--keep"]
        _tell("booting three clusters ...")
        try:
            asyncio.run(_command(environment, "demo", *words))
            yield environment, "drill"
        finally:
            with contextlib.suppress(meshes.CommandFailedError):
                asyncio.run(_command(environment, "lab", "down", "--name", "drill"))


async def _command(environment: Mapping[str, str], *words: str) -> None:
    await meshes.Mesh(environment, "drill").command(*words)


async def drilled(
    environment: Mapping[str, str], lab: str, *, plan: plans.Plan, seed: int
) -> records.Record:
    """Drill in a lab; return what was seen.

    Args:
        environment: In which `isthmus` finds the lab.
        lab: Its name.
        plan: How much of everything.
        seed: What the order of faults follows from.
    """
    _tell(f"seed {seed}: {plan}")
    record = records.Record(seed, time.time())
    async with meshes.Mesh(environment, lab) as mesh, tasks.Nursery() as nursery:
        observer = observing.Observer(mesh, record, nursery)
        await observer.start(plan.rate)
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
