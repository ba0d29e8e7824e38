"""Control planes over real TLS: what one shares, the other hears, and keeps, and forgets.

alpha (n1) links to beta (n2).
"""

import datetime

import grpc
import peering_world as world
import pytest
from envoy.service.discovery.v3 import discovery_pb2

from isthmus.mesh import identities
from isthmus.resources import peering as records
from isthmus.testing import certificates
from isthmus.wire import csr, peerclient, tls

DAYS = datetime.timedelta(days=1)


@pytest.fixture
def alpha():
    return world.Plane("alpha", network="n1")


@pytest.fixture
def beta():
    return world.Plane("beta", network="n2")


async def heard(plane, **services):
    await world.until(lambda: plane.imports() == {f"beta/{k}": v for k, v in services.items()})


async def said(plane, text):
    """Wait until a linked cluster cannot be heard for a reason."""
    await world.until(lambda: plane.peering.statuses() and text in plane.status().reason)
    assert not plane.status().is_connected


async def test_what_is_shared_is_heard_and_each_change_of_it(alpha, beta):
    beta.share("hello", ready=["10.2.0.1", "10.2.0.2"])
    beta.share("secret", scope="", ready=["10.2.0.3"])
    async with world.running(alpha, beta):
        alpha.link(beta)
        await heard(alpha, hello=2)
        assert alpha.status().is_connected

        beta.share("hello", ready=["10.2.0.1"])
        await heard(alpha, hello=1)
        beta.share("hello", scope="")
        await heard(alpha)
        assert beta.imports() == {}  # One way only.


async def test_a_broken_stream_takes_nothing_away_and_tells_its_age(alpha, beta):
    beta.share("hello", ready=["10.2.0.1"])
    beta.share("gone", ready=["10.2.0.2"])
    async with world.running(alpha):
        async with world.running(beta):
            alpha.link(beta)
            await heard(alpha, hello=1, gone=1)
        await world.until(lambda: not alpha.status().is_connected)
        assert alpha.imports() == {"beta/hello": 1, "beta/gone": 1}
        assert alpha.codes() == {"ISM-RUN-020"}
        assert alpha.status().age_s is not None
        assert 'isthmus_peer_connected{peer="beta"} 0' in alpha.measures.text()

        beta.share("hello", ready=["10.2.0.1", "10.2.0.3"])
        beta.delete("services", "sample", "gone")
        async with world.running(beta):
            await heard(alpha, hello=2)
            assert alpha.codes() == set()


async def test_whoever_is_no_longer_linked_is_forgotten(alpha, beta):
    beta.share("hello", ready=["10.2.0.1"])
    async with world.running(alpha, beta):
        alpha.link(beta)
        await heard(alpha, hello=1)
        alpha.unlink(beta)
        await heard(alpha)
        await world.until(lambda: alpha.peering.statuses() == [])
        assert "beta" not in alpha.measures.text()


async def test_a_cluster_that_does_not_know_itself_yet_takes_nothing_away(alpha, beta):
    beta.share("hello", ready=["10.2.0.1"])
    async with world.running(alpha):
        async with world.running(beta):
            alpha.link(beta)
            await heard(alpha, hello=1)
        beta.delete("services", "sample", "hello")
        beta.reason = "its own cluster is not known yet"
        async with world.running(beta):
            await said(alpha, "its own cluster is not known yet")
            assert alpha.imports() == {"beta/hello": 1}


async def test_another_cluster_behind_the_address_is_not_believed(alpha, beta):
    beta.share("hello", ready=["10.2.0.1"])
    async with world.running(alpha, beta):
        alpha.link(beta, cluster="gamma")
        await said(alpha, "UNAVAILABLE")
        assert alpha.imports() == {}


async def test_a_cluster_of_another_network_than_its_link_says_is_not_believed(alpha, beta):
    beta.share("hello", ready=["10.2.0.1"])
    async with world.running(alpha, beta):
        alpha.link(beta, network="n3")
        await said(alpha, "it is of network `n2`, and the link says `n3`")
        assert alpha.imports() == {}


async def test_a_certificate_that_has_ended_is_refused_and_what_was_told_stays(alpha):
    beta = world.Plane("beta", network="n2")
    beta.share("hello", ready=["10.2.0.1"])
    async with world.running(alpha):
        async with world.running(beta):
            alpha.link(beta)
            await heard(alpha, hello=1)
        late = world.Plane("beta", network="n2", age=2 * DAYS, port=beta.peering.port)
        async with world.running(late):
            await said(alpha, "CERTIFICATE_VERIFY_FAILED")
            assert alpha.imports() == {"beta/hello": 1}


