"""Hands gateways the certificates that they show to strangers, from Secrets beside them.

A gateway gets what a Gateway object names for it, from its own namespace of its own cluster, if
that cluster's API server says that the gateway's account may read that very Secret. Each Secret is
followed by name, with rights that somebody must have granted for it: no others are ever read. A
Secret that breaks leaves the last good one in use; keys are in no graph, log, page or snapshot.

Source: spec sections 4.2 and 4.5; security rules XA-3, CA-10 and RS-4.
"""

import asyncio
import contextlib
import datetime
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from isthmus.base import clock, errors, logs, tasks
from isthmus.ca import served
from isthmus.engine import changes
from isthmus.kube import client as kube_client
from isthmus.kube import informer, kinds, objects, reviews
from isthmus.mesh.identities import ClusterId
from isthmus.resources import snapshot
from isthmus.resources.envoy import secrets, tls
from isthmus.runtime import assembly, catalog
from isthmus.views import view

_LOG = logs.Log("isthmus.credentials")

UNUSABLE: Final = "ISM-RUN-011"
REVIEW_EVERY_S: Final = 60.0
TRY_EVERY_S: Final = 5.0

Clients = Callable[[ClusterId], kube_client.Client]
"""Returns the connection to a cluster; raises an `IsthmusError` if there is none."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a Secret is."""

    cluster: ClusterId
    namespace: str
    name: str

    @property
    def title(self) -> str:
        """What people call it."""
        return f"Secret {self.namespace}/{self.name} in cluster `{self.cluster}`"


@dataclass(slots=True)
class _Followed:
    """One Secret that is followed through one connection."""

    client: kube_client.Client
    informer: informer.Informer[objects.Secret]
    task: "asyncio.Task[None]"

    def content(self) -> Mapping[str, str] | None:
        found = next(iter(self.informer.items.values()), None)
        return None if found is None else found.data or {}


@dataclass(frozen=True, slots=True)
class _Review:
    """What an API server last said about an account and a Secret; `fault` if it said nothing."""

    allowed: bool
    at_s: float
    fault: str = ""


@dataclass(slots=True)
class _Round:
    """What one look found.

    Attributes:
        waits: Whether something is being read for the first time.
    """

    findings: dict[tuple[Place, str], errors.Finding] = field(default_factory=dict)
    waits: bool = False

    def note(self, place: Place, happened: str, *, hint: str = "") -> None:
        self.findings[place, happened] = errors.Finding(
            UNUSABLE,
            subject=place.title,
            happened=f"cannot be used by a gateway: {happened}",
            still_working="all other hosts of the gateway; for these, what was good before it",
            hint=hint or "docs/howto/https.md shows what it must hold and who may read it",
        )


