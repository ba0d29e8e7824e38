"""Whole preparations, through Google's own libraries, against a server with the APIs' shapes."""

import pytest
from gke_stories import SHARED, TWO, asked, carry_out, codes, planned, stops, titles

from fakes import gke_clouds, google_cloud
from isthmus.gke import planning, plans, ports, problems, reading, wishes


def test_two_private_clusters_in_two_regions_lack_three_things_each(cloud, door):
    gke_clouds.two_regions(cloud)

    plan = planned(door)

    assert titles(plan) == [
        "create firewall rule isthmus-cluster-1-pods",
        "create firewall rule isthmus-cluster-1-webhooks",
        "create firewall rule isthmus-cluster-2-pods",
        "create firewall rule isthmus-cluster-2-webhooks",
        "add authorized networks to cluster-1",
        "enable global access to cluster-1",
        "add authorized networks to cluster-2",
        "enable global access to cluster-2",
    ]
    assert stops(plan) == []


def test_a_rule_for_pods_names_ports_senders_receivers_and_nodes_and_nothing_else(cloud, door):
    gke_clouds.two_regions(cloud)

    carry_out(door, planned(door))

    assert cloud.state.firewalls["project-1"]["isthmus-cluster-1-pods"] == {
        "name": "isthmus-cluster-1-pods",
        "network": "projects/project-1/global/networks/vpc",
        "description": "isthmus gke: pods of cluster-1",
        "direction": "INGRESS",
        "priority": 900,
        "allowed": [{"IPProtocol": "tcp", "ports": ["5000"]}],
        "sourceRanges": ["10.8.0.0/14"],
        "destinationRanges": ["10.4.0.0/14"],
        "targetTags": ["gke-cluster-1-0a1b2c3d-node"],
    }


def test_the_api_server_may_ask_the_injector(cloud, door):
    gke_clouds.two_regions(cloud)

    carry_out(door, planned(door))

    made = cloud.state.firewalls["project-1"]["isthmus-cluster-2-webhooks"]
    assert (made["sourceRanges"], made["allowed"]) == (
        ["172.16.0.16/28"],
        [{"IPProtocol": "tcp", "ports": ["15017"]}],
    )


def test_authorized_networks_are_merged_with_their_names(cloud, door):
    gke_clouds.two_regions(cloud)
    one = cloud.state.clusters["project-1", "us-central1", "cluster-1"]
    one["masterAuthorizedNetworksConfig"]["gcpPublicCidrsAccessEnabled"] = False

    carry_out(door, planned(door))

    assert one["masterAuthorizedNetworksConfig"] == {
        "enabled": True,
        "cidrBlocks": [
            {"displayName": "office", "cidrBlock": "10.0.0.0/24"},
            {"displayName": "pods-of-cluster-2", "cidrBlock": "10.8.0.0/14"},
        ],
        "gcpPublicCidrsAccessEnabled": False,
    }
    assert one["privateClusterConfig"]["masterGlobalAccessConfig"] == {"enabled": True}


def test_a_change_is_waited_for_until_it_is_done(cloud, door):
    gke_clouds.two_regions(cloud)
    cloud.polls = 3

    carry_out(door, planned(door))

    assert planned(door).steps == ()
    assert sum(line.startswith("WAIT") for line in cloud.requests) == 12


def test_a_second_run_has_nothing_to_change(cloud, door):
    gke_clouds.two_regions(cloud)
    carry_out(door, planned(door))
    written = len(cloud.writes)

    again = planned(door)
    carry_out(door, again)

    assert again.steps == ()
    assert len(again.kept) == 8
    assert len(cloud.writes) == written


def test_in_a_shared_vpc_rules_go_to_the_host_project(cloud, door):
    gke_clouds.shared_vpc(cloud)

    plan = planned(door, SHARED)
    carry_out(door, plan)

    assert stops(plan) == []
    assert "isthmus-cluster-1-pods" in cloud.state.firewalls["host-project"]
    assert not any(
        name.startswith("isthmus") for name in cloud.state.firewalls.get("project-1", {})
    )
    assert not any("global access" in title for title in titles(plan))


def test_a_project_that_is_not_attached_to_the_host_stops_the_plan(cloud, door):
    gke_clouds.shared_vpc(cloud)
    cloud.state.hosts["project-2"] = "another-host"

    plan = planned(door, SHARED)

    assert stops(plan) == ["ISM-GKE-023"]
    with pytest.raises(problems.PlanStopped):
        carry_out(door, plan)
    assert cloud.writes == []


