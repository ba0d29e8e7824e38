"""Pods without proxies of their own talk through their nodes' real Envoys, by tunnels.

What Envoy is told comes all the way: from a control plane's doors through the node's agent.
"""

import json
import pathlib
import subprocess
import sys

import pytest

from isthmus.testing import pace

PROGRAM = pathlib.Path(__file__).with_name("tunnel_acts.py")
CLIENT = '"spiffe://cluster.local/ns/default/sa/client"'


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Return what came of each act."""
    folder = tmp_path_factory.mktemp("tunnels")
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder)],
        capture_output=True,
        text=True,
        timeout=pace.patience(120),
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return json.loads(ended.stdout)


def test_every_call_is_answered_and_nothing_but_tls_is_on_the_wire(told):
    """On one node and between two, by a pod's address and by a service's; servers see the caller's."""
    assert told["calls"] == {
        "answered": 50,
        "by": ["far", "near"],
        "seen as": ["10.0.0.10"],
        "ports": [15008],
        "begins as TLS": True,
        "plain": 0,
    }


def test_no_call_is_lost_while_other_services_and_workloads_come_and_go(told):
    assert told["under_change"] == 50


def test_who_calls_is_proven_and_calls_from_his_own_address(told):
    """Two pods of one account and one node do not share a tunnel."""
    assert told["who_calls"] == {"client": CLIENT, "twin": CLIENT}


def test_pods_that_take_no_part_call_and_are_called_in_plain_text(told):
    assert told["strangers"] == {
        "calls": ["near", "10.0.0.15"],
        "is called": ["plain", "10.0.0.10"],
    }


def test_a_policy_lets_one_account_in_and_nobody_else(told):
    after = told["one_account"]

    assert after["before"][0] == "far"
    assert after["client"]
    assert after["other"]
    assert after["other, on his own node"]
    assert after["other, by tunnels that were open"] == []
    assert after["plain"]
    assert after["then"]


def test_a_port_can_be_denied(told):
    assert told["one_port"] == {"client": True, "then": True}


def test_plain_text_is_refused_where_an_identity_is_demanded(told):
    assert told["strict"] == {"plain": True, "client": True, "then": True}


def test_another_identity_than_the_expected_one_is_not_talked_to(told):
    assert told["impostor"]["refused"]
    assert told["impostor"]["by the service"] == ["near"]
    assert told["impostor"]["then"]


@pytest.mark.parametrize("act", ["dead_proxy", "refused_tunnels"])
def test_who_cannot_be_reached_costs_nobody_a_call_while_another_can(told, act):
    """Each request arrives once."""
    assert told[act] == {"by": ["near"], "arrived": 12, "in time": True, "then": True}


def test_a_service_may_have_endpoints_that_take_part_and_others(told):
    assert told["of_both_kinds"] is True


def test_a_request_that_has_left_is_never_made_again(told):
    assert told["broken_requests"] == {"by": ["nobody"], "arrived": 12, "in time": True}


def test_who_is_not_ready_gets_no_call_by_the_service(told):
    assert told["unhealthy"] == ["near"]


def test_a_node_goes_on_without_the_control_plane_and_catches_up(told):
    assert told["alone"] == {"answered": 10, "changed": True, "then": True}


def test_nothing_leaves_in_plain_text_while_the_nodes_proxy_is_dead(told):
    assert told["killed"] == {"without": None, "leaked": False, "back": True}


def test_pods_of_one_account_share_a_certificate_that_is_signed_once(told):
    base = "spiffe://cluster.local/ns/default/sa"

    assert told["certificates"] == {
        "1": [f"{base}/client", f"{base}/near", f"{base}/other"],
        "2": [f"{base}/far"],
    }


def test_a_waypoint_judges_requests_by_who_called_it(told):
    """By path and identity; pods see the waypoint, and nothing but TLS is on the wire."""
    assert told["through_waypoint"] == {
        "arrived": True,
        "by": ["far", "near"],
        "open": True,
        "closed": 403,
        "another": 403,
        "logged": CLIENT,
        "at the pod": '"spiffe://cluster.local/ns/default/sa/waypoint"',
        "ports": [15008],
        "plain": 0,
        "without its pods": True,
        "by the pod's own address": {
            "client": ["far", "10.0.0.16"],
            "denied": 403,
            "another": 403,
        },
        "then": True,
    }


def test_a_waypoint_calls_who_is_behind_another_networks_gateway(told):
    """It judges first, by who has called it; the pod sees the waypoint, and the wire only TLS."""
    assert told["onward"] == {
        "arrived": True,
        "by": ["far"],
        "lost": 0,
        "plain": 0,
        "shut": 403,
        "another": 403,
        "logged": CLIENT,
        "at the pod": '"spiffe://cluster.local/ns/default/sa/waypoint"',
    }


def test_nobody_gets_around_a_waypoint(told):
    assert told["waypoints"] == {"refused": True, "then": True}


def test_calls_to_the_proxys_own_ports_do_not_turn_in_a_circle(told):
    assert told["circles"] == [True, True]


def test_a_pod_whose_network_is_gone_disturbs_no_other(told):
    assert {one.partition("|")[2] for one in told["bad_place"]["refused"]} == {"broken"}
    assert told["bad_place"]["others"][0] == "near"
    assert told["bad_place"]["then"] == []


def test_a_pod_leaves_and_joins_while_it_runs(told):
    assert told["leaving"] == {
        "gone": True,
        "outside": "far",
        "plain": True,
        "back": True,
        "inside": "far",
        "tunnelled": True,
    }


def test_a_trust_domain_is_believed_by_its_own_bundle_alone(told):
    """By both ends: the caller's node looks at the server, the server's node at the caller."""
    assert told["trust_domains"] == {
        "unlisted": True,
        "listed": True,
        "another account": True,
        "expected account": True,
        "callers of peers": True,
        "callers of ours": True,
        "removed": True,
        "minted, by the root": True,
        "minted": True,
        "client": True,
        "then": True,
    }


def test_no_call_is_lost_when_the_last_near_pod_goes_and_when_it_comes_back(told):
    """Over to another network through its gateway, and back, while calls go on all the time."""
    found = told["failing_over"]

    assert found["calls"] > 75
    assert found["lost"] == 0
    assert max(found["over"], found["back"]) < 5
    assert found["plain"] == 0
