"""Keeps the set of clusters: each is followed on its own, by generation, and fills the sources.

It decides when a cluster's objects enter, change hands and leave. A new credential is a new
generation: it learns the whole cluster in the background, takes over in one transaction, and only
then the old one ends. A cluster that does not answer keeps its objects, with their age; only the
removal of its secret removes them. No cluster waits for another.

    IsthmusError
    └── ClusterUnknown     nobody follows a cluster of that name

A control plane that runs outside its mesh has a home besides: its own settings come from there.

Source: spec sections 2.3, 2.7 and 6.5; design rules 4 and 5; drills 03, 04, 09, 10, 11 and 13.
"""

import asyncio
import dataclasses
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from isthmus.base import clock, errors, logs, metrics, tasks
from isthmus.engine import graph
from isthmus.fleet import (
    generations,
    members,
    membership,
    pacing,
    recalling,
    snapshots,
    sources,
    statuses,
    tokens,
    writing,
)
from isthmus.kube import access, informer, kinds, objects
from isthmus.kube import client as kube_client
from isthmus.mesh.identities import ClusterId

_LOG = logs.Log("isthmus.fleet")
SECRET_LABEL = "istio/multiCluster=true"
REMOTE_TIMEOUT_S = 30.0
# Who leaves is gone within 5 s, even if the API server that says so has just come back itself.
SECRETS_DELAY_S = 2.0


class ClusterUnknown(errors.IsthmusError):
    """Nobody follows a cluster of that name."""

    code = "ISM-FLEET-020"


@dataclass(frozen=True, slots=True)
class Home:
    """The cluster that a control plane runs in, outside of its mesh.

    Attributes:
        has_secrets: Whether the remote secrets are there, too.
    """

    reached_by: access.Access
    has_secrets: bool = True


@dataclass(slots=True)
class _Listeners:
    added: list[Callable[[ClusterId, kube_client.Client], None]] = field(default_factory=list)
    removed: list[Callable[[ClusterId], None]] = field(default_factory=list)


