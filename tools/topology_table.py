"""Writes the page of topologies and features from what tests of the lab recorded.

    python tools/topology_table.py build/topologies.xml

reads reports of `pytest --junit-xml` in which each topology was held against every promise of
`tests/lab/features.py`. `make topologies` does both.
"""

import importlib
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs/reference/topologies.md"
BEGIN = "<!-- topologies: written by tools/topology_table.py -->\n"
END = "<!-- end of topologies -->"
SECONDS = "demo"

sys.path.insert(0, str(ROOT / "tests/lab"))
features = importlib.import_module("features")
topologies = importlib.import_module("topologies")

Outcomes = Mapping[tuple[str, str], str]


def read(*reports: str) -> Outcomes:
    """Return what reports say of each topology and feature; one failure is a failure."""
    found: dict[tuple[str, str], str] = {}
    for each in (one for report in reports for one in ET.fromstring(report).iter("property")):
        name, value = each.get("name", ""), each.get("value", "")
        if name == "topology":
            topology, feature, outcome = value.split("/")
            if found.get((topology, feature), "passed") == "passed":
                found[topology, feature] = outcome
        elif name == "seconds":
            topology, seconds = value.split("/")
            slowest = max(int(seconds), int(found.get((topology, SECONDS), "0 s").split()[0]))
            found[topology, SECONDS] = f"{slowest} s"
    return found


def table(outcomes: Outcomes) -> str:
    """Return the table: a row for each topology, a column for each feature."""
    columns = [*features.FEATURES, SECONDS]
    rows = [["topology", *columns], ["---"] * (len(columns) + 1)]
    for topology in features.ROWS:
        link = f"[`{topology}`](../howto/{topologies.PAGES[topology]})"
        rows.append([link, *(outcomes.get((topology, one), "not run") for one in columns)])
    return _joined(rows)


def meanings() -> str:
    """Return what each feature stands for, as its test says."""
    rows = [["feature", "what the test holds"], ["---", "---"]]
    rows += [[name, (test.__doc__ or "").strip()] for name, test in features.FEATURES.items()]
    return _joined([*rows, [SECONDS, "How long it took from booting to the end of verification."]])


def _joined(rows: Iterable[Iterable[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def filled(page: str, outcomes: Outcomes) -> str:
    """Return the page with the tables brought up to date."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit("the page has no place for the tables")
    return f"{before}{begin}\n{table(outcomes)}\n\n{meanings()}\n\n{end}{after}"


def main() -> int:
    """Bring the page up to date; the exit status is 1 when a cell is not `passed`."""
    outcomes = read(*(Path(name).read_text(encoding="utf-8") for name in sys.argv[1:]))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), outcomes), encoding="utf-8")
    wanted = {(one, other) for one in features.ROWS for other in features.FEATURES}
    return int(any(outcomes.get(cell) != "passed" for cell in wanted))


if __name__ == "__main__":
    sys.exit(main())
