"""Decides in which clusters this control plane writes, and runs what writes there.

In its own cluster always; in a remote cluster when that cluster's system namespace names this
control plane's cluster, or everybody, and only if this control plane was told to manage others.
The annotation is followed, so that a later change of mind takes effect. Of several that a cluster
names, the one that holds the lock there writes; whoever is no longer named, or leaves, gives it
back before anything else.

Source: spec sections 1.6, 5.5 and 6.6.
"""

import asyncio
import functools
import types
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from isthmus.base import clock, logs, tasks
from isthmus.kube import access, client, informer, kinds, objects
from isthmus.mesh.identities import ClusterId
from isthmus.runtime import leadership, rootcerts, webhooks

_LOG = logs.Log("isthmus.stewardship")
ANNOTATION = "topology.istio.io/controlPlaneClusters"


@dataclass(frozen=True, slots=True)
class Steward:
    """Who writes.

    Attributes:
        cluster: Id of the control plane's own cluster.
        pod: The replica.
        manages_remotes: Whether it was told to manage other clusters (`EXTERNAL_ISTIOD`).
        patches_own_webhooks: Whether webhooks of its own cluster get its bundle.
    """

    cluster: ClusterId
    pod: str
    namespace: str = "istio-system"
    revision: str = "default"
    manages_remotes: bool = False
    patches_own_webhooks: bool = True


Duty = Callable[[client.Client, Callable[[], bool]], Awaitable[None]]
"""Work of a leader: with the cluster's client, and whether it may still write."""


def is_invited(annotation: str, *, cluster: ClusterId) -> bool:
    """Tell whether the annotation of a system namespace names `cluster`, or everybody."""
    return any(element in ("*", cluster) for element in annotation.split(","))


