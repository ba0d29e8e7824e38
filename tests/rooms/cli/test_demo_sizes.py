"""How many clusters a demo joins."""

import click
import pytest
from click import testing

from isthmus.cli import demo
from isthmus.lab import topology


@pytest.mark.parametrize("name", demo.TOPOLOGIES)
def test_a_walkthrough_has_a_lab_of_its_size(name):
    walk = demo.chosen(name, None)

    booted = [one.name for one in topology.load(walk.lab).clusters if one.name != "external"]
    assert len(booted) == walk.clusters


@pytest.mark.parametrize(
    ("name", "count"), [("multi-primary", 3), ("multi-primary-multi-network", 3), ("fifty", 12)]
)
def test_some_walkthroughs_have_another_size(name, count):
    walk = demo.chosen(name, count)

    assert walk.clusters == count == len(topology.load(walk.lab).clusters)


def test_the_sizes_that_there_are_stand_in_the_refusal():
    with pytest.raises(click.BadParameter, match="`fifty` joins 50 or 12"):
        demo.chosen("fifty", 13)


def test_a_size_that_is_not_offered_boots_nothing():
    ended = testing.CliRunner().invoke(demo.command, ["--topology", "fifty", "--clusters", "13"])

    assert ended.exit_code == 2
    assert "Boot" not in ended.output
