"""Whether a port can be connected to from here: a program for whoever may run one in this pod.

It sends nothing and reads nothing. No page offers it: there a place could be named by whoever may
look, and not only by whoever may run programs anyway.
"""

import asyncio
import json

from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.probing import Goal, Outcome, Way
from isthmus.wire import ladders


def tried(address: str, port: int) -> str:
    """Return what became of a connection, as JSON; `fix` is empty when there was one."""
    goal = Goal(Way.TUNNELS, ClusterId(""), NetworkId(""), address, port)
    steps = asyncio.run(ladders.connect(goal))
    last = steps[-1]
    fix = last.fix if last.outcome is Outcome.BROKEN else ""
    return json.dumps({"rung": last.rung.value, "found": last.found, "fix": fix})
