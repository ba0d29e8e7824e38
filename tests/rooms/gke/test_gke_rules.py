"""Single rules of the preparation of Google's cloud."""

import ipaddress

import pytest

from isthmus.gke import (
    clusters,
    commands,
    firewalls,
    google,
    needs,
    plans,
    ports,
    problems,
    ranges,
    reading,
    wishes,
)

ONE = {"name": "one", "project": "project-1", "location": "us-central1"}
TWO = {"name": "two", "project": "project-1", "location": "us-central1"}


def net(text):
    return ipaddress.ip_network(text)


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("clusters", "`the file` is no mapping"),
        ({"clusters": [ONE]}, "fewer than two"),
        ({"clusters": "one"}, "`clusters` is no list"),
        ({"clusters": [ONE, ONE]}, "is named twice"),
        ({"clusters": [ONE, {**TWO, "port": "1"}]}, "unknown key: port"),
        ({"clusters": [ONE, {**TWO, "name": ""}]}, "`clusters[1].name` is missing"),
        ({"clusters": [ONE, {**TWO, "name": "../x"}]}, "cannot be a name"),
        ({"clusters": [ONE, {**TWO, "location": "us"}]}, "cannot be a name"),
        ({"clusters": [ONE, {**TWO, "project": "a/b"}]}, "cannot be a name"),
        ({"clusters": [ONE, {**TWO, "networkProject": "a b"}]}, "cannot be a name"),
        ({"clusters": [ONE, {**TWO, "controlPlane": "three"}]}, "names no cluster"),
        ({"clusters": [ONE, TWO], "ports": ["70000"]}, "`ports` has no port: 70000"),
        ({"clusters": [ONE, TWO], "ports": ["0"]}, "has no port: 0"),
        ({"clusters": [ONE, TWO], "ports": ["90-80"]}, "has no port: 90-80"),
        ({"clusters": [ONE, TWO], "ports": [["80"]]}, "has no port"),
        ({"clusters": [ONE, TWO], "priority": "65535"}, "`priority`"),
        ({"clusters": [ONE, TWO], "mesh": "Mesh"}, "cannot be a name"),
        ({"clusters": [ONE, TWO], "authorizedNetworks": [{"cidr": "10.0.0.1/8"}]}, "no range"),
        ({"clusters": [ONE, TWO], "authorizedNetworks": [{"cidr": ["x"]}]}, "is no text"),
    ],
)
def test_a_file_that_is_not_understood_is_refused_by_name(document, said):
    with pytest.raises(problems.FileRefused) as caught:
        wishes.wishes_of(document)

    assert said in caught.value.happened


def test_two_control_planes_may_not_follow_each_other():
    follows = [{**ONE, "controlPlane": "two"}, {**TWO, "controlPlane": "one"}]

    with pytest.raises(problems.FileRefused):
        wishes.wishes_of({"clusters": follows})


def test_clusters_of_one_name_are_told_apart():
    away = {**ONE, "location": "europe-west1"}
    far = {**away, "project": "project-2"}

    found = wishes.wishes_of({"clusters": [ONE, away, far, TWO]}).members

    assert [each.title for each in found] == [
        "one-us-central1",
        "one-europe-west1-project-1",
        "one-europe-west1-project-2",
        "two",
    ]
    assert found[2].context == "gke_project-2_europe-west1_one"


@pytest.mark.parametrize(
    ("location", "region"),
    [("us-central1", "us-central1"), ("us-central1-a", "us-central1"), ("me-west1-c", "me-west1")],
)
def test_a_zone_is_in_its_region(location, region):
    assert clusters.Place("p", location, "c").region == region


def test_ranges_cover_together_what_none_covers_alone():
    halves = (net("10.0.0.0/9"), net("10.128.0.0/9"))

    assert ranges.covers(halves, net("10.0.0.0/8"))
    assert not ranges.covers(halves[:1], net("10.0.0.0/8"))
    assert not ranges.covers((net("0.0.0.0/0"),), net("fd00::/8"))


def rule(name, **more):
    return clusters.Rule(name, clusters.Network("p", "n"), **more)


