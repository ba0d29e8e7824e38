"""What `isthmus multicluster check` makes of clusters: each thing that is wrong, and only that."""

import dataclasses
import datetime

import pytest

from isthmus.base import clock
from isthmus.ca import pem
from isthmus.cli import asking, check_facts, checks, multicluster_check
from isthmus.cli.check_facts import Door, Facts, Reached
from isthmus.testing import certificates as material

NOW = clock.SystemClock().now()


def certificates(name, *, of="root", now=NOW):
    files = material.files(name, of=of, now=now)
    return tuple(pem.certificates(files["ca-cert.pem"] + files["cert-chain.pem"], file="f"))


def root(of="root", now=NOW):
    return tuple(pem.certificates(material.files("x", of=of, now=now)["root-cert.pem"], file="f"))


def facts(name, network, **changed):
    usual = Facts(
        name,
        cluster=name,
        network=network,
        domain="cluster.local",
        planes=((f"istiod-{name}", "0.1.0"),),
        environment={"PILOT_ENABLE_AMBIENT": "true", "PILOT_ENABLE_GATEWAY_API": "true"},
        signer=certificates(name),
        believed={"": root()},
        doors=(Door("istio-gateways/istio-eastwest", (f"203.0.113.{len(name)}",), (15008, 15012)),),
        node_proxies=(2, 2),
        known=({"id": "west", "syncStatus": "linked", "link": "istio-gateways/to-west"},),
        ways=(way(),),
    )
    return dataclasses.replace(usual, **changed)


def rung(name, outcome="good", **said):
    return {"rung": name, "outcome": outcome, "found": "", "fix": "", **said}


def way(*rungs, peer="west", network="n2"):
    usual = [rung(name) for name in ("DNS", "TCP", "TLS", "identity", "HBONE", "HTTP")]
    place = {"peer": peer, "network": network, "address": "203.0.113.4", "port": 15008}
    return {**place, "way": "HBONE", "rungs": list(rungs) or usual}


EAST, WEST = facts("east", "n1"), facts("west", "n2")


def of(one=EAST, *, others=None):
    return list(checks.of_cluster(one, others=others or (one, WEST), now=NOW))


def broken(found):
    return [(one.title, one.said, one.fix) for one in found if not one.is_good]


def the_broken(found):
    """Return the one check that is broken; it must say what to do."""
    ((title, said, fix),) = broken(found)
    assert fix
    return title, said


def test_of_a_cluster_without_a_control_plane_it_is_said_that_this_may_be_meant():
    [found] = of(Facts("remote", asking.NobodyRuns("no control plane is running")))

    assert not found.is_good
    assert "remote-clusters" in found.fix


def test_a_cluster_where_all_is_well():
    assert broken(of()) == []
    assert [one.title for one in of()] == [
        "control plane",
        "name",
        "network",
        "authority",
        "gateway istio-gateways/istio-eastwest",
        "node proxies",
    ]


UP = EAST.doors[0]
OF_CLUSTERS = {
    "silent": (
        {"fault": asking.NobodyAsked("no control plane is running", hint="look")},
        "control plane",
        "no control plane is running",
    ),
    "no name": ({"cluster": "Kubernetes"}, "name", "given none"),
    "another's name": ({"cluster": "west"}, "name", "also the name of west"),
    "no network": ({"network": ""}, "network", "nobody has said"),
    "no authority": ({"signer": ()}, "authority", "cacerts is missing"),
    "no gateway": ({"doors": ()}, "gateway", "no gateway leads into it"),
    "no gateways run": (
        {"environment": {"PILOT_ENABLE_AMBIENT": "true"}},
        "gateway",
        "runs no Gateways",
    ),
    "a gateway that is not up": (
        {"doors": (dataclasses.replace(UP, problem="no pod is ready"),)},
        f"gateway {UP.title}",
        "no pod is ready",
    ),
    "a gateway without an address": (
        {"doors": (dataclasses.replace(UP, addresses=()),)},
        f"gateway {UP.title}",
        "no address outside",
    ),
    "a node proxy that is not ready": ({"node_proxies": (3, 2)}, "node proxies", "2 of 3"),
    "no node proxies": ({"node_proxies": None}, "node proxies", "there is no DaemonSet"),
}


