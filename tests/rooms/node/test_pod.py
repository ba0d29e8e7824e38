import asyncio
import json
import pathlib
import sys

import pytest

from isthmus.testing import pace

STORY = pathlib.Path(__file__).with_name("pod_story.py")


async def test_a_pods_traffic_goes_through_its_proxy_and_the_agents_does_not():
    program = await asyncio.create_subprocess_exec(
        sys.executable, str(STORY), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(program.communicate(), pace.patience(60))
    assert program.returncode == 0, err.decode()
    seen = json.loads(out.splitlines()[-1])
    if "skip" in seen:
        pytest.skip(seen["skip"])

    assert seen["outbound"].strip() == "token-app"
    assert seen["inbound"]
    assert seen["itself"].strip() == "token-app"
    assert seen["probe"]
    assert seen["known"] == seen["known by stream"] == "240.240.0.9"
    # A marked question goes to the server itself, even from a port that was the application's.
    assert seen["unknown"] == seen["by the agent"] == "192.0.2.1"
    assert "NameTable" in seen["accepted"]
    # One connection each way: not the agent's own, nor the probe, nor the call to itself.
    assert "tcp.outbound.downstream_cx_total: 1\n" in seen["counted"]
    assert "tcp.inbound.downstream_cx_total: 1\n" in seen["counted"]
