"""What a drill has shown, as a document, as a table for a terminal, and as a page."""

import dataclasses
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from drill import plan as plans
from drill import records, verdict

PAGE: Final = Path(__file__).resolve().parents[1] / "docs/explanation/drill.md"
BEGIN: Final = "<!-- figures: written by `make drill` -->"
END: Final = "<!-- end of figures -->"
_WIDTH: Final = 80
_MOST_SHOWN: Final = 20

Row = tuple[str, str]


def document(
    record: records.Record, plan: plans.Plan, facts: Mapping[str, object]
) -> dict[str, Any]:
    """Return everything that is kept of a drill."""
    found = verdict.violations(record)
    rows = [*_traffic(record), *_faults(record), *_proxies(record), *_memory(record)]
    return {
        **facts,
        "plan": dataclasses.asdict(plan),
        "seed": record.seed,
        "took_s": round(record.ended - record.began, 1),
        "figures": [{"text": text, "value": value} for text, value in rows],
        "removals_s": [
            round(each.gone_s, 3)
            for each in record.faults
            if each.kind == records.REMOVAL and each.gone_s is not None
        ],
        "faults": [
            {
                "fault": str(each),
                "after_s": round(each.began - record.began, 2),
                "back_s": each.back_s and round(each.back_s, 2),
            }
            for each in record.faults
        ],
        "memory": [
            [each.cluster, each.pid, round(each.at - record.began, 1), round(each.pss_mib, 2)]
            for each in record.holdings
        ],
        "violations": [
            {"after_s": round(each.at - record.began, 2), "rule": each.rule, "text": each.text}
            for each in found
        ],
    }


def _traffic(record: records.Record) -> Iterator[Row]:
    took = [each.took_s * 1000 for each in record.requests if not each.is_lost]
    lost = sum(each.is_lost for each in record.requests)
    yield "requests sent", f"{len(record.requests):,}"
    yield "requests lost", f"{lost}"
    yield (
        "time to the answer, p50, p99, longest",
        f"{verdict.percentile(took, 0.5):.0f}, {verdict.percentile(took, 0.99):.0f}, "
        f"{max(took, default=0):.0f} ms",
    )
    yield "tries that failed and were repeated by a proxy", f"{sum(record.failed_tries.values())}"


def _faults(record: records.Record) -> Iterator[Row]:
    yield "credentials replaced, each in two clusters", f"{record.count(records.ROTATION)}"
    gone = _times(record, records.REMOVAL, "gone_s")
    yield "clusters removed and added again", f"{record.count(records.REMOVAL)}"
    yield "gone from all proxies after: p50, p99, longest", _spread(gone)
    yield (
        "known to all proxies again after: p50, p99, longest",
        _spread(_times(record, records.REMOVAL, "back_s")),
    )
    yield "API servers failed", f"{record.count(records.BLACKOUT)}"
    yield "control planes killed", f"{record.count(records.KILL)}"
    yield "ready again after: p50, p99, longest", _spread(_times(record, records.KILL, "back_s"))


def _times(record: records.Record, kind: str, name: str) -> list[float]:
    found = (getattr(each, name) for each in record.faults if each.kind == kind)
    return [each for each in found if each is not None]


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "-"
    p50, p99 = verdict.percentile(seconds, 0.5), verdict.percentile(seconds, 0.99)
    return f"{p50:.2f}, {p99:.2f}, {max(seconds):.2f} s"


def _proxies(record: records.Record) -> Iterator[Row]:
    counts = [len(each) for each in record.expected.values()]
    short = sum(each.rule == "endpoints shrank" for each in verdict.violations(record))
    yield "proxies watched", f"{len(counts)}"
    if counts:
        yield "endpoints of each, fewest and most", f"{min(counts)}, {max(counts)}"
    yield "changes of endpoints seen", f"{len(record.glances):,}"
    yield "times a proxy had fewer than it should", f"{short}"


def _memory(record: records.Record) -> Iterator[Row]:
    for growth in verdict.growths(record):
        taken = record.updates.get(growth.cluster, 0)
        yield (
            f"control plane of {growth.cluster}, {taken} new credentials: memory",
            f"{growth.before_mib:.1f} -> {growth.after_mib:.1f} MiB ({growth.mib:+.1f})",
        )
        yield (
            f"control plane of {growth.cluster}: open files; threads",
            f"{growth.files_before:.0f} -> {growth.files_after:.0f}; "
            f"{growth.threads_before:.0f} -> {growth.threads_after:.0f}",
        )


def table(run: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a drill for a terminal of 80 columns."""
    yield from textwrap.wrap(_heading(run), _WIDTH)
    yield ""
    for row in run["figures"]:
        gap = _WIDTH - len(row["text"]) - len(row["value"])
        yield f"{row['text']}{' ' * max(1, gap)}{row['value']}"
    yield ""
    yield from told(run["violations"])


def told(violations: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of what must not be seen, for a terminal of 80 columns."""
    for each in violations[:_MOST_SHOWN]:
        yield from textwrap.wrap(
            f"{each['after_s']:.2f} s: {each['rule']}: {each['text']}",
            _WIDTH,
            subsequent_indent="    ",
        )
    count = len(violations)
    yield f"{count} violations" if count else "no promise was broken"


def page(text: str, run: Mapping[str, Any]) -> str:
    """Return the documentation's page with the figures of a drill in it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n" + "\n".join(_shown(run)) + f"\n\n{END}{after}"


def _shown(run: Mapping[str, Any]) -> Iterator[str]:
    yield from textwrap.wrap(_heading(run), 100)
    yield "\n| figure | |\n|---|--:|"
    for row in run["figures"]:
        yield f"| {row['text']} | {row['value']} |"
    yield ""
    count = len(run["violations"])
    yield f"**{count} violations.**" if count else "No promise was broken."


def _heading(run: Mapping[str, Any]) -> str:
    return (
        f"{place(run)} The {run['plan']['name']} drill, {run['plan']['rate']:g} requests/s, "
        f"seed {run['seed']}, took {run['took_s']:.0f} s."
    )


def place(run: Mapping[str, Any]) -> str:
    """Return when and on what a drill was made."""
    machine = run["machine"]
    return (
        f"{run['date']}, commit {run['commit']}, as {machine['user']}: {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, Python {machine['python']}, "
        f"Envoy {machine['envoy']}; load before: {machine['load_before']}."
    )
