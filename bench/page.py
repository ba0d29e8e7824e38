"""The results as text: a table for a terminal, and the page of the documentation."""

import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from bench import measures, plots

PAGE: Final = Path(__file__).resolve().parents[1] / "docs/explanation/performance.md"
BEGIN: Final = "<!-- figures: written by `make bench` -->"
FULL: Final = 90
"""Percent of a core from which on whoever uses it is no measure of others."""

END: Final = "<!-- end of figures -->"
_WIDTH: Final = 80
_SHOWN: Final = (
    ("rate", "requests/s"),
    ("p50", "p50, ms"),
    ("p99", "p99, ms"),
    ("proxies", "proxies' CPU, µs"),
    ("generator", "generator busy, %"),
)
_RATIOS: Final = frozenset({"rate", "p50", "p99"})
_FOLDER: Final = "plots"
_DRAWN: Final = {
    "growth": (
        "CPU time of the control plane for a change",
        "services, clusters, proxies",
        "CPU time for a change, ms",
    ),
    "staleness": (
        "How late 99 of 100 proxies know, by how much changes",
        "changes in a second",
        "ms",
    ),
}


def table(run: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a run for a terminal of 80 columns."""
    yield from textwrap.wrap(_machine(run), _WIDTH)
    yield from textwrap.wrap(_calibration(run), _WIDTH)
    values = _values(run)
    for count in measures.CONNECTIONS:
        if f"traffic/direct/{count}/rate" in values:
            yield ""
            heads = ("requests/s", "p50, ms", "p99, ms", "CPU, µs")
            yield f"{f'CONNECTIONS: {count}':16}" + "".join(f"{head:>16}" for head in heads)
            columns = [list(_compared(values, f"{count}/{name}")) for name, _ in _SHOWN[:4]]
            for case, *cells in zip(measures.CASES, *columns, strict=True):
                yield f"{case:16}" + "".join(f"{cell:>16}" for cell in cells)
    for part, rows in _parts(run):
        yield ""
        if part != "traffic":
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


def drawings(run: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the drawings of a run with the names of their files."""
    for name, (title, across, up) in _DRAWN.items():
        lines = {
            key.partition("/")[2]: [(float(one), float(other)) for one, other in line]
            for key, line in run.get("plots", {}).items()
            if key.startswith(f"{name}/")
        }
        if lines:
            yield f"{name}.svg", plots.drawing(title, lines, across=across, up=up)


def write(run: Mapping[str, Any], path: Path = PAGE) -> None:
    """Write the page and its drawings anew."""
    path.write_text(page(path.read_text(encoding="utf-8"), run), encoding="utf-8")
    folder = path.parent / _FOLDER
    folder.mkdir(exist_ok=True)
    for name, drawn in drawings(run):
        (folder / name).write_text(drawn, encoding="utf-8")


def _figures(run: Mapping[str, Any]) -> Iterator[str]:
    yield from textwrap.wrap(f"{_machine(run)} {_calibration(run)}", 100)
    values = _values(run)
    for part in run.get("failed", ()):
        yield f"\nThis failed, and has no figures: {part}."
    yield from _targets(run)
    for name, _ in drawings(run):
        yield f"\n![{_DRAWN[name.removesuffix('.svg')][0]}]({_FOLDER}/{name})"
    if any(name.startswith("traffic/direct/") for name in values):
        yield "\n### Traffic"
    for count in measures.CONNECTIONS:
        if f"traffic/direct/{count}/rate" in values:
            yield (
                f"\n| {count} connection{'s' if count > 1 else ''} | "
                + " | ".join(measures.CASES)
                + " |"
            )
            yield "|---|" + "--:|" * len(measures.CASES)
            for name, label in _SHOWN:
                yield f"| {label} | " + " | ".join(_compared(values, f"{count}/{name}")) + " |"
    for part, rows in _parts(run):
        yield f"\n### {measures.PART_TITLES[part]}\n" if part != "traffic" else ""
        yield "| figure | | |\n|---|--:|---|"
        for row in rows:
            text = measures.CATALOG[row["name"]].text
            yield f"| {text} | {number(row['value'])} {row['unit']} | `{row['name']}` |"


def _targets(run: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table of what must be reached, and whether it was."""
    rows = [row for row in run["measures"] if "must" in row]
    if not rows:
        return
    yield "\n### What must be reached\n"
    yield "| figure | measured | must | aim | |\n|---|--:|--:|--:|---|"
    for row in rows:
        text, unit = measures.CATALOG[row["name"]].text, row["unit"]
        measured = f"{number(row['value'])} {unit}".strip()
        if _is_bound(run, row["name"]):
            measured += ", upper bound: the clients' core was full"
        yield f"| {text} | {measured} | {row['must']} | {row['aim']} | {reached(row)} |"
    if "apart" in run:
        yield f"\nThe base point was measured apart from the rest, and added at {run['apart']}."
    if not any(row["name"].startswith("scale/base/") for row in rows):
        yield "\nThis run did not measure the base point; `make bench-full` does."


def _is_bound(run: Mapping[str, Any], name: str) -> bool:
    """Say whether a delay is one of clients that were late themselves."""
    point, _, figure = name.rpartition("/")
    return figure == "p99" and _values(run).get(f"{point}/busy", 0.0) > FULL


def reached(row: Mapping[str, Any]) -> str:
    """Say whether a figure is what it must be; where more is better the aim is more, too."""
    value, must, aim = float(row["value"]), float(row["must"]), float(row["aim"])
    sign = 1 if aim <= must else -1
    if sign * value <= sign * aim:
        return "aim reached"
    return "reached" if sign * value <= sign * must else "**not reached**"


def _parts(run: Mapping[str, Any]) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield the figures part by part, without those that are compared with each other."""
    compared = tuple(
        f"traffic/{case}/{count}/" for case in measures.CASES for count in measures.CONNECTIONS
    )
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
        elif case == "direct" or not base or name.rpartition("/")[2] not in _RATIOS:
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
