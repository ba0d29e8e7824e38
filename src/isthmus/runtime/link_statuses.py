"""Says of links what became of them, while we lead in our cluster.

What is said is decided in `gateways.links`; here it is looked at every few seconds and written where
it differs, so that a busy link does not keep its API server busy.
"""

import datetime
from collections.abc import Callable, Iterable
from typing import Final

from isthmus.base import clock
from isthmus.gateways import links as said
from isthmus.gateways import statuses
from isthmus.kube import client, gateway_api, kinds, problems
from isthmus.mesh.identities import ClusterId
from isthmus.registry import links
from isthmus.runtime import assembly, peer_imports

MANAGER: Final = "isthmus-links"
LOOK_S: Final = 1.0
QUIET_S: Final = 10.0
"""How long a status stays that differs in no condition's own value."""

CONFLICT: Final = 409
Key = tuple[str, str]


class Statuses:
    """Writes the status of links."""

    def __init__(
        self,
        mesh: assembly.Mesh,
        *,
        heard: Callable[[], Iterable[peer_imports.Status]],
        is_followed: bool,
        system_clock: clock.Clock,
    ) -> None:
        self._mesh = mesh
        self._heard = heard
        self._is_followed = is_followed
        self._clock = system_clock
        self._written: dict[Key, float] = {}

    async def run(self, writes: client.Client, may_write: Callable[[], bool]) -> None:
        """Write until cancelled."""
        await self._make_class(writes)
        while True:
            if may_write():
                await self._look(writes)
            await self._clock.sleep(LOOK_S)

    async def _make_class(self, writes: client.Client) -> None:
        manifest = {
            "apiVersion": kinds.GATEWAY_CLASS.api_version,
            "kind": kinds.GATEWAY_CLASS.kind,
            "metadata": {"name": said.CLASS},
            "spec": {"controllerName": said.CONTROLLER},
        }
        try:
            await writes.create(kinds.GATEWAY_CLASS, manifest, field_manager=MANAGER)
        except problems.ApiError as error:
            # It is there, or this cluster knows no Gateways.
            if error.status != CONFLICT and not error.is_missing:
                raise
            return
        accepted = statuses.Book(1, _written(self._clock.now())).condition(
            "Accepted", statuses.TRUE, "Accepted", "links to other clusters"
        )
        await writes.patch(
            kinds.GATEWAY_CLASS,
            said.CLASS,
            {"status": {"conditions": [accepted]}},
            subresource="status",
            field_manager=MANAGER,
        )

    async def _look(self, writes: client.Client) -> None:
        own = self._mesh.seat.cluster
        faults = self._faults()
        heard = {one.link.peer: one for one in self._heard()}
        gateways = self._mesh.graph.items(self._mesh.sources.kubernetes_gateways)
        for key, gateway in gateways.items():
            if key.cluster != own or gateway.spec.gateway_class_name != said.CLASS:
                continue
            peer = ClusterId(gateway.metadata.label("topology.istio.io/cluster"))
            place = (key.namespace, key.name)
            status = said.of_link(
                gateway,
                fault=faults.get(place, ""),
                heard=self._heard_of(heard.get(peer)),
                now=_written(self._clock.now()),
            )
            if self._is_due(place, gateway, status):
                await self._write(writes, place, status)

    def _is_due(self, place: Key, gateway: gateway_api.Gateway, status: dict[str, object]) -> bool:
        if said.is_said(gateway, status):
            return False
        before = {one.type: one.status for one in gateway.status.conditions or ()}
        conditions = status["conditions"]
        assert isinstance(conditions, list)
        if all(before.get(one["type"]) == one["status"] for one in conditions):
            passed = self._clock.monotonic() - self._written.get(place, float("-inf"))
            return passed >= QUIET_S
        return True

    async def _write(self, writes: client.Client, place: Key, status: dict[str, object]) -> None:
        namespace, name = place
        self._written[place] = self._clock.monotonic()
        try:
            await writes.patch(
                kinds.KUBERNETES_GATEWAY,
                name,
                {"status": status},
                namespace=namespace,
                subresource="status",
                field_manager=MANAGER,
            )
        except problems.ApiError as error:
            if not error.is_missing:
                raise

    def _faults(self) -> dict[Key, str]:
        """Return why links do not count, by their Gateways."""
        found = self._mesh.graph.items(self._mesh.model.peers.findings)
        return {
            (key.subject.namespace, key.subject.name): one.happened
            for key, one in sorted(found.items(), key=lambda item: -item[0].number)
            if one.code == links.LINK_UNUSABLE and isinstance(key.subject, links.Key)
        }

    def _heard_of(self, status: peer_imports.Status | None) -> said.Heard:
        if status is None:
            reason = "it was not asked yet" if self._is_followed else ""
            return said.Heard(is_followed=self._is_followed, reason=reason)
        since = ""
        if status.age_s is not None and status.is_known:
            since = _written(self._clock.now() - datetime.timedelta(seconds=status.age_s))
        return said.Heard(
            is_connected=status.is_connected,
            since="" if status.is_connected else since,
            reason=status.reason,
            version=status.version,
            services=status.services,
            refused=tuple(f"{name}: {why}" for name, why in sorted(status.refused.items())),
        )


def _written(moment: clock.Instant) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