@pytest.mark.parametrize(("changed", "title", "text"), OF_CLUSTERS.values(), ids=OF_CLUSTERS)
def test_what_is_wrong_with_a_cluster_is_told_once(changed, title, text):
    found = the_broken(of(dataclasses.replace(EAST, **changed)))

    assert found[0] == title
    assert text in found[1]


@pytest.mark.parametrize(
    ("days", "text"), [(-1, "has ended"), (5, "in 5 days"), (checks.SOON.days - 1, "ends on")]
)
def test_an_authority_that_ends(days, text):
    ends = min(one.not_valid_after_utc for one in EAST.signer)
    then = ends - datetime.timedelta(days=days)

    found = list(checks.of_cluster(EAST, others=(EAST, WEST), now=then))

    title, said = the_broken(found)
    assert title == "authority"
    assert text in said


def before(one=EAST, other=WEST, reached=()):
    return list(checks.before_link(one, other, reached))


def test_two_clusters_that_can_be_linked():
    assert broken(before()) == []
    assert [one.title for one in before()] == ["trust", "versions", "settings", "clocks"]


STRANGE = facts("west", "n2", signer=certificates("west", of="another root"))
OF_PAIRS = {
    "no common root": (STRANGE, "trust", "no root in common"),
    "another version": (facts("west", "n2", planes=(("p", "0.2.3"),)), "versions", "0.1 and 0.2"),
    "another mode": (
        facts("west", "n2", environment={"PILOT_ENABLE_GATEWAY_API": "true"}),
        "settings",
        "PILOT_ENABLE_AMBIENT",
    ),
    "another time": (facts("west", "n2", offset_s=-90.0), "clocks", "90 s apart"),
}


@pytest.mark.parametrize(("other", "title", "text"), OF_PAIRS.values(), ids=OF_PAIRS)
def test_what_keeps_two_clusters_apart_is_told_once(other, title, text):
    found = the_broken(before(other=other))

    assert found[0] == title
    assert text in found[1]


def test_what_is_listed_for_a_trust_domain_counts_alone():
    listed = {"": root(), "west.local": certificates("other")[:1]}
    theirs = facts("west", "n2", domain="west.local")
    good = facts("east", "n1", believed={**listed, "west.local": theirs.signer[:1]})

    assert the_broken(before(facts("east", "n1", believed=listed), theirs))[0] == "trust"
    assert broken(before(good, theirs)) == []


def test_ports_are_tried_from_inside():
    tried = [Reached("203.0.113.4", 15008, "connected"), Reached("203.0.113.4", 15012, "x", "open")]

    assert checks.places(EAST, WEST) == [("203.0.113.4", 15008), ("203.0.113.4", 15012)]
    assert the_broken(before(reached=tried))[0] == "203.0.113.4:15012"


def test_within_a_network_a_gateway_for_mutual_tls_need_not_be_reached():
    door = Door("istio-system/istio-eastwestgateway", ("203.0.113.9",), (15443,))

    assert checks.places(EAST, facts("west", "n1", doors=(door,))) == []
    assert checks.places(EAST, facts("west", "n2", doors=(door,))) == [("203.0.113.9", 15443)]


def after(one=EAST, other=WEST):
    return list(checks.after_link(one, other))


def test_two_clusters_that_are_linked():
    assert broken(after()) == []
    assert [one.title for one in after()] == ["link", "HBONE 203.0.113.4:15008"]


def test_a_way_is_told_with_the_rung_that_breaks():
    rungs = (rung("DNS"), rung("TCP", "broken", found="nothing answers", fix="open it"))
    skipped = [rung(name, "skipped") for name in ("TLS", "identity", "HBONE", "HTTP")]
    one = facts("east", "n1", ways=(way(*rungs, *skipped),))

    title, said = the_broken(after(one))

    assert title == "HBONE 203.0.113.4:15008"
    assert said == "TCP: nothing answers"


def test_a_cluster_that_is_not_linked():
    title, said = the_broken(after(facts("east", "n1", known=())))

    assert title == "link"
    assert "does not know" in said