class Credentials:
    """Follows the Secrets that connected gateways need, and puts them where gateways look."""

    def __init__(
        self,
        mesh: assembly.Mesh,
        shelves: catalog.Catalog[view.Scope],
        *,
        client: Clients,
        system_clock: clock.Clock,
    ) -> None:
        self._mesh = mesh
        self._shelves = shelves
        self._client = client
        self._clock = system_clock
        self._nursery = tasks.Nursery(system_clock=system_clock)
        self._followed: dict[Place, _Followed] = {}
        self._reviews: dict[tuple[view.CredentialScope, str], _Review] = {}
        self._shown: set[view.CredentialScope] = set()
        self._findings: tuple[errors.Finding, ...] = ()
        self._stirred = asyncio.Event()
        mesh.graph.listen(self._heard)

    def findings(self) -> tuple[errors.Finding, ...]:
        """Return what is wrong with Secrets that are needed."""
        return self._findings

    def _heard(self, batch: changes.Changes) -> None:
        if batch.of(self._mesh.views.credentials):
            self._stirred.set()

    async def run(self) -> None:
        """Follow until cancelled."""
        try:
            while True:
                self._stirred.clear()
                is_settled = await self._look()
                wait_s = REVIEW_EVERY_S if is_settled else TRY_EVERY_S
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s if self._wanted() else None):
                        await self._stirred.wait()
        finally:
            await self._nursery.close()
            self._followed.clear()

    def _wanted(self) -> dict[view.CredentialScope, dict[str, bool]]:
        wanted: dict[view.CredentialScope, dict[str, bool]] = {}
        for needed in self._mesh.graph.items(self._mesh.views.credentials).values():
            names = wanted.setdefault(needed.scope, {})
            for name, asks in needed.names:
                names[name] = names.get(name, False) or asks
        return wanted

    async def _look(self) -> bool:
        """Bring everything up to date; return whether nothing is left to be tried again soon."""
        wanted = self._wanted()
        found = _Round()
        await self._review(wanted)
        self._follow(self._permitted(wanted), found)
        # Somebody may have left while an API server was asked.
        still = self._wanted()
        for scope, names in still.items():
            self._show(scope, dict(self._resources(scope, names, found)))
        for scope in self._shown - still.keys():
            self._show(scope, {})
            self._shelves.drop(scope)
        self._shown = set(still)
        self._tell(found)
        return not found.findings and not found.waits

    def _permitted(
        self, wanted: Mapping[view.CredentialScope, Mapping[str, bool]]
    ) -> frozenset[Place]:
        """Return the Secrets that somebody may have: no others are read."""
        return frozenset(
            place
            for scope, names in wanted.items()
            for place in _places(scope, names)
            if (review := self._reviews.get((scope, place.name))) and review.allowed
        )

    def _tell(self, found: _Round) -> None:
        fresh = tuple(found.findings[key] for key in sorted(found.findings))
        for finding in fresh:
            if finding not in self._findings:
                _LOG.warning(
                    "credential unusable", subject=finding.subject, reason=finding.happened
                )
        self._findings = fresh

    # --- following --------------------------------------------------------------------------------

    def _follow(self, places: frozenset[Place], found: _Round) -> None:
        for place in self._followed.keys() - places:
            self._followed.pop(place).task.cancel()
        for place in sorted(places):
            try:
                client = self._client(place.cluster)
            except errors.IsthmusError as error:
                found.note(place, f"it cannot be read: {error.happened}")
                continue
            known = self._followed.get(place)
            if known is None or known.client is not client:
                if known is not None:
                    known.task.cancel()
                self._followed[place] = self._begun(place, client)

    def _begun(self, place: Place, client: kube_client.Client) -> _Followed:
        follower = informer.Informer(
            client,
            kinds.SECRET,
            objects.Secret,
            on_batch=lambda _: self._stirred.set(),
            namespace=place.namespace,
            fields=f"metadata.name={place.name}",
            system_clock=self._clock,
        )
        task = self._nursery.keep(f"follow {place.title}", follower.run)
        return _Followed(client, follower, task)

    # --- permission -------------------------------------------------------------------------------

    async def _review(self, wanted: Mapping[view.CredentialScope, Mapping[str, bool]]) -> None:
        asked = {
            (scope, place.name) for scope, some in wanted.items() for place in _places(scope, some)
        }
        for key in self._reviews.keys() - asked:
            del self._reviews[key]
        for scope, name in sorted(asked, key=str):
            known = self._reviews.get((scope, name))
            now_s = self._clock.monotonic()
            keeps_s = REVIEW_EVERY_S if known and known.allowed else TRY_EVERY_S
            if known is None or now_s - known.at_s >= keeps_s:
                self._reviews[scope, name] = await self._asked(scope, name, known, now_s)

    async def _asked(
        self, scope: view.CredentialScope, name: str, known: _Review | None, now_s: float
    ) -> _Review:
        try:
            allowed = await reviews.may_read_secret(
                self._client(scope.cluster),
                scope.namespace,
                name,
                service_account=scope.service_account,
            )
        except errors.IsthmusError as error:
            # What was permitted stays so while nobody can be asked.
            return _Review(bool(known and known.allowed), now_s, error.happened)
        return _Review(allowed, now_s)

    def _is_allowed(self, scope: view.CredentialScope, place: Place, found: _Round) -> bool:
        review = self._reviews.get((scope, place.name))
        if review is None:
            return False
        if not review.allowed:
            who = f"account `{scope.service_account}` of the gateway"
            why = review.fault and f"nobody can say whether {who} may read it: {review.fault}"
            found.note(place, why or f"it may not be read by {who}")
        return review.allowed

    # --- what is shown ----------------------------------------------------------------------------

    def _resources(
        self, scope: view.CredentialScope, names: Mapping[str, bool], found: _Round
    ) -> Iterator[tuple[str, snapshot.Resource | None]]:
        for name, asks in names.items():
            own = Place(scope.cluster, scope.namespace, name)
            yield tls.credential(name), self._certificate(scope, own, found)
            if asks:
                yield tls.credential(name, of_clients=True), self._authorities(scope, own, found)

    def _certificate(
        self, scope: view.CredentialScope, place: Place, found: _Round
    ) -> snapshot.Resource | None:
        name = tls.credential(place.name)
        content = self._content(scope, place, found)
        if content is None:
            return self._kept(scope, place, name)
        try:
            pair = served.pair_of(content)
        except errors.IsthmusError as error:
            found.note(place, error.happened)
            return self._held(scope, name)
        if pair.ends_at <= self._clock.now():
            found.note(place, f"its certificate ended at {_minute(pair.ends_at)}")
        return secrets.certificate(name, chain_pem=pair.chain_pem, key_pem=pair.key_pem)

    def _authorities(
        self, scope: view.CredentialScope, own: Place, found: _Round
    ) -> snapshot.Resource | None:
        name = tls.credential(own.name, of_clients=True)
        apart = Place(own.cluster, own.namespace, own.name + tls.CLIENTS)
        # Who has only one Secret need not permit another.
        content = self._content(scope, own, _Round())
        place = own
        if content is None or not served.names_authorities(content):
            place, content = apart, self._content(scope, apart, found)
        if content is None:
            return self._kept(scope, place, name)
        try:
            accepted = served.authorities_of(content)
        except errors.IsthmusError as error:
            found.note(place, error.happened)
            return self._held(scope, name)
        return secrets.authorities(
            name, roots_pem=accepted.roots_pem, revoked_pem=accepted.revoked_pem
        )

    def _content(
        self, scope: view.CredentialScope, place: Place, found: _Round
    ) -> Mapping[str, str] | None:
        """Return what a Secret holds, if the gateways of a scope may have it."""
        followed = self._followed.get(place)
        if not self._is_allowed(scope, place, found) or followed is None:
            return None
        if not followed.informer.synced.is_set():
            found.waits = True
            fault = followed.informer.health().error
            if fault:
                found.note(place, f"it cannot be read: {fault}")
            return None
        content = followed.content()
        if content is None:
            found.note(place, "it is not there")
        return content

    def _kept(
        self, scope: view.CredentialScope, place: Place, name: str
    ) -> snapshot.Resource | None:
        """Return what goes on being shown of a Secret that is not known at present."""
        review = self._reviews.get((scope, place.name))
        followed = self._followed.get(place)
        is_gone = followed is not None and followed.informer.synced.is_set()
        return None if is_gone or not (review and review.allowed) else self._held(scope, name)

    def _held(self, scope: view.CredentialScope, name: str) -> snapshot.Resource | None:
        return self._shelves.snapshot((scope,)).of(snapshot.SECRETS).get(name)

    def _show(
        self, scope: view.CredentialScope, wanted: Mapping[str, snapshot.Resource | None]
    ) -> None:
        shown = self._shelves.snapshot((scope,)).of(snapshot.SECRETS)
        changed = [
            (view.SliceKey(scope, view.Kind.SECRET, name), snapshot.SECRETS, wanted.get(name))
            for name in sorted({*wanted, *shown})
            if shown.get(name) != wanted.get(name)
        ]
        if changed:
            self._shelves.change(changed)


def _places(scope: view.CredentialScope, names: Mapping[str, bool]) -> Iterator[Place]:
    for name, asks in names.items():
        yield Place(scope.cluster, scope.namespace, name)
        if asks:
            yield Place(scope.cluster, scope.namespace, name + tls.CLIENTS)


def _minute(when: datetime.datetime) -> str:
    return when.strftime("%Y-%m-%d %H:%M UTC")
