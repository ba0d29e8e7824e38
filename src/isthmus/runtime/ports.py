"""The ports that proxies and API servers call: 15012 of this process, 15017 of its annex.

They open as soon as there is a certificate authority, bear the names that proxies are told to call,
and renew their certificate.

Source: spec sections 1.4, 4.1 and 5.2; docs/decisions/0044.
"""

import asyncio
import contextlib
import datetime
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from isthmus.base import clock, logs, metrics, tasks
from isthmus.ca import authority as authorities
from isthmus.ca import signing
from isthmus.fleet import supervisor
from isthmus.inject import settings as inject_settings
from isthmus.runtime import (
    assembly,
    connections,
    impersonation,
    injection,
    settings,
    trust,
    trusting,
)
from isthmus.runtime.annex import keeping, messages
from isthmus.runtime.fanout import crowd
from isthmus.runtime.fanout import messages as fanout
from isthmus.wire import ads, callers, csr, listening, tls, webhook

SECURE_PORT: Final = 15012
WEBHOOK_PORT: Final = 15017
ANY: Final = "0.0.0.0"  # inside the pod's own network
DRAIN_S: Final = 5.0
TRUST_LOOK_S: Final = 30.0
BEGINS_S: Final = 15.0
"""So long we are not ready for want of the annex; then proxies are better told without it."""

_LOG = logs.Log("isthmus.discovery")


@dataclass(frozen=True, slots=True)
class Behind:
    """What answers behind the ports."""

    mesh: assembly.Mesh
    trust: trust.Trust
    fleet: supervisor.Supervisor
    injection: injection.Declared
    authenticator: callers.Authenticator
    discovery: ads.Service
    proxies: connections.Connections


