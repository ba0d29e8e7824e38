"""Drills in a lab that the ambient demo has made."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping

from drill import mesh as meshes
from drill.ambient import faults as doing
from drill.ambient import observing, plan, records, verdict
from isthmus.base import tasks

TOPOLOGY = "ambient"
_LIMIT_S = 60.0


async def drilled(
    environment: Mapping[str, str],
    lab: str,
    *,
    wanted: plan.Plan,
    groups: Iterable[str] = plan.PROMISED,
    tell: Callable[[str], None],
) -> records.Record:
    """Drill in a lab; return what was seen.

    Args:
        environment: In which `isthmus` finds the lab.
        lab: Its name.
        wanted: How much of everything.
        groups: What to do.
        tell: Says how it goes on.
    """
    record = records.Record(wanted.rate, time.time())
    async with meshes.Mesh(environment, lab) as mesh:
        tell("the sample gets readiness probes and time to end ...")
        await doing.prepare(mesh)
        async with tasks.Nursery() as nursery:
            observer = observing.Observer(mesh, record, nursery)
            await observer.start()
            faults = doing.Faults(mesh, record, observer)
            faults.telling(lambda step: tell(progress(record, step)))
            if not await observer.until_answered(faults.places(), _LIMIT_S):
                record.notes.append((time.time(), "the mesh was not whole before the first fault"))
            try:
                await plan.Acts(wanted, mesh=mesh, faults=faults).play(groups)
            except* Exception as errors:
                record.notes += [(time.time(), repr(each)) for each in errors.exceptions]
            await asyncio.sleep(doing.CALM_S)
            await observer.end()
    return record


def progress(record: records.Record, step: records.Step) -> str:
    """Return a line for who waits."""
    lost = [each for each in record.requests if each.is_lost]
    excused = sum(verdict.is_excused(record, each) for each in lost)
    way = f" (+{excused} on their way)" if excused else ""
    after = step.began - record.began
    return f"{after:5.0f} s  {len(record.requests):7,} requests, {len(lost) - excused} lost{way}; {step.text}"
