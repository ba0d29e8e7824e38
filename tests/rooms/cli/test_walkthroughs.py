"""What walkthroughs with more than two clusters are made of."""

import itertools

import pytest
from click import testing

from isthmus.cli import demo, walkthrough
from isthmus.lab import topology


@pytest.mark.parametrize("name", walkthrough.OF_THREE)
def test_each_of_three_clusters_gets_a_secret_for_every_other(name):
    commands = [step.command for step in walkthrough.OF_THREE[name].steps]
    names = ("cluster1", "cluster2", "cluster3")

    linked = {
        (watched, watcher)
        for watched, watcher in itertools.product(names, names)
        for command in commands
        if f"create-remote-secret --context={watched} --name={watched}" in command
        and f"kubectl apply -f - --context={watcher}" in command
    }

    assert linked == set(itertools.permutations(names, 2))


@pytest.mark.parametrize("name", walkthrough.OF_THREE)
def test_the_networks_that_the_steps_name_are_those_of_the_lab(name):
    walk = walkthrough.OF_THREE[name]
    commands = [step.command for step in walk.steps]

    for cluster in topology.load(walk.lab).clusters:
        label = f"topology.istio.io/network={cluster.network}"
        labelled = [each for each in commands if label in each]
        assert any(f"--context={cluster.name} label" in each for each in labelled)


def test_clusters_are_spread_over_regions_and_their_nodes_over_zones():
    nodes = [node for each in topology.load("three-clusters").clusters for node in each.nodes]

    assert len({node.region for node in nodes}) == 3
    assert len({node.zone for node in nodes}) == len(nodes) == 9


def test_a_walkthrough_of_two_clusters_is_refused_for_three():
    ended = testing.CliRunner().invoke(demo.command, ["--clusters", "3"])

    assert ended.exit_code == 2
    assert "joins 2; 3 are for: multi-primary, multi-primary-multi-network" in ended.output