async def test_two_clusters_of_one_name_do_not_hear_each_other(beta):
    twin = world.Plane("beta", network="n1")
    async with world.running(twin, beta):
        call = calling(beta, twin.signer, cluster="beta")
        assert await call == grpc.StatusCode.UNAUTHENTICATED


async def test_while_it_starts_a_control_plane_waits_for_those_that_it_links(alpha, beta):
    async with world.running(beta):
        alpha.link(beta)
        alpha.reason = "own cluster is not known yet"
        async with world.running(alpha):
            await world.until(lambda: alpha.status().is_known)
            assert alpha.peering.waiting() == []

    again = world.Plane("alpha", network="n1")
    again.link(beta)
    async with world.running(again):
        assert again.peering.waiting() == ["beta"]


# --- who may listen


def target_at(plane, signer, *, cluster="alpha", domain="cluster.local", account="istiod"):
    """Return where a control plane tells, and what proves somebody there."""
    identity = identities.SpiffeId(identities.TrustDomain(domain), "istio-system", account)
    proof = tls.prove(signer, identity=identity, now=plane.clock.now(), lifetime=DAYS)
    return peerclient.Target(
        address=f"127.0.0.1:{plane.peering.port}",
        server_name=f"istiod.{plane.name}.{plane.domain}",
        roots_pem=signer.roots_pem,
        chain_pem=proof.chain_pem,
        key_pem=proof.key_pem,
        cluster=cluster,
    )


async def calling(plane, signer, *, cluster="alpha", **who):
    """Ask what is shared, as somebody; return how that ends, or None if it is answered."""
    target = target_at(plane, signer, cluster=cluster, **who)
    talk = peerclient.Talk(None, "istiod~0.0.0.0~x.istio-system~istio-system.svc.d", cluster)
    async with peerclient.channel(target) as opened:
        call = opened.stream_stream(peerclient.METHOD)(metadata=(("clusterid", cluster),))
        try:
            if peerclient.is_greeted(await call.initial_metadata()):
                for request in talk.begin():
                    await call.write(request)
            return None if await call.read() is not grpc.aio.EOF else await call.code()
        except grpc.aio.AioRpcError as error:
            return error.code()
        finally:
            call.cancel()


async def test_control_planes_of_the_mesh_may_listen_and_nobody_else(alpha, beta):
    refused = grpc.StatusCode.UNAUTHENTICATED
    async with world.running(beta):
        assert await calling(beta, alpha.signer) is None
        assert await calling(beta, alpha.signer, account="istiod-canary") is None
        assert await calling(beta, alpha.signer, account="default") == refused
        assert await calling(beta, alpha.signer, cluster="") == refused
        assert await calling(beta, alpha.signer, cluster="../x") == refused
        assert await calling(beta, alpha.signer, domain="other.local") == refused


async def test_whoever_has_no_certificate_is_not_even_asked(alpha, beta):
    async with world.running(beta):
        roots = grpc.ssl_channel_credentials(alpha.signer.roots_pem.encode())
        options = (("grpc.ssl_target_name_override", "istiod.beta.cluster.local"),)
        address = f"127.0.0.1:{beta.peering.port}"
        async with grpc.aio.secure_channel(address, roots, options=options) as opened:
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await opened.stream_stream(peerclient.METHOD)().read()
        assert ended.value.code() == grpc.StatusCode.UNAVAILABLE


async def test_nothing_is_signed_there(alpha, beta):
    async with world.running(beta):
        proof = tls.prove(
            alpha.signer, identity=certificates.SLEEP, now=alpha.clock.now(), lifetime=DAYS
        )
        target = peerclient.Target(
            address=f"127.0.0.1:{beta.peering.port}",
            server_name="istiod.beta.cluster.local",
            roots_pem=alpha.signer.roots_pem,
            chain_pem=proof.chain_pem,
            key_pem=proof.key_pem,
            cluster="alpha",
        )
        async with peerclient.channel(target) as opened:
            with pytest.raises(grpc.aio.AioRpcError) as ended:
                await opened.unary_unary(f"/{csr.SERVICE}/CreateCertificate")(b"")
        assert ended.value.code() == grpc.StatusCode.UNIMPLEMENTED


# --- trust domains