def test_the_guides_rule_is_enough_but_is_called_too_wide(cloud, door):
    gke_clouds.two_regions(cloud)
    everything = "tcp,udp,icmp,esp,ah,sctp"
    both = [gke_clouds.tag_of("cluster-1"), gke_clouds.tag_of("cluster-2")]
    gke_clouds.rule(
        cloud,
        "istio-multicluster-pods",
        "project-1",
        gke_clouds.VPC,
        "10.4.0.0/14,10.8.0.0/14",
        everything,
        both,
        priority=900,
    )

    plan = planned(door)

    assert not any("-pods" in title for title in titles(plan))
    assert codes(plan) == ["ISM-GKE-025"]
    assert "isthmus-cluster-1-pods" in str(titles(planned(door, always_own=True)))


def test_a_rule_that_refuses_first_is_named(cloud, door):
    gke_clouds.two_regions(cloud)
    gke_clouds.rule(
        cloud,
        "no-high-ports",
        "project-1",
        gke_clouds.VPC,
        "10.0.0.0/8",
        "",
        [],
        priority=800,
        denied=gke_clouds.traffic("tcp:4000-6000"),
    )

    plan = planned(door)

    assert stops(plan) == ["ISM-GKE-024", "ISM-GKE-024"]
    assert "no-high-ports" in plan.checks[0].finding.happened


def test_pods_that_share_addresses_stop_the_plan(cloud, door):
    gke_clouds.cluster(cloud, "cluster-1", pods="10.4.0.0/14", masters="172.16.0.0/28")
    gke_clouds.cluster(
        cloud, "cluster-2", location="europe-west1", pods="10.6.0.0/16", masters="172.16.1.0/28"
    )

    assert "ISM-GKE-021" in stops(planned(door))


def test_clusters_in_two_vpcs_are_no_one_network(cloud, door):
    gke_clouds.cluster(cloud, "cluster-1", pods="10.4.0.0/14", masters="172.16.0.0/28")
    gke_clouds.cluster(
        cloud,
        "cluster-2",
        location="europe-west1",
        pods="10.4.0.0/14",
        masters="172.16.0.0/28",
        network="projects/project-1/global/networks/other",
    )

    plan = planned(door)

    assert (plan.steps, stops(plan)) == ((), ["ISM-GKE-022"])


def test_a_missing_permission_is_called_by_its_name(cloud, door):
    gke_clouds.shared_vpc(cloud)
    cloud.refuse(
        "host-project/global/firewalls",
        google_cloud.permission_missing("compute.firewalls.list", "host-project"),
    )

    with pytest.raises(problems.NotPermitted) as caught:
        planned(door, SHARED)

    assert "compute.firewalls.list" in caught.value.happened
    assert "host-project" in caught.value.detail


def test_what_need_not_be_read_may_be_refused(cloud, door):
    gke_clouds.shared_vpc(cloud)
    for what in ("getXpnHost", "instances", "getEffectiveFirewalls", "projects/host-project"):
        cloud.refuse(f"{what}$", google_cloud.permission_missing("compute.projects.get", "x"))

    plan = planned(door, SHARED)

    assert stops(plan) == []
    assert codes(plan).count("ISM-GKE-033") == 6
    assert len(plan.steps) == 6


def test_an_api_that_is_not_enabled_is_named(cloud, door):
    cloud.refuse("clusters", google_cloud.api_disabled("container.googleapis.com", "project-1"))

    with pytest.raises(problems.ApiDisabled) as caught:
        planned(door)

    assert caught.value.hint == (
        "gcloud services enable container.googleapis.com --project=project-1"
    )


def test_an_unknown_cluster_is_named(cloud, door):
    gke_clouds.cluster(cloud, "cluster-1", pods="10.4.0.0/14", masters="172.16.0.0/28")

    with pytest.raises(problems.NoSuchCluster, match=r"cluster-2.*europe-west1"):
        planned(door)


def test_a_token_that_is_not_accepted_is_no_secret_in_the_message(cloud, door):
    cloud.token = "another"

    with pytest.raises(problems.NoCredentials) as caught:
        planned(door)

    said = f"{caught.value.happened}{caught.value.detail}{caught.value.hint}"
    assert "secret-token" not in said
    assert "application-default login" in said


def test_a_full_quota_stops_the_plan(cloud, door):
    gke_clouds.two_regions(cloud)
    cloud.state.quotas["project-1"] = (6, 4)

    assert stops(planned(door)) == ["ISM-GKE-029"]


