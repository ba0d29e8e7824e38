"""One pod of this node: brought into the mesh, kept there, and let go again.

Decides the order of what is done. A pod that begins as a member gets its packet rules first, so
that nothing leaves it in plain text. One that is at work already is first served by the proxy, so
that no connection finds nobody; its rules follow. Only a pod that is captured and served is marked
as such, since calls to it are then encrypted. Whoever leaves loses rules and mark first, and is
served on until callers can know it.

Every step may be done again. Refuses to know why a pod takes part.

Source: spec section 7.2; the order of Istio's agent.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from isthmus.base import clock, errors, logs
from isthmus.kube import objects
from isthmus.node import capturing
from isthmus.node.cni import announcing, membership, networks, probing, zds

FIRST_DELAY_S, LONGEST_DELAY_S = 0.1, 5.0
PATIENCE_S = 1.0
"""After so long without a proxy, a captured pod shows that it waits for one."""
SHORTEST_POLL_S, LONGEST_POLL_S = 0.005, 0.25
"""So often the network of a new pod is looked for."""
LINGER_S = 5.0
"""So long callers may take to learn that a pod no longer takes encrypted calls."""

Annotate = Callable[[objects.Pod, str | None], Awaitable[None]]
"""Writes what became of a pod on it; None takes the word away."""

_LOG = logs.Log("isthmus.cni.pods")


class ProxyRefuses(errors.IsthmusError):
    """The node's proxy cannot take a pod."""

    code = "ISM-NODE-011"


@dataclass(frozen=True, slots=True)
class World:
    """What all pods of the node share.

    Attributes:
        captures_dns: Whether the proxy answers questions for names.
        probed_from: Where the node's own calls come from.
        linger_s: How long a pod that leaves is served on.
    """

    proxies: announcing.Proxies
    networks: networks.Networks
    probed: probing.Probed
    annotate: Annotate
    captures_dns: bool
    probed_from: tuple[str, ...]
    clock: clock.Clock
    linger_s: float = LINGER_S


