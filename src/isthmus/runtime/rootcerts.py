"""Puts the mesh's roots into every namespace of a cluster, where pods mount them.

The ConfigMap is shared: only our key and label are set, all else stays. Written by
compare-and-swap, only when something differs, and only while the caller still may.

Source: spec section 1.6.
"""

from collections.abc import Callable, Mapping

from isthmus.base import clock, tasks
from isthmus.kube import client, informer, kinds, objects, problems
from isthmus.runtime import reconciling

NAME = "istio-ca-root-cert"
KEY = "root-cert.pem"
LABEL = "istio.io/config"
IGNORED = frozenset({"kube-public", "kube-node-lease", "local-path-storage"})
FORBIDDEN = 403
MANAGER = "isthmus-discovery"


class RootCertificates:
    """Keeps one cluster's root ConfigMaps."""

    def __init__(
        self,
        writes: client.Client,
        *,
        root: Callable[[], str],
        may_write: Callable[[], bool] = lambda: True,
        system_clock: clock.Clock | None = None,
    ) -> None:
        """Prepare.

        Args:
            writes: The cluster.
            root: The roots as PEM; empty while there are none, then nothing is written.
            may_write: Asked before every write.
            system_clock: Time.
        """
        self._writes = writes
        self._root = root
        self._may_write = may_write
        self._clock = system_clock or clock.SystemClock()
        self._queue: reconciling.Reconciler[str] = reconciling.Reconciler(
            "root certificates", self._reconcile, system_clock=self._clock
        )
        self._namespaces = self._followed(kinds.NAMESPACE, objects.Namespace, self._on_namespaces)
        self._config_maps = self._followed(
            kinds.CONFIG_MAP, objects.ConfigMap, self._on_config_maps, f"metadata.name={NAME}"
        )

    def _followed(
        self,
        kind: kinds.Kind,
        decode: type[informer.V],
        call: Callable[[Mapping[informer.Key, informer.V | None]], None],
        fields: str = "",
    ) -> informer.Informer[informer.V]:
        return informer.Informer(
            self._writes, kind, decode, on_batch=call, fields=fields, system_clock=self._clock
        )

    def root_changed(self) -> None:
        """Look at every namespace again."""
        self._queue.mark(*(name for _, name in self._namespaces.items))

    async def run(self) -> None:
        """Keep the ConfigMaps until cancelled."""
        async with tasks.Nursery(system_clock=self._clock) as nursery:
            _ = nursery.keep("follow root certificates", self._config_maps.run)
            # Only what is known to be missing may be made.
            await self._config_maps.synced.wait()
            self.root_changed()
            _ = nursery.keep("follow namespaces for root certificates", self._namespaces.run)
            await self._queue.run()

    def _on_namespaces(self, changes: Mapping[informer.Key, objects.Namespace | None]) -> None:
        self._queue.mark(*(name for (_, name), value in changes.items() if value is not None))

    def _on_config_maps(self, changes: Mapping[informer.Key, objects.ConfigMap | None]) -> None:
        self._queue.mark(*(namespace for namespace, _ in changes))

    async def _reconcile(self, name: str) -> bool:
        root = self._root()
        namespace = self._namespaces.items.get(("", name))
        if namespace is None or name in IGNORED or namespace.metadata.deletion_timestamp:
            return False
        seen = self._config_maps.items.get((name, NAME))
        if not root or _is_right(seen, root) or not self._may_write():
            return False
        try:
            await self._write(name, root)
        except problems.ApiError as error:
            # A namespace that is ending, or that is closed to us, is none of our business.
            if error.status == FORBIDDEN or error.is_missing:
                return False
            raise
        return True

    async def _write(self, namespace: str, root: str) -> None:
        stored = await self._writes.find(kinds.CONFIG_MAP, NAME, namespace=namespace)
        if stored is None:
            await self._writes.create(
                kinds.CONFIG_MAP,
                {
                    "apiVersion": "v1",
                    "kind": "ConfigMap",
                    "metadata": {"name": NAME, "namespace": namespace, "labels": {LABEL: "true"}},
                    "data": {KEY: root},
                },
                field_manager=MANAGER,
            )
            return
        stored["data"] = {**(stored.get("data") or {}), KEY: root}
        labels = stored["metadata"].get("labels") or {}
        stored["metadata"]["labels"] = {**labels, LABEL: "true"}
        await self._writes.update(kinds.CONFIG_MAP, stored, field_manager=MANAGER)


def _is_right(config_map: objects.ConfigMap | None, root: str) -> bool:
    return (
        config_map is not None
        and (config_map.data or {}).get(KEY) == root
        and config_map.metadata.label(LABEL) == "true"
    )
