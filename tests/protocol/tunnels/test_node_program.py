"""A node's agent, run as a container runs it: pods are told over a socket, and their calls pass."""

import json
import pathlib
import subprocess
import sys

import pytest

from isthmus.testing import pace

PROGRAM = pathlib.Path(__file__).with_name("node_acts.py")
ALL = [15001, 15006, 15008]
SHARED = "240.240.0.1"


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Return what came of each act."""
    folder = tmp_path_factory.mktemp("node")
    ended = subprocess.run(
        [sys.executable, str(PROGRAM), str(folder)],
        capture_output=True,
        text=True,
        timeout=pace.patience(120),
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-4000:] + (folder / "agent.log").read_text()[-4000:]
    return json.loads(ended.stdout)


def test_it_says_hello_and_is_ready_when_all_pods_were_told(told):
    assert told["at_first"]["hello"] == 1
    assert told["at_first"]["readiness"] != "ready"
    assert told["joining"]["ready"]


def test_a_pod_is_acknowledged_when_its_listeners_are_up(told):
    """Not before: one that the control plane does not know yet is waited for."""
    assert told["joining"]["errors"] == [""] * 4
    assert told["joining"]["up"] == [ALL, [], ALL]


def test_calls_of_these_pods_pass_in_tunnels(told):
    assert told["calls"] == {"answered": 20, "plain": False}


def test_names_that_exist_nowhere_else_are_answered(told):
    """By datagram and by stream, and with what a resolver appends."""
    assert told["names"] == [SHARED, SHARED]


def test_after_its_death_another_one_serves_from_a_snapshot(told):
    assert told["killed"]["errors"] == [""] * 3
    assert told["killed"]["back"]


def test_names_that_were_asked_for_while_it_was_dead_are_answered_by_its_successor(told):
    """Nobody had to ask again, nor was told that a name does not exist before services were told."""
    assert told["killed"]["names"] == [SHARED, SHARED]


def test_who_tells_of_pods_may_go_and_come_back_with_less(told):
    assert told["told_anew"] == {"meanwhile": True, "errors": ["", ""], "gone": True, "stays": ALL}


def test_what_is_no_message_is_refused(told):
    assert told["broken"] == {"refused": "a packet is no message", "then": ""}


def test_it_ends_when_it_is_told_to(told):
    assert told["ending"] == {"status": 0}
