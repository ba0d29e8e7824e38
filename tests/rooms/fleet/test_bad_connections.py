"""What stands between a control plane and a cluster's API server fails; over real TLS."""

import asyncio
import contextlib
import dataclasses

import pytest

from fakes import kube_server, lab_server
from fakes import linked as linking
from isthmus.kube import kinds, reasons
from isthmus.testing import pace

PATIENCE_S = 0.5 * pace.slowness()


class Door:
    """A port that leads to an API server, or to another one, or nowhere, fast or slowly."""

    def __init__(self):
        self.port = 0
        self.slow = False
        self.open_now = set()

    def leads_to(self, url):
        """Lead new connections there, and end those of before; nowhere means that none speaks."""
        self.port = int(url.rpartition(":")[2]) if url else 0
        for writer in list(self.open_now):
            writer.transport.abort()

    async def enter(self, reader, writer):
        self.open_now.add(writer)
        with contextlib.suppress(OSError):
            if not self.port:
                await reader.read()
                return
            there, back = await asyncio.open_connection("127.0.0.1", self.port)
            self.open_now.add(back)
            try:
                async with asyncio.TaskGroup() as both:
                    _ = both.create_task(self.carry(reader, back))
                    _ = both.create_task(self.carry(there, writer))
            finally:
                back.transport.abort()
        writer.transport.abort()

    async def carry(self, reader, writer):
        with contextlib.suppress(OSError):
            while some := await reader.read(200 if self.slow else 65536):
                writer.write(some)
                await writer.drain()
                await asyncio.sleep(0.01 if self.slow else 0)
        writer.transport.abort()


@pytest.fixture
async def door():
    made = Door()
    server = await asyncio.start_server(made.enter, "127.0.0.1", 0)
    made.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield made
    made.leads_to("")
    server.close()
    await asyncio.sleep(0.1)


@pytest.fixture
async def linked(door, monkeypatch):
    """Two clusters, the second behind the door, and all of it known."""
    monkeypatch.setattr(reasons, "CONNECT_S", PATIENCE_S)
    async with linking.clusters() as both:
        door.leads_to(both.remote.url)
        both.behind = both.remote.url
        both.remote = dataclasses.replace(both.remote, url=door.url)
        await both.link()
        async with linking.running(both):
            await kube_server.eventually(lambda: "kubernetes" in both.known())
            both.fewest = len(both.known())
            yield both


async def add(linked, name):
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {"ports": [{"port": 80, "name": "http"}]},
    }
    await linked.remote_admin.create(kinds.SERVICE, service)


async def test_a_handshake_that_never_ends_loses_nothing_and_is_given_up(linked, door):
    before = linked.fewest
    door.leads_to("")
    await kube_server.eventually(lambda: "cannot reach" in linked.status.error)
    await add(linked, "meanwhile")
    await asyncio.sleep(2 * PATIENCE_S)
    assert linked.status.age_s > 0

    door.port = int(linked.behind.rpartition(":")[2])

    # Those that hang are not ended by anybody else.
    await kube_server.eventually(lambda: "meanwhile" in linked.known())
    await kube_server.eventually(lambda: not linked.status.error)
    assert linked.fewest == before


async def test_an_api_server_of_another_authority_is_not_believed(linked, door):
    before = linked.fewest
    async with lab_server.serving("cluster9") as foreign:
        door.leads_to(foreign.url)
        await kube_server.eventually(lambda: linked.status.error)
        await add(linked, "meanwhile")
        await asyncio.sleep(0.3)
        assert linked.fewest == len(linked.known()) == before

    door.leads_to(linked.behind)

    await kube_server.eventually(lambda: "meanwhile" in linked.known())
    assert linked.fewest == before


async def test_a_very_slow_connection_is_late_and_loses_nothing(linked, door):
    before = linked.fewest
    door.slow = True
    door.leads_to(linked.behind)
    for number in range(5):
        await add(linked, f"s{number}")

    await kube_server.eventually(lambda: "s4" in linked.known(), within_s=pace.patience(20))

    assert linked.fewest == before


async def test_a_token_that_ends_during_a_watch_keeps_what_was_known(linked, door):
    before = linked.fewest
    made = linked.status.digest
    for secret in await linked.remote_admin.list_(
        kinds.SECRET, namespace=linking.NAMESPACE, labels="isthmus.dev/remote-token"
    ):
        await linked.remote_admin.delete(
            kinds.SECRET, secret["metadata"]["name"], namespace=linking.NAMESPACE
        )
    door.leads_to(linked.behind)
    await kube_server.eventually(lambda: "401" in linked.status.error)
    await add(linked, "meanwhile")
    assert len(linked.known()) == before

    await linked.link()

    await kube_server.eventually(lambda: "meanwhile" in linked.known())
    assert linked.fewest == before
    assert linked.status.digest != made
