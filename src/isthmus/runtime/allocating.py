"""Writes down which addresses of our making hosts have, while we lead in our cluster.

A ServiceEntry of a user gets its addresses as status. For a service that clusters share there is
a ServiceEntry of ours in the system namespace, for people to see and for whoever leads next to
give the same addresses again. It goes when nobody shares the service any more; one that we have
not seen shared since we began stays for a while, since those who share it may only not have been
heard yet. Objects of that name that bear no label of ours are never touched.

Source: spec sections 7.7 and 7.8.
"""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

from isthmus.base import clock, errors, logs, tasks
from isthmus.engine import changes
from isthmus.fleet.sources import ObjectKey
from isthmus.kube import client, kinds, objects, problems
from isthmus.mesh.services import Protocol, ServiceKey
from isthmus.registry import recorded
from isthmus.runtime import assembly, reconciling
from isthmus.views import entry_statuses

_LOG = logs.Log("isthmus.addresses")
MANAGER: Final = "isthmus-addresses"
UNHEARD_S: Final = 300.0
"""For so long an entry of ours stays that nobody has shared since we began."""

NAME_TAKEN: Final = "ISM-RUN-030"
CONFLICT: Final = 409
PREFIX: Final = "autogen."
SHARED: Final = "isthmus.dev/shared-service"
"""Annotation of an entry of ours: the Services that it is about."""

PROTOCOLS: Final = {
    Protocol.HTTP: "HTTP",
    Protocol.HTTP2: "HTTP2",
    Protocol.GRPC: "GRPC",
    Protocol.TLS: "TLS",
    Protocol.TCP: "TCP",
    Protocol.AUTO: "TCP",
}

Key = tuple[str, str]
Manifest = dict[str, Any]


class Addresses:
    """Keeps ServiceEntries of the configuration cluster current, whenever we lead there."""

    def __init__(self, mesh: assembly.Mesh, *, system_clock: clock.Clock | None = None) -> None:
        self._mesh = mesh
        self._clock = system_clock or clock.SystemClock()
        self._leading: _Leading | None = None
        mesh.graph.listen(self._on_change)

    async def run(self, writes: client.Client, may_write: Callable[[], bool]) -> None:
        """Write until cancelled."""
        self._leading = leading = _Leading(self._mesh, writes, may_write, self._clock)
        written = self._mesh.views.written
        try:
            leading.mark(self._mesh.graph.items(written.shared), self._named())
            async with tasks.Nursery(system_clock=self._clock) as nursery:
                _ = nursery.keep("remove entries that nobody has shared", self._look_again)
                await leading.queue.run()
        finally:
            self._leading = None

    def findings(self) -> list[errors.Finding]:
        """Name the entries in whose place we would write."""
        leading = self._leading
        return [] if leading is None else [found for _, found in sorted(leading.taken.items())]

    def _named(self) -> list[Key]:
        objects_ = self._mesh.graph.items(self._mesh.sources.service_entries)
        return [(key.namespace, key.name) for key in objects_]

    async def _look_again(self) -> None:
        """Look at all entries once more when those who share something should have been heard."""
        await self._clock.sleep(UNHEARD_S)
        if self._leading is not None:
            self._leading.mark((), self._named())
        await asyncio.Event().wait()

    def _on_change(self, batch: changes.Changes) -> None:
        if self._leading is None:
            return
        written = self._mesh.views.written
        said = batch.of(self._mesh.sources.service_entries)
        named = [(key.namespace, key.name) for key in said]
        self._leading.mark(batch.of(written.shared), [*batch.of(written.given), *named])


