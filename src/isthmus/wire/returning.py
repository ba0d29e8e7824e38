"""What clients say that they have, recognised by its bytes in whatever order they say it.

Who comes again says of thousands of resources which version it has, and most who come have the
same. Envoy keeps versions in a table without an order, so that hardly two clients send the very
same bytes: what they say is cut between its entries, and compared as a set with what others have
said. To take it apart instead costs more than all else that a client costs who comes again.

Source: performance rule 10; protobuf encoding specification.
"""

import re
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from isthmus.base import varints
from isthmus.xds import messages

MOST_BYTES: Final = 16 * 1024 * 1024
"""So much is remembered of what those say who come at about the same time."""

FEWEST: Final = 16
"""Versions that are worth it."""

HELD: Final = 5
"""So many times its bytes a request takes that is remembered, with what it was made into."""

_NODE, _TYPE, _NAME, _ENTRY, _KEY, _VERSION = 0x0A, 0x12, 0x1A, 0x2A, 0x0A, 0x12
_MOST_BITS: Final = 28

_BETWEEN: Final = re.compile(rb"\x2a(?=..?\x0a)", re.DOTALL)
"""Where an entry begins: before its length, and the name in it. It may be found where none does."""

_Parts = tuple[bytes, frozenset[bytes]]


@dataclass(slots=True)
class _Said:
    request: messages.Request
    size: int
    newest: bytes
    """As it was said last."""
    is_used: bool = True


class Returns:
    """Remembers what was said, by its parts."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._known: OrderedDict[_Parts, _Said] = OrderedDict()
        self._newest: dict[bytes, _Said] = {}

    def request(self, said: bytes) -> messages.Request | None:
        """Return a request that says the same, in any order, or None: it must be parsed.

        `said` is what it consists of besides its node.
        """
        known = self._newest.get(said)
        if known is None:
            parts = _parted(said) if len(said) * HELD * 4 <= self._most else None
            known = None if parts is None else self._known.get(parts)
            if known is None:
                return None
            # Who keeps an order says the very same bytes again.
            del self._newest[known.newest]
            known.newest = said
            self._newest[said] = known
        known.is_used = True
        return known.request

    def note(self, said: bytes, request: messages.Request) -> None:
        """Remember a request that was parsed from what was said."""
        size = len(said) * HELD
        parts = _parted(said) if size * 4 <= self._most else None
        if parts is None or parts != _written(request):
            return
        self._known[parts] = self._newest[said] = _Said(request, size, said)
        self._bytes += size
        while self._bytes > self._most:
            self._forget(next(iter(self._known)))

    def age(self) -> bool:
        """Forget what nobody has said since this was called last; return whether any is left."""
        for parts, known in list(self._known.items()):
            if not known.is_used:
                self._forget(parts)
            known.is_used = False
        return bool(self._known)

    def _forget(self, parts: _Parts) -> None:
        known = self._known.pop(parts)
        del self._newest[known.newest]
        self._bytes -= known.size


def cut(content: bytes) -> tuple[bytes | None, bytes]:
    """Return the node that a request begins with, or None, and the rest of it."""
    if content[:1] != bytes((_NODE,)):
        return None, content
    size, bits, at = 0, 0, 1
    while at < len(content) and bits < _MOST_BITS:
        size |= (content[at] & varints.SEVEN_BITS) << bits
        bits, at = bits + 7, at + 1
        if content[at - 1] < varints.CONTINUES:
            end = at + size
            return (content[at:end], content[end:]) if end <= len(content) else (None, content)
    return None, content


def _parted(said: bytes) -> _Parts | None:
    """Cut what was said; whatever has the same parts consists of the same entries."""
    first, *entries = _BETWEEN.split(said)
    if len(entries) < FEWEST:
        return None
    parts = frozenset(entries)
    return (first, parts) if len(parts) == len(entries) else None


def _written(request: messages.Request) -> _Parts | None:
    """Return the parts of a request that says names and versions only, each entry being one.

    None where it says anything else.
    """
    if request.unsubscribe or request.nonce or request.error is not None:
        return None
    first = _field(_TYPE, request.type_url) + b"".join(
        _field(_NAME, name) for name in request.subscribe
    )
    entries = [
        _field(_KEY, name) + _field(_VERSION, version)
        for name, version in request.initial_versions.items()
    ]
    return first, frozenset(varints.written(len(one)) + one for one in entries)


def _field(tag: int, text: str) -> bytes:
    content = text.encode()
    return bytes((tag,)) + varints.written(len(content)) + content
