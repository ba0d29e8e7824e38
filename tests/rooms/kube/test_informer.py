"""The informer against a scriptable API server."""

import asyncio
import contextlib

import pytest
from aiohttp import web

from fakes import kube_server
from isthmus.base import tasks
from isthmus.kube import client, informer, kinds, objects, problems


@pytest.fixture
async def server():
    async with kube_server.serving() as running:
        yield running


class Followed:
    """A running informer, what it told, and the copy that its batches alone make."""

    def __init__(self, reads, **options):
        self.batches = []
        self.findings = {}
        self.copy = {}
        self.restarts = -1
        self.informer = informer.Informer(
            reads,
            options.pop("kind", kinds.SERVICE),
            options.pop("decode", objects.Service),
            on_batch=self._batch,
            on_finding=self.findings.__setitem__,
            spread=lambda: 0.0,
            **options,
        )

    def _batch(self, changes):
        self.batches.append(dict(changes))
        for key, value in changes.items():
            if value is None:
                del self.copy[key]
            else:
                self.copy[key] = value

    async def run(self):
        self.restarts += 1
        await self.informer.run()

    def names(self):
        return sorted(name for _, name in self.copy)


@contextlib.asynccontextmanager
async def following(server, **options):
    async with client.Client(server.access()) as reads, tasks.Nursery() as nursery:
        followed = Followed(reads, **options)
        _ = nursery.keep("follow", followed.run)
        yield followed


async def test_what_exists_is_one_batch_and_what_happens_then_follows(server):
    server.put(kinds.SERVICE, "a", "n")
    server.put(kinds.SERVICE, "b", "n")

    async with following(server) as followed:
        await kube_server.eventually(lambda: followed.informer.synced.is_set())
        server.put(kinds.SERVICE, "c", "n")
        server.remove(kinds.SERVICE, "a", "n")
        await kube_server.eventually(lambda: followed.names() == ["b", "c"])

    assert sorted(followed.batches[0]) == [("n", "a"), ("n", "b")]


async def test_a_change_that_nobody_reads_is_no_batch(server):
    server.put(kinds.SERVICE, "a", "n")

    async with following(server) as followed:
        await kube_server.eventually(lambda: followed.names() == ["a"])
        server.put(kinds.SERVICE, "a", "n", metadata={"managedFields": [{"manager": "x"}]})
        server.put(kinds.SERVICE, "b", "n")
        await kube_server.eventually(lambda: followed.names() == ["a", "b"])

    assert len(followed.batches) == 2


async def test_a_watch_cut_in_the_middle_of_an_event_loses_nothing(server):
    server.put(kinds.SERVICE, "a", "n")

    async with following(server) as followed:
        await kube_server.eventually(lambda: followed.names() == ["a"])
        for number in range(5):
            await server.cut()
            server.put(kinds.SERVICE, f"b{number}", "n")
        await kube_server.eventually(lambda: len(followed.names()) == 6)

    assert all(None not in batch.values() for batch in followed.batches)


async def test_objects_deleted_unseen_before_a_compaction_are_noticed(server):
    server.put(kinds.SERVICE, "a", "n")
    server.put(kinds.SERVICE, "b", "n")

    async with following(server) as followed:
        await kube_server.eventually(lambda: followed.names() == ["a", "b"])
        server.faults.append(kube_server.failing("/api/v1/services", 503, times=1))
        await server.cut()
        server.remove(kinds.SERVICE, "a", "n")
        server.put(kinds.SERVICE, "c", "n")
        server.compact()
        await kube_server.eventually(lambda: followed.names() == ["b", "c"])

    relists = [
        query for query in server.queries if query.get("resourceVersionMatch") == "NotOlderThan"
    ]
    assert len(relists) <= 1


async def test_one_object_that_cannot_be_read_is_a_finding_and_stops_nothing(server):
    server.put(kinds.SERVICE, "a", "n", spec={"clusterIP": "10.0.0.1"})

    async with following(server) as followed:
        await kube_server.eventually(lambda: followed.names() == ["a"])
        server.put(kinds.SERVICE, "a", "n", spec={"clusterIP": 7})
        server.put(kinds.SERVICE, "b", "n")
        await kube_server.eventually(lambda: followed.names() == ["a", "b"])
        found = followed.findings["n", "a"]
        server.put(kinds.SERVICE, "a", "n", spec={"clusterIP": "10.0.0.2"})
        await kube_server.eventually(lambda: followed.findings["n", "a"] is None)

    assert found.code == "ISM-KUBE-009"
    assert found.subject == "Service n/a"
    assert followed.copy["n", "a"].spec.cluster_ip == "10.0.0.2"


def held_until(gate):
    """Let whatever is asked in one piece wait."""

    async def fault(request):
        if request.path == "/api/v1/services" and not request.query.keys() & {"limit", "watch"}:
            await gate.wait()

    return fault


def paging_for_ever(kind):
    """Answer each question for a page with the first one, as a cache does that knows no tokens."""

    async def fault(request):
        if request.path != f"/api/v1/{kind}" or "limit" not in request.query:
            return None
        item = {"metadata": {"name": "a", "namespace": "n"}}
        metadata = {"resourceVersion": "1", "continue": "x"}
        return web.json_response({"metadata": metadata, "items": [item]})

    return fault