def test_a_cluster_that_is_not_heard():
    row = {"id": "west", "syncStatus": "not heard", "link": "a/b", "error": "it hung up"}

    assert the_broken(after(facts("east", "n1", known=(row,)))) == ("link", "a/b: it hung up")


def test_a_network_to_which_no_way_is_known():
    assert the_broken(after(facts("east", "n1", ways=())))[0] == "way"


def test_within_a_network_no_gateway_is_needed():
    assert broken(after(facts("east", "n2", ways=()))) == []


def telling(told=7, applied=7, **more):
    usual = {
        "cluster": "east",
        "istiod": "istiod-1.istio-system",
        "toldVersion": f"v{told}" if told else "",
        "appliedVersion": f"v{applied}" if applied else "",
        "behindSeconds": 0.0 if told == applied else 40.0,
        "heardSeconds": 2.0,
        "refused": [],
        "error": "",
    }
    return {**usual, **more}


@pytest.mark.parametrize(
    ("row", "text", "fix"),
    [
        (
            {"applied": 5},
            "v7 was told 40 s ago, and version v5 is applied; it answers",
            "restart",
        ),
        ({"applied": 0}, "nothing is applied", "restart"),
        ({"applied": 5, "heardSeconds": 60.0}, "nothing was heard from it for 60 s", "idle"),
        ({"refused": ["a/b"], "error": "a/b: no port"}, "but for 1 refused: a/b: a/b: no", "a/b"),
    ],
)
def test_a_control_plane_that_is_behind_is_told_with_cause_and_fix(row, text, fix):
    other = facts("west", "n2", told=(telling(**row), telling(cluster="south", applied=1)))
    [found] = [one for one in after(other=other) if not one.is_good]

    assert found.about == "east → west"
    assert found.title == "told istiod-1.istio-system"
    assert text in found.said
    assert fix in found.fix or "mend these Services in west" in found.fix


@pytest.mark.parametrize(
    ("told", "titles"),
    [
        (None, []),
        ((), []),
        ((telling(),), ["told istiod-1.istio-system"]),
        ((telling(0, 0),), ["told istiod-1.istio-system"]),
    ],
)
def test_a_control_plane_that_has_all_is_well(told, titles):
    found = after(other=facts("west", "n2", told=told))
    assert broken(found) == []
    assert [one.title for one in found if one.title.startswith("told")] == titles


def test_what_control_planes_find_about_others_is_told():
    told = {"code": "ISM-REG-031", "subject": "s", "happened": "h", "hint": "x"}
    other = {**told, "code": "ISM-VIEW-001"}

    found = list(checks.findings(facts("east", "n1", findings=(told, other))))

    assert the_broken(found) == ("ISM-REG-031", "s: h")


def test_people_read_at_most_80_columns_and_every_check_when_they_want():
    found = [*of(dataclasses.replace(EAST, network="")), *after(facts("east", "n1", ways=()))]

    brief = list(multicluster_check.lines(found, verbose=False))
    long = list(multicluster_check.lines(found, verbose=True))

    assert brief[0] == "❌ east: 1 of 6 broken"
    assert any(line.startswith("      fix: kubectl label namespace") for line in brief)
    assert sum("✅" in line for line in brief) == 0
    assert sum("✅" in line for line in long) == 6
    assert max(len(line) + line.count("✅") + line.count("❌") for line in long) <= 80


@pytest.mark.parametrize(("said", "offset"), [(0.5, 0.0), (-5.0, -5.0), (65.0, 64.0), (None, 0.0)])
def test_clocks_are_compared_by_what_was_said_meanwhile(said, offset):
    text = None if said is None else (NOW + datetime.timedelta(seconds=said)).isoformat()
    after_ = NOW + datetime.timedelta(seconds=1)

    assert check_facts.offset_s(text, before=NOW, after=after_) == offset


def test_a_gateway_that_nobody_runs_is_not_up():
    gateway = {"metadata": {"namespace": "a", "name": "b"}, "spec": {"listeners": [{"port": 1}]}}

    assert check_facts.door_of(gateway).problem == "no control plane has said that it runs"
