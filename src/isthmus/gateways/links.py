"""What is said of a link to another cluster, in the Gateway API's words.

Source: the Gateway API's conditions of Gateways; spec section 7.7.
"""

from dataclasses import dataclass
from typing import Any, Final

from isthmus.gateways import statuses
from isthmus.kube import gateway_api

CLASS: Final = "istio-remote"
CONTROLLER: Final = "istio.io/unmanaged-gateway"
CONNECTED: Final = "Connected"
"""The condition that says whether the other cluster is heard."""

MOST_MESSAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class Heard:
    """How well a linked cluster is heard.

    Attributes:
        is_followed: Whether this control plane talks to linked clusters at all.
        is_connected: Whether it is heard now.
        since: When it was last heard, where it is not heard now; empty if never.
        reason: Why it is not heard.
        version: Of what was taken last.
        services: How many it tells of.
        refused: Why others of its services do not count, with their names.
    """

    is_followed: bool = True
    is_connected: bool = False
    since: str = ""
    reason: str = ""
    version: str = ""
    services: int = 0
    refused: tuple[str, ...] = ()


def of_link(gateway: gateway_api.Gateway, *, fault: str, heard: Heard, now: str) -> statuses.Status:
    """Return the status of a link; `fault` is why it does not count."""
    book = statuses.Book(gateway.metadata.generation, now, gateway.status.conditions or ())
    if fault:
        found = [
            book.condition("Accepted", statuses.FALSE, "Invalid", fault),
            book.condition("Programmed", statuses.FALSE, "Invalid", fault),
            book.condition(CONNECTED, statuses.FALSE, "Invalid", fault),
        ]
    else:
        found = [
            book.condition("Accepted", statuses.TRUE, "Accepted", ""),
            book.condition("Programmed", statuses.TRUE, "Programmed", ""),
            _connected(book, heard),
        ]
    return {"conditions": book.with_others(found)}


def _connected(book: statuses.Book, heard: Heard) -> statuses.Status:
    if not heard.is_followed:
        text = "this control plane does not talk to linked clusters: `platforms.peering.enabled`"
        return book.condition(CONNECTED, statuses.FALSE, "Disabled", text)
    known = f"{heard.services} services, version {heard.version or 'none'}"
    if heard.refused:
        known += f"; {len(heard.refused)} refused: {'; '.join(heard.refused)}"
    if heard.is_connected:
        return book.condition(CONNECTED, statuses.TRUE, "Heard", known[:MOST_MESSAGE])
    text = heard.reason
    if heard.since:
        text = f"{heard.reason}; last heard at {heard.since}, which goes on counting: {known}"
    return book.condition(CONNECTED, statuses.FALSE, "NotHeard", text[:MOST_MESSAGE])


def is_said(gateway: gateway_api.Gateway, status: statuses.Status) -> bool:
    """Say whether a link's status says all that already."""
    found: list[Any] = [statuses.said(one) for one in gateway.status.conditions or ()]
    return bool(found == status["conditions"])
