"""The results as text: a table for a terminal, and the page of the documentation."""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bench import measures

PAGE: Final = Path(__file__).resolve().parents[1] / "docs/explanation/performance.md"
BEGIN: Final = "<!-- figures: written by `make bench` -->"
END: Final = "<!-- end of figures -->"
_WIDTH: Final = 80
_SHOWN: Final = (
    ("rate", "requests/s"),
    ("p50", "p50, ms"),
    ("p99", "p99, ms"),
    ("proxies", "proxies' CPU for a request, µs"),
    ("generator", "load generator busy, %"),
)
_HEADS: Final = {"rate": "requests/s", "p50": "p50, ms", "p99": "p99, ms", "proxies": "CPU, µs"}
"""What a terminal shows of that."""

_RATIOS: Final = frozenset({"rate", "p50", "p99"})


def table(run: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a run for a terminal of 80 columns."""
    yield from textwrap.wrap(_machine(run), _WIDTH)
    yield from textwrap.wrap(_calibration(run), _WIDTH)
    values = _values(run)
    if "traffic/direct/rate" in values:
        yield ""
        yield f"{'TRAFFIC':16}" + "".join(f"{head:>16}" for head in _HEADS.values())
        columns = [list(_compared(values, name)) for name in _HEADS]
        for case, *cells in zip(measures.CASES, *columns, strict=True):
            yield f"{case:16}" + "".join(f"{cell:>16}" for cell in cells)
    for part, rows in _parts(run):
        if part != "traffic":
            yield ""
            yield measures.PART_TITLES[part].upper()
        for row in rows:
            value = f"{number(row['value'])} {row['unit']}"
            text = measures.CATALOG[row["name"]].text
            yield f"{_short(text, _WIDTH - 18):{_WIDTH - 17}}{value:>17}"


def page(text: str, run: Mapping[str, Any]) -> str:
    """Return the documentation's page with the figures of a run in it."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n" + "\n".join(_figures(run)) + f"\n\n{END}{after}"


def _figures(run: Mapping[str, Any]) -> Iterator[str]:
    yield from textwrap.wrap(f"{_machine(run)} {_calibration(run)}", 100)
    values = _values(run)
    if "traffic/direct/rate" in values:
        yield "\n### Traffic\n"
        yield "| | " + " | ".join(measures.CASES) + " |"
        yield "|---|" + "--:|" * len(measures.CASES)
        for name, label in _SHOWN:
            yield f"| {label} | " + " | ".join(_compared(values, name)) + " |"
    for part, rows in _parts(run):
        yield f"\n### {measures.PART_TITLES[part]}\n" if part != "traffic" else ""
        yield "| figure | | |\n|---|--:|---|"
        for row in rows:
            text = measures.CATALOG[row["name"]].text
            wanted = f" (must {row['must']}, aim {row['aim']})" if "must" in row else ""
            yield f"| {text}{wanted} | {number(row['value'])} {row['unit']} | `{row['name']}` |"


def _parts(run: Mapping[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the figures part by part, without those that are compared with each other."""
    compared = tuple(f"traffic/{case}/" for case in measures.CASES)
    for part in measures.PART_TITLES:
        rows = [
            row
            for row in run["measures"]
            if row["name"].startswith(f"{part}/") and not row["name"].startswith(compared)
        ]
        if rows:
            yield part, rows


def _compared(values: Mapping[str, float], name: str) -> Iterator[str]:
    """Yield one figure for each way, with its ratio to the first of them."""
    base = values.get(f"traffic/direct/{name}", 0.0)
    for case in measures.CASES:
        value = values.get(f"traffic/{case}/{name}")
        if value is None:
            yield "-"
        elif case == "direct" or not base or name not in _RATIOS:
            yield number(value)
        else:
            yield f"{number(value)} ({value / base:.2f}x)"


def _values(run: Mapping[str, Any]) -> dict[str, float]:
    return {row["name"]: float(row["value"]) for row in run["measures"]}


def _machine(run: Mapping[str, Any]) -> str:
    machine = run["machine"]
    return (
        f"{run['date']}, commit {run['commit']}, as {machine['user']}: {machine['processor']}, "
        f"{machine['cores']} cores, {machine['memory_gib']} GiB, Linux {machine['kernel']}, "
        f"Python {machine['python']}, Envoy {machine['envoy']}; load before: "
        f"{machine['load_before']}, taken away by the host: {run['stolen_percent']} %."
    )


def _calibration(run: Mapping[str, Any]) -> str:
    before, after = run["calibration"]["before_ms"], run["calibration"]["after_ms"]
    return f"The calibration loop took {before} ms before and {after} ms after the measurements."


def number(value: float) -> str:
    """Return a figure with three digits that say something."""
    if value >= 100 or value == int(value):  # three digits are before the point
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"  # as above


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"