class Member:
    """Brings one pod to where it should be, for as long as it is on this node."""

    def __init__(self, pod: objects.Pod, world: World, *, begins: bool) -> None:
        """Look after a pod.

        Args:
            pod: The pod.
            world: What all pods share.
            begins: Whether it was not there before, so that it has served nobody yet.
        """
        self.pod = pod
        self.takes_part = False
        self.trouble = ""
        self._world = world
        self._begins = begins
        self._address = ""
        self._is_offered = False
        self._has_rules = False
        self._is_marked = False
        self._touched = asyncio.Event()

    @property
    def is_served(self) -> bool:
        """Whether it is captured, and a proxy serves it."""
        return self._has_rules and self._world.proxies.answer_of(self._uid) == ""

    @property
    def _uid(self) -> str:
        return self.pod.metadata.uid

    # What others tell.

    def become(self, pod: objects.Pod, *, takes_part: bool) -> None:
        """Take the pod as it is now, and whether it should take part."""
        self.pod, self.takes_part = pod, takes_part
        if self._address and pod.status.pod_ip not in ("", self._address):
            # Its sandbox was made anew: nothing of what was done is there.
            self._has_rules = self._is_offered = False
            self._world.probed.leave_out(self._address)
            self._address = ""
        self.touch()

    def vanish(self) -> None:
        """Let go of what is kept for the pod: it is gone from the API server, and with it all."""
        self._forget()

    def touch(self) -> None:
        """Look again: something may have changed."""
        self._touched.set()

    # What it does.

    def begin(self) -> None:
        """Have a pod that an agent before us captured told to proxies, before any may ask."""
        if self.takes_part and membership.bears_mark(self.pod):
            try:
                self._offer()
            except networks.NetworkMissing:
                self._world.proxies.keep(self._told())

    async def run(self) -> None:
        """Follow what is wanted until cancelled."""
        delay_s = FIRST_DELAY_S
        while True:
            self._touched.clear()
            try:
                await (self._join() if self.takes_part else self._leave())
            except (OSError, errors.IsthmusError) as error:
                self._complain(error)
                await self._wait(delay_s)
                delay_s = min(delay_s * 2, LONGEST_DELAY_S)
            else:
                self._complain(None)
                delay_s = FIRST_DELAY_S
                await self._touched.wait()

    async def _wait(self, delay_s: float) -> None:
        try:
            async with asyncio.timeout(delay_s):
                await self._touched.wait()
        except TimeoutError:
            return

    async def _join(self) -> None:
        if self._begins and not await self._has_begun():
            return
        if self._begins or membership.bears_mark(self.pod):
            await self._capture()
        if self._begins and not (self._is_marked or membership.bears_mark(self.pod)):
            # It may be ready before it is served: until then nobody shall call it, in plain text.
            await self._mark(membership.PENDING)
        if not self.pod.status.pod_ip:
            return  # nobody can call it yet, and the control plane does not know it
        self._let_probe()
        proxies = self._world.proxies
        if not self._is_offered:
            self._offer()
        await self._pass(PATIENCE_S, lambda: proxies.answer_of(self._uid) is not None)
        if not self.takes_part:
            return
        if refusal := proxies.answer_of(self._uid):
            self._is_offered = False  # whoever refuses may still be at it: offered, not withdrawn
            raise ProxyRefuses("the node's proxy does not take the pod", detail=refusal)
        if refusal is None:
            if not self._has_rules:
                await self._mark(None)
            return
        await self._capture()
        await self._mark(membership.ENABLED)

    async def _has_begun(self) -> bool:
        """Wait for the network of a new pod, which is there before anybody says so."""
        delay_s = SHORTEST_POLL_S
        while not (self.pod.status.pod_ip or self._world.networks.has(self._uid)):
            await self._wait(delay_s)
            if not self.takes_part:
                return False
            self._touched.clear()
            delay_s = min(delay_s * 1.2, LONGEST_POLL_S)
        return True

    async def _leave(self) -> None:
        self._begins = self._begins and not self.pod.status.pod_ip
        was_captured = self._has_rules or membership.was_captured(self.pod)
        if was_captured:
            await self._release()
        await self._mark(None)
        if was_captured and not membership.has_ended(self.pod):
            await self._pass(self._world.linger_s, lambda: self.takes_part)
        if self.takes_part:
            return
        self._forget()

    async def _pass(self, longest_s: float, is_over: Callable[[], bool]) -> None:
        """Wait until something is over, for a while; or until nobody wants it any more."""
        deadline = self._world.clock.monotonic() + longest_s
        wanted = self.takes_part
        while self.takes_part is wanted and not is_over():
            left_s = deadline - self._world.clock.monotonic()
            if left_s <= 0:
                return
            self._touched.clear()
            await self._wait(left_s)

    # Steps, each of which may be done again.

    def _told(self) -> zds.Add:
        metadata = self.pod.metadata
        account = self.pod.spec.service_account_name or "default"
        return zds.Add(metadata.uid, metadata.name, metadata.namespace, account)

    def _offer(self) -> None:
        self._world.proxies.offer(self._told(), self._world.networks.open(self._uid))
        self._is_offered = True

    async def _capture(self) -> None:
        if self._has_rules:
            return
        self._let_probe()
        network = self._world.networks.open(self._uid)
        await _in_thread(
            network,
            lambda: capturing.capture(
                network,
                probed_from=self._world.probed_from,
                captures_dns=membership.captures_dns(self.pod, usual=self._world.captures_dns),
                captures_arriving=membership.captures_arriving(self.pod),
            ),
        )
        self._has_rules = True
        _LOG.info("pod captured", pod=self._name)

    def _let_probe(self) -> None:
        if address := self.pod.status.pod_ip:
            self._world.probed.include({address})
            self._address = address

    async def _release(self) -> None:
        """Let new connections be; what lets others go on stays, as callers keep their tunnels."""
        try:
            network = self._world.networks.open(self._uid)
        except networks.NetworkMissing:
            pass  # with the network its rules are gone
        else:
            await _in_thread(network, lambda: capturing.release(network))
        self._has_rules = False
        _LOG.info("pod released", pod=self._name)

    def _forget(self) -> None:
        self._world.proxies.remove(self._uid)
        self._is_offered = False
        self._world.probed.leave_out(self._address)

    async def _mark(self, word: str | None) -> None:
        self._is_marked = word is not None
        if (self.pod.metadata.annotation(membership.REDIRECTION) or None) != word:
            await self._world.annotate(self.pod, word)

    # What it says.

    @property
    def _name(self) -> str:
        return f"{self.pod.metadata.namespace}/{self.pod.metadata.name}"

    def _complain(self, error: Exception | None) -> None:
        said = ""
        if isinstance(error, errors.IsthmusError):
            said = f"{error.code}: {error.happened}"
        elif error is not None:
            said = str(error)
        if said and said != self.trouble:
            detail = error.detail if isinstance(error, errors.IsthmusError) else ""
            _LOG.warning("pod is in trouble; tried again", pod=self._name, why=said, detail=detail)
        self.trouble = said


async def _in_thread(network: int, work: Callable[[], None]) -> None:
    """Do something with a pod's network, and close its descriptor.

    The kernel lets whoever changes packet rules wait: pods need not wait for each other.
    """

    def done() -> None:
        try:
            work()
        finally:
            os.close(network)

    await asyncio.to_thread(done)
