"""Whoever checks the way to another cluster meets a real gateway, and hears what it says."""

import datetime

import test_tunnels_end_at_gateways as gateways
import tunnelled

from isthmus.base import clock
from isthmus.mesh import identities
from isthmus.mesh.probing import Goal, Outcome, Rung, Shared, Way
from isthmus.wire import ladders, tls

NOW = clock.SystemClock().now()
PROOF = tls.Certificate(
    chain_pem=tunnelled.certificate(tunnelled.CALLER),
    key_pem=tunnelled.key_pem(tunnelled.CALLER),
    roots_pem=tunnelled.certificate(tunnelled.ROOT),
    renew_at=NOW + datetime.timedelta(hours=1),
)


async def climbed(door, shared):
    there = identities.ClusterId("east"), identities.NetworkId("n1")
    goal = Goal(Way.TUNNELS, *there, "127.0.0.1", door.port, tunnelled.GATEWAY, shared)
    steps = await ladders.Climb(goal, PROOF).run()
    return {step.rung: step for step in steps}


def of(name, port=5000):
    return Shared(f"{name}.sample.svc.cluster.local", port, (tunnelled.SERVER,))


async def test_what_a_gateway_answers_is_understood(tmp_path):
    told = gateways.told(gateways.mesh_of())
    async with tunnelled.running(told, tmp_path) as door:
        nothing = await climbed(door, None)
        shared = await climbed(door, of("helloworld"))
        unshared = await climbed(door, of("own"))
        without_pods = await climbed(door, of("plain"))

    assert nothing[Rung.HBONE].outcome is Outcome.GOOD
    assert shared[Rung.IDENTITY].found == tunnelled.GATEWAY
    assert shared[Rung.HBONE].outcome is Outcome.GOOD
    assert "knows no own.sample" in unshared[Rung.HBONE].found
    assert "no ready pod" in without_pods[Rung.HBONE].found


async def test_a_gateway_hears_no_tunnel_of_a_stranger(tmp_path):
    """Envoy says with its alert why; in TLS 1.3 that comes after the handshake."""
    told = gateways.told(gateways.mesh_of())
    async with tunnelled.running(told, tmp_path) as door:
        stranger = tls.Certificate(
            chain_pem=tunnelled.certificate(tunnelled.CALLER, of=tunnelled.OTHER_ROOT),
            key_pem=tunnelled.key_pem(tunnelled.CALLER),
            roots_pem=PROOF.roots_pem,
            renew_at=PROOF.renew_at,
        )
        there = identities.ClusterId("east"), identities.NetworkId("n1")
        goal = Goal(Way.TUNNELS, *there, "127.0.0.1", door.port, tunnelled.GATEWAY, None)
        steps = await ladders.Climb(goal, stranger).run()

    assert [one.outcome for one in steps[:4]] == [*[Outcome.GOOD] * 3, Outcome.BROKEN]
    assert "does not believe this cluster's certificate" in steps[3].found
