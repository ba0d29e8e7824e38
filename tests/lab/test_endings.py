"""However a lab ends, nothing of it is left."""

import os
import pathlib
import signal
import time

import booted
import pytest

pytestmark = pytest.mark.lab


@pytest.mark.parametrize("way", booted.WAYS)
@pytest.mark.parametrize("victim", ["outer", "inner", "command"])
def test_nothing_is_left_of_a_lab_however_it_ends(way, victim):
    with booted.booted_lab(way) as lab:
        before = booted.processes_of(lab)
        assert len(before) >= 6

        if victim == "command":
            lab.command("down", "--name", lab.name)
        else:
            os.kill(before[0 if victim == "outer" else 1], signal.SIGKILL)

        deadline = time.monotonic() + 5
        while left := [pid for pid in before if _lives(pid)]:
            assert time.monotonic() < deadline, left


def _lives(pid):
    try:
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
