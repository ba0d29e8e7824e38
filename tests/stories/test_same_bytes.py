"""Whoever comes back to another control plane, or the same one later, has what it would be told.

What a proxy is told follows from the objects alone: not from the order in which clusters and their
objects were learnt, nor from anything that differs between two processes.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import same_bytes

PROGRAM = Path(__file__).with_name("same_bytes.py")
SEEDS = range(5)


def test_the_order_in_which_objects_are_learnt_makes_no_difference():
    mesh = same_bytes.described()

    found = [same_bytes.told(mesh, seed) for seed in SEEDS]

    assert len(found[0]) > 100
    assert all(one == found[0] for one in found)


def test_two_processes_tell_the_same_bytes():
    found = []
    for seed in ("1", "2"):
        shuffled = {**os.environ, "PYTHONHASHSEED": seed}
        said = subprocess.run(
            [sys.executable, str(PROGRAM), seed], env=shuffled, capture_output=True, check=True
        )
        found.append(json.loads(said.stdout))

    assert found[0] == found[1]
