"""The control plane as one program: starts every part, and ends them in order.

The order is: the fleet of clusters fills the compiler; as soon as there is a certificate
authority, discovery and certificate signing are served on 15012 and the webhook on 15017. Both
answer before all clusters are known, but nothing is handed out that would take something away
from a proxy that reconnects.

Source: spec sections 4.1, 6.2 and 8.7; promises P1, P2, P11.

    IsthmusError
    └── ServingFailed
"""

import asyncio
import contextlib
import gc
import signal
from collections.abc import Callable, Sequence

from isthmus.base import clock, errors, logs, memory, metrics, tasks
from isthmus.fleet import generations, recalling, slots, supervisor
from isthmus.kube import client as kube_client
from isthmus.mesh.identities import ClusterId
from isthmus.runtime import (
    allocating,
    assembly,
    authentication,
    connections,
    credentials,
    deploying,
    injection,
    key_sets,
    link_statuses,
    measures,
    peering,
    ports,
    probing,
    renewing,
    reports,
    resolving,
    resting,
    restlessness,
    seating,
    settings,
    snapshotting,
    stewardship,
    trust,
    trusting,
    viewing,
)
from isthmus.wire import admin, ads, debugging, debugstreams, streams
from isthmus.wire import key_sets as keys_door
from isthmus.wire import pages as paging

_LOG = logs.Log("isthmus.discovery")

MONITORING_PORT, READY_PORT = 15014, 8080
ANY = "0.0.0.0"  # inside the pod's own network
TIDY_EVERY_S, TIDY_TIMES = 5.0, 6
"""For how long proxies that have come may still be told what they asked for."""

SETTLE_AFTER_S = 2.0
"""Once all clusters are known proxies are told first, and what that left behind is looked for then."""

TIDY_AFTER_S = 5.0
"""Clusters often change hands one after the other; memory is given back once for all of them."""


class ServingFailed(errors.IsthmusError):
    """The ports that proxies and API servers call cannot be served."""

    code = "ISM-RUN-006"


