"""Offers as messages, put together once for all streams that are made the same offer.

Requests are short and the same from many streams as well, above all acknowledgements: each is
parsed once. What is kept is bounded, and only saves work: nothing is found by a digest alone.

Source: performance rules 2 and 10.
"""

import operator
import weakref
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Final

from isthmus.resources.snapshot import PREFIX, TypeUrl
from isthmus.wire import encoding, nodes, repeats, returning, streams
from isthmus.wire.h2 import outlet
from isthmus.xds import messages
from isthmus.xds.messages import Flavour

MOST_KEPT: Final = 256
MOST_KEPT_BYTES: Final = 32 * 1024 * 1024
"""So much that those who come after each other share what is large."""
MOST_REQUESTS: Final = 1024
SHORT_REQUEST: Final = 512
"""Bytes of a request that is worth to be remembered."""

Key = tuple[Flavour, TypeUrl, str]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Print:
    """An offer, ready to be sent. Whoever has not sent all of it keeps it, for others to share.

    Attributes:
        kind: What the type is called in metrics.
    """

    offer: messages.Offer
    message: outlet.Message
    kind: str


@dataclass(slots=True)
class Press:
    """Puts offers into messages, and takes requests apart."""

    _kept: OrderedDict[Key, Print] = field(default_factory=OrderedDict)
    _kept_bytes: int = 0
    _alive: weakref.WeakValueDictionary[Key, Print] = field(
        default_factory=weakref.WeakValueDictionary
    )
    """Those that are kept, and those that somebody has not sent yet, however large."""
    _requests: dict[tuple[Flavour, bytes], messages.Request] = field(default_factory=dict)
    _repeats: repeats.Repeats = field(default_factory=repeats.Repeats)
    _returns: returning.Returns = field(default_factory=returning.Returns)
    _used: set[Key] = field(default_factory=set)

    def age(self) -> bool:
        """Forget what nobody was told since this was called last; return whether any is left."""
        for key in [each for each in self._kept if each not in self._used]:
            self._kept_bytes -= self._kept.pop(key).message.size
        self._used.clear()
        return self._returns.age() or bool(self._kept)

    def printed(self, offer: messages.Offer, *, flavour: Flavour) -> Print:
        """Return an offer as a message; equal offers share one."""
        key = (flavour, offer.type_url, offer.nonce)
        alive = self._alive.get(key)
        if alive is not None and _is_same(alive.offer, offer):
            self._used.add(key)
            return alive
        fresh = Print(
            offer,
            outlet.Message(encoding.response(offer, flavour=flavour)),
            short(offer.type_url),
        )
        self._keep(key, fresh)
        return fresh

    def opening(
        self, content: bytes, *, flavour: Flavour
    ) -> tuple[messages.Request, nodes.Claim | None]:
        """Parse the first request of a stream, and the node in it if there is one.

        Raises:
            encoding.MessageRefused: It is malformed or beyond a limit.
        """
        if flavour is not Flavour.DELTA or len(content) <= SHORT_REQUEST:
            return encoding.request(content, flavour=flavour)
        node, said = returning.cut(content)
        known = self._returns.request(said)
        if known is not None:
            return known, None if node is None else encoding.node(node, flavour=flavour)
        parsed, claim = encoding.request(content, flavour=flavour)
        self._returns.note(said, parsed)
        return parsed, claim

    def request(self, content: bytes, *, flavour: Flavour) -> messages.Request:
        """Parse a request that is not the first of its stream.

        Raises:
            encoding.MessageRefused: It is malformed or beyond a limit.
        """
        is_short = len(content) <= SHORT_REQUEST
        if is_short:
            known = self._requests.get((flavour, content))
        elif flavour is Flavour.DELTA:
            # Most that is long is said with the first request about a type.
            return self.opening(content, flavour=flavour)[0]
        else:
            known = self._repeats.request(content)
        if known is not None:
            return known
        parsed, claim = encoding.request(content, flavour=flavour)
        if claim is None and not is_short:
            self._repeats.note(content, parsed)
        elif claim is None and is_short:
            if len(self._requests) >= MOST_REQUESTS:
                del self._requests[next(iter(self._requests))]
            self._requests[flavour, content] = parsed
        return parsed

    def _keep(self, key: Key, fresh: Print) -> None:
        replaced = self._kept.pop(key, None)
        if replaced is not None:
            self._kept_bytes -= replaced.message.size
        self._alive[key] = fresh
        size = fresh.message.size
        if size > MOST_KEPT_BYTES:
            return
        self._kept[key] = fresh
        self._used.add(key)
        self._kept_bytes += size
        while len(self._kept) > MOST_KEPT or self._kept_bytes > MOST_KEPT_BYTES:
            _, oldest = self._kept.popitem(last=False)
            self._kept_bytes -= oldest.message.size


def short(type_url: TypeUrl) -> str:
    """Return what a type is called in metrics, where a label must not be a client's free choice."""
    return streams.KINDS.get(type_url, "other") if type_url.startswith(PREFIX) else "other"


def _is_same(one: messages.Offer, other: messages.Offer) -> bool:
    if one.removed != other.removed or len(one.resources) != len(other.resources):
        return False
    return one.resources is other.resources or all(
        map(operator.is_, one.resources, other.resources)
    )
