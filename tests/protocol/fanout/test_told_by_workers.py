"""Proxies are told by processes of their own, and nobody can tell the difference."""

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import sys

import crowded
import grpc
import msgspec
import pytest

from isthmus.base import clock
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import snapshot
from isthmus.runtime.fanout import hosting
from isthmus.testing import certificates, shapes
from isthmus.wire import csr
from isthmus_proto.istio.v1.auth import ca_pb2

ONE, TWO = "10.1.0.1", "10.1.0.2"


def in_sync(*pods):
    def holds(found):
        return set(pods) <= found.keys() and all(
            kind.sent and kind.sent == kind.acked
            for pod in pods
            for kind in found[pod].types.values()
        )

    return holds


async def test_envoys_of_both_kinds_are_told_by_workers_and_what_they_take_is_known(tmp_path):
    async with (
        crowded.running() as world,
        crowded.envoy(world, tmp_path, "caller-1", "GRPC") as whole,
        crowded.envoy(world, tmp_path, "caller-2") as apart,
    ):
        for proxy in (whole, apart):
            await proxy.until(ONE)
        world.web(ONE, TWO)
        for proxy in (whole, apart):
            await proxy.until(ONE, TWO)
        world.web(TWO)
        for proxy in (whole, apart):
            await proxy.until(TWO)

        found = await crowded.until(world.statuses, in_sync("caller-1", "caller-2"))

        # Each worker has one of them, and what both have counted is one sum.
        assert len({each.id.rpartition("-")[2] for each in found.values()}) == 2
        assert [worker.load for worker in world.crowd.workers] != [2, 0]
        assert world.counted("pilot_xds") == 2
        assert world.counted("pilot_xds_pushes", "cluster") == 2
        assert found["caller-1"].watches[snapshot.ENDPOINTS] >= {crowded.WEB}
        assert not world.own.statuses()


async def test_a_worker_that_dies_takes_nobody_elses_streams_along(tmp_path):
    async with (
        crowded.running() as world,
        crowded.envoy(world, tmp_path, "caller-1") as one,
        crowded.envoy(world, tmp_path, "caller-2") as two,
    ):
        await one.until(ONE)
        await two.until(ONE)
        before = await crowded.until(world.statuses, in_sync("caller-1", "caller-2"))
        dying, staying = sorted(world.crowd.workers, key=lambda each: each.of_pod("caller-1"))[::-1]
        pids = dying.pid, staying.pid

        os.kill(dying.pid, signal.SIGKILL)
        world.web(ONE, TWO)
        await two.until(ONE, TWO)
        await one.until(ONE, TWO)

        after = await crowded.until(world.statuses, in_sync("caller-1", "caller-2"))
        assert after["caller-2"].id == before["caller-2"].id
        assert after["caller-1"].connected_at > before["caller-1"].connected_at
        await dying.serving.wait()
        assert dying.pid != pids[0]
        assert staying.pid == pids[1]
        await world.crowd.gather()
        assert world.counted("pilot_xds") == 2
        assert len(world.proxies.proxies()) == 2


async def test_a_worker_that_hangs_is_ended_and_started_again():
    hurried = crowded.Hurried()
    async with crowded.running(workers=1, system_clock=hurried) as world:
        [worker] = world.crowd.workers
        pid = worker.pid
        os.kill(pid, signal.SIGSTOP)
        hurried.looks = hosting.MOST_SILENCE + 2

        async def serving():
            return worker.pid != pid and worker.serving.is_set()

        assert await crowded.until(serving, bool)


async def test_a_worker_that_ends_while_it_is_told_is_followed_by_one_that_hears_all_of_it():
    async with crowded.running(workers=1, system_clock=crowded.Hurried()) as world:
        [worker] = world.crowd.workers
        pid = worker.pid
        os.kill(pid, signal.SIGKILL)

        async def started():
            world.crowd.look()
            return worker.pid != pid

        await crowded.until(started, bool, every_s=0)
        await crowded.until(worker.serving.wait, bool)