def test_a_third_cluster_widens_the_rules_and_says_so(cloud, door):
    gke_clouds.two_regions(cloud)
    carry_out(door, planned(door))
    gke_clouds.cluster(
        cloud, "cluster-3", location="us-east1", pods="10.12.0.0/14", masters="172.16.0.32/28"
    )
    three = asked(
        ("cluster-1", "project-1", "us-central1"),
        ("cluster-2", "project-1", "europe-west1"),
        ("cluster-3", "project-1", "us-east1"),
    )

    plan = planned(door, three)
    carry_out(door, plan)

    changed = [step for step in plan.steps if isinstance(step, plans.ChangeRule)]
    assert [step.rule.name for step in changed] == [
        "isthmus-cluster-1-pods",
        "isthmus-cluster-2-pods",
    ]
    assert planned(door, three).steps == ()


def test_pods_of_a_cluster_without_a_control_plane_reach_the_others(cloud, door):
    gke_clouds.two_regions(cloud)
    who = wishes.wishes_of(
        {
            "clusters": [
                {"name": "cluster-1", "project": "project-1", "location": "us-central1"},
                {
                    "name": "cluster-2",
                    "project": "project-1",
                    "location": "europe-west1",
                    "controlPlane": "cluster-1",
                },
            ]
        }
    )

    found = {step.title: step for step in planned(door, who).steps}

    assert found["create firewall rule isthmus-cluster-1-discovery"].rule.tcp == ((15012, 15012),)
    assert "create firewall rule isthmus-cluster-2-webhooks" not in found
    assert "add authorized networks to cluster-1" not in found
    assert "add authorized networks to cluster-2" in found


def test_ranges_that_pods_got_later_count_too(cloud, door):
    gke_clouds.two_regions(cloud)
    two = cloud.state.clusters["project-1", "europe-west1", "cluster-2"]
    two["nodePools"].append(
        {"name": "more", "networkConfig": {"podRange": "more", "podIpv4CidrBlock": "10.64.0.0/20"}}
    )
    two["ipAllocationPolicy"]["additionalPodRangesConfig"] = {"podRangeNames": ["even-more"]}
    two["networkConfig"]["subnetwork"] = "projects/project-1/regions/europe-west1/subnetworks/nodes"
    cloud.state.subnetworks["project-1", "europe-west1", "nodes"] = {
        "name": "nodes",
        "ipCidrRange": "10.0.0.0/20",
        "secondaryIpRanges": [
            {"rangeName": "pods", "ipCidrRange": "10.8.0.0/14"},
            {"rangeName": "even-more", "ipCidrRange": "10.65.0.0/20"},
            {"rangeName": "somebody-else", "ipCidrRange": "10.66.0.0/20"},
        ],
    }

    world = reading.world(door, TWO)

    assert [str(each) for each in world.clusters[1].pods] == [
        "10.8.0.0/14",
        "10.64.0.0/20",
        "10.65.0.0/20",
    ]


def test_the_tag_of_the_nodes_is_gkes_own_not_the_first(cloud, door):
    gke_clouds.two_regions(cloud)
    for name in list(cloud.state.firewalls["project-1"]):
        if name.startswith("gke-"):
            del cloud.state.firewalls["project-1"][name]

    plan = planned(door)

    assert plan.steps[0].rule.target_tags == ("gke-cluster-1-0a1b2c3d-node",)


def test_nodes_without_a_tag_of_their_own_stop_the_plan(cloud, door):
    gke_clouds.two_regions(cloud)
    cloud.state.firewalls.clear()
    for machine in cloud.state.instances["project-1"]:
        machine["tags"] = {"items": ["allow-ssh"]}

    plan = planned(door)

    assert stops(plan) == ["ISM-GKE-027", "ISM-GKE-027"]
    assert not any("firewall" in title for title in titles(plan))


def test_firewall_policies_above_are_told(cloud, door):
    gke_clouds.two_regions(cloud)
    cloud.state.policies["project-1", "vpc"] = [
        {
            "name": "1234",
            "shortName": "lockdown",
            "rules": [{"direction": "INGRESS", "action": "deny", "priority": 1}],
        }
    ]

    plan = planned(door)

    assert codes(plan) == ["ISM-GKE-024"]
    assert "lockdown" in plan.checks[0].finding.happened


def test_all_ports_must_be_meant(cloud, door):
    gke_clouds.two_regions(cloud)
    who = asked(
        ("cluster-1", "project-1", "us-central1"),
        ("cluster-2", "project-1", "europe-west1"),
        ports="all",
    )
    served = {member.title: plans.Served(member.ports) for member in who.members}
    world = reading.world(door, who)

    assert stops(planning.plan(who, world, served)) == ["ISM-GKE-030", "ISM-GKE-030"]
    assert stops(planning.plan(who, world, served, may_be_wide=True)) == []
    assert served["cluster-1"].ports == ((1, ports.HIGHEST),)