class Stewardship:
    """Runs what writes, in every cluster that is ours to write in."""

    def __init__(
        self,
        steward: Steward,
        *,
        root: Callable[[], str],
        at_home: Mapping[str, Duty] = types.MappingProxyType({}),
        system_clock: clock.Clock | None = None,
    ) -> None:
        """Prepare.

        Args:
            steward: Who writes.
            root: The mesh's roots as PEM; empty while there are none.
            at_home: What else to do, by name, while we lead in our own cluster.
            system_clock: Time.
        """
        self._steward = steward
        self._root = root
        self._at_home = dict(at_home)
        self._clock = system_clock or clock.SystemClock()
        self._nursery = tasks.Nursery(system_clock=self._clock)
        self._posts: dict[ClusterId, asyncio.Task[None]] = {}
        self._leaving: dict[ClusterId, set[asyncio.Task[None]]] = {}
        self._roots: dict[ClusterId, rootcerts.RootCertificates] = {}
        self._bundles: dict[ClusterId, webhooks.WebhookBundles] = {}

    def added(self, cluster: ClusterId, writes: client.Client) -> None:
        """Begin with a cluster; to be called within a running loop."""
        self.removed(cluster)
        if cluster == self._steward.cluster:
            work = functools.partial(self._work, cluster, writes)
        elif self._steward.manages_remotes:
            work = functools.partial(self._away, cluster, writes.access)
        else:
            return
        before = tuple(self._leaving.get(cluster, ()))
        self._posts[cluster] = self._nursery.keep(
            f"write in {cluster}", lambda: _after(before, work)
        )

    def removed(self, cluster: ClusterId) -> None:
        """End with a cluster."""
        post = self._posts.pop(cluster, None)
        if post is not None:
            post.cancel()
            leaving = self._leaving.setdefault(cluster, set())
            leaving.add(post)
            post.add_done_callback(leaving.discard)

    def root_changed(self) -> None:
        """Bring the new roots everywhere."""
        for roots in self._roots.values():
            roots.root_changed()
        for bundles in self._bundles.values():
            bundles.bundle_changed()

    async def close(self) -> None:
        """End everywhere, giving locks back."""
        await self._nursery.close()

    async def _away(self, cluster: ClusterId, reached_by: access.Access) -> None:
        """Work in a remote cluster, by a connection of our own.

        The one by which it is followed is closed when its credential changes or when it leaves,
        before the lock could be given back.
        """
        async with client.Client(reached_by, system_clock=self._clock) as writes:
            await self._while_invited(cluster, writes)

    async def _while_invited(self, cluster: ClusterId, writes: client.Client) -> None:
        """Follow the system namespace of a remote cluster and work there while it invites us."""
        changed = asyncio.Event()
        system: informer.Informer[objects.Namespace] = informer.Informer(
            writes,
            kinds.NAMESPACE,
            objects.Namespace,
            on_batch=lambda changes: changed.set(),
            fields=f"metadata.name={self._steward.namespace}",
            system_clock=self._clock,
        )
        async with tasks.Nursery(system_clock=self._clock) as nursery:
            _ = nursery.keep(f"follow invitation of {cluster}", system.run)
            at_work: asyncio.Task[None] | None = None
            while True:
                await changed.wait()
                changed.clear()
                invited = self._invited(system.items)
                if invited and at_work is None:
                    _LOG.info("managing cluster", cluster=cluster)
                    at_work = nursery.keep(
                        f"work in {cluster}", lambda: self._work(cluster, writes)
                    )
                elif not invited and at_work is not None:
                    _LOG.info("no longer managing cluster", cluster=cluster)
                    at_work.cancel()
                    # Its last word in the lock must not come after the first one of the next.
                    await asyncio.wait([at_work])
                    at_work = None

    def _invited(self, namespaces: Mapping[informer.Key, objects.Namespace]) -> bool:
        system = namespaces.get(("", self._steward.namespace))
        annotation = system.metadata.annotation(ANNOTATION) if system else ""
        return is_invited(annotation, cluster=self._steward.cluster)

    async def _work(self, cluster: ClusterId, writes: client.Client) -> None:
        is_remote = cluster != self._steward.cluster
        election = leadership.Election(
            writes,
            leadership.Candidate(
                identity=self._steward.pod,
                revision=self._steward.revision,
                is_remote=is_remote,
                is_default=self._steward.revision == "default",
            ),
            namespace=self._steward.namespace,
            on_seen=lambda: bundles.bundle_changed(),
            system_clock=self._clock,
        )
        roots = rootcerts.RootCertificates(
            writes, root=self._root, may_write=election.holds, system_clock=self._clock
        )
        bundles = webhooks.WebhookBundles(
            writes,
            revision=self._steward.revision,
            bundle=self._root,
            # At home every replica does: it must not wait for an election.
            may_replace=election.speaks if is_remote else lambda: True,
            system_clock=self._clock,
        )
        self._roots[cluster], self._bundles[cluster] = roots, bundles
        try:
            async with tasks.Nursery(system_clock=self._clock) as nursery:
                if self._steward.patches_own_webhooks or is_remote:
                    _ = nursery.keep(f"webhook bundles of {cluster}", bundles.run)
                await election.run(lambda: self._lead(cluster, writes, roots, election.holds))
        finally:
            if self._roots.get(cluster) is roots:
                del self._roots[cluster], self._bundles[cluster]

    async def _lead(
        self,
        cluster: ClusterId,
        writes: client.Client,
        roots: rootcerts.RootCertificates,
        holds: Callable[[], bool],
    ) -> None:
        async with tasks.Nursery(system_clock=self._clock) as nursery:
            _ = nursery.keep(f"root certificates of {cluster}", roots.run)
            if cluster == self._steward.cluster:
                for name, duty in self._at_home.items():
                    _ = nursery.keep(name, functools.partial(duty, writes, holds))
            await asyncio.Event().wait()


async def _after(
    before: tuple["asyncio.Task[None]", ...], work: Callable[[], Awaitable[None]]
) -> None:
    """Work once those who were here before have given their lock back."""
    if before:
        await asyncio.wait(before)
    await work()