async def test_a_list_without_end_is_an_error_until_it_ends_and_takes_nothing_away(server):
    server.put(kinds.SERVICE, "a", "n")
    server.put(kinds.SERVICE, "b", "n")

    async with following(server) as followed:
        await kube_server.eventually(lambda: followed.names() == ["a", "b"])
        # What it is asked for in one piece has an end.
        gate = asyncio.Event()
        server.faults += [paging_for_ever("services"), held_until(gate)]
        server.faults.append(kube_server.failing("/api/v1/services", 503, times=1))
        await server.cut()
        server.put(kinds.SERVICE, "c", "n")
        server.compact()
        await kube_server.eventually(lambda: "no end" in followed.informer.health().error)
        error, names = followed.informer.health().error, followed.names()
        gate.set()
        await kube_server.eventually(lambda: followed.names() == ["a", "b", "c"])
        await kube_server.eventually(lambda: not followed.informer.health().error)

    assert "the list of `services` has no end" in error
    assert names == ["a", "b"]


async def test_a_command_that_lists_does_not_read_for_ever_either(server):
    server.faults.append(paging_for_ever("services"))

    async with client.Client(server.access()) as reads:
        with pytest.raises(problems.ListEndless):
            await reads.list_(kinds.SERVICE)


BAD_TEXTS = {
    "deep": b'{"a":' * 150 + b"1" + b"}" * 150,
    "deeper than the stack": b"[" * 3000 + b"]" * 3000,
    "no UTF-8": b'"\xff"',
}


@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS)
async def test_an_object_that_no_decoder_takes_is_a_finding_and_stops_nothing(server, text):
    server.verbatim["bad"] = text
    server.put(kinds.VIRTUAL_SERVICE, "bad listed", "n", spec={"retries": "bad"})
    server.put(kinds.VIRTUAL_SERVICE, "a", "n", spec={"hosts": ['[{"a']})
    kind = {"kind": kinds.VIRTUAL_SERVICE, "decode": objects.FreeForm}

    async with following(server, **kind) as followed:
        await kube_server.eventually(lambda: followed.names() == ["a"])
        server.put(kinds.VIRTUAL_SERVICE, "bad later", "n", spec={"retries": "bad"})
        server.put(kinds.VIRTUAL_SERVICE, "b", "n", spec={"hosts": ["b"]})
        await kube_server.eventually(lambda: followed.names() == ["a", "b"])

    assert sorted(followed.findings) == [("n", "bad later"), ("n", "bad listed")]
    assert followed.copy["n", "a"].spec == {"hosts": ['[{"a']}


async def test_no_depth_is_just_too_deep_for_one_decoder_of_several(server):
    server.put(kinds.VIRTUAL_SERVICE, "a", "n", spec={"hosts": ["a"]})
    deep = range(800, 1010)
    for levels in deep:
        server.verbatim[f"bad{levels}"] = b"[" * levels + b"]" * levels

    async with following(server, kind=kinds.VIRTUAL_SERVICE, decode=objects.FreeForm) as followed:
        await kube_server.eventually(lambda: followed.names() == ["a"])
        for levels in deep:
            server.put(kinds.VIRTUAL_SERVICE, f"d{levels}", "n", spec={"retries": f"bad{levels}"})
        server.put(kinds.VIRTUAL_SERVICE, "b", "n", spec={"hosts": ["b"]})
        await kube_server.eventually(lambda: followed.names() == ["a", "b"])

    assert sorted(followed.findings) == sorted(("n", f"d{levels}") for levels in deep)
    assert not followed.restarts


async def test_an_expired_credential_keeps_what_was_known_and_is_reported(server):
    server.put(kinds.SERVICE, "a", "n")

    async with following(server) as followed:
        await kube_server.eventually(lambda: followed.names() == ["a"])
        server.token = "other"
        await server.cut()
        await kube_server.eventually(lambda: "401" in followed.informer.health().error)
        assert followed.names() == ["a"]
        server.token = ""
        await kube_server.eventually(lambda: not followed.informer.health().error)


async def test_a_kind_that_is_not_served_counts_as_empty_and_is_picked_up(server):
    every = server.kinds_
    server.kinds_ = tuple(kind for kind in every if kind != kinds.GATEWAY)

    options = {"kind": kinds.GATEWAY, "decode": objects.Gateway, "optional": True}
    async with following(server, **options) as followed:
        await kube_server.eventually(lambda: followed.informer.synced.is_set())
        assert followed.informer.health().missing
        server.kinds_ = every
        server.put(kinds.GATEWAY, "g", "n")
        await kube_server.eventually(lambda: followed.names() == ["g"])


async def test_an_object_that_leaves_the_selection_is_gone(server):
    options = {"kind": kinds.POD, "decode": objects.Pod, "fields": "status.phase!=Failed"}
    server.put(kinds.POD, "p", "n", status={"phase": "Running"})

    async with following(server, **options) as followed:
        await kube_server.eventually(lambda: followed.names() == ["p"])
        server.put(kinds.POD, "p", "n", status={"phase": "Failed"})
        await kube_server.eventually(lambda: followed.names() == [])


async def test_a_server_that_never_answers_leaves_no_task_behind(server):
    async def silent(request):
        await asyncio.sleep(60)

    server.faults.append(silent)
    before = len(asyncio.all_tasks())

    async with following(server):
        await kube_server.eventually(lambda: server.requests)
        await server.cut()

    await kube_server.eventually(lambda: len(asyncio.all_tasks()) <= before + 3)
