"""What a drill in ambient mode has shown, as a document, for a terminal, and as a page."""

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any, Final

from drill import page as pages
from drill import verdict as sidecars
from drill.ambient import plan as plans
from drill.ambient import records, verdict

BEGIN: Final = "<!-- figures of ambient mode: written by `make drill-ambient` -->"
END: Final = "<!-- end of figures of ambient mode -->"
_WIDTH: Final = 80
_COLUMNS: Final = 44
"""For what was done, in a terminal."""


def document(
    record: records.Record, plan: plans.Plan, facts: Mapping[str, object]
) -> dict[str, Any]:
    """Return everything that is kept of a drill."""
    took = [each.took_s for each in record.requests if not each.is_lost]
    lost = [each for each in record.requests if each.is_lost]
    excused = sum(verdict.is_excused(record, each) for each in lost)
    return {
        **facts,
        "plan": dataclasses.asdict(plan),
        "took_s": round(record.ended - record.began, 1),
        "requests": len(record.requests),
        "lost": len(lost) - excused,
        "in_flight": excused,
        "p50_ms": round(sidecars.percentile(took, 0.5) * 1000, 1),
        "p99_ms": round(sidecars.percentile(took, 0.99) * 1000, 1),
        "slowest_s": round(max(took, default=0.0), 2),
        "steps": [_step(record, each) for each in record.steps],
        "wires": _wires(record),
        "violations": [
            {"after_s": round(each.at - record.began, 2), "rule": each.rule, "text": each.text}
            for each in verdict.violations(record)
        ],
    }


def _step(record: records.Record, step: records.Step) -> dict[str, Any]:
    cost = verdict.cost(record, step)
    ended = record.ended if step.ended is None else step.ended
    return {
        "name": step.name,
        "text": step.text,
        "after_s": round(step.began - record.began, 1),
        "took_s": round(ended - step.began, 1),
        "requests": cost.requests,
        "lost": cost.lost,
        "in_flight": cost.in_flight,
        "slowest_s": round(cost.slowest_s, 2),
        "first_s": _rounded(cost.first_s),
        "moved_s": _rounded(cost.moved_s),
        "holds": cost.holds and step.ended is not None,
    }


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None or seconds == float("inf") else round(seconds, 2)


def _wires(record: records.Record) -> dict[str, int]:
    heard = [wire for step in record.steps for wire in step.wires]
    return {
        "taps": len(heard),
        "connections": sum(each.connections for each in heard),
        "size_bytes": sum(each.size_bytes for each in heard),
        "faults": sum(len(each.faults) for each in heard),
    }


def table(run: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a drill for a terminal of 80 columns."""
    yield from textwrap.wrap(heading(run), _WIDTH)
    yield ""
    yield f"{'':{_COLUMNS}}{'requests':>9}{'lost':>6}{'slowest':>10}{'moved':>9}"
    for step in run["steps"]:
        first, *rest = textwrap.wrap(step["text"], _COLUMNS - 2)
        moved = "" if step["moved_s"] is None else f"{step['moved_s']:.2f} s"
        mark = " " if step["holds"] else "✘"
        yield (
            f"{first:{_COLUMNS}}{step['requests']:>9,}{_lost(step):>6}"
            f"{step['slowest_s']:>8.2f} s{moved:>9} {mark}".rstrip()
        )
        yield from (f"  {line}" for line in rest)
    yield ""
    yield from textwrap.wrap(_sum(run), _WIDTH)
    yield ""
    yield from pages.told(run["violations"])


def _lost(counts: Mapping[str, Any]) -> str:
    return f"{counts['lost']}" + (f"+{counts['in_flight']}" if counts["in_flight"] else "")


def heading(run: Mapping[str, Any]) -> str:
    """Return when, where and how much."""
    plan = run["plan"]
    return (
        f"{pages.place(run)} The {plan['name']} drill of ambient mode, {plan['rate']:g} requests/s "
        f"from each of three clusters, took {run['took_s']:.0f} s."
    )


def _sum(run: Mapping[str, Any]) -> str:
    wires = run["wires"]
    on_its_way = f", {run['in_flight']} on their way through a process that ended" * bool(
        run["in_flight"]
    )
    return (
        f"{run['requests']:,} requests, {run['lost']} lost{on_its_way}. Time to the answer: p50 "
        f"{run['p50_ms']:g} ms, p99 {run['p99_ms']:g} ms, longest {run['slowest_s']:g} s. "
        f"{wires['taps']} times a wire was listened to: {wires['connections']:,} connections, "
        f"{wires['size_bytes'] / 1e6:.1f} MB, {wires['faults']} of them not TLS."
    )


def page(text: str, run: Mapping[str, Any]) -> str:
    """Return the documentation's page with the figures of a drill in it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n" + "\n".join(_shown(run)) + f"\n\n{END}{after}"


def _shown(run: Mapping[str, Any]) -> Iterator[str]:
    yield from textwrap.wrap(heading(run), 100)
    yield ""
    yield from textwrap.wrap(_sum(run), 100)
    yield "\n| what was done | requests | lost | slowest | moved after |\n|---|--:|--:|--:|--:|"
    for step in run["steps"]:
        moved = "" if step["moved_s"] is None else f"{step['moved_s']:.2f} s"
        mark = "" if step["holds"] else " **✘**"
        cells = (
            f"{step['text']}{mark}",
            f"{step['requests']:,}",
            _lost(step),
            f"{step['slowest_s']:.2f} s",
            moved,
        )
        yield f"| {' | '.join(cells)} |"
    yield ""
    count = len(run["violations"])
    yield f"**{count} violations.**" if count else "No promise was broken."
