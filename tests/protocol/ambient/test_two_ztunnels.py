"""Istio's own node proxy, unmodified, under this control plane.

It comes with no package, so that this is tried where somebody says where one is:

    ISTHMUS_ZTUNNEL=/path/to/ztunnel pytest tests/protocol/ambient/test_two_ztunnels.py
"""

import json
import os
import pathlib
import subprocess
import sys

import pytest

BINARY = os.environ.get("ISTHMUS_ZTUNNEL", "")
PROGRAM = pathlib.Path(__file__).with_name("two_ztunnels.py")


@pytest.mark.skipif(not BINARY, reason="ISTHMUS_ZTUNNEL does not say where a ztunnel is")
@pytest.mark.parametrize("workers", [0, 2])
def test_two_of_them_obey_what_they_are_told(tmp_path, workers):
    done = subprocess.run(
        [sys.executable, PROGRAM, tmp_path, BINARY, str(workers)],
        env={**os.environ, "PYTHONPATH": str(PROGRAM.parents[3])},
        capture_output=True,
        text=True,
        timeout=180,
    )

    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.pop("in plain text") is False
    assert found
    assert all(found.values()), found
