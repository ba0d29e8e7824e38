"""Pods with sidecars and pods without talk to each other by tunnels, through real Envoys.

What both kinds of Envoys are told comes from the product; packets are redirected by its rules.
"""

import json
import pathlib
import subprocess
import sys

import pytest

from isthmus.testing import pace

PROGRAM = pathlib.Path(__file__).with_name("sidecar_acts.py")
BASE = "spiffe://cluster.local/ns/default/sa"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Return what came of each act."""
    folder = tmp_path_factory.mktemp("sidecars")
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder)],
        capture_output=True,
        text=True,
        timeout=pace.patience(120),
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:]
    return json.loads(ended.stdout)


def test_a_sidecar_calls_pods_without_by_tunnels_only(told):
    found = told["to_pods_without"]

    assert found["web"] == ["far", "near"]
    assert found["raw"] == "far"
    assert (found["ports"], found["plain"]) == ([15008], 0)


def test_sidecars_go_on_to_speak_mutual_tls_to_each_other(told):
    found = told["to_pods_without"]

    assert found["other"] == "otherside"
    assert found["then"] == {"ports": [8080], "plain": 0}
    assert found["stranger"] == "plain"


def test_a_pod_without_calls_one_with_a_sidecar_by_tunnels_only(told):
    found = told["from_pods_without"]

    assert found["count"] == 20
    assert (found["ports"], found["plain"]) == ([15008], 0)


def test_a_server_behind_a_sidecar_hears_who_called_and_not_what_he_claims(told):
    (shown,) = told["from_pods_without"]["seen as"]

    assert shown == f"URI={BASE}/client"
    assert told["from_pods_without"]["forged"] == [shown]


def test_a_gateway_calls_pods_without_by_tunnels(told):
    """Port 80 is what the stranger outside calls."""
    assert told["through_a_gateway"] == {"web": ["far", "near"], "ports": [80, 15008]}


def test_policies_of_sidecars_hold_for_callers_without(told):
    assert told["policy_of_sidecars"] == {
        "client by TCP": "otherside",
        "other by TCP": "nobody",
        "client": "side",
        "client elsewhere": 403,
        "other": 403,
        "plain": 403,
    }


def test_policies_of_nodes_hold_for_callers_with_sidecars(told):
    found = told["policy_of_node"]

    assert found["refused"]
    assert found["side"] in {"far", "near"}
    assert found["other"] == 503


def test_under_strict_they_talk_to_each_other_and_strangers_to_nobody(told):
    found = told["strict"]

    assert found.pop("to without") in {"far", "near"}
    assert found == {
        "refused by node": True,
        "plain": "nobody",
        "from without": "side",
        "undeclared": "otherside",
    }


def test_tunnels_to_a_sidecar_lead_to_its_own_workload_only(told):
    found = told["tunnels_lead_home_only"]

    assert (found.pop("own"), found.pop("own service")) == (200, 200)
    assert found.pop("without certificate") == 0
    assert found.pop("no tunnel") == 404
    assert found == dict.fromkeys(found, 400)


def test_another_identity_than_the_expected_one_is_not_talked_to(told):
    assert told["impostor"] == {"web": 503, "raw": "nobody"}
