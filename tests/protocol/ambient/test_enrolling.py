"""What becomes of pods when an agent of ambient mode looks after their node, as root and as a user."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

from isthmus.testing import pace

PROGRAM = pathlib.Path(__file__).with_name("enrolling.py")
ROOT = PROGRAM.parents[3]
ORDINARY = 2000
WAYS = ["root", "ordinary"] if os.getuid() == 0 else ["ordinary"]
SCENES = ["begins", "joins", "goes_on", "restarts", "troubles", "ends"]
ZTUNNEL = os.environ.get("ISTHMUS_ZTUNNEL", "")
"""Where one of Istio's own is, which comes with no package."""


@pytest.fixture(scope="module", params=WAYS)
def found(request):
    """What was found true in all scenes."""
    return played(*SCENES, way=request.param)


def played(*scenes, way):
    uid = ORDINARY if way == "ordinary" and os.getuid() == 0 else None
    user = {"user": uid, "group": uid, "extra_groups": []} if uid else {}
    # Not pytest's own folder, which no other user may enter.
    with tempfile.TemporaryDirectory(prefix="isthmus-cni-") as folder:
        if uid:
            os.chown(folder, uid, uid)
        done = subprocess.run(
            [sys.executable, PROGRAM, folder, *scenes],
            env={**os.environ, "PYTHONPATH": str(ROOT), "HOME": folder},
            capture_output=True,
            text=True,
            timeout=pace.patience(90),
            check=False,
            **user,
        )
    if "Operation not permitted" in done.stderr.splitlines()[-1:]:
        pytest.skip("needs the right to make namespaces")
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("scene", SCENES)
def test_everything_in_the_scene_holds(found, scene):
    held = {what: holds for what, holds in found.items() if what.startswith(f"{scene}: ")}

    assert held
    assert [what for what, holds in held.items() if holds is not True] == []


@pytest.mark.skipif(not ZTUNNEL, reason="ISTHMUS_ZTUNNEL does not say where a ztunnel is")
def test_istios_own_node_proxy_serves_pods_that_this_agent_enrols():
    found = played("ztunnel", way=WAYS[0])

    assert found
    assert [what for what, holds in found.items() if holds is not True] == []