class Ports:
    """The ports of one control plane.

    Attributes:
        is_serving: Whether proxies can call.
        crowd: Those who tell them in this process's place, if any do.
    """

    def __init__(
        self,
        chosen: settings.Settings,
        behind: Behind,
        *,
        unready: Callable[[], str],
        root_changed: Callable[[], None],
        system_clock: clock.Clock,
        registered: metrics.Metrics,
    ) -> None:
        self._settings = chosen
        self._behind = behind
        self._unready = unready
        self._root_changed = root_changed
        self._clock = system_clock
        self._signed = csr.Counters(registered)
        self._injected = webhook.Counters(registered)
        self._registered = registered
        self._serving: tls.Serving | None = None
        self._annex: keeping.Annex | None = None
        self._since_s = 0.0
        self.crowd: crowd.Crowd | None = None
        self.is_serving = False

    async def serve(self, stack: contextlib.AsyncExitStack, nursery: tasks.Nursery) -> None:
        """Open the ports; they close with the stack."""
        heard = stack.enter_context(listening.bound(ANY, WEBHOOK_PORT))
        annex = self._annex = keeping.Annex(
            heard,
            state=self._state,
            counters=self._injected,
            log_level=self._settings.log_level,
            system_clock=self._clock,
        )
        _ = nursery.keep("sign and inject", annex.run)
        serving = self._serving = tls.Serving(self._certificate(await self._first_authority()))
        annex.look()
        self._behind.trust.listen(lambda fresh: self._renew(serving, fresh))
        _ = nursery.keep("renew serving certificate", lambda: self._keep_fresh(serving))
        self._behind.mesh.graph.listen(lambda _: self._follow(serving, annex))
        if self._settings.push_workers:
            self._serve_by_workers(stack, nursery, annex)
        else:
            server, _ = listening.listen(
                (self._behind.discovery.handler(), csr.service(self._signatory(annex))),
                address=f"{ANY}:{SECURE_PORT}",
                serving=serving,
                sends_by=self._settings.sends_by,
            )
            stack.push_async_callback(server.stop, DRAIN_S)
        self.is_serving, self._since_s = True, self._clock.monotonic()
        self._root_changed()
        _LOG.info("serving", cluster=self._settings.cluster, secure=SECURE_PORT)

    def unready(self) -> str:
        """Say why whoever calls the ports would be refused; empty when nobody is."""
        if not self.is_serving or self._annex is None:
            return "not serving yet"
        has_begun = self._annex.has_begun()
        if has_begun or self._clock.monotonic() - self._since_s > BEGINS_S:
            return ""
        return "pods are not given proxies yet"

    def _serve_by_workers(
        self, stack: contextlib.AsyncExitStack, nursery: tasks.Nursery, annex: keeping.Annex
    ) -> None:
        signatory = self._signatory(annex)

        async def certify(request: bytes, shown: callers.Credentials) -> tuple[str, ...]:
            return await csr.answered(request, shown=shown, signatory=signatory)

        self.crowd = crowd.Crowd(
            self._settings.push_workers,
            proxies=self._behind.proxies,
            certify=certify,
            asides=lambda: self._behind.discovery.asides,
            state=self._state_of_workers,
            registered=self._registered,
            limits=self._behind.discovery.limits,
            log_level=self._settings.log_level,
            system_clock=self._clock,
        )
        door = listening.bound(ANY, SECURE_PORT, sends_by=self._settings.sends_by)
        self.crowd.serve(door, nursery)
        stack.push_async_callback(self.crowd.stop, DRAIN_S)

    def _state_of_workers(self) -> fanout.State | None:
        if self._serving is None:
            return None
        return fanout.State(
            chain_pem=self._serving.certificate.chain_pem,
            key_pem=self._serving.certificate.key_pem,
            own_cluster=self._settings.cluster,
            limits=self._behind.discovery.limits,
            is_ready=self._behind.discovery.patience.is_ready(),
        )

    def _state(self) -> messages.State:
        shown = self._serving.certificate if self._serving else None
        return messages.State(
            authority=self._behind.trust.files,
            chain_pem=shown.chain_pem if shown else "",
            key_pem=shown.key_pem if shown else "",
            injection=self._injection_settings(),
            unready=self._unready(),
            usual_s=self._settings.default_ttl_s,
            longest_s=self._settings.max_ttl_s,
        )

    def _injection_settings(self) -> inject_settings.InjectionSettings | None:
        own = self._behind.fleet.clusters()[0]
        return self._behind.injection.settings() if own.status == "synced" else None

    async def _first_authority(self) -> authorities.Authority:
        found: asyncio.Future[authorities.Authority] = asyncio.get_running_loop().create_future()

        def take(fresh: authorities.Authority) -> None:
            if not found.done():
                found.set_result(fresh)

        self._behind.trust.listen(take)
        return await found

    def _signatory(self, annex: keeping.Annex) -> csr.Signatory:
        chosen, mesh = self._settings, self._behind.mesh
        return csr.Signatory(
            self._behind.authenticator,
            sign=annex.sign,
            trust_domain=lambda cluster: trusting.domain_of(mesh, cluster),
            own_domain=lambda: trusting.domain_of(mesh, chosen.cluster),
            counters=self._signed,
            impersonation=impersonation.Judge(mesh, node_accounts=chosen.node_accounts).objection,
        )

    def _certificate(self, signer: authorities.Authority) -> tls.Certificate:
        names = signing.serving_names(
            self._settings.namespace,
            revision=self._settings.revision,
            discovery_host=self._discovery_host(),
            custom_hosts=self._settings.custom_hosts,
        )
        return tls.issue(signer, names=names, now=self._clock.now())

    def _discovery_host(self) -> str:
        """Return the host that proxies are told to find us at; empty while there is none."""
        told = self._behind.injection.settings()
        return told.discovery_address.rpartition(":")[0].strip("[]") if told else ""

    def _renew(self, serving: tls.Serving, signer: authorities.Authority) -> None:
        if serving.certificate.roots_pem != signer.roots_pem:
            _LOG.info("roots changed")
        serving.replace(self._certificate(signer))
        self._root_changed()

    def _follow(self, serving: tls.Serving, annex: keeping.Annex) -> None:
        """Bear the name that proxies are told to call, as soon as it is another."""
        known, settings_ = annex.told, self._behind.injection.settings()
        if known is not None and not known.unready and known.injection is settings_:
            return  # As after nearly all changes: whatever else the annex looks at, it looks soon.
        annex.look()
        authority, host = self._behind.trust.authority, self._discovery_host()
        if host and host not in serving.certificate.names and authority is not None:
            _LOG.info("serving under another name", host=host)
            serving.replace(self._certificate(authority))

    async def _keep_fresh(self, serving: tls.Serving) -> None:
        while True:
            left = serving.certificate.renew_at - self._clock.now()
            await self._clock.sleep(max(TRUST_LOOK_S, left / datetime.timedelta(seconds=1)))
            if self._behind.trust.authority is not None:
                serving.replace(self._certificate(self._behind.trust.authority))
