"""Packet rules of a pod without a proxy of its own, whose traffic its node's proxy takes.

The proxy's sockets are in the pod's network, where they have no user: only their mark tells them
apart. A program in the pod that may mark its sockets gets around its own redirect, and around
nothing else: whoever it calls judges it as somebody without an identity.

Source: spec sections 5.4 and 7.2; the node proxy's three ports.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from isthmus.capture import rules

MARK: Final = 1337
HANDED_OVER: Final = 0x111
"""The mark of connections that the proxy opens to the pod itself, in the name of whoever calls.

What the pod answers must come back to the proxy, although it is addressed to the caller.
"""
TABLE: Final = 100
"""The routing table by which it does."""

OUTBOUND_PORT, PLAINTEXT_PORT, TUNNEL_PORT = 15001, 15006, 15008
DNS_PORT: Final = 15053
PROBED_FROM: Final = "169.254.7.127"
"""The address that the node's own calls to a pod get, so that the pod's rules know them."""


def rules_of(
    *,
    probed_from: Sequence[str] = (),
    captures_dns: bool = False,
    captures_arriving: bool = True,
) -> tuple[rules.Rule, ...]:
    """Return the rules for one pod.

    Connections that were there before stay as they are: nobody else knows what was said on them.

    Args:
        probed_from: Ranges from which the node asks how the pod is; these calls go to the pod
            itself, since a node has no identity to show.
        captures_dns: Whether the proxy answers the pod's questions for names.
        captures_arriving: Whether it takes plain calls to the pod; tunnels it takes in any case.
    """
    arriving, leaving = rules.Way.ARRIVING, rules.Way.LEAVING
    taken = (rules.Rule(arriving, (), PLAINTEXT_PORT),) if captures_arriving else ()
    return (
        rules.Rule(arriving, (rules.UnderWay(),)),
        *(rules.Rule(arriving, (rules.Source(cidr),)) for cidr in probed_from),
        rules.Rule(arriving, (rules.Port(TUNNEL_PORT),)),
        *taken,
        *rules_of_released(),
        *_waiting(),
        rules.Rule(leaving, (rules.UnderWay(),)),
        rules.Rule(leaving, (rules.Mark(MARK),)),
        rules.Rule(leaving, (rules.Interface(rules.LOOPBACK_INTERFACE),)),
        rules.Rule(leaving, (rules.Destination(rules.LOOPBACK),)),
        *(_names() if captures_dns else ()),
        rules.Rule(leaving, (), OUTBOUND_PORT),
    )


KEPT: Final = (rules.Way.ARRIVING, rules.Way.LEAVING)
"""Ways that a pod that was let go still has, for the connections that the proxy has of it."""


def rules_of_released() -> tuple[rules.Rule, ...]:
    """Return the rules of a pod that was let go: its answers on connections that the proxy has.

    One proxy marks what it hands over in a way of its own, the other as all that it sends.
    """
    routed = rules.Way.LEAVING_ROUTED
    remember = rules.Remember(HANDED_OVER)
    return (
        rules.Rule(routed, (rules.Mark(HANDED_OVER),), remember),
        rules.Rule(rules.Way.ARRIVING_ROUTED, (rules.Mark(MARK),), remember),
        rules.Rule(routed, (rules.ConnectionMark(HANDED_OVER),), rules.Reroute(HANDED_OVER)),
    )


def _waiting() -> Iterator[rules.Rule]:
    """Yield the rules by which calls wait for a proxy that is away, instead of being refused.

    Whoever calls tries again after a second, and so does not notice when a proxy starts again.
    """
    for port in (OUTBOUND_PORT, PLAINTEXT_PORT, TUNNEL_PORT):
        refused = (rules.SourcePort(port), rules.Refusal())
        yield rules.Rule(rules.Way.LEAVING_ROUTED, refused, rules.Silence())


def _names() -> Iterator[rules.Rule]:
    """Yield the rules for questions for names, which the proxy may pass on from the pod's address.

    Connections of the two are told apart by zones, see `rules`.
    """
    leaving, leaving_raw = rules.Way.LEAVING, rules.Way.LEAVING_RAW
    udp, question = rules.Transport.UDP, rules.Port(rules.DNS)
    own, answer = rules.Mark(MARK), rules.SourcePort(rules.DNS)
    yield rules.Rule(leaving, (question,), DNS_PORT)
    for exempt in (own, rules.Interface(rules.LOOPBACK_INTERFACE)):
        yield rules.Rule(leaving, (question, exempt), transport=udp)
    yield rules.Rule(leaving, (question,), DNS_PORT, udp)
    yield rules.Rule(leaving_raw, (question, own), rules.OF_AGENT, udp)
    yield rules.Rule(leaving_raw, (rules.SourcePort(DNS_PORT),), rules.OF_POD, udp)
    yield rules.Rule(leaving_raw, (question,), rules.OF_POD, udp)
    yield rules.Rule(rules.Way.ARRIVING_RAW, (answer,), rules.OF_AGENT, udp)
