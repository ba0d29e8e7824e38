"""Lets pods take part when they are told, and says when their traffic is really taken.

A pod's network namespace is held by a descriptor for as long as it takes part, and the proxy finds
it at a path that no other pod ever had. Listeners come up when the control plane knows the pod: if
that takes too long, who enrols pods is told so, and the pod takes part as soon as it can.

Source: spec section 7.2; what ztunnel does with pods whose proxies do not start.
"""

import contextlib
import itertools
import os
import pathlib
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol

from typing_extensions import override

from isthmus.base import clock, logs, namespaces, tasks
from isthmus.mesh.identities import ClusterId
from isthmus.node import zds
from isthmus.views import nodeslices

PATIENCE_S: Final = 5.0
POLL_S: Final = 0.01
LONGEST_POLL_S: Final = 0.2
LISTENERS_LAST_S: Final = 600.0
"""How long connections of a listener go on that is gone, or is another now."""
LINGERS_S: Final = LISTENERS_LAST_S + 30.0
"""So long the network of a pod that has left can still be found, by what comes on these.

Callers keep their tunnels, and begin new connections in them.
"""
GONE_S: Final = 5.0
"""So often it is looked whether such a pod is still connected: who is deleted leaves nothing."""

SOCKETS: Final = pathlib.Path("/proc/thread-self/net/tcp")
LISTENING: Final = "0A"
LINKS: Final = pathlib.Path("/proc/thread-self/net/dev")
_LINKS_OF_NOBODY: Final = 3
"""Lines: two of heading, and the loopback's."""

_LOG = logs.Log("isthmus.joining")


class Enrolling(Protocol):
    """Has listeners made for pods."""

    def join(self, pod: nodeslices.PlacedPod) -> None:
        """Let a pod take part as soon as the control plane knows it."""

    def leave(self, uid: str) -> None:
        """Let a pod take part no longer."""

    def pod(self, uid: str) -> nodeslices.EnrolledPod | None:
        """Return a pod that takes part; None while the control plane does not know it."""

    def refused_of(self, uid: str) -> str:
        """Return why the proxy refuses listeners of a pod, or nothing."""

    @property
    def is_told(self) -> bool:
        """Whether the control plane has told all that it knows, once."""


Active = Callable[[], Awaitable[Collection[str]]]
"""Returns the names of the listeners at which our proxy takes connections."""

Served = Callable[[zds.Added], contextlib.AbstractAsyncContextManager[Sequence[int]]]
"""Answers a pod's questions for names while it is entered; what was left to us is taken over.

Returns descriptors with which another can go on answering when we are no more.
"""


@dataclass(frozen=True, slots=True)
class Own:
    """What is of this agent and its proxy, where another's may be beside it.

    Attributes:
        names: Answers pods' questions for names.
        active: Tells our proxy's listeners from those of another that is to go.
    """

    names: Served
    active: Active


@dataclass(slots=True)
class _Joined:
    """A pod that was told.

    Attributes:
        link: A symbolic link to the descriptor of its network namespace.
        served: What is to be ended when it leaves.
        leaves: What another can go on with when we are no more.
    """

    told: zds.Added
    link: pathlib.Path
    served: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)
    leaves: Sequence[int] = ()


