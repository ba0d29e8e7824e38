"""What a drill in ambient mode does, in its order, by groups that can be chosen alone.

Faults come one after the other, so that each cost has one cause; only what a broken link hides is
done while it is broken. Every group leaves the mesh as it found it.
"""

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from drill import mesh as meshes
from drill.ambient import faults as doing
from drill.ambient import observing
from isthmus.kube import kinds


@dataclass(frozen=True, slots=True)
class Plan:
    """How much.

    Attributes:
        rate: Requests a second of a client in each cluster.
        silent_s: How long a linked cluster cannot be heard.
    """

    name: str
    rate: float
    silent_s: float


LONG: Final = Plan("long", 50, 300.0)
SHORT: Final = Plan("short", 50, 60.0)
FIRST, SECOND, THIRD = "cluster1", "cluster2", "cluster3"


class Acts:
    """Plays a plan."""

    def __init__(self, plan: Plan, *, mesh: meshes.Mesh, faults: doing.Faults) -> None:
        self._plan = plan
        self._mesh = mesh
        self._faults = faults

    async def play(self, groups: Iterable[str]) -> None:
        """Do what some groups are about."""
        for name in groups:
            await _GROUPS[name](self)

    async def _copies(self) -> None:
        for cluster in self._mesh.clusters:
            await self._faults.take_away(cluster)
            await self._faults.bring_back(cluster)

    async def _gateways(self) -> None:
        """While the first cluster depends on the gateways of the others."""
        faults = self._faults
        await faults.take_away(FIRST)
        pods = await self._gateway_pods()
        await faults.kill("gateway-killed", f"gateway of {SECOND} killed", SECOND, pods)
        text = f"gateway of {SECOND} deleted, with no time to end"
        await faults.delete("gateway-deleted", text, SECOND, await self._gateway_pods())
        await faults.roll_out(
            "gateway-rolled",
            f"gateway of {SECOND} rolled out",
            SECOND,
            kinds.DEPLOYMENT,
            f"{doing.GATEWAYS}/{doing.GATEWAY}",
        )
        await faults.bring_back(FIRST)

    async def _gateway_pods(self) -> list[str]:
        labels = f"gateway.networking.k8s.io/gateway-name={doing.GATEWAY}"
        return await self._faults.pods(SECOND, doing.GATEWAYS, labels)

    async def _proxies(self) -> None:
        faults = self._faults
        for side, app in (("called", observing.SERVER), ("calling", observing.CLIENT)):
            node = await faults.node_of(FIRST, app)
            text = f"node proxy of {FIRST} killed on the {side} side"
            await faults.kill(f"proxy-{side}", text, FIRST, await self._node_proxies(node))
        text = f"all node proxies of {FIRST} deleted, with no time to end"
        await faults.delete("proxies-deleted", text, FIRST, await self._node_proxies())
        await faults.roll_out(
            "proxies-rolled",
            f"node proxies of {FIRST} rolled out",
            FIRST,
            kinds.DAEMON_SET,
            f"{meshes.SYSTEM}/{doing.NODE_PROXY}",
        )

    async def _node_proxies(self, node: str = "") -> list[str]:
        labels = f"app={doing.NODE_PROXY}"
        return await self._faults.pods(FIRST, meshes.SYSTEM, labels, node=node)

    async def _silence(self) -> None:
        """Break the streams from one cluster, and do the rest that asks control planes meanwhile."""
        faults, began = self._faults, time.monotonic()
        text = f"{THIRD} not heard by the others for {self._plan.silent_s:g} s"
        async with faults.step("link-broken", text):
            await faults.scale_control_plane(THIRD, 0)
            try:
                for each in (FIRST, SECOND):
                    await faults.until_heard(each, THIRD, is_heard=False)
                await faults.take_away(FIRST)
                await faults.roll_out_control_planes((FIRST, SECOND))
                await faults.kill_control_planes((FIRST, SECOND))
                await faults.bring_back(FIRST)
                await doing.rest_until(began + self._plan.silent_s)
            finally:
                await faults.scale_control_plane(THIRD, 1)
            for each in (FIRST, SECOND):
                await faults.until_heard(each, THIRD, is_heard=True)

    async def _control_planes(self) -> None:
        await self._faults.roll_out_control_planes(self._mesh.clusters)
        await self._faults.kill_control_planes(self._mesh.clusters)

    async def _links(self) -> None:
        """While the first cluster depends on those that it hears."""
        await self._faults.take_away(FIRST)
        await self._faults.unlink(FIRST, SECOND)
        await self._faults.bring_back(FIRST)

    async def _membership(self) -> None:
        await self._faults.leave_and_join(FIRST)

    async def _enrollers(self) -> None:
        await self._faults.roll_out(
            "enrollers-rolled",
            f"agents of {FIRST} that enrol pods rolled out",
            FIRST,
            kinds.DAEMON_SET,
            f"{meshes.SYSTEM}/{doing.ENROLLER}",
        )

    async def _waypoints(self) -> None:
        await self._faults.waypoint(FIRST)


_GROUPS: Final[Mapping[str, Callable[[Acts], Awaitable[None]]]] = {
    "copies": Acts._copies,  # noqa: SLF001, RUF100  # its own
    "gateways": Acts._gateways,  # noqa: SLF001, RUF100
    "proxies": Acts._proxies,  # noqa: SLF001, RUF100
    "control-planes": Acts._control_planes,  # noqa: SLF001, RUF100
    "silence": Acts._silence,  # noqa: SLF001, RUF100
    "links": Acts._links,  # noqa: SLF001, RUF100
    "membership": Acts._membership,  # noqa: SLF001, RUF100
    "enrollers": Acts._enrollers,  # noqa: SLF001, RUF100
    "waypoints": Acts._waypoints,  # noqa: SLF001, RUF100
}
GROUPS: Final = tuple(_GROUPS)
"""What can be done, in the order in which it is."""
PROMISED: Final = tuple(each for each in GROUPS if each != "waypoints")
"""What is done unless told otherwise: open connections end with a waypoint that is taken away."""
