"""Runs what Gateway objects ask for, while we lead in our cluster, and says what became of them.

What must run is decided in `gateways`; here it is followed and written. Level-triggered: every
change of a Gateway, of its class or of what runs for it looks at the whole of that Gateway again.
What bears another owner is never touched, even if it has the very name that we need.

Source: spec sections 6.6, 7.6 and 7.7.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from isthmus.base import clock, logs, tasks
from isthmus.gateways import statuses, workloads
from isthmus.kube import client, gateway_api, informer, kinds, objects, problems
from isthmus.mesh import gateway_classes
from isthmus.mesh.gateway_classes import Behaviour
from isthmus.runtime import reconciling, route_statuses

_LOG = logs.Log("isthmus.gateways")
MANAGER: Final = "isthmus-gateways"
CONFLICT: Final = 409
UNFIT: Final = frozenset({400, 403, 422})
"""An API server's answers to what no second try would make better."""

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Place:
    """Whose Gateways are run.

    Attributes:
        revision: The label `istio.io/rev` of a Gateway names it; without one it is the default's.
        domain: DNS suffix of services.
    """

    revision: str = "default"
    domain: str = "cluster.local"


class Gateways:
    """Runs the Gateways of one cluster."""

    def __init__(
        self,
        writes: client.Client,
        may_write: Callable[[], bool],
        *,
        place: Place,
        system_clock: clock.Clock | None = None,
    ) -> None:
        self._writes = writes
        self._may_write = may_write
        self._place = place
        self._clock = system_clock or clock.SystemClock()
        self._problems: dict[Key, str] = {}
        self._versions: dict[tuple[str, Key], object] = {}
        self._applied: dict[tuple[str, Key], workloads.Manifest] = {}
        self._queue: reconciling.Reconciler[Key] = reconciling.Reconciler(
            "gateways", self._reconcile, system_clock=self._clock
        )
        self._class_queue: reconciling.Reconciler[str] = reconciling.Reconciler(
            "gateway classes", self._reconcile_class, system_clock=self._clock
        )
        self._classes = self._followed(
            kinds.GATEWAY_CLASS, gateway_api.GatewayClass, self._on_classes, optional=True
        )
        self._gateways = self._followed(
            kinds.KUBERNETES_GATEWAY, gateway_api.Gateway, self._on_gateways, optional=True
        )
        self._services = self._children_of(kinds.SERVICE, objects.Service)
        self._deployments = self._children_of(kinds.DEPLOYMENT, gateway_api.Deployment)
        self._accounts = self._children_of(kinds.SERVICE_ACCOUNT, objects.Object)
        self._routes = route_statuses.Routes(
            writes,
            may_write,
            parent_of=self._ours,
            on_parents=lambda keys: self._queue.mark(*keys),
            system_clock=self._clock,
        )

    def _children_of(
        self, kind: kinds.Kind, decode: type[informer.V]
    ) -> informer.Informer[informer.V]:
        def changed(changes: Mapping[informer.Key, informer.V | None]) -> None:
            for key in changes:
                self._applied.pop((kind.kind, key), None)
                self._queue.mark(*self._owners_of(key))

        return self._followed(kind, decode, changed)

    def _followed(
        self,
        kind: kinds.Kind,
        decode: type[informer.V],
        call: Callable[[Mapping[informer.Key, informer.V | None]], None],
        *,
        optional: bool = False,
    ) -> informer.Informer[informer.V]:
        return informer.Informer(
            self._writes,
            kind,
            decode,
            on_batch=call,
            labels="" if optional else gateway_classes.MANAGED_LABEL,
            optional=optional,
            system_clock=self._clock,
        )

    async def run(self) -> None:
        """Run Gateways until cancelled."""
        async with tasks.Nursery(system_clock=self._clock) as nursery:
            for one in (self._accounts, self._services, self._deployments, self._classes):
                _ = nursery.keep(f"follow {one.kind.plural} of gateways", one.run)
            for one in (self._accounts, self._services, self._deployments, self._classes):
                # Only what is known to be missing may be made.
                await one.synced.wait()
            await self._routes.follow(nursery)
            self._class_queue.mark(*gateway_classes.CLASSES)
            _ = nursery.keep("follow gateways", self._gateways.run)
            _ = nursery.keep("keep gateway classes", self._class_queue.run)
            await self._queue.run()

    # --- what may have changed ------------------------------------------------------------------

    def _on_classes(self, changes: Mapping[Key, gateway_api.GatewayClass | None]) -> None:
        self._class_queue.mark(*(name for _, name in changes))
        self._on_gateways(self._gateways.items)

    def _on_gateways(self, changes: Mapping[Key, gateway_api.Gateway | None]) -> None:
        self._queue.mark(*changes)
        self._routes.parents_changed(set(changes))

    def _owners_of(self, child: Key) -> set[Key]:
        """Return the Gateways for which an object of that name may run."""
        namespace, name = child
        found = {
            key
            for key, gateway in self._gateways.items.items()
            if key[0] == namespace
            and name in (gateway.metadata.name, _name(gateway, self._behaviour_of(gateway)))
        }
        for one in self._children():
            known = one.items.get(child)
            if known is not None:
                found |= {(namespace, owner.name) for owner in _owners(known)}
        return found

    def _children(self) -> tuple[informer.Informer[Any], ...]:
        return (self._accounts, self._services, self._deployments)

    # --- classes --------------------------------------------------------------------------------

    async def _reconcile_class(self, name: str) -> bool:
        if not self._may_write() or self._classes.health().missing:
            return False
        found = self._classes.items.get(("", name))
        if found is None:
            return await self._make_class(name)
        if found.spec.controller_name not in gateway_classes.BY_CONTROLLER:
            return False
        status = statuses.of_class(found, now=self._now())
        if statuses.is_said_of_class(found, status):
            return False
        await self._write_status(kinds.GATEWAY_CLASS, ("", name), status)
        return True

    async def _make_class(self, name: str) -> bool:
        behaviour = gateway_classes.CLASSES.get(name)
        if behaviour is None:
            return False
        manifest = {
            "apiVersion": kinds.GATEWAY_CLASS.api_version,
            "kind": kinds.GATEWAY_CLASS.kind,
            "metadata": {"name": name},
            "spec": {"controllerName": behaviour.controller},
        }
        try:
            await self._writes.create(kinds.GATEWAY_CLASS, manifest, field_manager=MANAGER)
        except problems.ApiError as error:
            # Somebody else was faster, or the kind has just gone.
            if error.status != CONFLICT and not error.is_missing:
                raise
        return True

    def _behaviour_of(self, gateway: gateway_api.Gateway) -> Behaviour | None:
        """Return what a Gateway's class is, if it is one of ours."""
        revision = gateway.metadata.label(workloads.REVISION_LABEL) or "default"
        found = self._classes.items.get(("", gateway.spec.gateway_class_name))
        if found is None or revision != self._place.revision:
            return None
        return gateway_classes.BY_CONTROLLER.get(found.spec.controller_name)

    def _ours(self, key: Key) -> tuple[gateway_api.Gateway, Behaviour] | None:
        """Return a Gateway that can be served, if it is one of ours."""
        gateway = self._gateways.items.get(key)
        behaviour = self._behaviour_of(gateway) if gateway is not None else None
        return (gateway, behaviour) if gateway is not None and behaviour is not None else None

    # --- gateways -------------------------------------------------------------------------------

    async def _reconcile(self, key: Key) -> bool:
        gateway = self._gateways.items.get(key)
        if gateway is not None and gateway.metadata.deletion_timestamp:
            return False  # Kubernetes removes what it owns.
        if not self._may_write():
            return False
        self._problems.pop(key, None)
        if gateway is None:
            return False  # Kubernetes removes what has lost its owner.
        behaviour = self._behaviour_of(gateway)
        if behaviour is None:
            return await self._remove(gateway, keep="")
        wanted = self._wanted(gateway, behaviour)
        wrote = await self._remove(gateway, keep=wanted.name if wanted else "")
        if wanted is not None:
            wrote = await self._make(key, gateway, wanted) or wrote
        return await self._say(key, gateway, behaviour) or wrote

    def _wanted(
        self, gateway: gateway_api.Gateway, behaviour: Behaviour
    ) -> workloads.Wanted | None:
        if workloads.is_manual(gateway) or workloads.fault_of(gateway, behaviour)[1]:
            return None
        return workloads.wanted(gateway, behaviour, revision=self._place.revision)

    async def _remove(self, gateway: gateway_api.Gateway, *, keep: str) -> bool:
        """Remove what runs for a Gateway and is wanted no more."""
        wrote = False
        for one in self._children():
            for (namespace, name), child in list(one.items.items()):
                is_own = namespace == gateway.metadata.namespace and _of(gateway, child) is not None
                if not is_own or name == keep or child.metadata.deletion_timestamp:
                    continue
                _LOG.info("removing", kind=one.kind.kind, namespace=namespace, name=name)
                try:
                    await self._writes.delete(
                        one.kind, name, namespace=namespace, uid=child.metadata.uid
                    )
                except problems.ApiError as error:
                    if not error.is_missing and error.status != CONFLICT:
                        raise
                wrote = True
        return wrote

    async def _make(self, key: Key, gateway: gateway_api.Gateway, wanted: workloads.Wanted) -> bool:
        wrote = False
        for one, manifest in zip(self._children(), wanted.manifests(), strict=True):
            try:
                wrote = await self._make_one(one, gateway, manifest) or wrote
            except problems.ApiError as error:
                if error.status not in UNFIT | {CONFLICT}:
                    raise
                self._problems[key] = error.happened[:1000]
                return wrote
        return wrote

    async def _make_one(
        self,
        one: informer.Informer[Any],
        gateway: gateway_api.Gateway,
        manifest: workloads.Manifest,
    ) -> bool:
        key = (gateway.metadata.namespace, str(manifest["metadata"]["name"]))
        known = one.items.get(key)
        if known is not None and _of(gateway, known) is None:
            raise _taken(one.kind.kind, key[1])
        if self._applied.get((one.kind.kind, key)) == manifest:
            return False
        if known is None:
            there = await self._writes.find(one.kind, key[1], namespace=key[0])
            owners = (there or {}).get("metadata", {}).get("ownerReferences") or ()
            if there is not None and gateway.metadata.uid not in {one["uid"] for one in owners}:
                raise _taken(one.kind.kind, key[1])
        stored = await self._writes.patch(
            one.kind,
            key[1],
            manifest,
            namespace=key[0],
            patch="apply",
            field_manager=MANAGER,
            force=known is not None,
        )
        before = self._versions.get((one.kind.kind, key))
        self._versions[one.kind.kind, key] = _version(stored)
        self._applied[one.kind.kind, key] = manifest
        return before != _version(stored)

    async def _say(self, key: Key, gateway: gateway_api.Gateway, behaviour: Behaviour) -> bool:
        name = workloads.name_of(gateway, behaviour)
        place = (key[0], name)
        service = self._services.items.get(place)
        deployment = self._deployments.items.get(place)
        seen = statuses.seen_of(
            _of(gateway, service),
            _of(gateway, deployment),
            host=f"{name}.{key[0]}.svc.{self._place.domain}",
            problem=self._problems.get(key, ""),
        )
        attached = self._routes.attached_to(gateway, behaviour)
        status = statuses.of_gateway(gateway, behaviour, seen, now=self._now(), attached=attached)
        if statuses.is_said(gateway, status):
            return False
        await self._write_status(kinds.KUBERNETES_GATEWAY, key, status)
        return True

    async def _write_status(self, kind: kinds.Kind, key: Key, status: statuses.Status) -> None:
        try:
            await self._writes.patch(
                kind,
                key[1],
                {"status": status},
                namespace=key[0],
                subresource="status",
                field_manager=MANAGER,
            )
        except problems.ApiError as error:
            if not error.is_missing:
                raise

    def _now(self) -> str:
        return self._clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(gateway: gateway_api.Gateway, behaviour: Behaviour | None) -> str:
    return workloads.name_of(gateway, behaviour) if behaviour is not None else ""


def _owners(child: objects.Object) -> list[objects.OwnerReference]:
    return [
        one
        for one in child.metadata.owner_references
        if one.kind == "Gateway" and one.api_version.startswith(f"{gateway_classes.GROUP}/")
    ]


O = TypeVar("O", bound=objects.Object)  # noqa: E741


def _of(gateway: gateway_api.Gateway, child: O | None) -> O | None:
    """Return an object if it runs for a Gateway."""
    is_own = child is not None and any(
        owner.uid == gateway.metadata.uid for owner in _owners(child)
    )
    return child if is_own else None


def _taken(kind: str, name: str) -> problems.ApiError:
    text = f"{kind} `{name}` exists already and does not belong to this Gateway"
    return problems.ApiError(CONFLICT, "Conflict", text)


def _version(stored: client.Obj) -> object:
    """Return what changes with what an object wants."""
    metadata = stored["metadata"]
    return metadata.get("generation") or metadata.get("resourceVersion")
