"""Each topology has a how-to whose steps are those that its demo runs."""

import importlib
import sys
from pathlib import Path

import pytest

from isthmus.cli import demo

ROOT = Path(__file__).resolve().parents[2]

sys.path.insert(0, str(ROOT / "tools"))
topologies = importlib.import_module("topologies")


def test_every_topology_has_a_how_to():
    assert set(topologies.PAGES) == set(demo.TOPOLOGIES)


@pytest.mark.parametrize("topology", topologies.PAGES)
def test_the_steps_of_a_how_to_are_those_that_the_demo_runs(topology):
    page = (topologies.HOWTO / topologies.PAGES[topology]).read_text()

    assert topologies.filled(page, topology) == page
    assert all(
        line.strip() in page
        for step in demo.TOPOLOGIES[topology].steps
        for line in step.command.splitlines()
    )