async def test_a_question_that_is_given_up_is_forgotten():
    async with crowded.running(workers=1) as world:
        [worker] = world.crowd.workers
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0):
                await worker.gathered(with_streams=True)

        assert not worker._asked


async def test_one_that_takes_long_to_start_is_given_the_time():
    hurried = crowded.Hurried(looks=5 * hosting.MOST_SILENCE)
    async with crowded.running(workers=1, system_clock=hurried) as world:
        assert hurried.looks == 0
        assert world.crowd.workers[0].starts == 1


async def test_a_new_certificate_is_served_without_a_new_process():
    async with crowded.running(workers=1) as world:
        before, pid = world.signer.roots_pem, world.crowd.workers[0].pid
        world.show(certificates.signer(of="another root", now=clock.SystemClock().now()))
        world.crowd.look()

        async def told():
            return world.crowd.workers[0].told.chain_pem

        await crowded.until(told, lambda chain: chain == world.state.chain_pem)
        async with world.channel() as channel:
            call = crowded.stream(channel)
            await call.write(crowded.asking(snapshot.CLUSTERS))
            assert (await call.read()).resources
            call.cancel()
        async with world.channel(roots=before) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await crowded.stream(channel).write(crowded.asking(snapshot.CLUSTERS))
        assert world.crowd.workers[0].pid == pid


async def test_who_comes_before_the_mesh_is_known_waits_at_a_worker_and_is_told_on_its_stream():
    async with crowded.running(workers=1) as world:
        [worker] = world.crowd.workers
        world.unready = "clusters are still being read"
        world.state = msgspec.structs.replace(world.state, is_ready=False)
        world.crowd.look()
        async with world.channel() as channel:
            call = crowded.stream(channel)
            await call.write(crowded.asking(snapshot.CLUSTERS))

            async def proven():
                # Whoever is proven asks to be let in before its worker answers the next question.
                await worker.gathered(with_streams=True)
                return len(worker._proven)

            await crowded.until(proven, bool)
            await crowded.until(proven, bool)
            assert not call.done()
            world.unready = ""
            world.state = msgspec.structs.replace(world.state, is_ready=True)
            assert (await call.read()).resources
            call.cancel()
        assert worker.opened == 1


async def test_who_proves_nothing_or_something_else_is_refused():
    async with crowded.running(workers=1) as world:

        async def code(token, *, asks=True, **claims):
            async with world.channel(token=token) as channel:
                call = crowded.stream(channel)
                if asks:
                    await call.write(crowded.asking(snapshot.CLUSTERS, **claims))
                return await call.code()

        # Before anything is read: who writes on a stream that is ending may fail at that.
        assert await code("stranger", asks=False) is grpc.StatusCode.UNAUTHENTICATED
        assert await code("caller-1", namespace="other") is grpc.StatusCode.PERMISSION_DENIED
        assert await code("caller-1", pod="caller-2") is grpc.StatusCode.PERMISSION_DENIED
        world.unready = "not all clusters are known"
        assert await code("caller-1") is grpc.StatusCode.UNAVAILABLE
        assert not world.proxies.proxies()


async def test_a_cluster_that_leaves_takes_along_whom_it_has_just_sent():
    async with crowded.running(workers=1) as world, world.channel() as channel:
        world.proxies.then = lambda: world.crowd.end_of(crowded.EAST, reason="its cluster left")
        call = crowded.stream(channel)
        await call.write(crowded.asking(snapshot.CLUSTERS))
        async with asyncio.timeout(crowded.LIMIT_S):
            # It may have been told something before: gRPC's client keeps the end until that is read.
            with contextlib.suppress(grpc.aio.AioRpcError):
                while await call.read() is not grpc.aio.EOF:
                    pass
            assert await call.code() is grpc.StatusCode.UNAVAILABLE

        async def followed():
            return len(world.proxies.proxies())

        assert await crowded.until(followed, lambda many: many == 0) == 0


