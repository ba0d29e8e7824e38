"""Acts about endpoints that cannot be reached although the control plane calls them ready."""

import asyncio
import dataclasses
import time

import tunnel_world
from tunnel_world import VIP

from isthmus.testing import pace

CALLS = 12


async def dead_proxy(world):
    """The proxy of one endpoint's node is dead; what is sent to it is lost without a word."""
    node = world.nodes[2]
    await node.kill_proxy()
    told = await _called(world)
    await node.start_proxy()
    return {**told, "then": await world.becomes("far", "client", tunnel_world.address("far"))}


async def refused_tunnels(world):
    """One endpoint's proxy answers that its pod cannot be reached."""
    world.pods["far"].stop()
    told = await _called(world)
    world.pods["far"].start()
    return {**told, "then": await world.becomes("far", "client", tunnel_world.address("far"))}


async def broken_requests(world):
    """Endpoints take requests and break off: nobody knows what they have done by then."""
    return await _called(world, "/broken")


async def of_both_kinds(world):
    """A pod that takes no part answers for a service beside those that do."""
    usual = tunnel_world.workload("plain")
    served = tunnel_world.workload("far").services
    world.tell({"plain": dataclasses.replace(usual, services=served)})
    both = {"near", "far", "plain"}
    asks = world.pods["client"].asks
    found = await tunnel_world.until(
        lambda: {(asks(VIP) or ["nobody"])[0] for _ in range(CALLS)} == both
    )
    world.tell({"plain": usual})
    return found


async def _called(world, path="/"):
    """Return who answered, how long the slowest took, and how many requests arrived at servers."""
    before = _arrived(world)
    by, slowest_s = [], 0.0
    for _ in range(CALLS):
        began = time.monotonic()
        answer = await asyncio.to_thread(world.pods["client"].asks, VIP, path=path)
        by.append(answer[0] if answer else "nobody")
        slowest_s = max(slowest_s, time.monotonic() - began)
    arrived = _arrived(world) - before
    return {"by": sorted(set(by)), "arrived": arrived, "in time": slowest_s < PATIENCE_S}


def _arrived(world):
    return sum(pod.program.asked for pod in world.pods.values())


PATIENCE_S = 5.0 * pace.slowness()
"""Within that a caller finds another endpoint."""
