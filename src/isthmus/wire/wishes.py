"""Requests that ask for more names of a type and say nothing else, put together.

An Envoy asks for each collection of endpoints by itself: thousands of requests that arrive at once, of
which each would be as much work as all names that it has asked for before. What was put together is
heard before anything else is, and before the stream has its turn. In delta only.

Source: xDS protocol, "Subscribing to resources"; performance rule 6.
"""

from dataclasses import dataclass, field
from typing import Final

from isthmus.resources.snapshot import TypeUrl
from isthmus.xds import messages
from isthmus.xds.messages import Flavour

MOST: Final = 10_000
"""Names that are put together."""


def is_wish(request: messages.Request, flavour: Flavour) -> bool:
    """Say whether a request only asks for names, or takes that back."""
    says_more = request.nonce or request.error is not None or request.initial_versions
    asks = bool(request.subscribe or request.unsubscribe)
    return flavour is Flavour.DELTA and asks and not says_more


@dataclass(slots=True)
class Wishes:
    """What one client has asked for since it was heard last."""

    type_url: TypeUrl
    _subscribe: dict[str, None] = field(default_factory=dict)
    _unsubscribe: dict[str, None] = field(default_factory=dict)

    def take(self, request: messages.Request) -> bool:
        """Take in a wish, if it is of the same kind and takes back none of the others."""
        if request.type_url != self.type_url:
            return False
        if max(len(self._subscribe), len(self._unsubscribe)) >= MOST:
            return False
        added, dropped = request.subscribe, request.unsubscribe
        if any(name in self._subscribe for name in dropped):
            return False
        if any(name in self._unsubscribe for name in added):
            return False
        self._subscribe.update(dict.fromkeys(added))
        self._unsubscribe.update(dict.fromkeys(dropped))
        return True

    def request(self) -> messages.Request:
        """Return all of them as one."""
        return messages.Request(
            self.type_url,
            subscribe=tuple(self._subscribe),
            unsubscribe=tuple(self._unsubscribe),
        )