class Supervisor:
    """Follows all clusters and fills the sources; `run` does all the work."""

    def __init__(  # noqa: PLR0913  # each argument is an independent choice
        self,
        graph_: graph.Graph,
        into: sources.Sources,
        *,
        local: access.Access,
        config_cluster: ClusterId,
        home: Home | None = None,
        namespace: str = "istio-system",
        remote_timeout_s: float = REMOTE_TIMEOUT_S,
        more: tuple[generations.Followed, ...] = (),
        parse: Callable[[str], access.Access] = access.parse_untrusted,
        system_clock: clock.Clock | None = None,
        measures: metrics.Metrics | None = None,
    ) -> None:
        """Prepare; nothing is asked before `run`.

        Args:
            graph_: The graph that `into` belongs to.
            into: Where the objects go.
            local: The cluster that configuration and remote secrets come from.
            config_cluster: Its id.
            home: Where the control plane runs, if that is outside of its mesh.
            namespace: The system namespace.
            remote_timeout_s: How long readiness waits for a remote cluster; 0 for ever.
            more: What else is followed in the configuration cluster.
            parse: Judges the kubeconfig of a remote secret.
            system_clock: Time.
            measures: Where the metrics go.
        """
        self.ready = asyncio.Event()
        self.ended = asyncio.Event()  # some generation has; whoever heard it clears it
        self._writer = writing.Writer(graph_, into)
        self._pace = pacing.Pace(self._writer.change)
        self._own = config_cluster
        self._namespace, self._timeout_s = namespace, remote_timeout_s
        self._parse = parse
        self._clock = system_clock or clock.SystemClock()
        self._nursery = tasks.Nursery(system_clock=self._clock)
        self._measures = statuses.Measures(measures or metrics.Metrics())
        self._listeners = _Listeners()
        self._members: dict[ClusterId, members.Member] = {}
        self._ending: set[generations.Generation] = set()
        self._wanted: frozenset[ClusterId] = frozenset()
        self._disabled: Mapping[ClusterId, str] = {}
        self._findings: tuple[errors.Finding, ...] = ()
        self._refused_snapshots: tuple[errors.Finding, ...] = ()
        self._has_recalled = False
        followed = generations.EVERYWHERE + generations.CONFIGURATION + more
        self._local = self._generation(config_cluster, 1, local, followed=followed)
        settings = (generations.SETTINGS, generations.BUNDLES)
        self._home = (
            self._generation(sources.HOME, 1, home.reached_by, followed=settings) if home else None
        )
        at_home = self._home if home and home.has_secrets else None
        self.keeper = (at_home or self._local).client
        """The API server that keeps the remote secrets."""
        self._secrets = self._informer_of_secrets(self.keeper)

    def _informer_of_secrets(self, server: kube_client.Client) -> informer.Informer[objects.Secret]:
        return informer.Informer(
            server,
            kinds.SECRET,
            objects.Secret,
            on_batch=lambda changes: self._reconcile(),
            namespace=self._namespace,
            labels=SECRET_LABEL,
            longest_delay_s=SECRETS_DELAY_S,
            system_clock=self._clock,
        )

    # --- asked from outside -----------------------------------------------------------------------

    def clusters(self) -> tuple[statuses.ClusterStatus, ...]:
        """Return how well each cluster is followed, our own first."""
        both = [self._local, *([self._home] if self._home else [])]
        own = statuses.ClusterStatus(
            self._own,
            "",
            "synced" if all(one.is_live for one in both) else "syncing",
            age_s=max(one.age_s() for one in both),
            error=next((error for one in both if (error := one.error())), ""),
            generation=1,
            known=self._local.is_live,
        )
        known = {
            cluster: member.shown(now=self._clock.now())
            for cluster, member in self._members.items()
        }
        for cluster, secret in self._disabled.items():
            known.setdefault(
                cluster,
                statuses.ClusterStatus(cluster, secret, "closed", error="disabled in its secret"),
            )
        return (own, *(known[cluster] for cluster in sorted(known)))

    def objection(self, cluster: ClusterId) -> str:
        """Say why proxies of a cluster cannot be told of the mesh; empty when they can.

        It is asked for each proxy that comes, and looks at one cluster alone.
        """
        if cluster == self._own:
            return statuses.objection(cluster, is_known=self._local.is_live)
        if (member := self._members.get(cluster)) is not None:
            return statuses.objection(cluster, is_known=member.is_known)
        return statuses.objection(cluster, is_known=False if cluster in self._disabled else None)

    def followed(self) -> tuple[ClusterId, ...]:
        """Return the clusters that are followed, well or not, our own first."""
        return (self._own, *sorted(self._members))

    def client(self, cluster: ClusterId) -> kube_client.Client:
        """Return the connection to a cluster, for reviews of tokens.

        Raises:
            ClusterUnknown: Nobody follows that cluster (ISM-FLEET-020).
        """
        if cluster == self._own:
            return self._local.client
        member = self._members.get(cluster)
        generation = member and (member.current or member.coming)
        if not generation:
            raise ClusterUnknown(
                f"cluster `{cluster[:80]}` is not part of the mesh",
                hint="attach it with the output of `isthmus create-remote-secret`",
            )
        return generation.client

    def findings(self) -> tuple[errors.Finding, ...]:
        """Return what is wrong with remote secrets and with single objects."""
        live = [self._local, *(item.current for item in self._members.values() if item.current)]
        unusable = tuple(
            errors.Finding(
                membership.KUBECONFIG_REFUSED,
                f"Secret {item.wanted.secret}, key {cluster}",
                item.unusable,
                still_working="all other clusters",
            )
            for cluster, item in sorted(self._members.items())
            if item.unusable
        )
        return (
            self._findings
            + unusable
            + self._refused_snapshots
            + self._ending_tokens()
            + tuple(found for one in live for found in one.findings())
        )

    def _ending_tokens(self) -> tuple[errors.Finding, ...]:
        now = self._clock.now()
        found = (
            tokens.finding_of(cluster, member.wanted.secret, member.token, now=now)
            for cluster, member in sorted(self._members.items())
        )
        return tuple(one for one in found if one is not None)

    def links(self) -> tuple[members.Link, ...]:
        """Return the remote clusters that are followed at present, for whoever keeps them."""
        return tuple(
            members.Link(cluster, member.wanted, member.current)
            for cluster, member in sorted(self._members.items())
            if member.current is not None
        )

    def linked(self) -> frozenset[ClusterId]:
        """Return the remote clusters that belong to the mesh, whether they answer or not."""
        return frozenset(self._members)

    def show_ages(self) -> None:
        """Bring the metrics up to date that grow by themselves."""
        self._measures.show_ages(self.clusters(), now=self._clock.now())

    def on_added(self, call: Callable[[ClusterId, kube_client.Client], None]) -> None:
        """Call when a cluster is known as a whole, with the client to use from now on.

        Called again with another client when its credential changes, after `on_removed`.
        """
        self._listeners.added.append(call)

    def on_removed(self, call: Callable[[ClusterId], None]) -> None:
        """Call when a cluster leaves, or its client is about to be closed."""
        self._listeners.removed.append(call)

    # --- running ----------------------------------------------------------------------------------

    async def run(self) -> None:
        """Follow all clusters until cancelled."""
        try:
            self._local.open(on_synced=self._take_over_local)
            if self._home:
                self._home.open(on_synced=self._take_over_home)
            _ = self._nursery.keep("follow remote secrets", self._secrets.run)
            await self._secrets.synced.wait()
            self._reconcile()
            await self._recall()
            await asyncio.Event().wait()
        finally:
            await self._close()

    async def _recall(self) -> None:
        """Take what an earlier control plane knew of linked clusters that do not answer us yet."""
        kept = await recalling.read(
            self._local.client,
            snapshots.SHELF,
            namespace=self._namespace,
            is_needed=lambda: not all(one.is_known for one in self._members.values()),
            system_clock=self._clock,
        )
        found, self._refused_snapshots = snapshots.recall(kept)
        for cluster, member in self._members.items():
            if cluster in found:
                self._remember(member, found[cluster])
        self._has_recalled = True
        self._check_ready()

    def _remember(self, member: members.Member, recalled: snapshots.Recalled) -> None:
        if member.is_known:
            return  # What its API server says now is better.
        if recalled.server != members.fingerprint(member.wanted.reached_by):
            self._refused_snapshots += (
                snapshots.refusal(recalled.cluster, "its secret leads to another API server now"),
            )
            return
        self._writer.put_with_others(recalled.cluster, lambda: recalled.content)
        member.recalled_at = recalled.known_at
        _LOG.info(
            "cluster is known from a snapshot",
            cluster=recalled.cluster,
            known_at=recalled.known_at.isoformat(),
        )

    async def _close(self) -> None:
        for generation in list(self._ending):
            await generation.close()
        await self._nursery.close()
        for member in self._members.values():
            for one in (member.current, member.coming):
                if one is not None:
                    await one.close()
        # Whoever runs us again begins anew; until then all objects stay.
        self._members.clear()
        await self._local.close()
        if self._home:
            await self._home.close()

    def _take_over_local(self) -> None:
        self._writer.put(self._own, self._local.content(), self._local.rest_on)
        self._local.is_live = True
        self._measures.managed.set(1, "local")
        _LOG.info("own cluster synced", cluster=self._own)
        for call in self._listeners.added:
            call(self._own, self._local.client)
        self._check_ready()

    def _take_over_home(self) -> None:
        assert self._home is not None
        self._writer.put(sources.HOME, self._home.content(), self._home.rest_on)
        self._home.is_live = True
        _LOG.info("own settings known")
        self._check_ready()

    # --- which clusters ---------------------------------------------------------------------------

    def _reconcile(self) -> None:
        found = membership.of_secrets(
            self._secrets.items.values(),
            own=self._own,
            parse=self._parse,
            in_use={cluster: member.wanted for cluster, member in self._members.items()},
        )
        for finding in found.findings:
            if finding not in self._findings:
                _LOG.warning(
                    "remote secret ignored", subject=finding.subject, reason=finding.happened
                )
        self._findings, self._disabled = found.findings, found.disabled
        self._wanted = frozenset(found.wanted)
        for cluster, wanted in found.wanted.items():
            member = self._members.get(cluster)
            if member is None:
                self._add(wanted)
            elif member.wanted.digest != wanted.digest:
                self._rotate(member, wanted)
            else:
                member.wanted = wanted
        self._check_ready()

    def _is_renamed(
        self, cluster: ClusterId, wanted: Mapping[ClusterId, membership.Wanted[access.Access]]
    ) -> bool:
        """Tell whether a cluster that leaves comes back under another id, not known yet.

        It stays until then: its endpoints must not be missed in between.
        """
        left = self._members[cluster].wanted
        return any(
            one.secret == left.secret
            and members.fingerprint(one.reached_by) == members.fingerprint(left.reached_by)
            and not self._members[one.cluster].counts
            for one in wanted.values()
        )

    def _add(self, wanted: membership.Wanted[access.Access]) -> None:
        member = members.Member(wanted, began=self._clock.monotonic())
        self._members[wanted.cluster] = member
        self._measures.events.add(1, "add")
        _LOG.info("cluster joins", cluster=wanted.cluster, secret=wanted.secret)
        self._begin(member)
        if self._timeout_s:
            _ = self._nursery.start(f"time out {wanted.cluster}", self._time_out(member))

    def _rotate(self, member: members.Member, wanted: membership.Wanted[access.Access]) -> None:
        member.wanted = wanted
        self._measures.events.add(1, "update")
        _LOG.info("cluster gets another credential", cluster=wanted.cluster, secret=wanted.secret)
        self._begin(member)

    def _remove(self, cluster: ClusterId) -> None:
        member = self._members.pop(cluster)
        self._measures.events.add(1, "delete")
        self._measures.forget(cluster)
        _LOG.info("cluster leaves", cluster=cluster, secret=member.wanted.secret)
        self._tell_removed(member)
        for generation in (member.current, member.coming):
            self._end(generation)
        self._writer.put(cluster, {one.collection: {} for one in generations.EVERYWHERE})

    def _begin(self, member: members.Member) -> None:
        """Start the next generation of a cluster in the background."""
        self._end(member.coming)
        member.number += 1
        member.unusable, member.coming = "", None
        wanted = member.wanted
        member.token = tokens.read(wanted.reached_by.token)
        try:
            coming = self._generation(
                wanted.cluster, member.number, wanted.reached_by, followed=generations.EVERYWHERE
            )
        except (ssl.SSLError, ValueError) as error:
            member.unusable = f"kubeconfig is not valid: {error}"
            return
        member.coming = coming
        coming.open(on_synced=lambda: self._take_over(member, coming))

    def _generation(
        self,
        cluster: ClusterId,
        number: int,
        reached_by: access.Access,
        *,
        followed: tuple[generations.Followed, ...],
    ) -> generations.Generation:
        return generations.Generation(
            cluster,
            number,
            # Its messages name the cluster as the mesh does, whatever the kubeconfig calls it.
            dataclasses.replace(reached_by, name=cluster),
            namespace=self._namespace,
            followed=followed,
            on_changes=self._pace.soon,
            system_clock=self._clock,
        )

    def _take_over(self, member: members.Member, coming: generations.Generation) -> None:
        self._tell_removed(member)
        old, member.current, member.coming = member.current, coming, None
        # From here the old generation is mute, whatever still arrives on its connections.
        self._end(old)
        self._writer.put_with_others(coming.cluster, coming.content, coming.rest_on)
        coming.is_live, member.recalled_at = True, None
        member.live_digest = member.wanted.digest
        _LOG.info("cluster synced", cluster=coming.cluster, generation=coming.number)
        for call in self._listeners.added:
            call(coming.cluster, coming.client)
        self._check_ready()

    def _drop_left(self) -> None:
        """Remove clusters that no secret names any more, or that are known under a new name."""
        wanted = {key: one.wanted for key, one in self._members.items() if key in self._wanted}
        for cluster in [item for item in self._members if item not in self._wanted]:
            if not self._is_renamed(cluster, wanted):
                self._remove(cluster)
        self._measures.managed.set(len(self._members), "remote")

    async def _time_out(self, member: members.Member) -> None:
        await self._clock.sleep(self._timeout_s)
        if self._members.get(member.wanted.cluster) is member and member.current is None:
            member.timed_out = True
            self._measures.timeouts.add(1, member.wanted.cluster)
            _LOG.warning(
                "cluster did not sync in time; going on without",
                cluster=member.wanted.cluster,
                error=member.coming.error() if member.coming else member.unusable,
            )
            self._check_ready()

    def _tell_removed(self, member: members.Member) -> None:
        if member.current is not None:
            for call in self._listeners.removed:
                call(member.wanted.cluster)

    def _end(self, generation: generations.Generation | None) -> None:
        if generation is not None:
            generation.is_live = False
            self._ending.add(generation)
            _ = self._nursery.start(f"close {generation.cluster}", self._closed(generation))

    async def _closed(self, generation: generations.Generation) -> None:
        await generation.close()
        self._ending.discard(generation)
        self.ended.set()

    # --- telling ----------------------------------------------------------------------------------

    def _check_ready(self) -> None:
        self._drop_left()
        self._measures.show({key: item.status() for key, item in self._members.items()})
        own = (self._local, self._home or self._local)
        # No cluster is given up before it was looked what the last control plane knew of it.
        everyone = self._members.values()
        counts = [one.is_known or (one.counts and self._has_recalled) for one in everyone]
        if all(one.is_live for one in own) and self._secrets.synced.is_set() and all(counts):
            self._writer.gather_no_more()
            self.ready.set()
