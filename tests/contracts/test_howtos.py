"""Each topology has a how-to whose steps are those that its demo runs."""

import importlib
import sys
from pathlib import Path

import pytest

from isthmus.cli import demo

ROOT = Path(__file__).resolve().parents[2]

sys.path.insert(0, str(ROOT / "tools"))
topologies = importlib.import_module("topologies")
topology_table = importlib.import_module("topology_table")

REPORT = """\
<testsuites><testsuite><testcase><properties>
<property name="topology" value="fifty/paths/passed"/>
<property name="topology" value="fifty/paths/%s"/>
<property name="topology" value="fifty/paths/passed"/>
<property name="seconds" value="fifty/33"/>
</properties></testcase></testsuite></testsuites>
"""


def test_every_topology_has_a_how_to():
    assert set(topologies.PAGES) == set(demo.TOPOLOGIES)


@pytest.mark.parametrize("topology", topologies.PAGES)
def test_the_steps_of_a_how_to_are_those_that_the_demo_runs(topology):
    page = (topologies.HOWTO / topologies.PAGES[topology]).read_text()

    assert topologies.filled(page, topology) == page
    assert all(
        line.strip() in page
        for step in demo.TOPOLOGIES[topology].steps
        for line in step.typed.splitlines()
    )


def test_the_table_of_topologies_has_every_feature_and_topology_that_the_lab_tests_hold():
    page = topology_table.PAGE.read_text()
    wanted = topology_table.features

    assert topology_table.meanings() in page
    # Without sidecars other promises are held, by `tests/lab/test_ambient_mesh.py`.
    of_sidecars = demo.TOPOLOGIES.keys() - {"ambient"}
    for topology in of_sidecars:
        [row] = [line for line in page.splitlines() if line.startswith(f"| [`{topology}`]")]
        assert row.count("| passed ") == len(wanted.FEATURES), row
    assert set(wanted.ROWS) == of_sidecars


@pytest.mark.parametrize("outcome", ["passed", "failed"])
def test_a_cell_of_the_table_says_what_the_tests_recorded(outcome):
    found = topology_table.read(REPORT % outcome)

    assert found == {("fifty", "paths"): outcome, ("fifty", "demo"): "33 s"}
    assert f"| {outcome} | not run |" in topology_table.table(found)