class Joining(zds.Pods):
    """The pods of this node that were told.

    Args:
        agent: Has their listeners made.
        cluster: Which one this is.
        folder: For links to their network namespaces; it is emptied.
        own: What is theirs alone.
        nursery: Closes, later, what those who left may still need.
    """

    def __init__(
        self,
        agent: Enrolling,
        *,
        cluster: ClusterId,
        folder: pathlib.Path,
        own: Own,
        nursery: tasks.Nursery,
        system_clock: clock.Clock,
    ) -> None:
        self._agent = agent
        self._cluster = cluster
        self._folder = folder
        self._own = own
        self._nursery = nursery
        self._clock = system_clock
        self._pods: dict[str, _Joined] = {}
        self._numbers = itertools.count(1)
        self.is_complete = False
        """Whether all pods were told once."""
        folder.mkdir(exist_ok=True)
        for stale in folder.iterdir():
            stale.unlink()

    @override
    async def add(self, pod: zds.Added) -> str:
        until = self._clock.monotonic() + PATIENCE_S
        known = self._pods.get(pod.uid)
        if known is not None and namespaces.same(known.told.network, pod.network):
            for each in (pod.network, *pod.left):
                os.close(each)
            return await self._up(known, until)
        if known is not None:
            # Its sandbox was made anew.
            await self.remove(pod.uid)
        joined = _Joined(pod, self._folder / f"{next(self._numbers)}-{pathlib.Path(pod.uid).name}")
        joined.link.symlink_to(f"/proc/{os.getpid()}/fd/{pod.network}")
        self._pods[pod.uid] = joined
        workload = f"{self._cluster}//Pod/{pod.namespace}/{pod.name}"
        self._agent.join(nodeslices.PlacedPod(pod.uid, workload, str(joined.link)))
        await self._until_told(until)
        try:
            joined.leaves = await joined.served.enter_async_context(self._own.names(pod))
        except OSError as error:
            _LOG.warning("names are not answered", pod=workload, reason=str(error))
            return f"names are not answered: {error}"
        return await self._up(joined, until)

    @override
    def leaves(self, uid: str) -> Sequence[int]:
        joined = self._pods.get(uid)
        return joined.leaves if joined is not None else ()

    @override
    async def remove(self, uid: str) -> str:
        joined = self._pods.pop(uid, None)
        if joined is not None:
            self._agent.leave(uid)
            await joined.served.aclose()
            _ = self._nursery.start("the network of a pod that left", self._forgotten(joined))
        return ""

    @override
    async def keep(self, uids: frozenset[str]) -> str:
        for uid in self._pods.keys() - uids:
            await self.remove(uid)
        self.is_complete = True
        return ""

    def is_shared(self, own: int) -> bool:
        """Say whether another proxy listens for a pod already, beside so many sockets of ours."""
        return any(
            _ports(one.told.network)[nodeslices.TUNNEL_PORT] > own for one in self._pods.values()
        )

    async def close(self) -> None:
        """End what was begun for pods; their listeners are the proxy's."""
        for joined in self._pods.values():
            await joined.served.aclose()

    async def _forgotten(self, joined: _Joined) -> None:
        until = self._clock.monotonic() + LINGERS_S
        try:
            await self._clock.sleep(GONE_S)
            while is_connected(joined.told.network) and self._clock.monotonic() < until:
                await self._clock.sleep(GONE_S)
        finally:
            joined.link.unlink(missing_ok=True)
            os.close(joined.told.network)

    async def _until_told(self, until: float) -> None:
        """Wait for the names of services: who answers before denies those that only we know."""
        while not self._agent.is_told and self._clock.monotonic() < until:
            await self._clock.sleep(POLL_S)

    async def _up(self, joined: _Joined, until: float) -> str:
        """Wait until the pod's listeners are up; return why they are not, or nothing."""
        delay_s = POLL_S
        while not await self._is_up(joined.told):
            refused = self._agent.refused_of(joined.told.uid)
            if refused or self._clock.monotonic() > until:
                return self._reason(joined.told, refused)
            await self._clock.sleep(delay_s)
            delay_s = min(delay_s * 1.5, LONGEST_POLL_S)
        return ""

    async def _is_up(self, told: zds.Added) -> bool:
        wanted = {f"{kind}|{told.uid}" for kind in nodeslices.LISTENERS.values()}
        return listens(told.network) and wanted <= set(await self._own.active())

    def _reason(self, told: zds.Added, refused: str) -> str:
        who = f"{told.namespace}/{told.name}"
        if refused:
            reason = f"the proxy refuses listeners of {who}: {refused}"
        elif self._agent.pod(told.uid) is None:
            reason = f"the control plane does not know {who} yet"
        else:
            reason = f"listeners of {who} are not up yet"
        _LOG.warning("pod does not take part yet", pod=who, reason=reason)
        return reason


def is_connected(network: int) -> bool:
    """Say whether a network has any link but its own loopback."""
    with namespaces.entered(network):
        return len(LINKS.read_text(encoding="ascii").splitlines()) > _LINKS_OF_NOBODY


def listens(network: int) -> bool:
    """Say whether all listeners of a pod are up, by what the kernel says of its network."""
    return _ports(network).keys() >= set(nodeslices.OWN_PORTS)


def _ports(network: int) -> Counter[int]:
    """Count the sockets that listen in a network by port."""
    with namespaces.entered(network):
        lines = SOCKETS.read_text(encoding="ascii").splitlines()[1:]
    return Counter(int(local.rpartition(":")[2], 16) for local in map(_local, lines) if local)


def _local(line: str) -> str:
    """Return the own address of a socket that listens."""
    _, local, _, state, *_ = line.split()
    return local if state == LISTENING else ""
