"""What measurements promise: names, the file's shape, and a page that follows from the file."""

import json
import re
import xml.etree.ElementTree

import pytest
from bench import __main__ as program
from bench import load, machine, measures, page, traffic, usage
from bench.scale import parts

from isthmus.cli import walkthrough

FACTS = {
    "machine": {
        "processor": "P",
        "cores": 2,
        "memory_gib": 4.0,
        "kernel": "6",
        "python": "3.11",
        "envoy": "1.40.0",
        "user": "root",
        "load_before": 0.1,
    },
    "date": "2026-01-01T00:00:00+00:00",
    "commit": "abc",
    "repeat": 1,
    "stolen_percent": 0.0,
    "calibration": {"before_ms": 1.0, "after_ms": 1.1},
}


def full_run():
    results = measures.Results()
    for number, name in enumerate(measures.CATALOG, start=1):
        results.add(name, number * 12.3456)
    return measures.document(results.measures(), FACTS)


def test_every_name_is_a_path_below_a_part_with_a_title():
    for name in measures.CATALOG:
        assert re.fullmatch(r"[a-z]+(/[a-z0-9-]+)+", name), name
        assert name.split("/")[0] in measures.PART_TITLES


def test_every_titled_step_of_the_walkthrough_has_a_measure():
    steps = walkthrough.TOPOLOGIES[measures.TOPOLOGY].steps
    names = {measures.step_name(step.title) for step in steps if step.title}

    assert names <= set(measures.CATALOG)


def test_a_figure_that_nobody_explained_is_refused():
    with pytest.raises(AssertionError, match="traffic/other"):
        measures.Results().add("traffic/other", 1)


def test_the_file_names_machine_date_commit_calibration_and_measures(tmp_path):
    path = tmp_path / "latest.json"
    measures.write(full_run(), path)

    kept = json.loads(path.read_text())

    assert kept.keys() == {*FACTS, "measures", "plots"}
    assert [row["name"] for row in kept["measures"]] == list(measures.CATALOG)
    for row in kept["measures"]:
        assert row.keys() - {"must", "aim"} == {"name", "value", "unit", "runs"}
        assert row.get("must") == measures.CATALOG[row["name"]].must
        assert row["unit"] == measures.CATALOG[row["name"]].unit
    assert measures.read(path) == kept


def test_a_figure_is_the_median_of_its_runs_in_four_digits():
    results = measures.Results()
    for value in (3.0, 1.0, 2.000123):
        results.add("boot/lab", value)

    (measure,) = results.measures()

    assert (measure.value, measure.runs) == (2.0, (3.0, 1.0, 2.000123))


def test_other_programs_are_noticed_by_what_they_have_run_and_not_by_what_they_waited():
    stat = "cpu  100 20 3 5000 400 6 7 800 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n"

    assert machine.busy_ticks(stat) == 136


def test_the_table_fits_in_80_columns():
    lines = "\n".join(page.table(full_run())).splitlines()

    assert max(map(len, lines)) <= 80


def test_the_table_shows_traffic_side_by_side_with_ratios():
    results = measures.Results()
    for case, rate in (("direct", 1000), ("sidecars", 500), ("gateway", 250)):
        results.add(f"traffic/{case}/10/rate", rate)

    lines = list(page.table(measures.document(results.measures(), FACTS)))

    rows = [
        line.split()[:3] for line in lines if line.startswith(("sidecars", "gateway", "ambient "))
    ]
    assert rows == [
        ["sidecars", "500", "(0.50x)"],
        ["gateway", "250", "(0.25x)"],
        ["ambient", "-", "-"],
    ]


def test_the_page_shows_every_figure_and_keeps_what_people_wrote():
    run = full_run()
    before = f"words\n\n{page.BEGIN}\nnot any more\n{page.END}\n\nmore words\n"

    written = page.page(before, run)

    assert written.startswith("words\n\n")
    assert written.endswith("\n\nmore words\n")
    assert "not any more" not in written
    assert page.page(written, run) == written
    compared = tuple(
        f"traffic/{case}/{count}/" for case in measures.CASES for count in measures.CONNECTIONS
    )
    for row in run["measures"]:
        assert row["name"].startswith(compared) or f"`{row['name']}`" in written


