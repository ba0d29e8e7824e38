"""Changes at Google while somebody else changes, while one fails, or while one never ends."""

from dataclasses import replace

import pytest
from gke_stories import carry_out, planned, stops, titles

from fakes import gke_clouds
from isthmus.gke import applying, problems


def test_a_change_of_the_cluster_at_the_same_moment_is_not_overwritten(cloud, door):
    gke_clouds.two_regions(cloud)
    plan = planned(door)
    one = cloud.state.clusters["project-1", "us-central1", "cluster-1"]

    def somebody_adds_a_network():
        one["masterAuthorizedNetworksConfig"]["cidrBlocks"].append({"cidrBlock": "10.1.0.0/24"})
        one["etag"] = "etag-7"

    cloud.before("PUT", "clusters/cluster-1", somebody_adds_a_network)
    with pytest.raises(problems.StoppedHalfway) as caught:
        carry_out(door, plan)

    cidrs = [each["cidrBlock"] for each in one["masterAuthorizedNetworksConfig"]["cidrBlocks"]]
    assert cidrs == ["10.0.0.0/24", "10.1.0.0/24"]
    assert isinstance(caught.value.__cause__, problems.ChangedMeanwhile)


def test_a_change_of_something_else_at_the_same_moment_does_not_matter(cloud, door):
    gke_clouds.two_regions(cloud)
    plan = planned(door)
    one = cloud.state.clusters["project-1", "us-central1", "cluster-1"]
    cloud.before("PUT", "clusters/cluster-1", lambda: one.update(etag="etag-7"))

    told = carry_out(door, plan)

    assert any("at the same moment" in line for line in told)
    assert planned(door).steps == ()


def test_an_operation_that_fails_ends_with_what_was_done_and_what_was_not(cloud, door):
    gke_clouds.two_regions(cloud)
    cloud.operation_errors = ["", "the network is busy"]

    with pytest.raises(problems.StoppedHalfway) as caught:
        carry_out(door, planned(door))

    lines = caught.value.detail.splitlines()
    assert "the network is busy" in lines
    assert "done: create firewall rule isthmus-cluster-1-pods" in lines
    assert "failed: create firewall rule isthmus-cluster-1-webhooks" in lines
    assert "not done: enable global access to cluster-2" in lines
    assert titles(planned(door))[0] == "create firewall rule isthmus-cluster-1-webhooks"


def test_a_cluster_operation_that_fails_is_told_likewise(cloud, door):
    gke_clouds.two_regions(cloud)
    cloud.operation_errors = ["", "", "", "", "internal error"]

    with pytest.raises(problems.StoppedHalfway) as caught:
        carry_out(door, planned(door))

    assert "internal error" in caught.value.detail
    assert caught.value.happened == "stopped at step 5 of 8: add authorized networks to cluster-1"


@pytest.mark.parametrize("done_before", [0, 4])
def test_an_operation_that_never_ends_is_given_up_in_time(cloud, door, done_before):
    gke_clouds.two_regions(cloud)
    plan = planned(door)
    for step in plan.steps[:done_before]:
        applying.apply(door, replace(plan, steps=(step,)), tell=str)
    left = replace(plan, steps=plan.steps[done_before:])
    cloud.polls = 1_000_000

    with pytest.raises(problems.StoppedHalfway) as caught:
        applying.apply(door, left, tell=str, limit_s=0.2)

    assert "is not done after" in caught.value.detail
    assert "it goes on in the cloud" in caught.value.hint


def test_a_rule_that_somebody_made_meanwhile_is_left_alone(cloud, door):
    gke_clouds.two_regions(cloud)
    plan = planned(door)
    theirs = gke_clouds.rule(
        cloud, "isthmus-cluster-1-pods", "project-1", gke_clouds.VPC, "10.8.0.0/14", "tcp:1", ["x"]
    )
    before = dict(theirs)

    with pytest.raises(problems.StoppedHalfway):
        carry_out(door, plan)

    assert theirs == before
    assert stops(planned(door)) == ["ISM-GKE-031"]


def test_a_rule_of_ours_that_somebody_widened_is_narrowed_again(cloud, door):
    gke_clouds.two_regions(cloud)
    carry_out(door, planned(door))
    ours = cloud.state.firewalls["project-1"]["isthmus-cluster-1-pods"]
    before = dict(ours)
    ours.update(sourceRanges=["10.0.0.0/8"], sourceTags=["web"], logConfig={"enable": True})

    plan = planned(door)
    carry_out(door, plan)

    assert titles(plan) == ["change firewall rule isthmus-cluster-1-pods"]
    assert ours == {**before, "logConfig": {"enable": True}}


def test_a_rule_that_was_changed_between_plan_and_apply_is_left_alone(cloud, door):
    gke_clouds.two_regions(cloud)
    carry_out(door, planned(door))
    ours = cloud.state.firewalls["project-1"]["isthmus-cluster-1-pods"]
    ours["priority"] = 100
    plan = planned(door)
    ours["priority"] = 200

    with pytest.raises(problems.StoppedHalfway):
        carry_out(door, plan)

    assert ours["priority"] == 200


def test_a_busy_cluster_stops_what_would_change_it(cloud, door):
    gke_clouds.two_regions(cloud)
    cloud.state.clusters["project-1", "us-central1", "cluster-1"]["status"] = "RECONCILING"

    assert stops(planned(door)) == ["ISM-GKE-032"]
