"""A supervisor of clusters at work against scriptable API servers."""

import asyncio
import base64
import contextlib

from fakes import kube_server
from isthmus.base import metrics
from isthmus.engine import graph
from isthmus.fleet import sources, statuses, supervisor
from isthmus.kube import kinds, problems

OWN = "cluster1"


class Fleet:
    """A supervisor at work, and what its graph said after every transaction."""

    def __init__(self, local, remotes, **options):
        self.graph = graph.Graph()
        self.sources = sources.declare(self.graph)
        self.local = local
        self.remotes = remotes
        self.fewest = None
        self.metrics = metrics.Metrics()
        self.supervisor = supervisor.Supervisor(
            self.graph,
            self.sources,
            local=local.access(),
            config_cluster=OWN,
            parse=self._parse,
            measures=self.metrics,
            **options,
        )
        self.graph.listen(lambda changes: self._count())

    def start(self):
        self.runs = asyncio.get_running_loop().create_task(self.supervisor.run())

    async def stop(self):
        self.runs.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.runs

    def _parse(self, text):
        name, _, token = text.partition(" ")
        if name not in self.remotes:
            raise problems.KubeconfigRefused(f"kubeconfig is not valid: nobody is called {name}")
        return self.remotes[name].access(token=token.strip())

    def _count(self):
        slices = len(self.keys(self.sources.endpoint_slices, "cluster2"))
        if self.fewest is not None:
            self.fewest = min(self.fewest, slices)

    def keys(self, source, cluster):
        return [key for key in self.graph.items(source) if key.cluster == cluster]

    def names(self, cluster):
        return sorted(key.name for key in self.keys(self.sources.services, cluster))

    def link(self, cluster, text=None, *, secret=None, **metadata):
        kubeconfig = base64.b64encode((text or f"{cluster} token").encode()).decode()
        self.local.put(
            kinds.SECRET,
            secret or f"istio-remote-secret-{cluster}",
            "istio-system",
            metadata={"labels": {"istio/multiCluster": "true"}, **metadata},
            data={cluster: kubeconfig},
        )

    def unlink(self, cluster):
        self.local.remove(kinds.SECRET, f"istio-remote-secret-{cluster}", "istio-system")

    def status(self, cluster):
        known = {one.cluster: one for one in self.supervisor.clusters()}
        return known.get(cluster, statuses.ClusterStatus(cluster, "", "closed"))


@contextlib.asynccontextmanager
async def fleet_of(*remotes, **options):
    async with contextlib.AsyncExitStack() as stack:
        local = await stack.enter_async_context(kube_server.serving())
        servers = {name: await stack.enter_async_context(kube_server.serving()) for name in remotes}
        for name, server in {OWN: local, **servers}.items():
            server.put(kinds.SERVICE, f"{name}-service", "n")
            server.put(kinds.ENDPOINT_SLICE, f"{name}-slice", "n")
        fleet = Fleet(local, servers, **options)
        fleet.start()
        try:
            yield fleet
        finally:
            await fleet.stop()