@pytest.mark.parametrize(
    ("value", "must", "aim", "said"),
    [
        (40, 60, 40, "aim reached"),
        (60, 60, 40, "reached"),
        (61, 60, 40, "**not reached**"),
        (3_100, 3_000, 4_000, "reached"),
        (2_900, 3_000, 4_000, "**not reached**"),
    ],
)
def test_the_page_says_what_was_reached_and_what_was_not(value, must, aim, said):
    row = {"name": "csr/rate", "unit": "1/s", "value": value, "must": must, "aim": aim}

    (line,) = [
        line
        for line in page.page(page.BEGIN + page.END, {**FACTS, "measures": [row]}).splitlines()
        if "| 3" in line or "| 4" in line or "| 6" in line or "| 2" in line
    ][:1]

    assert line.endswith(f"| {said} |")


@pytest.mark.parametrize(("busy", "is_told"), [(95, True), (80, False)])
def test_a_delay_of_clients_that_were_late_themselves_is_told_as_a_bound(busy, is_told):
    results = measures.Results()
    results.add("scale/base/p99", 150)
    results.add("scale/base/busy", busy)

    written = page.page(page.BEGIN + page.END, measures.document(results.measures(), FACTS))

    assert ("150 ms, upper bound" in written) is is_told


def test_drawings_follow_from_the_file():
    run = measures.document([], FACTS, {"growth/services": [(100, 2.0), (1000, 2.1)]})

    ((name, drawn),) = page.drawings(run)

    assert name == "growth.svg"
    assert xml.etree.ElementTree.fromstring(drawn).tag.endswith("svg")
    assert ">services</text>" in drawn


def test_a_slope_is_that_of_the_logarithms():
    assert parts.slope([(100, 3.0), (1_000, 3.0)]) == pytest.approx(0)
    assert parts.slope([(10, 1.0), (100, 10.0), (1_000, 100.0)]) == pytest.approx(1)


def test_the_page_of_the_documentation_names_only_measures_that_exist():
    text = page.PAGE.read_text()
    figures = text.partition(page.BEGIN)[2].partition(page.END)[0]
    names = re.findall(r"\| `([a-z]+/[^`]+)` \|", figures)

    assert page.BEGIN in text
    assert page.END in text
    assert set(names) <= set(measures.CATALOG)


def test_every_part_can_be_asked_for_alone():
    with pytest.raises(SystemExit) as caught:
        program.main(["--only", "nothing-of-the-kind"])

    assert caught.value.code == 2


@pytest.mark.parametrize(("share", "expected"), [(50, 50), (99, 99), (100, 100), (1, 1)])
def test_a_percentile_is_a_value_that_was_seen(share, expected):
    assert traffic.percentile(range(100, 0, -1), share) == expected


@pytest.mark.parametrize(
    ("argv", "part"),
    [
        (("python", "-m", "isthmus.runtime", "discovery"), "control-plane"),
        (("python", "-m", "isthmus.node", "proxy", "sidecar"), "agent"),
        (("python", "-m", "isthmus.node", "istio-iptables"), ""),
        (("/somewhere/envoy", "--config-path"), "envoy"),
        (("python", "-m", "isthmus.lab.cluster"), "cluster"),
        ((), ""),
    ],
)
def test_processes_are_told_apart_by_their_command_lines(argv, part):
    assert usage.Process(1, 0, argv, 0.0).part == part


async def test_the_load_generator_counts_whole_answers_that_come_in_pieces():
    connection = load.Connection()
    connection._transport = Silent()
    answer = connection.ask(b"GET /")

    for piece in (b"HTTP/1.1 503 No\r\nContent-", b"Length: 4\r\n\r\nab", b"cd"):
        assert not answer.done()
        connection.data_received(piece)

    assert await answer == (503, b"abcd")


class Silent:
    def write(self, content):
        pass


def test_figures_that_were_measured_apart_replace_those_of_the_run_and_say_so():
    run, more = full_run(), measures.Results()
    more.add("scale/base/p50", 7.0)

    both = measures.joined(run, more, apart="2026-02-02T00:00:00+00:00")

    found = {row["name"]: row["value"] for row in both["measures"]}
    assert found["scale/base/p50"] == 7.0
    assert [row["name"] for row in both["measures"]] == list(measures.CATALOG)
    assert found["scale/base/p99"] == run_value(run, "scale/base/p99")
    said = page.page(page.PAGE.read_text(encoding="utf-8"), both)
    assert "measured apart from the rest, and added at 2026-02-02" in said


def run_value(run, name):
    return next(row["value"] for row in run["measures"] if row["name"] == name)


def test_what_is_no_base_point_is_refused(tmp_path, capsys):
    other = tmp_path / "other.json"
    other.write_text('{"shape": {"clusters": 1}}')

    assert program.main(["--base", str(other)]) == 1
    assert "no figures of the base point" in capsys.readouterr().err
