"""A program: does something in a world of two nodes, and prints, as JSON, what came of it.

    python tunnel_acts.py FOLDER

Each function is one act; the tests say what must have come of it.
"""

import asyncio
import dataclasses
import inspect
import json
import os
import sys

import endpoint_acts
import failover_world
import tunnel_world
import waypoint_world
from tunnel_world import HTTP, VIP, address

from isthmus.base import namespaces
from isthmus.mesh import authorization
from isthmus.node import capturing
from isthmus.views import nodeslices, wds

TLS_RECORDS = range(20, 24)
CALLS = 50
WITHOUT_IDENTITY = wds.ConnectionMatch(
    not_principals=(authorization.Pattern(authorization.Form.PRESENT),)
)


async def calls(world):
    """Pods of both nodes are called, by their own addresses and by that of their service."""
    world.wire.seen()
    hosts = [address("near"), address("far"), VIP]
    answers = [await world.asks("client", hosts[number % 3]) for number in range(CALLS)]
    seen = world.wire.seen()
    return {
        "answered": sum(1 for one in answers if one),
        "by": sorted({one[0] for one in answers if one}),
        "seen as": sorted({one[1] for one in answers if one}),
        "ports": sorted({min(ports) for ports, _ in seen}),
        "begins as TLS": sum(1 for _, payload in seen if payload[0] in TLS_RECORDS) > 0,
        "plain": sum(1 for _, payload in seen if b"HTTP/1" in payload or b"GET /" in payload),
    }


async def under_change(world):
    """Other services and workloads come and go while a pod calls."""
    hosts = [address("near"), address("far"), VIP]
    answered = 0
    for number in range(CALLS):
        name = f"extra{number % 5}"
        where = wds.NetworkAddress(tunnel_world.NETWORK, f"10.96.1.{number % 5 + 1}")
        extra = dataclasses.replace(tunnel_world.service(), host=name, addresses=(where,))
        world.tell({f"default/{name}": extra if number % 10 < 5 else None})
        stranger = dataclasses.replace(
            tunnel_world.workload("near", account=f"stranger{number % 5}"),
            uid=name,
            addresses=(f"10.9.0.{number % 5}",),
            services=(),
        )
        world.tell({name: stranger if number % 10 < 5 else None})
        answered += await world.asks("client", hosts[number % 3]) is not None
    return answered


async def who_calls(world):
    """The other node writes down who called, and from which address."""
    await world.asks("client", address("far"))
    await world.asks("twin", address("far"))
    by_twin = f" {address('twin')}:"
    by_client = f" {address('client')}:"
    return {
        "client": (await world.logged(2, "CONNECT", by_client)).rsplit(" ", 1)[-1],
        "twin": (await world.logged(2, "CONNECT", by_twin)).rsplit(" ", 1)[-1],
    }


async def strangers(world):
    """Pods that take no part are called, and call, in plain text."""
    return {
        "calls": await world.asks("plain", address("near")),
        "is called": await world.asks("client", address("plain")),
    }


async def impostor(world):
    """Another than the expected one answers at the end of the tunnel."""
    node = world.nodes[1]
    node.control.tell({"far": tunnel_world.workload("far", account="other")})
    refused = await world.becomes(False, "client", address("far"))
    avoided = await only_by(world, "near")
    node.control.tell({"far": tunnel_world.workload("far")})
    return {
        "refused": refused,
        "by the service": avoided,
        "then": await world.becomes("far", "client", address("far")),
    }


async def only_by(world, name):
    """Return who answers for the service, as soon as that is one pod or time is up."""

    def answered():
        return {(world.pods["client"].asks(VIP) or ["nobody"])[0] for _ in range(10)}

    await tunnel_world.until(lambda: answered() == {name})
    return sorted(await asyncio.to_thread(answered))


async def unhealthy(world):
    """Who is not ready is not called by the service."""
    world.tell({"far": tunnel_world.workload("far", is_healthy=False)})
    assert await world.becomes("near", "client", VIP)
    await asyncio.sleep(0.2)
    found = {(await world.asks("client", VIP) or ["nobody"])[0] for _ in range(10)}
    world.tell({"far": tunnel_world.workload("far")})
    return sorted(found)