class Program:
    """One control plane."""

    def __init__(self, chosen: settings.Settings) -> None:
        self._settings = chosen
        self._clock = clock.SystemClock()
        self._metrics = metrics.Metrics()
        self._seats = seating.seats(chosen)
        self._trust = trust.Trust(chosen.ca_directory, system_clock=self._clock)
        self._mesh = self._assembled()
        self._trust.listen(lambda fresh: trusting.tell(self._mesh, fresh))
        self._injection = injection.declare(self._mesh, chosen)
        self._resolver = resolving.Resolver(self._mesh, system_clock=self._clock)
        self._key_sets = self._opened_key_sets()
        self._fleet = supervisor.Supervisor(
            self._mesh.graph,
            self._mesh.sources,
            local=self._seats.config,
            config_cluster=chosen.cluster,
            home=self._seats.home,
            namespace=chosen.namespace,
            remote_timeout_s=chosen.remote_timeout_s,
            more=generations.GATEWAY_API if chosen.knows_gateways else (),
            system_clock=self._clock,
            measures=self._metrics,
        )
        self._authenticator = authentication.TokenAuthenticator(
            self._review,
            own_cluster=chosen.cluster,
            known_clusters=self._known_clusters,
            audiences=chosen.audiences,
            system_clock=self._clock,
            sole_domain=lambda: trusting.sole_domain(self._mesh),
        )
        self._proxies = self._opened_connections()
        self._restlessness = self._opened_restlessness()
        self._peering = self._opened_peering()
        self._prober = probing.Prober(
            self._mesh, proof=self._peering.proof, system_clock=self._clock
        )
        self._credentials = self._credentials_of_gateways()
        self._discovery = self._opened_discovery()
        self._renewal = renewing.Renewal(self._fleet, system_clock=self._clock)
        self._snapshots = snapshotting.Snapshots(
            self._fleet, namespace=chosen.namespace, system_clock=self._clock
        )
        self._addresses = allocating.Addresses(self._mesh, system_clock=self._clock)
        self._stewardship = self._steward()
        self._ports = self._opened_ports()
        self._desk = self._opened_desk()
        self._discovery.asides = debugstreams.Asides(self._desk, pod=chosen.pod)
        measures.Measures(
            self._mesh,
            registered=self._metrics,
            authority=lambda: self._trust.authority,
            system_clock=self._clock,
        )

    def _opened_key_sets(self) -> key_sets.KeySets:
        forbidden = key_sets.confined(self._settings.blocked)
        fetcher = keys_door.Fetcher(forbidden=forbidden, more_roots=key_sets.MORE_ROOTS)
        return key_sets.KeySets(
            self._mesh,
            fetch=fetcher.fetch,
            refresh_s=self._settings.keys_refresh_s,
            registered=self._metrics,
            system_clock=self._clock,
        )

    def _assembled(self) -> assembly.Mesh:
        chosen = self._settings
        return assembly.assemble(
            config_cluster=chosen.cluster,
            revision=chosen.revision,
            system_namespace=chosen.namespace,
            domain=chosen.domain,
            ways=assembly.Ways(
                is_external=self._seats.home is not None,
                shared=chosen.shared_mesh_config,
                is_linked=chosen.links_clusters,
                link_namespaces=chosen.link_namespaces,
                skips_domains=chosen.skips_domains,
                ranges=chosen.ranges,
                most_tunnels=chosen.most_tunnels,
                tells_all_in_parts=chosen.tells_endpoints_apart and not chosen.apart_after,
            ),
        )

    def _opened_connections(self) -> connections.Connections:
        chosen = self._settings
        opened = connections.Connections(
            self._mesh,
            authenticator=self._authenticator,
            unready=self._unready_for,
            unlinked=self._unlinked,
            node_accounts=chosen.node_accounts if chosen.serves_node_proxies else (),
            tunnelling=chosen.tunnelling,
        )
        opened.views = viewing.Views(self._metrics, most=chosen.most_views)
        opened.tells_apart = chosen.tells_endpoints_apart
        return opened

    def _opened_discovery(self) -> ads.Service:
        opened = ads.Service(
            self._proxies,
            limits=ads.Limits(age_s=self._settings.stream_age_s),
            system_clock=self._clock,
            registered=self._metrics,
        )
        opened.patience.is_ready = self._is_ready
        return opened

    def _opened_restlessness(self) -> restlessness.Restlessness:
        return restlessness.Restlessness(
            self._mesh,
            readers=self._proxies.seeing,
            after=self._settings.apart_after,
            system_clock=self._clock,
        )

    def _opened_peering(self) -> peering.Peering:
        chosen = self._settings
        place = peering.Place(
            chosen.cluster, chosen.namespace, chosen.pod, chosen.account, recall=self._recall
        )
        return peering.Peering(
            self._mesh,
            place=place,
            authority=lambda: self._trust.authority,
            unready=self.unready,
            system_clock=self._clock,
            registered=self._metrics,
        )

    async def _recall(self, is_needed: Callable[[], bool]) -> list[kube_client.Obj]:
        return await recalling.read(
            self._fleet.client(self._settings.cluster),
            slots.LINKED,
            namespace=self._settings.namespace,
            is_needed=is_needed,
            system_clock=self._clock,
        )

    def _credentials_of_gateways(self) -> credentials.Credentials:
        return credentials.Credentials(
            self._mesh,
            self._proxies.catalog,
            client=self._fleet.client,
            system_clock=self._clock,
        )

    def _steward(self) -> stewardship.Stewardship:
        chosen = self._settings
        # The mesh may be configured in a cluster that is not ours to write in.
        writes_addresses = chosen.writes_addresses and self._seats.home is None
        return stewardship.Stewardship(
            stewardship.Steward(
                cluster=chosen.cluster,
                pod=chosen.pod,
                namespace=chosen.namespace,
                revision=chosen.revision,
                manages_remotes=chosen.manages_remotes,
                patches_own_webhooks=chosen.patches_webhooks,
            ),
            root=self._roots,
            at_home={
                "keep snapshots of clusters": self._snapshots.run,
                "renew tokens": self._renewal.run,
                **(
                    {"keep what is told": self._peering.keeper.run} if chosen.links_clusters else {}
                ),
                **({"run gateways": self._run_gateways} if chosen.runs_gateways else {}),
                **({"write addresses": self._addresses.run} if writes_addresses else {}),
                **({"say of links": self._say_of_links} if chosen.knows_gateways else {}),
            },
            system_clock=self._clock,
        )

    async def _run_gateways(self, writes: kube_client.Client, holds: Callable[[], bool]) -> None:
        place = deploying.Place(self._settings.revision, self._settings.domain)
        running = deploying.Gateways(writes, holds, place=place, system_clock=self._clock)
        await running.run()

    async def _say_of_links(self, writes: kube_client.Client, holds: Callable[[], bool]) -> None:
        said = link_statuses.Statuses(
            self._mesh,
            heard=self._peering.statuses,
            is_followed=self._settings.links_clusters,
            system_clock=self._clock,
        )
        await said.run(writes, holds)

    def _opened_ports(self) -> ports.Ports:
        return ports.Ports(
            self._settings,
            ports.Behind(
                mesh=self._mesh,
                trust=self._trust,
                fleet=self._fleet,
                injection=self._injection,
                authenticator=self._authenticator,
                discovery=self._discovery,
                proxies=self._proxies,
            ),
            unready=self.unready,
            root_changed=lambda: self._stewardship.root_changed(),
            system_clock=self._clock,
            registered=self._metrics,
        )

    def _opened_desk(self) -> debugging.Desk:
        told = reports.Reports(
            self._mesh,
            fleet=self._fleet,
            proxies=self._proxies,
            statuses=self._statuses,
            own=reports.Own(
                self._own_findings,
                self._injection.settings,
                lambda: self._trust.authority,
                lambda: peering.rows(self._peering.statuses()),
                self._prober.page,
                self._peering.told,
            ),
        )
        desk = debugging.Desk(
            told,
            own_cluster=self._settings.cluster,
            system_namespace=self._settings.namespace,
            trusted_namespaces=self._settings.debug_namespaces,
            system_clock=self._clock,
        )
        desk.gather = self._gather
        return desk

    # --- what the parts ask of each other -------------------------------------------------------

    def unready(self) -> str:
        """Say why nothing can be served yet; empty when all is well."""
        if self._trust.authority is None:
            fault = self._trust.fault
            return fault.happened if fault else "the certificate authority was not read yet"
        if not self._fleet.ready.is_set():
            found = self._fleet.clusters()
            waiting = [one.cluster for one in found if one.status == "syncing" and not one.known]
            return f"not all clusters are known yet: {', '.join(waiting) or 'our own'}"
        if not self._resolver.is_settled:
            return "names of gateways are being looked up"
        return "" if self._key_sets.is_settled else "keys of tokens are being fetched"

    def _is_ready(self) -> bool:
        # Why not takes longer to say, and this is asked all the time as long as anybody waits.
        return self._fleet.ready.is_set() and not self.unready()

    def _unready_for(self, cluster: ClusterId) -> str:
        """Say why proxies of a cluster cannot be served yet; empty when they can."""
        return self._fleet.objection(cluster) or self.unready()

    def _unlinked(self) -> str:
        """Say which linked clusters proxies would lose if they were told now; empty for none.

        Whether we are ready must not wait for these: they are reached through gateways that learn
        of control planes from these themselves, and wait for us as we for them.
        """
        waiting = self._peering.waiting() if self._settings.links_clusters else ()
        return f"linked clusters were not heard yet: {', '.join(waiting)}" if waiting else ""

    def _own_findings(self) -> list[errors.Finding]:
        """Say what is wrong with the control plane's own files, settings and names, if anything."""
        return [
            *self._trust.findings(self._settings.namespace),
            *self._proxies.views.findings(),
            *self._mesh.graph.value(self._injection.findings),
            *self._resolver.findings(),
            *self._key_sets.findings(),
            *self._snapshots.findings(),
            *self._renewal.findings(),
            *self._credentials.findings(),
            *self._peering.findings(),
            *self._addresses.findings(),
        ]

    def _send_away(self, cluster: ClusterId) -> None:
        """End the streams of a cluster that leaves: nobody vouches for its proxies any more.

        They keep what they have, which is better than to be told of a mesh without their pods.
        """
        if cluster in self._known_clusters():
            return  # It only gets another credential.
        reason = f"cluster `{cluster}` has left the mesh"
        for status in self._discovery.statuses():
            if status.caller.cluster == cluster:
                self._discovery.end(status.id, reason=reason)
        if self._ports.crowd is not None:
            self._ports.crowd.end_of(cluster, reason=reason)

    def _statuses(self) -> tuple[streams.StreamStatus, ...]:
        crowd = self._ports.crowd
        return self._discovery.statuses() if crowd is None else crowd.statuses()

    async def _gather(self, *, with_streams: bool = True) -> None:
        if self._ports.crowd is not None:
            await self._ports.crowd.gather(with_streams=with_streams)

    def _known_clusters(self) -> list[ClusterId]:
        return list(self._fleet.followed())

    async def _review(
        self, cluster: ClusterId, token: str, audiences: Sequence[str]
    ) -> kube_client.Obj:
        return await self._fleet.client(cluster).token_review(token, audiences)

    def _roots(self) -> str:
        return self._trust.authority.roots_pem if self._trust.authority else ""

    # --- running --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until a signal asks to end."""
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        async with contextlib.AsyncExitStack() as stack:
            nursery = await stack.enter_async_context(tasks.Nursery(system_clock=self._clock))
            await self._serve_plain(stack)
            self._trust.look()
            self._fleet.on_added(self._stewardship.added)
            self._fleet.on_removed(self._stewardship.removed)
            self._fleet.on_removed(self._send_away)
            stack.push_async_callback(self._stewardship.close)
            _ = nursery.keep("follow certificate authority", self._trust.follow)
            _ = nursery.keep("follow clusters", self._fleet.run)
            _ = nursery.keep("give memory back", self._tidy)
            _ = nursery.keep("fold what rests", lambda: resting.fold(self._clock))
            _ = nursery.keep("look up gateways", self._resolver.run)
            _ = nursery.keep("fetch keys of tokens", self._key_sets.run)
            _ = nursery.keep("look for ways to other clusters", self._prober.run)
            _ = nursery.keep("follow credentials of gateways", self._credentials.run)
            _ = nursery.keep("choose how endpoints are told", self._restlessness.run)
            if self._settings.links_clusters:
                _ = nursery.keep("talk to linked clusters", self._peering.run)
            serving = nursery.start("serve", self._ports.serve(stack, nursery))
            # Without its ports it is of no use: whoever runs it must notice, and start it again.
            serving.add_done_callback(lambda _: None if self._ports.is_serving else stop.set())
            _ = nursery.start("settle memory", self._settle())
            moved = seating.changed(self._settings, self._seats, sleep=self._clock.sleep)
            nursery.start("follow kubeconfig", moved).add_done_callback(lambda _: stop.set())
            await stop.wait()
            _LOG.info("ending")
        if not self._ports.is_serving and serving.done() and not serving.cancelled():
            raise ServingFailed(
                "the control plane cannot serve proxies",
                detail="the log says why, above",
                hint=f"are ports {ports.SECURE_PORT} and {ports.WEBHOOK_PORT} in use by something else?",
            )

    async def _tidy(self) -> None:
        """Give back what it took to tell proxies all that they asked for, once they have it."""
        known, left = 0, 0
        while True:
            await self._clock.sleep(TIDY_EVERY_S)
            crowd = self._ports.crowd
            opened = self._discovery.opened if crowd is None else crowd.opened
            if opened != known:
                known, left = opened, TIDY_TIMES
            if left:
                left -= 1
                memory.trim()

    async def _settle(self) -> None:
        """Take what was learnt at the start out of the garbage collector's sight.

        From then on give back what clusters leave behind that change hands or go.
        """
        await self._fleet.ready.wait()
        _LOG.info("all clusters known", clusters=len(self._fleet.clusters()))
        # Whoever waits for the first answer must not wait for this, too.
        await self._clock.sleep(SETTLE_AFTER_S)
        gc.unfreeze()  # what was imported and learnt holds some garbage, too
        memory.give_back()
        gc.freeze()
        while True:
            await self._fleet.ended.wait()
            await self._clock.sleep(TIDY_AFTER_S)
            self._fleet.ended.clear()
            memory.give_back()

    async def _serve_plain(self, stack: contextlib.AsyncExitStack) -> None:
        pages = admin.Pages(
            self._desk,
            unready=lambda: self.unready() or self._ports.unready(),
            metrics_text=self._metrics_text,
        )
        monitoring = pages.public()
        if self._settings.serves_debug:
            monitoring = pages.guarded(
                self._authenticator, trusts_loopback=self._settings.trusts_loopback
            )
        for port, pages_there in ((READY_PORT, pages.public()), (MONITORING_PORT, monitoring)):
            await stack.enter_async_context(paging.listening(pages_there, host=ANY, port=port))
        socket_path = f"{self._settings.run_directory}/reports.sock"
        await stack.enter_async_context(paging.listening(pages.private(), path=socket_path))

    def _metrics_text(self) -> str:
        self._fleet.show_ages()
        return self._metrics.text()
