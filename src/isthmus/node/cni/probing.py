"""Lets the node's own calls to captured pods come from one address, which the pods' rules know.

A node asks its pods whether they are well and has no identity to show; whatever else comes from
the node's addresses, such as calls from outside that a Service passed on, has to. The two are told
apart by the socket that only the node's own calls have here. Acts in the network of whoever runs
this, which must be the node's.

Source: spec section 5.4; Istio's own address for the purpose.
"""

import asyncio
from collections.abc import Callable, Iterable, Sequence

from isthmus.base import logs, netlink, nftables
from isthmus.capture import enrolled

TABLE = "istio-host"
SETTLE_S = 0.2
_CHAIN = "probes"
_LOG = logs.Log("isthmus.cni.probing")


class Probed:
    """The pods that the node asks from the known address. Lives in one event loop."""

    def __init__(
        self, *, apply: Callable[[Sequence[netlink.Message]], None] = nftables.apply
    ) -> None:
        """Begin without any; `apply` gives rules to the kernel."""
        self._apply = apply
        self._addresses = frozenset[str]()
        self._known = frozenset[str]()
        self._later: asyncio.TimerHandle | None = None

    def include(self, found: Iterable[str]) -> None:
        """Have these pods asked from there, too, from now on.

        Raises:
            OSError: The kernel refused; the pods that could be asked before still can.
        """
        self._addresses = self._addresses.union(found)
        if not self._addresses <= self._known:
            self._become()

    def leave_out(self, address: str) -> None:
        """Have a pod asked from there no longer, soon: many may leave at once."""
        self._addresses = self._addresses.difference((address,))
        if address in self._known and self._later is None:
            self._later = asyncio.get_running_loop().call_later(SETTLE_S, self._settle)

    def close(self) -> None:
        """Change nothing any more; what holds stays."""
        if self._later is not None:
            self._later.cancel()

    def _settle(self) -> None:
        self._later = None
        try:
            self._become()
        except OSError as error:
            _LOG.warning("rules for the node's own calls not taken", reason=str(error))

    def _become(self) -> None:
        self._apply(messages(self._addresses))
        self._known = self._addresses


def messages(addresses: Iterable[str]) -> list[netlink.Message]:
    """Return the batch that does it."""
    hook, family = nftables.POSTROUTING, nftables.IPV4
    batch = [
        *nftables.replaced(TABLE, family=family),
        nftables.chain(TABLE, _CHAIN, hook=hook, priority=nftables.SOURCE_NAT, family=family),
    ]
    for address in sorted(set(addresses)):
        matches = (nftables.tcp(), nftables.destination(address), nftables.own_socket())
        outcome = nftables.source_nat(enrolled.PROBED_FROM)
        batch.append(nftables.rule(TABLE, _CHAIN, *matches, *(outcome,), family=family))
    return batch