async def alone(world):
    """The control plane goes away, changes its mind meanwhile, and comes back."""
    control = world.nodes[1].control
    await control.stop()
    answers = [await world.asks("client", VIP) for _ in range(10)]
    control.tell({"far": tunnel_world.workload("far", account="other")})
    await control.start()
    changed = await world.becomes(False, "client", address("far"))
    control.tell({"far": tunnel_world.workload("far")})
    back = await world.becomes("far", "client", address("far"))
    return {"answered": sum(map(bool, answers)), "changed": changed, "then": back}


async def killed(world):
    """The node's Envoy dies, and another takes its place."""
    node = world.nodes[1]
    await node.kill_proxy()
    world.wire.seen()
    without = await world.asks("client", address("far"))
    leaked = any(b"GET /" in payload for _, payload in world.wire.seen())
    await node.start_proxy()
    back = await world.becomes("far", "client", address("far"))
    return {"without": without, "leaked": leaked, "back": back}


async def certificates(world):
    """For whom the control plane has signed, and how often."""
    return {number: sorted(node.control.signed_for) for number, node in world.nodes.items()}


WAYPOINT = wds.GatewayAddress(15008, host=("default", "waypoint"))


def known_waypoint():
    """Return the waypoint as its service and its pod, which ends tunnels itself."""
    ports = (wds.AddressPort(15008, 15008),)
    where = wds.NetworkAddress(tunnel_world.NETWORK, "10.96.0.99")
    service = wds.ServiceSlice("waypoint", "default", "waypoint", (where,), ports)
    pod = dataclasses.replace(
        tunnel_world.workload("near", account="waypoint"),
        uid="waypoint",
        addresses=(address("waypoint"),),
        services=(("default/waypoint", ports),),
    )
    return {"default/waypoint": service, "waypoint": pod}


async def through_waypoint(world):
    """A service has a waypoint, which judges requests by who has called it."""
    async with waypoint_world.running(world.pods["waypoint"], world.folder) as log:
        service = dataclasses.replace(tunnel_world.service(), waypoint=WAYPOINT)
        world.tell({**known_waypoint(), "default/web": service})
        seen_as = address("waypoint")
        arrived = await tunnel_world.until(
            lambda: (world.pods["client"].asks(VIP) or [0, 0])[1] == seen_as
        )
        world.wire.seen()
        answers = [await world.asks("client", VIP) for _ in range(20)]
        told = {
            "arrived": arrived,
            "by": sorted({one[0] for one in answers if one}),
            "open": (await world.asks("client", VIP, "/open/door"))[0] in {"near", "far"},
            "closed": (await world.asks("client", VIP, "/shut"))[0],
            "another": (await world.asks("other", VIP))[0],
            "logged": (await waypoint_world.logged(log, "GET /shut", " 403 ")).rsplit(" ", 1)[-1],
            "at the pod": (await world.logged(2, "CONNECT", f" {seen_as}:")).rsplit(" ", 1)[-1],
        }
        seen = world.wire.seen()
        control = {node.control.port for node in world.nodes.values()}
        told["ports"] = sorted({min(ports) for ports, _ in seen if control.isdisjoint(ports)})
        told["plain"] = sum(1 for _, payload in seen if b"HTTP/1" in payload)
        told["by the pod's own address"] = await _to_a_pod(world)
        world.tell(
            {"waypoint": dataclasses.replace(known_waypoint()["waypoint"], is_healthy=False)}
        )
        told["without its pods"] = await world.becomes(False, "client", VIP)
    world.tell({"default/waypoint": None, "waypoint": None, "default/web": tunnel_world.service()})
    told["then"] = bool(
        await tunnel_world.until(
            lambda: (world.pods["client"].asks(VIP) or [0, 0])[1] == address("client")
        )
    )
    return told


