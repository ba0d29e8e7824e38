"""Two clusters of the lab in this process, the second followed by a supervisor of the first."""

import asyncio
import base64
import contextlib
import datetime

import yaml

from fakes import lab_server
from isthmus.base import clock
from isthmus.engine import graph
from isthmus.fleet import linking, rotating, sources, supervisor
from isthmus.kube import access, client, kinds

NAMESPACE = "istio-system"
READER = "istio-reader-service-account"


class ShiftedClock(clock.SystemClock):
    """The machine's time, wrong by as much as a test likes; waits a hundredth of the time."""

    def __init__(self):
        self.ahead_s = 0.0

    def now(self):
        return super().now() + datetime.timedelta(seconds=self.ahead_s)

    async def sleep(self, delay_s):
        await asyncio.sleep(delay_s / 100)


def parsed(text):
    """Read a kubeconfig as the product would, were not everything here on loopback."""
    document = yaml.safe_load(text)
    cluster = document["clusters"][0]["cluster"]
    return access.Access(
        server=cluster["server"],
        ca_pem=base64.b64decode(cluster["certificate-authority-data"]).decode(),
        token=document["users"][0]["user"]["token"],
    )


class Linked:
    """A primary and a remote cluster, administrators' clients of both, and a supervisor."""

    def __init__(self, config, remote, primary_admin, remote_admin):
        self.config, self.remote = config, remote
        self.primary_admin, self.remote_admin = primary_admin, remote_admin
        self.clock = ShiftedClock()
        self.graph = graph.Graph()
        self.sources = sources.declare(self.graph)
        self.notes = []
        self.fewest = None
        self.supervisor = supervisor.Supervisor(
            self.graph,
            self.sources,
            local=config.access(),
            config_cluster="cluster1",
            parse=parsed,
            system_clock=self.clock,
        )
        self.graph.listen(lambda changes: self._count())

    def _count(self):
        if self.fewest is not None:
            self.fewest = min(self.fewest, len(self.known()))

    def known(self):
        """Return the names of the remote cluster's services that the mesh knows."""
        found = self.graph.items(self.sources.services)
        return sorted(key.name for key in found if key.cluster == "cluster2")

    @property
    def status(self):
        found = {one.cluster: one for one in self.supervisor.clusters()}
        return found.get("cluster2")

    async def made(self, **life):
        wanted = linking.Request(name="cluster2", server=self.remote.url)
        return await rotating.remote_secret(
            self.remote_admin, wanted, rotating.Life(**life), on_note=self.notes.append
        )

    async def link(self, **life):
        """Link the clusters with a bound token."""
        made = await self.made(**life)
        old = await rotating.holder_of(self.primary_admin, "cluster2", namespace=NAMESPACE)
        await rotating.exchange(self.primary_admin, made, instead_of=old)
        return made

    async def may(self, token):
        """Tell whether the remote API server accepts a token, for what a reader does."""
        reached = access.Access(self.remote.url, self.remote.authority.ca_pem, token=token)
        async with client.Client(reached) as reads:
            try:
                await reads.list_(kinds.POD)
            except client.problems.ApiError as error:
                return error.status
        return 200


@contextlib.asynccontextmanager
async def clusters():
    """Serve both clusters, each with the system namespace; the supervisor does not run yet."""
    async with contextlib.AsyncExitStack() as stack:
        config = await stack.enter_async_context(lab_server.serving("cluster1"))
        remote = await stack.enter_async_context(lab_server.serving("cluster2"))
        primary_admin = await stack.enter_async_context(client.Client(config.access()))
        remote_admin = await stack.enter_async_context(client.Client(remote.access()))
        for admin in (primary_admin, remote_admin):
            await admin.create(
                kinds.NAMESPACE,
                {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}},
            )
        yield Linked(config, remote, primary_admin, remote_admin)


@contextlib.asynccontextmanager
async def running(linked):
    """Run the supervisor."""
    work = asyncio.get_running_loop().create_task(linked.supervisor.run())
    try:
        yield linked.supervisor
    finally:
        work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await work
        await asyncio.sleep(0.1)  # TLS connections end.


def token_of(made):
    """Return the token in a remote secret."""
    document = yaml.safe_load(made.secret["stringData"]["cluster2"])
    return document["users"][0]["user"]["token"]
