"""Told of each endpoint by itself, Envoy ends up with what whole assignments give it (LEDS)."""

import random

import apart
import pytest

from isthmus.testing.shapes import Shape

WEB = "outbound|80||web.default.svc.cluster.local"
ZONES = {"node-a": "zone-a", "node-b": "zone-b"}
PLACES = {"east": "10.1", "west": "10.2"}
OUTLIERS = {"outlierDetection": {"consecutive5xxErrors": 5}}
FAILOVER = {
    **OUTLIERS,
    "loadBalancer": {"localityLbSetting": {"failoverPriority": ["topology.istio.io/network"]}},
}
SHARES = {
    **OUTLIERS,
    "loadBalancer": {
        "localityLbSetting": {
            "distribute": [{"from": "region/zone-a/*", "to": {"region/*": 80, "far/*": 20}}]
        }
    },
}


def place(world):
    """Say where nodes are; the caller is on one of them."""
    for name, zone in ZONES.items():
        world.east.node(name, region="region", zone=zone)
    world.west.node("node-w", region="far", zone="zone-w")
    world.east.pod("caller", address="10.0.0.1", shape=Shape(node="node-a"))


def web(world, count, *, far=1, unready=(), name="web"):
    """Let a service have so many pods in both zones, and some in the other cluster."""
    near = [f"10.1.0.{number}" for number in range(1, count + 1)]
    for number, address in enumerate(near):
        node = sorted(ZONES)[number % len(ZONES)]
        world.east.service(name, ready=[*near[:number], address], shape=Shape(node=node))
    ready = [one for one in near if one not in unready]
    world.east.service(name, ready=ready, unready=[one for one in near if one in unready])
    world.west.service(
        name, ready=[f"10.2.0.{number}" for number in range(1, far + 1)], shape=Shape(node="node-w")
    )


def rule(world, policy, *, subsets=()):
    spec = {"host": "web", "trafficPolicy": policy, "subsets": list(subsets)}
    world.builder.destination_rule("web", spec)


def addresses(cluster):
    return lambda found: {
        address
        for group in found.get(cluster, ())
        for address in PLACES_SEEN
        if f'"{address}"' in group
    }


PLACES_SEEN = [f"10.1.0.{number}" for number in range(1, 20)] + ["10.9.0.1"]


def holding(*wanted, cluster=WEB):
    return lambda found: addresses(cluster)(found) == set(wanted)


async def test_whatever_changes_both_ways_lead_to_the_same_endpoints_and_priorities(tmp_path):
    def prepare(world):
        place(world)
        web(world, 3)

    async with apart.running(tmp_path, prepare) as world:
        gate = "10.9.0.1"
        ones = [f"10.1.0.{number}" for number in range(1, 6)]
        await world.until_alike(holding(*ones[:3], gate))

        web(world, 5)
        await world.until_alike(holding(*ones, gate))
        web(world, 5, unready=ones[1:2])
        await world.until_alike(holding(ones[0], *ones[2:], gate))
        # The cluster changes, and waits for its endpoints anew.
        rule(world, FAILOVER)
        found = await world.until_alike(lambda found: any('"priority": 1' in g for g in found[WEB]))
        assert holding(ones[0], *ones[2:], gate)(found)
        rule(world, SHARES)
        found = await world.until_alike(
            lambda found: any('"load_balancing_weight": 60' in g for g in found[WEB])
        )
        web(world, 1)
        await world.until_alike(holding(ones[0], gate))
        rule(world, OUTLIERS, subsets=[{"name": "none", "labels": {"version": "none"}}])
        await world.until_alike(lambda found: WEB.replace("||", "|none|") in found)
        web(world, 0)
        await world.until_alike(holding(gate))
        web(world, 0, far=0)
        await world.until_alike(holding())
        web(world, 2)
        await world.until_alike(holding(*ones[:2], gate))
        assert world.pushed("endpointmember")[0] > 5


async def test_what_went_while_the_stream_was_broken_is_gone_after_it(tmp_path):
    def prepare(world):
        place(world)
        web(world, 10)

    async with apart.running(tmp_path, prepare) as world:
        ones = [f"10.1.0.{number}" for number in range(1, 13)]
        await world.until_alike(holding(*ones[:10], "10.9.0.1"))

        for status in world.service.statuses():
            world.service.end(status.id, reason="a test")
        web(world, 12, unready=ones[:1])

        await world.until_alike(holding(*ones[1:12], "10.9.0.1"))


async def test_a_set_turns_to_parts_and_back_and_envoy_has_the_same_throughout(tmp_path):
    def prepare(world):
        place(world)
        web(world, 3)

    async with apart.running(tmp_path, prepare, turns=True) as world:
        gate, ones = "10.9.0.1", [f"10.1.0.{number}" for number in range(1, 8)]
        await world.until_alike(holding(*ones[:3], gate))
        assert world.pushed("endpointmember")[0] == 0

        for count, in_parts in ((4, True), (5, False), (6, True), (7, True)):
            world.turn(WEB, in_parts=in_parts)
            await world.until_alike()
            web(world, count)
            await world.until_alike(holding(*ones[:count], gate))
        assert world.pushed("endpointmember")[0] >= 3

        # Who comes back is told whole of what it had in parts: nobody knows of what it consisted.
        world.turn(WEB, in_parts=False)
        for status in world.service.statuses():
            world.service.end(status.id, reason="a test")
        web(world, 5, unready=ones[:2])
        await world.until_alike(holding(*ones[2:5], gate))


@pytest.mark.parametrize("beside", [10, 100])
async def test_one_endpoint_costs_the_same_whatever_stands_beside_it(tmp_path, beside):
    def prepare(world):
        place(world)
        with world.builder.one_change():
            near = [f"10.1.{number // 200}.{number % 200 + 1}" for number in range(beside)]
            world.east.service("web", ready=near, shape=Shape(node="node-a"))
        world.near = near

    async with apart.running(tmp_path, prepare) as world:
        await world.until_alike(lambda found: len(_listed(found)) == beside)
        whole, alone = world.pushed("endpoint"), world.pushed("endpointmember")
        world.east.service("web", ready=[*world.near, "10.1.9.9"], shape=Shape(node="node-a"))
        await world.until_alike(lambda found: len(_listed(found)) == beside + 1)

        # One message of assignments to the one that hears whole ones; none to the other.
        assert world.pushed("endpoint")[0] - whole[0] == 1
        count, size = (
            now - then for now, then in zip(world.pushed("endpointmember"), alone, strict=True)
        )
        assert count == 1
        assert size < 500


def _listed(found):
    return [
        word for group in found.get(WEB, ()) for word in group.split('"') if word[:5] == "10.1."
    ]


async def test_any_history_leads_to_the_same(tmp_path):
    def prepare(world):
        place(world)

    drawn = random.Random(7)
    async with apart.running(tmp_path, prepare) as world:
        for step in range(12):
            for name in ("web", "api"):
                count, far = drawn.randrange(5), drawn.randrange(2)
                web(world, count, far=far, unready=[f"10.1.0.{drawn.randrange(1, 5)}"], name=name)
            rule(world, drawn.choice([OUTLIERS, FAILOVER, SHARES, {}]))
            if step == 6:
                [stream, *_] = world.service.statuses()
                world.service.end(stream.id, reason="a test")
            # What comes last tells that all of this step has arrived.
            newest = f"10.1.0.{step + 6}"
            world.east.service("last", ready=[newest], shape=Shape(node="node-a"))
            await world.until_alike(holding(newest, cluster=WEB.replace("web", "last")))