async def onward(world):
    """A waypoint has nobody near to call, and calls who is behind another network's gateway."""
    return await failover_world.beyond_a_waypoint(world, WAYPOINT, known_waypoint())


async def _to_a_pod(world):
    """Pods are called at their own addresses, and have a waypoint."""
    world.tell({"far": tunnel_world.workload("far", waypoint=WAYPOINT)})
    client, far = world.pods["client"], address("far")
    assert await tunnel_world.until(lambda: (client.asks(far) or [0, 0])[1] == address("waypoint"))
    told = {
        "client": await world.asks("client", far),
        "denied": (await world.asks("client", far, "/denied"))[0],
        "another": (await world.asks("other", far))[0],
    }
    world.tell({"far": tunnel_world.workload("far")})
    return told


async def waypoints(world):
    """Calls that should go through a waypoint that is not there."""
    waypoint = WAYPOINT
    only = {"near": tunnel_world.workload("near", waypoint=waypoint)}
    world.nodes[1].control.tell(only)
    refused = await world.becomes(False, "client", address("near"))
    world.nodes[1].control.tell({"near": tunnel_world.workload("near")})
    return {"refused": refused, "then": await world.becomes("near", "client", address("near"))}


async def circles(world):
    """A port of the proxy's own is called."""
    pod = world.pods["near"]
    ports = (nodeslices.OUTBOUND_PORT, nodeslices.PLAINTEXT_PORT)
    return [await asyncio.to_thread(pod.is_closed_by, port) for port in ports]


async def bad_place(world):
    """A pod has no network at the place that is told."""
    pod = dataclasses.replace(
        tunnel_world.placed_pod(world.pods["near"], path="/nowhere"), uid="broken"
    )
    node = world.nodes[1]
    node.agent.join(pod)
    refused = await tunnel_world.until(lambda: sorted(node.agent.refused))
    others = await world.asks("client", address("near"))
    node.agent.leave("broken")
    return {"refused": refused, "others": others, "then": sorted(node.agent.refused)}


async def leaving(world):
    """A pod leaves the mesh and joins again."""
    node, pod = world.nodes[1], world.pods["other"]
    capturing.release(pod.path)
    node.agent.leave("other")
    gone = await tunnel_world.until(lambda: not pod.listens(nodeslices.TUNNEL_PORT))
    world.wire.seen()
    outside = await world.asks("other", address("far"))
    plain = sum(1 for _, payload in world.wire.seen() if b"GET /" in payload)
    node.agent.join(tunnel_world.placed_pod(pod))
    back = await tunnel_world.until(lambda: pod.listens(nodeslices.TUNNEL_PORT))
    pod.redirect()
    world.wire.seen()
    inside = await world.asks("other", address("far"))
    tunnelled = not any(b"GET /" in payload for _, payload in world.wire.seen())
    return {
        "gone": gone,
        "outside": outside[0],
        "plain": plain > 0,
        "back": back,
        "inside": inside[0],
        "tunnelled": tunnelled,
    }


failing_over = failover_world.failing_over
dead_proxy = endpoint_acts.dead_proxy
refused_tunnels = endpoint_acts.refused_tunnels
of_both_kinds = endpoint_acts.of_both_kinds
broken_requests = endpoint_acts.broken_requests


async def one_account(world):
    """Only one account may call."""
    opened = [await world.asks("other", address("far")) for _ in range(10)]
    before = opened[-1]
    only = tunnel_world.policy(authorization.Action.ALLOW, tunnel_world.calls_of("client"))
    world.tell({"default/p": only})
    after = {
        "other": await world.becomes(False, "other", address("far")),
        "other, on his own node": await world.becomes(False, "other", address("near")),
        "other, by tunnels that were open": [
            one for _ in range(10) if (one := await world.asks("other", address("far")))
        ],
        "client": await world.becomes("far", "client", address("far")),
        "plain": await world.becomes(False, "plain", address("far")),
    }
    world.tell({"default/p": None})
    return {"before": before, **after, "then": await world.becomes("far", "other", address("far"))}