TCP = (clusters.Traffic("tcp", ((5000, 5000),)),)
FLOW = firewalls.Flow((net("10.8.0.0/14"),), (net("10.4.0.0/14"),), "tag", ((5000, 5001),))


def test_a_refusal_of_the_same_priority_comes_first():
    found = firewalls.verdict(
        FLOW,
        [
            rule("yes", traffic=(clusters.Traffic("tcp"),)),
            rule("no", traffic=TCP, allows=False),
        ],
    )

    assert ([each.name for each in found.refused_by], found.is_whole) == (["no"], False)


def test_rules_that_permit_a_port_each_permit_both():
    other = (clusters.Traffic("tcp", ((5001, 5001),)),)

    assert firewalls.verdict(FLOW, [rule("a", traffic=TCP), rule("b", traffic=other)]).is_whole


@pytest.mark.parametrize(
    "more",
    [
        {"is_enabled": False},
        {"is_ingress": False},
        {"target_tags": ("another",)},
        {"names_sources": True},
        {"names_accounts": True},
        {"sources": (net("10.8.0.0/16"),)},
        {"destinations": (net("10.4.0.0/16"),)},
        {"traffic": (clusters.Traffic("udp"), clusters.Traffic("esp"))},
    ],
)
def test_a_rule_that_is_about_something_else_permits_nothing(more):
    made = rule("some", **{"traffic": (clusters.Traffic("all"),), **more})

    assert not firewalls.verdict(FLOW, [made]).is_whole


def test_the_name_of_a_rule_is_short_enough_and_still_its_own():
    long = "a" * 40
    names = {needs.rule_name("mesh", f"{long}-us-central1-{end}", "webhooks") for end in "ab"}

    assert len(names) == 2
    assert max(map(len, names)) <= 63
    assert all(name.endswith("-webhooks") for name in names)


def test_a_rule_of_another_cluster_whose_name_begins_alike_gives_no_tag():
    cluster = clusters.Cluster(
        "a", clusters.Place("p", "us-east1", "a"), clusters.Network("p", "n"), pods=FLOW.sources
    )
    theirs = rule("gke-a-b-0a1b2c3d-all", sources=FLOW.sources, target_tags=("theirs",))
    mine = rule("gke-a-4e5f6071-all", sources=FLOW.sources, target_tags=("mine",))

    assert needs.node_tag(cluster, [theirs]) == ""
    assert needs.node_tag(cluster, [theirs, mine]) == "mine"


@pytest.mark.parametrize(
    ("text", "project", "name"),
    [
        ("https://www.googleapis.com/compute/v1/projects/h/global/networks/n", "h", "n"),
        ("projects/h/global/networks/n", "h", "n"),
        ("default", "own", "default"),
    ],
)
def test_a_network_is_found_in_every_spelling(text, project, name):
    assert reading.network_of(text, "own") == clusters.Network(project, name)


@pytest.mark.parametrize(
    ("address", "is_fine"),
    [
        ("https://compute.p.googleapis.com/", True),
        ("http://127.0.0.1:1/compute/v1/", True),
        ("http://[::1]:1", True),
        ("http://localhost:1", True),
        ("http://127.0.0.1.example.com", False),
        ("http://compute.googleapis.com", False),
        ("ftp://localhost", False),
        ("compute.googleapis.com", False),
    ],
)
def test_an_overridden_address_never_takes_credentials_readably(address, is_fine):
    environment = {google.ENDPOINTS["compute"]: address}

    try:
        with google.Cloud(object(), environment=environment):
            assert is_fine
    except problems.EndpointRefused:
        assert not is_fine


def test_a_shell_takes_what_a_command_has_for_one_word():
    made = rule(
        "r",
        traffic=TCP,
        sources=FLOW.sources,
        destinations=FLOW.destinations,
        target_tags=("tag",),
        description="it's; $(rm) `x`",
    )
    plan = plans.Plan(
        wishes.Wishes(()),
        clusters.World(()),
        {},
        (plans.CreateRule(made, "", ""),),
        (),
        (),
    )

    (text,) = commands.commands(plan)

    assert text.endswith("""'--description=it'"'"'s; $(rm) `x`'""")


def test_all_ports_are_no_list_of_ports():
    assert ports.covers(ports.EVERY, ((1, ports.HIGHEST),))
