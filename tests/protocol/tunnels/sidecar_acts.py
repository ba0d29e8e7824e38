"""A program: pods with sidecars and pods without call each other; prints, as JSON, what came of it.

    python sidecar_acts.py FOLDER

Each function is one act; the tests say what must have come of it.
"""

import asyncio
import inspect
import json
import os
import sys

import sidecar_world
import tunnel_world
from sidecar_world import DOOR, OPEN, OTHER, SIDE, SIDE_VIP, TCP
from tunnel_acts import WITHOUT_IDENTITY
from tunnel_world import HTTP, address

from isthmus.base import namespaces
from isthmus.mesh import authorization

ALLOW, DENY = authorization.Action.ALLOW, authorization.Action.DENY
FORGED = {"x-forwarded-client-cert": "URI=spiffe://cluster.local/ns/default/sa/king"}


def wire(world, *, of=None):
    """Return which ports were called on the wire, and how often something could be read.

    Of one pod only, where it is named.
    """
    seen = world.inner.wire.seen(of=of and address(of))
    return {
        "ports": sorted({min(ports) for ports, _ in seen if min(ports) < 32768}),
        "plain": sum(1 for _, payload in seen if b"HTTP/1" in payload or b"GET /" in payload),
    }


def first(answer):
    return answer[0] if answer else "nobody"


async def to_pods_without(world):
    """A sidecar calls a service of pods without, and its own kind, and strangers."""
    world.inner.wire.seen()
    answers = [await world.asks(SIDE, world.vip("web")) for _ in range(20)]
    return {
        "web": sorted({first(one) for one in answers}),
        "raw": first(await world.asks(SIDE, world.vip("raw"), port=TCP)),
        **wire(world),
        "other": first(await world.asks(SIDE, world.vip("other"))),
        "then": wire(world, of=OTHER),
        "stranger": first(await world.asks(SIDE, world.vip("plain"))),
    }


async def from_pods_without(world):
    """A pod without calls one with a sidecar, by its address and by that of its service."""
    world.inner.wire.seen()
    hosts = [address(SIDE), SIDE_VIP]
    answers = [await world.asks("client", hosts[number % 2]) for number in range(20)]
    return {
        "count": sum(map(bool, answers)),
        "seen as": sorted({one[2] for one in answers}),
        "forged": (await world.asks("client", address(SIDE), headers=FORGED))[2:],
        **wire(world),
    }


async def through_a_gateway(world):
    """A gateway calls pods without sidecars for somebody outside."""
    world.inner.wire.seen()
    answers = [await world.asks("plain", address(DOOR), port=OPEN) for _ in range(10)]
    seen = wire(world)
    return {"web": sorted({first(one) for one in answers}), "ports": seen["ports"]}


async def policy_of_sidecars(world):
    """One sidecar lets one account in from its address, another only on one path; nobody else."""
    rule = {
        "from": [{"source": {"principals": ["cluster.local/ns/default/sa/client"]}}],
        "to": [{"operation": {"paths": ["/open"]}}],
    }
    world.mesh.authorization_policy(
        "p", {"selector": {"matchLabels": {"app": SIDE}}, "rules": [rule]}
    )
    source = {**rule["from"][0]["source"], "ipBlocks": [f"{address('client')}/32"]}
    by_account = {"from": [{"source": source}]}
    world.mesh.authorization_policy(
        "q", {"selector": {"matchLabels": {"app": OTHER}}, "rules": [by_account]}
    )
    await world.changed()
    await world.changed(OTHER)
    told = {
        "client by TCP": first(await world.asks("client", address(OTHER))),
        "other by TCP": first(await world.asks("other", address(OTHER))),
        "client": first(await world.asks("client", address(SIDE), path="/open")),
        "client elsewhere": first(await world.asks("client", address(SIDE), path="/shut")),
        "other": first(await world.asks("other", address(SIDE), path="/open")),
        "plain": first(await world.asks("plain", address(SIDE), path="/open")),
    }
    for name in ("p", "q"):
        world.mesh.authorization_policy(name, {"action": "DENY"})
    await world.changed(OTHER)
    return told


async def strict(world):
    """Nobody may call without an identity, whether by sidecar or by node."""
    world.mesh.peer_authentication("istio-system", "STRICT")
    await world.changed()
    refused = tunnel_world.policy(DENY, WITHOUT_IDENTITY)
    world.inner.tell({"default/p": refused})
    told = {
        "refused by node": await world.inner.becomes(False, "plain", address("near")),
        "plain": first(await world.asks("plain", address(SIDE))),
        "from without": first(await world.asks("client", address(SIDE))),
        "to without": first(await world.asks(SIDE, world.vip("web"))),
        "undeclared": first(await world.asks("client", address(OTHER))),
    }
    world.inner.tell({"default/p": None})
    return told


async def policy_of_node(world):
    """A node lets in one account only, which a sidecar has."""
    world.inner.tell({"default/p": tunnel_world.policy(ALLOW, tunnel_world.calls_of(SIDE))})
    told = {
        "refused": await world.inner.becomes(False, "client", address("far")),
        "side": first(await world.asks(SIDE, world.vip("web"))),
        "other": first(await world.asks(OTHER, world.vip("web"))),
    }
    world.inner.tell({"default/p": None})
    return told


async def tunnels_lead_home_only(world):
    """Whatever is asked for, nothing but the workload's own ports answers."""
    own = address(SIDE)
    asked = {
        "own": f"{own}:{HTTP}",
        "own service": f"{SIDE}.default.svc.cluster.local:{TCP}",
        "another pod": f"{address('plain')}:{HTTP}",
        "another service": f"web.default.svc.cluster.local:{HTTP}",
        "another port of the service": f"{SIDE}.default.svc.cluster.local:{HTTP + 1}",
        "inbound": f"{own}:15006",
        "outbound": f"{own}:15001",
        "tunnels": f"{own}:15008",
        "loopback": "127.0.0.1:8080",
        "no port": own,
        "odd port": f"{own}:08080",
        "large port": f"{own}:99999",
    }
    statuses = {name: await world.tunnel(one) for name, one in asked.items()}
    return {
        **statuses,
        "no tunnel": await world.tunnel(f"{own}:{HTTP}", method="GET"),
        "without certificate": await world.tunnel(f"{own}:{HTTP}", who=""),
    }


async def impostor(world):
    """Another than the expected one answers at the other end of the tunnel."""
    world.mesh, world.pods = sidecar_world.mesh_of(far="somebody", near="nobody")
    await world.changed()
    return {
        "web": first(await world.asks(SIDE, world.vip("web"))),
        "raw": first(await world.asks(SIDE, world.vip("raw"), port=TCP)),
    }


async def main(folder):
    namespaces.unshare(namespaces.NEWUSER | namespaces.NEWNET)
    namespaces.map_root(uid=UID, gid=GID)
    acts = [one for one in globals().values() if inspect.iscoroutinefunction(one)]
    async with sidecar_world.running(folder) as world:
        told = {act.__name__: await act(world) for act in acts if act is not main}
    sys.stdout.write(json.dumps(told))


UID, GID = os.getuid(), os.getgid()

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