async def one_port(world):
    """A port is denied to all."""
    denied = tunnel_world.policy(authorization.Action.DENY, wds.ConnectionMatch(ports=(HTTP,)))
    world.tell({"default/p": denied})
    after = await world.becomes(False, "client", address("far"))
    world.tell({"default/p": None})
    return {"client": after, "then": await world.becomes("far", "client", address("far"))}


async def strict(world):
    """Nobody may call without an identity."""
    refused = tunnel_world.policy(authorization.Action.DENY, WITHOUT_IDENTITY)
    world.tell({"default/p": refused})
    after = {
        "plain": await world.becomes(False, "plain", address("near")),
        "client": await world.becomes("near", "client", address("near")),
    }
    world.tell({"default/p": None})
    return {**after, "then": await world.becomes("near", "plain", address("near"))}


async def trust_domains(world):
    """One pod is in another trust domain; its intermediate is another, below the same root."""
    one, two = world.nodes.values()
    usual, root = one.control.signer, one.control.signer.roots[0]
    own, peer = usual.issuer.certificate, tunnel_world.signing("b").issuer.certificate
    two.control.domain, two.control.signer = tunnel_world.PEER, tunnel_world.signing("b")
    world.tell({"far": tunnel_world.workload("far", domain=tunnel_world.PEER)})
    found = {"unlisted": await stays_out(world, "client")}
    world.believe(cluster_local=own, b_local=peer)
    found["listed"] = await world.becomes("far", "client", address("far"))
    impostor = tunnel_world.workload("far", account="other", domain=tunnel_world.PEER)
    one.control.tell({"far": impostor})
    found["another account"] = await stays_out(world, "client")
    one.control.tell({"far": tunnel_world.workload("far", domain=tunnel_world.PEER)})
    found["expected account"] = await world.becomes("far", "client", address("far"))
    for domain, name in ((tunnel_world.PEER, "of peers"), (tunnel_world.DOMAIN, "of ours")):
        begins = authorization.Pattern(authorization.Form.PREFIX, f"{domain}/")
        match = wds.ConnectionMatch(principals=(begins,))
        two.control.tell({"default/p": tunnel_world.policy(authorization.Action.ALLOW, match)})
        refused = domain is tunnel_world.PEER
        found[f"callers {name}"] = await (
            stays_out(world, "client")
            if refused
            else world.becomes("far", "client", address("far"))
        )
    two.control.tell({"default/p": None})
    two.control.believe(b_local=peer)
    await one.restart_proxy()
    found["removed"] = await stays_out(world, "client")
    # Whoever has an intermediate without constraints mints for the other domain.
    one.control.signer = tunnel_world.signing("rogue")
    await one.enrol_anew("other")
    world.believe(cluster_local=root, b_local=root)
    found["minted, by the root"] = await world.becomes("far", "other", address("far"))
    world.believe(cluster_local=own, b_local=peer)
    await one.restart_proxy()
    found["minted"] = await stays_out(world, "other")
    found["client"] = await world.becomes("far", "client", address("far"))
    one.control.signer, two.control.signer = usual, usual
    two.control.domain = tunnel_world.DOMAIN
    world.tell({"far": tunnel_world.workload("far")})
    found["then"] = await world.becomes("far", "client", address("far"))
    return found


async def main(folder):
    namespaces.unshare(namespaces.NEWUSER | namespaces.NEWNET)
    namespaces.map_root(uid=UID, gid=GID)
    named = [one for name, one in globals().items() if not name.startswith("_")]
    acts = [one for one in named if inspect.iscoroutinefunction(one)]
    async with tunnel_world.running(folder) as world:
        told = {
            act.__name__: await act(world) for act in acts if act not in (main, stays_out, only_by)
        }
    sys.stdout.write(json.dumps(told))


async def stays_out(world, name):
    """Say whether a pod is not answered, and is not later either."""
    is_out = await world.becomes(False, name, address("far"))
    return is_out and not any([await world.asks(name, address("far")) for _ in range(5)])


UID, GID = os.getuid(), os.getgid()

if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