class _Leading:
    """What is done while we lead."""

    def __init__(
        self,
        mesh: assembly.Mesh,
        writes: client.Client,
        may_write: Callable[[], bool],
        system_clock: clock.Clock,
    ) -> None:
        self._mesh = mesh
        self._writes = writes
        self._may_write = may_write
        self._clock = system_clock
        self._began = system_clock.monotonic()
        self._shared = set[Key]()
        self.taken: dict[Key, errors.Finding] = {}
        self.queue: reconciling.Reconciler[Key] = reconciling.Reconciler(
            "addresses", self._reconcile, system_clock=system_clock
        )

    def mark(self, shared: Iterable[ServiceKey], named: Iterable[Key]) -> None:
        """Say what may have changed: shared services, and entries."""
        system = self._mesh.seat.system_namespace
        self.queue.mark(*named, *((system, name_of(origin)) for origin in shared))

    # --- one entry ------------------------------------------------------------------------------

    async def _reconcile(self, key: Key) -> bool:
        if not self._may_write():
            return False
        graph, written = self._mesh.graph, self._mesh.views.written
        place = ObjectKey(self._mesh.seat.cluster, *key)
        found = graph.get(self._mesh.sources.service_entries, place)
        shared = self._shared_as(key)
        self.taken.pop(key, None)
        if shared is not None:
            self._shared.add(key)
            return await self._keep(key, found, shared)
        if found is None:
            return False
        if recorded.is_derived(found):
            return await self._remove(key, found)
        given = graph.get(written.given, key)
        return given is not None and await self._say(key, found, given)

    def _shared_as(self, key: Key) -> entry_statuses.Shared | None:
        origin = origin_of(key[1]) if key[0] == self._mesh.seat.system_namespace else None
        if origin is None:
            return None
        return self._mesh.graph.get(self._mesh.views.written.shared, origin)

    async def _keep(
        self, key: Key, found: objects.ServiceEntry | None, shared: entry_statuses.Shared
    ) -> bool:
        manifest = manifest_of(shared, namespace=key[0])
        if found is None:
            return await self._make(manifest)
        if not recorded.is_derived(found):
            self.taken[key] = _taken(key, shared.origin)
            return False
        if found.spec != manifest["spec"]:
            await self._writes.patch(
                kinds.SERVICE_ENTRY,
                key[1],
                manifest,
                namespace=key[0],
                patch="apply",
                field_manager=MANAGER,
                force=True,
            )
            return True  # Its status follows when it is heard of.
        return await self._say(key, found, shared.addresses)

    async def _make(self, manifest: Manifest) -> bool:
        """Make an entry, but never over one that we have only not heard of yet."""
        try:
            await self._writes.create(kinds.SERVICE_ENTRY, manifest, field_manager=MANAGER)
        except problems.ApiError as error:
            # Without the kind there is nothing to write it into.
            if error.status != CONFLICT and not error.is_missing:
                raise
        return True

    async def _remove(self, key: Key, found: objects.ServiceEntry) -> bool:
        is_old = self._clock.monotonic() - self._began >= UNHEARD_S
        if key[0] != self._mesh.seat.system_namespace or not (key in self._shared or is_old):
            return False
        _LOG.info("removing an entry that nobody shares", namespace=key[0], name=key[1])
        try:
            await self._writes.delete(
                kinds.SERVICE_ENTRY, key[1], namespace=key[0], uid=found.metadata.uid
            )
        except problems.ApiError as error:
            if not error.is_missing and error.status != CONFLICT:
                raise
        return True

    async def _say(
        self, key: Key, found: objects.ServiceEntry, given: entry_statuses.Given
    ) -> bool:
        """Write addresses into the status, unless they are there; what is not ours stays."""
        ranges = self._mesh.model.ranges
        before = tuple(recorded.addresses_of(found))
        is_ours = all(ranges.contains(value) for _, value in before)
        if before == given or (not given and not is_ours):
            return False
        told = [{"host": host, "value": value} for host, value in given]
        try:
            await self._writes.patch(
                kinds.SERVICE_ENTRY,
                key[1],
                {"status": {"addresses": told}},
                namespace=key[0],
                subresource="status",
                field_manager=MANAGER,
            )
        except problems.ApiError as error:
            if not error.is_missing:
                raise
        return True


def _taken(key: Key, origin: ServiceKey) -> errors.Finding:
    return errors.Finding(
        NAME_TAKEN,
        subject=f"ServiceEntry {key[0]}/{key[1]}",
        happened=f"has the name by which Service {origin.namespace}/{origin.name} is written down, "
        "and is not ours",
        still_working="the shared service, with its address; the entry, which is left alone",
        hint=f"give the entry another name; ours bear the label `{recorded.OURS}`",
    )


def name_of(origin: ServiceKey) -> str:
    """Return the name of the entry of a shared service."""
    return f"{PREFIX}{origin.namespace}.{origin.name}"


def origin_of(name: str) -> ServiceKey | None:
    """Return of which shared service an entry of a name would be; None for other names."""
    namespace, _, service = name.removeprefix(PREFIX).partition(".")
    if not name.startswith(PREFIX) or not namespace or not service or "." in service:
        return None
    return ServiceKey(namespace, service)


def manifest_of(shared: entry_statuses.Shared, *, namespace: str) -> Manifest:
    """Return the entry of a shared service; its status comes apart."""
    ports = [
        {"number": port.number, "name": port.name, "protocol": PROTOCOLS[port.protocol]}
        for port in shared.ports
        if port.protocol in PROTOCOLS
    ]
    return {
        "apiVersion": kinds.SERVICE_ENTRY.api_version,
        "kind": kinds.SERVICE_ENTRY.kind,
        "metadata": {
            "name": name_of(shared.origin),
            "namespace": namespace,
            "labels": {recorded.OURS: "true"},
            "annotations": {SHARED: f"{shared.origin.namespace}/{shared.origin.name}"},
        },
        "spec": {
            "hosts": [shared.host],
            "location": "MESH_INTERNAL",
            "resolution": "STATIC",
            "ports": ports,
        },
    }
