"""Lets the node's own calls to captured pods come from one address, which the pods' rules know.

A node asks its pods whether they are well and has no identity to show; whatever else comes from
the node's addresses, such as calls from outside that a Service passed on, has to. The two are told
apart by the socket that only the node's own calls have here. Acts in the network of whoever runs
this, which must be the node's.

Source: spec section 5.4; Istio's own address for the purpose.
"""

from collections.abc import Iterable

from isthmus.base import netlink, nftables
from isthmus.capture import enrolled

TABLE = "istio-host"
_CHAIN = "probes"


def let_probe(addresses: Iterable[str]) -> None:
    """Let exactly these pods be asked from the known address.

    Raises:
        OSError: The kernel refused; the pods that could be asked before still can.
    """
    nftables.apply(messages(addresses))


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
