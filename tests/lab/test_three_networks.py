"""Three clusters on three networks, each with a control plane: all that is held in this one lab."""

import asyncio
import re

import echoes
import features
import meshes
import pytest
import traffic
from drill import __main__ as program
from drill import plan, records, verdict

from isthmus.testing import pace

pytestmark = pytest.mark.lab


@pytest.fixture(scope="module")
def three():
    """Three clusters on three networks, each with a control plane."""
    with meshes.joined("multi-primary-multi-network", clusters=3) as lab:
        yield lab


@pytest.mark.topology
def test_three_control_planes_across_networks_see_all_three_clusters(three, record_property):
    features.held(three, "multi-primary-multi-network", record_property)


def test_clusters_of_three_zones_answer_calls_as_their_pods_are_many(three):
    echoes.deploy(three, [(1, 1, 0), (2, 1, 1), (1, 2, 3)])
    clusters = echoes.pods(three, 3)
    for at_once in (1, 16):
        counts, callers = echoes.calls(three, "cluster1", calls=1200, at_once=at_once)

        assert callers == [echoes.IDENTITY]
        for pods in clusters:
            share = sum(counts.get(pod, 0) for pod in pods) / 1200
            assert abs(share - len(pods) / 12) < 0.02, (at_once, clusters, counts)
        assert max(counts.values()) < 1.5 * 1200 / 12, (at_once, counts)
    echoes.remove(three, 3)


def test_load_is_spread_as_its_page_lets_readers_see(three):
    page = (meshes.ROOT / "docs/explanation/balancing.md").read_text()
    _, typed = re.search(r"```sh\n(isthmus demo.*?\nexport [^\n]*)(.*?)```", page, re.S).groups()
    deployed, last, asked = typed.partition("kubectl --context cluster1 -n echo exec")
    three.run(f"set -e\nln -s {meshes.ROOT}/samples{deployed}")
    # A reader who is quicker than the endpoints asks again.
    traffic.until(lambda: len(three.json(last + asked)["pods"]) == 6)
    counts = three.json(last + asked)["pods"]
    echoes.remove(three, 3)

    assert sum(counts.values()) == 1200
    assert max(counts.values()) < 300, counts


def test_no_request_and_no_endpoint_is_lost_in_the_life_of_clusters(three):
    record = asyncio.run(
        program.drilled(
            three.environment, three.name, plan=plan.SHORT, seed=1, slowness=pace.slowness_now()
        )
    )
    seen = features.Seen(three, features.ROWS["multi-primary-multi-network"])

    assert verdict.violations(record) == []
    assert {kind: record.count(kind) > 1 for kind in records.KINDS} == dict.fromkeys(
        records.KINDS, True
    )
    features.watched(seen)
    features.all_answered(seen)
    features.shared_fairly(seen)