async def test_another_trust_domain_is_heard_as_soon_as_somebody_lists_it():
    alpha = world.Plane("alpha", network="n1", domain="alpha.local")
    beta = world.Plane("beta", network="n2", domain="beta.local")
    beta.share("hello", ready=["10.2.0.1"])
    async with world.running(alpha, beta):
        alpha.link(beta)
        await said(alpha, "UNAUTHENTICATED")

        beta.believe(alpha)
        await heard(alpha, hello=1)


async def test_a_link_back_lists_the_trust_domain_as_well():
    alpha = world.Plane("alpha", network="n1", domain="alpha.local")
    beta = world.Plane("beta", network="n2", domain="beta.local")
    beta.share("hello", ready=["10.2.0.1"])
    async with world.running(alpha, beta):
        alpha.link(beta)
        beta.link(alpha)
        await heard(alpha, hello=1)


async def test_where_signers_are_listed_no_other_cluster_can_speak_for_a_domain():
    rogue = world.signed("rogue")
    alpha = world.Plane("alpha", network="n1", domain="alpha.local")
    beta = world.Plane("beta", network="n2", domain="beta.local", signer=rogue)
    beta.share("hello", ready=["10.2.0.1"])
    alpha.believe(beta, signer=world.signed("beta"))
    beta.believe(alpha)
    async with world.running(alpha, beta):
        alpha.link(beta)
        await said(alpha, "CERTIFICATE_VERIFY_FAILED")
        assert alpha.imports() == {}
        assert await calling(beta, rogue, domain="alpha.local") == grpc.StatusCode.UNAUTHENTICATED
        assert await calling(beta, alpha.signer, domain="alpha.local") is None


# --- time


async def test_a_cluster_that_falls_silent_counts_as_broken(beta):
    alpha = world.Plane("alpha", network="n1", pace=peerclient.Pace(0.1, 0.3))
    async with world.running(alpha), world.deaf() as port:
        alpha.link(beta, port=port)
        await said(alpha, "has not answered for 0.3 s")


async def test_both_say_that_they_are_there_while_nothing_changes(alpha, beta):
    ages = []

    def is_heard_again():
        ages.append(alpha.status().age_s)
        return ages[-1] < max(ages)

    async with world.running(alpha, beta):
        alpha.link(beta)
        await world.until(lambda: alpha.peering.statuses() and alpha.status().is_known)
        await world.until(is_heard_again)
        assert alpha.status().is_connected


# --- who has come how far


def telling(plane):
    """Return whether all is applied, what of it is not, and for how long; None for nobody."""
    row = next(iter(plane.peering.told()), None)
    return row and (
        row["toldVersion"] == row["appliedVersion"],
        row["refused"],
        row["behindSeconds"],
    )


async def test_whoever_tells_knows_what_is_applied_of_it(alpha, beta):
    beta.share("hello", ready=["10.2.0.1"])
    async with world.running(alpha, beta):
        alpha.link(beta)
        await heard(alpha, hello=1)
        beta.share("hello", ready=["10.2.0.1", "10.2.0.2"])
        await heard(alpha, hello=2)
        await world.until(lambda: telling(beta) == (True, [], 0.0))
        (row,) = beta.peering.told()
        assert (row["cluster"], row["toldVersion"]) == ("alpha", alpha.status().version)

        alpha.link(beta, **{"isthmus.dev/namespaces": "other"})
        beta.share("hello", ready=["10.2.0.1"])
        await world.until(lambda: telling(beta) == (True, ["sample/hello"], 0.0))
        assert "grants it no word" in beta.peering.told()[0]["error"]


async def test_whoever_takes_nothing_in_is_seen_to_be_behind(alpha, beta):
    beta.share("hello", ready=["10.2.0.1"])
    async with world.running(beta), peerclient.channel(target_at(beta, alpha.signer)) as opened:
        call = opened.stream_stream(peerclient.METHOD)(metadata=(("clusterid", "alpha"),))
        await call.initial_metadata()
        deaf = peerclient.Talk(None, "istiod~0.0.0.0~x.istio-system~istio-system.svc.d", "alpha")
        wanted = discovery_pb2.DeltaDiscoveryRequest(type_url=records.SERVICE)
        for request in (*deaf.begin(), wanted.SerializeToString()):
            await call.write(request)
        await world.until(lambda: (telling(beta) or (0, 0, 0))[2])
        beta.clock.age = -datetime.timedelta(seconds=40)
        assert telling(beta)[0] is False
        assert telling(beta)[2] >= 40
        call.cancel()
