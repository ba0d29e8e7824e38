"""One cluster followed with one credential: a client and an informer for each kind.

A generation hands on what changes only while it is live. Once closed it can never speak again,
so that what it last held cannot harm the generation that came after it.

An API server is known by the uid of its namespace `kube-system`. If another one answers at the
same address later, with the same authority, nothing that it says is believed.

    IsthmusError
    └── OtherCluster     another cluster answers than the one that was linked

Source: design rule 4; security rules RS-1 and RS-5.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from isthmus.base import clock, errors, tasks
from isthmus.fleet import overlays, sources
from isthmus.kube import access, client, gateway_api, informer, kinds, objects, sharing
from isthmus.mesh import trust
from isthmus.mesh.identities import ClusterId

_IDENTITY = ("", "kube-system")


class OtherCluster(errors.IsthmusError):
    """Another cluster answers than the one that was linked."""

    code = "ISM-FLEET-015"


@dataclass(frozen=True, slots=True)
class Followed:
    """One kind that is followed.

    Attributes:
        collection: Name of the source that it fills.
        optional: Whether the API server may not know the kind.
        system_only: Whether only the system namespace is followed.
        keep: Which objects count.
        labels: A label selector.
    """

    collection: str
    kind: kinds.Kind
    decode: type[objects.Object]
    fields: str = ""
    labels: str = ""
    optional: bool = False
    system_only: bool = False
    keep: Callable[[str], bool] = lambda name: True


def _is_setting(name: str) -> bool:
    """Tell settings from the locks beside them, which change every few seconds."""
    return name.startswith("istio") and not name.endswith(("-election", "-leader"))


EVERYWHERE = (
    Followed("namespaces", kinds.NAMESPACE, objects.Namespace),
    Followed("nodes", kinds.NODE, objects.Node),
    Followed("services", kinds.SERVICE, objects.Service),
    Followed("endpoint_slices", kinds.ENDPOINT_SLICE, objects.EndpointSlice),
    Followed("pods", kinds.POD, objects.Pod, fields="status.phase!=Failed"),
)
"""What is followed in every cluster."""

SETTINGS = Followed(
    "config_maps",
    kinds.CONFIG_MAP,
    objects.ConfigMap,
    # Snapshots of clusters are large, and for whoever starts only.
    labels="!isthmus.dev/remote-snapshot",
    system_only=True,
    keep=_is_setting,
)

BUNDLES = Followed(
    "trust_bundles",
    kinds.CONFIG_MAP,
    objects.ConfigMap,
    labels=trust.DOMAIN_LABEL,
    system_only=True,
)
"""What is followed beside the settings: who signs for which trust domain."""

CONFIGURATION = (
    SETTINGS,
    BUNDLES,
    Followed("gateways", kinds.GATEWAY, objects.Gateway, optional=True),
    Followed("virtual_services", kinds.VIRTUAL_SERVICE, objects.FreeForm, optional=True),
    Followed("destination_rules", kinds.DESTINATION_RULE, objects.FreeForm, optional=True),
    Followed("service_entries", kinds.SERVICE_ENTRY, objects.ServiceEntry, optional=True),
    Followed("authorization_policies", kinds.AUTHORIZATION_POLICY, objects.FreeForm, optional=True),
    Followed(
        "request_authentications", kinds.REQUEST_AUTHENTICATION, objects.FreeForm, optional=True
    ),
    Followed(
        "peer_authentications", kinds.PEER_AUTHENTICATION, objects.PeerAuthentication, optional=True
    ),
)
"""What is followed in the configuration cluster only."""

GATEWAY_API = (
    Followed("gateway_classes", kinds.GATEWAY_CLASS, gateway_api.GatewayClass, optional=True),
    Followed("kubernetes_gateways", kinds.KUBERNETES_GATEWAY, gateway_api.Gateway, optional=True),
    Followed("http_routes", kinds.HTTP_ROUTE, gateway_api.HttpRoute, optional=True),
)
"""The same, where Gateways of the Gateway API are obeyed."""

Changes = Mapping[str, Mapping[sources.ObjectKey, objects.Object | None]]
"""By collection and key the object to be; None deletes."""

Take = Callable[[], Changes]
"""Returns what has changed since it was returned last."""

Follower = informer.Informer[objects.Object, sources.ObjectKey]


def joined(parts: Iterable[Changes]) -> Changes:
    """Return what has changed in some clusters as one change."""
    whole: dict[str, dict[sources.ObjectKey, objects.Object | None]] = {}
    for part in parts:
        for collection, entries in part.items():
            whole.setdefault(collection, {}).update(entries)
    return whole


class Generation:
    """Follows one cluster with one credential."""

    def __init__(  # noqa: PLR0913  # each argument is an independent choice
        self,
        cluster: ClusterId,
        number: int,
        reached_by: access.Access,
        *,
        namespace: str,
        followed: tuple[Followed, ...],
        on_changes: Callable[[Take], None],
        system_clock: clock.Clock,
    ) -> None:
        self.cluster = cluster
        self.number = number
        self.client = client.Client(reached_by, system_clock=system_clock)
        self.is_live = False
        self.version = 0
        """Grows with every change that was handed on."""
        self._clock = system_clock
        self._on_changes = on_changes
        self._nursery = tasks.Nursery(system_clock=system_clock)
        self._usurper: errors.Finding | None = None
        self._pending: dict[str, dict[sources.ObjectKey, objects.Object | None]] = {}
        self._findings: dict[tuple[str, sources.ObjectKey], errors.Finding] = {}
        self._kept = {
            one.collection: overlays.Overlay(
                cluster, functools.partial(sources.table, one.collection)
            )
            for one in followed
        }
        self._taken: Mapping[str, tuple[sources.ObjectKey, ...]] = {}
        self._informers = {
            one.collection: self._informer(one, namespace=namespace) for one in followed
        }
        self._keep = {one.collection: one.keep for one in followed}

    def _informer(self, one: Followed, *, namespace: str) -> Follower:
        return informer.Informer(
            self.client,
            one.kind,
            one.decode,
            on_batch=lambda changes: self._batch(one, changes),
            on_finding=lambda key, found: self._found(one.collection, key, found),
            namespace=namespace if one.system_only else "",
            fields=one.fields,
            labels=one.labels,
            optional=one.optional,
            admit=self._admit,
            share=sharing.lean,
            # Whoever is handed an object keeps it by the key that we keep it by.
            named=functools.partial(sources.ObjectKey, self.cluster),
            cache=self._kept[one.collection],
            system_clock=self._clock,
        )

    def open(self, *, on_synced: Callable[[], None]) -> None:
        """Connect and begin to follow; call `on_synced` once every kind is known as a whole.

        The call never comes after `close`.
        """
        self.client.open()
        for collection, one in self._informers.items():
            _ = self._nursery.keep(f"follow {collection} of {self.cluster}", one.run)
        _ = self._nursery.start(f"sync {self.cluster}", self._sync(on_synced))

    async def _sync(self, on_synced: Callable[[], None]) -> None:
        for one in self._informers.values():
            await one.synced.wait()
        on_synced()

    async def _admit(self) -> None:
        """Make sure that it is still the same cluster that answers."""
        followed = self._informers.get("namespaces")
        linked = (
            followed.items.get(sources.ObjectKey(self.cluster, *_IDENTITY)) if followed else None
        )
        if linked is None or not linked.metadata.uid:
            return
        found = await self.client.list_(kinds.NAMESPACE, fields=f"metadata.name={_IDENTITY[1]}")
        uid = str(found[0]["metadata"].get("uid", "")) if found else ""
        if uid and uid != linked.metadata.uid:
            error = OtherCluster(f"another cluster answers in the place of `{self.cluster}`")
            self._usurper = errors.Finding(
                error.code,
                f"cluster {self.cluster}",
                f"{error.happened}: its namespace kube-system has the uid {uid[:40]},"
                f" not {linked.metadata.uid}",
                still_working="what was known of the cluster that was linked",
                hint="if it is meant, link it again: isthmus rotate-remote-secret",
            )
            raise error
        self._usurper = None

    def content(self) -> dict[str, dict[sources.ObjectKey, objects.Object]]:
        """Return everything that the cluster holds, by collection; and forget what was pending."""
        self._pending.clear()
        return self.items()

    def items(self) -> dict[str, dict[sources.ObjectKey, objects.Object]]:
        """Return everything that the cluster holds, by collection."""
        return {
            collection: {
                key: value for key, value in one.items.items() if self._keep[collection](key.name)
            }
            for collection, one in self._informers.items()
        }

    def rest_on(self, held: Callable[[str], overlays.Held]) -> None:
        """Keep nothing that the sources hold, which were just made what this cluster holds."""
        for collection, kept in self._kept.items():
            kept.rest_on(held(collection))

    def findings(self) -> tuple[errors.Finding, ...]:
        """Return what is wrong with single objects."""
        usurped = (self._usurper,) if self._usurper else ()
        return (*usurped, *self._findings.values())

    def error(self) -> str:
        """Return what the last failure said; empty while all kinds are followed well."""
        failures = (one.health().error for one in self._informers.values())
        return next((failure for failure in failures if failure), "")

    def age_s(self) -> float:
        """Return how old the oldest kind is that is not followed at present."""
        now = self._clock.monotonic()
        healths = [one.health() for one in self._informers.values()]
        ages = [now - (one.answered_at or now) for one in healths if one.error]
        return max(ages, default=0.0)

    async def close(self) -> None:
        """Stop for good; nothing is handed on any more from the moment of the call."""
        self.is_live = False
        self._pending.clear()
        await self._nursery.close()
        for one in self._informers.values():
            one.mute()
        await self.client.close()

    def _batch(
        self, one: Followed, changes: Mapping[sources.ObjectKey, objects.Object | None]
    ) -> None:
        if not self.is_live:
            return
        if not self._pending:
            self._on_changes(self._take)
        pending = self._pending.setdefault(one.collection, {})
        for key, value in changes.items():
            if one.keep(key.name):
                pending[key] = value

    def _take(self) -> Changes:
        pending, self._pending = self._pending, {}
        if not self.is_live or not any(pending.values()):
            return {}
        # What was taken before the sources hold by now; of what they do not nothing is forgotten.
        for collection, keys in self._taken.items():
            self._kept[collection].settle(keys)
        self._taken = {collection: tuple(entries) for collection, entries in pending.items()}
        self.version += 1
        return pending

    def _found(self, collection: str, key: sources.ObjectKey, found: errors.Finding | None) -> None:
        if found is None:
            self._findings.pop((collection, key), None)
        else:
            self._findings[collection, key] = found