async def test_certificates_and_debug_pages_are_asked_of_the_control_plane():
    async with crowded.running(workers=2) as world, world.channel() as channel:
        sign = channel.unary_unary(
            f"/{csr.SERVICE}/{csr.METHOD}",
            request_serializer=ca_pb2.IstioCertificateRequest.SerializeToString,
            response_deserializer=ca_pb2.IstioCertificateResponse.FromString,
        )
        assert tuple((await sign(ca_pb2.IstioCertificateRequest(csr="x"))).cert_chain) == (
            crowded.CHAIN
        )
        async with world.channel(token="caller-2") as other:
            told = crowded.stream(other)
            await told.write(crowded.asking(snapshot.CLUSTERS, pod="caller-2"))
            await told.read()
            page = crowded.stream(channel)
            await page.write(crowded.asking("istio.io/debug/syncz"))
            [shown] = (await page.read()).resources
            told.cancel()
            page.cancel()

    assert shown.name == "caller-2.default"


CAPTURED = shapes.Shape(proxy=None, node="node-1", is_captured=True)
WEB = "default/web.default.svc.cluster.local"


def uid(name):
    return f"east//Pod/default/{name}"


async def test_a_node_proxy_is_told_by_a_worker_of_all_and_of_what_changes():
    async with crowded.running(workers=1) as world, world.channel() as channel:
        everything = crowded.NodeProxy(channel, node="node-1")
        await everything.ask(snapshot.ADDRESSES)
        await everything.ask(snapshot.AUTHORIZATIONS)
        await everything.until(snapshot.ADDRESSES, WEB, uid("web-10-1-0-1"))
        before = dict(everything.holds[snapshot.ADDRESSES])
        world.east.pod("here", shape=CAPTURED)
        await everything.until(snapshot.ADDRESSES, WEB, uid("web-10-1-0-1"), uid("here"))
        world.builder.authorization_policy("none", {"action": "DENY", "rules": [{}]})
        await everything.until(
            snapshot.AUTHORIZATIONS, "default/none", *everything.holds[snapshot.AUTHORIZATIONS]
        )
        everything.leave()

    assert before.items() <= everything.holds[snapshot.ADDRESSES].items()


async def test_a_node_proxy_that_demands_is_told_by_a_worker_what_runs_on_its_node():
    async with crowded.running(workers=1) as world, world.channel() as channel:
        world.east.pod("caller-1", shape=shapes.Shape(proxy=ProxyKind.ZTUNNEL, node="node-1"))
        world.east.pod("here", shape=CAPTURED)
        world.east.pod("there", shape=dataclasses.replace(CAPTURED, node="node-2"))
        demanding = crowded.NodeProxy(channel, node="node-1")
        # To subscribe to nothing there is no other way.
        await demanding.ask(snapshot.ADDRESSES, subscribe=["*"], unsubscribe=["*"])
        await demanding.until(snapshot.ADDRESSES, uid("caller-1"), uid("here"))
        world.east.pod("came", shape=CAPTURED)
        await demanding.until(snapshot.ADDRESSES, uid("caller-1"), uid("here"), uid("came"))

        await demanding.ask(snapshot.ADDRESSES, subscribe=[WEB])
        local = (uid("caller-1"), uid("here"), uid("came"))
        await demanding.until(snapshot.ADDRESSES, *local, WEB, uid("web-10-1-0-1"))
        world.web("10.1.0.1", "10.1.0.2")
        both = (uid("web-10-1-0-1"), uid("web-10-1-0-2"))
        await demanding.until(snapshot.ADDRESSES, *local, WEB, *both)
        demanding.leave()


async def test_a_worker_ends_with_the_control_plane_and_not_by_a_signal_to_all():
    ours, theirs = socket.socketpair()
    _door, its_door = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs, _door, its_door:
        worker = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "isthmus.runtime", "push"),
            *(str(theirs.fileno()), str(its_door.fileno()), "warning"),
            pass_fds=(theirs.fileno(), its_door.fileno()),
        )
        theirs.close()
        ours.close()
        async with asyncio.timeout(crowded.LIMIT_S):
            assert await worker.wait() == 0
