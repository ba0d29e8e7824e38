"""What the agent of a node does for the pods that take part: certificates, listeners, discovery.

A pod that takes part has its listeners as soon as the control plane knows it and its certificate
is there; when it leaves, they go. Pods of one account share a certificate, which is kept for as
long as one of them is here. Decides nothing about which pods take part, and starts no proxy.

Source: spec sections 7.2 and 7.6.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from isthmus.base import clock, errors, logs, tasks
from isthmus.node import certificates, hosts, settings, steering
from isthmus.resources import snapshot
from isthmus.views import nodeslices
from isthmus.wire import dialing, nodeads, sds, wdsclient

if TYPE_CHECKING:
    import asyncio

_LOG = logs.Log("isthmus.enrolment")


class Targets(Protocol):
    """Knows where the control plane is, and proves who we are."""

    def discovery(self) -> dialing.Target:
        """Return where workloads, services and policies are told."""

    def authority(self) -> dialing.Target:
        """Return where certificates come from."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the agent of a node is told.

    Attributes:
        claim: The node proxy's id and metadata, as it shows them to the control plane.
        socket: Where its Envoy asks.
        domain: Of the cluster.
    """

    node: nodeslices.Node
    claim: Mapping[str, Any]
    socket: str
    renewing: settings.Renewing
    domain: str = "cluster.local"


class Enrolment:
    """The pods of one node that take part, and what its Envoy has for them.

    Attributes:
        hosts: The names that they may ask for.
    """

    def __init__(self, wanted: Wanted, *, targets: Targets, system_clock: clock.Clock) -> None:
        self._wanted = wanted
        self._targets = targets
        self._clock = system_clock
        self.hosts = hosts.Hosts(wanted.node.network, wanted.domain)
        self._roots = certificates.Roots(wanted.node.trust_domains)
        # Which domains are believed stands where it stands by what: it changes with that alone.
        node = dataclasses.replace(wanted.node, trust_domains=())
        self._steering = steering.Steering(
            node,
            pods_changed=self._changed,
            services_changed=lambda changes: self.hosts.change(changes.values()),
        )
        self._talk = wdsclient.Talk(self._take, self._steering.begin)
        self._shelf = sds.Shelf()
        self._pods: dict[str, nodeslices.EnrolledPod] = {}
        self._keepers: dict[str, asyncio.Task[None]] = {}
        self._nursery: tasks.Nursery | None = None

    @property
    def refused(self) -> Mapping[str, str]:
        """What Envoy has refused, in its own words, by name."""
        return self._steering.table.refused

    @property
    def is_told(self) -> bool:
        """Whether the control plane has told all that it knows, once."""
        return self._talk.heard >= set(wdsclient.TYPES)

    def refused_of(self, uid: str) -> str:
        """Return why the proxy refuses something of a pod, or nothing."""
        return next(
            (why for name, why in self.refused.items() if name.partition("|")[2] == uid), ""
        )

    async def run(self) -> None:
        """Follow the control plane and serve Envoy until cancelled."""
        async with (
            tasks.Nursery() as nursery,
            nodeads.serving(self._steering.table, self._shelf, socket=self._wanted.socket),
        ):
            self._nursery = nursery
            self._trust()
            for pod in self._pods.values():
                self._certify(pod)
            try:
                await wdsclient.follow(
                    self._talk,
                    target=self._targets.discovery,
                    node=self._wanted.claim,
                    system_clock=self._clock,
                )
            finally:
                self._nursery = None
                self._keepers.clear()

    def join(self, pod: nodeslices.PlacedPod) -> None:
        """Let a pod take part as soon as the control plane knows it, or be elsewhere."""
        sources = self._steering.sources
        self._steering.change(lambda writes: writes.put(sources.pods, pod.uid, pod))

    def leave(self, uid: str) -> None:
        """Let a pod take part no longer; it need not have."""
        sources = self._steering.sources
        self._steering.change(lambda writes: writes.delete(sources.pods, uid))

    def pod(self, uid: str) -> nodeslices.EnrolledPod | None:
        """Return a pod that takes part; None while the control plane does not know it."""
        return self._steering.pod(uid)

    def _changed(self, changes: steering.PodChanges) -> None:
        for uid, (_, new) in changes.items():
            old = self._pods.pop(uid, None)
            if new is not None:
                self._pods[uid] = new
                self._certify(new)
                _LOG.info("pod takes part", pod=new.workload, identity=str(new.identity))
            if old is not None:
                self._uncertify(old)
            if old is not None and new is None:
                _LOG.info("pod takes part no longer", pod=old.workload)

    def _take(self, news: wdsclient.News) -> Mapping[str, str]:
        if news.type_url != snapshot.SECRETS:
            return self._steering.take(news)
        try:
            secret = self._roots.told(news.bodies.get(wdsclient.TRUST))
        except errors.IsthmusError as error:
            return {wdsclient.TRUST: error.happened}
        if secret is not None:
            self._shelf.add({sds.ROOTS: secret})
        return {}

    def _trust(self) -> None:
        """Have the roots there before the first certificate: listeners wait for them."""
        secret = self._roots.mounted(self._targets.discovery().roots_pem)
        if secret is not None:
            self._shelf.add({sds.ROOTS: secret})

    def _certify(self, pod: nodeslices.EnrolledPod) -> None:
        name = str(pod.identity)
        if self._nursery is None or name in self._keepers:
            return
        keeper = certificates.Keeper(
            self._shelf,
            target=self._targets,
            renewing=self._wanted.renewing,
            system_clock=self._clock,
            on_behalf_of=name,
        )
        self._keepers[name] = self._nursery.keep(f"certificate of {name}", keeper.keep)

    def _uncertify(self, pod: nodeslices.EnrolledPod) -> None:
        name = str(pod.identity)
        if any(str(one.identity) == name for one in self._pods.values()):
            return
        keeper = self._keepers.pop(name, None)
        if keeper is not None:
            keeper.cancel()
        self._shelf.drop(name)
