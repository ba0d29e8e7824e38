"""However a lab ends, nothing of it is left."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import booted
import pytest

from isthmus.testing import pace

pytestmark = pytest.mark.lab


ENDINGS = [(way, victim) for way in booted.WAYS for victim in ("outer", "inner", "command")]
SOME = {("root", "inner"), ("ordinary", "outer"), ("ordinary", "command")}
LONG = {one: () if one in SOME or len(booted.WAYS) == 1 else pytest.mark.long for one in ENDINGS}


@pytest.mark.parametrize(
    ("way", "victim"), [pytest.param(*one, marks=marks) for one, marks in LONG.items()]
)
def test_nothing_is_left_of_a_lab_however_it_ends(way, victim):
    with booted.booted_lab(way) as lab:
        before = booted.processes_of(lab)
        assert len(before) >= 6

        if victim == "command":
            lab.command("down", "--name", lab.name)
        else:
            os.kill(before[0 if victim == "outer" else 1], signal.SIGKILL)

        deadline = time.monotonic() + pace.patience(5)
        while left := [pid for pid in before if _lives(pid)]:
            assert time.monotonic() < deadline, left


def test_a_lab_whose_start_is_killed_ends_by_itself(tmp_path):
    argv = [sys.executable, "-m", "isthmus", "lab", "up", "single", "--name", "orphan"]
    environment = {**os.environ, "ISTHMUS_LAB_HOME": str(tmp_path)}
    with subprocess.Popen(argv, env=environment, stderr=subprocess.DEVNULL) as starter:
        _await(lambda: len(_mentioning(tmp_path)) >= 2)
        starter.kill()

    _await(lambda: not _mentioning(tmp_path))


def _mentioning(folder):
    """Return the processes whose command lines name a lab's folder below `folder`."""
    found = []
    for place in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if f"--folder={folder}" in (place / "cmdline").read_text():
                found.append(place.name)
    return found


def _await(reached):
    deadline = time.monotonic() + pace.patience(10)
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _lives(pid):
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
