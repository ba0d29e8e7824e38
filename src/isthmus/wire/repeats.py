"""Names that were said before, recognised by their bytes.

In state of the world a client repeats all that it wants in each acknowledgement: with a thousand
names, to take these apart costs more than all else that a change costs. What lies between version
and type is compared with what others have said there, and taken from them when it is the same.

Source: performance rule 9; protobuf encoding specification.
"""

from collections import OrderedDict
from typing import Final

from isthmus.resources.snapshot import PREFIX, TypeUrl
from isthmus.xds import messages

MOST_BYTES: Final = 4 * 1024 * 1024
FEWEST: Final = 16
"""Names that are worth it."""

_VERSION, _NAME, _TYPE, _NONCE = 0x0A, 0x1A, 0x22, 0x2A
_SHORT: Final = 0x80
_PREFIX: Final = PREFIX.encode()


class Repeats:
    """Remembers lists of names by the bytes that they were said in."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._bytes = 0
        self._known: OrderedDict[tuple[bytes, int], tuple[bytes, tuple[str, ...]]] = OrderedDict()

    def request(self, content: bytes) -> messages.Request | None:
        """Return a request of which all names were noted before, or None: it must be parsed."""
        found = _bounds(content)
        if found is None:
            return None
        begin, end, url = found
        known = self._known.get((url, end - begin))
        if known is None or not content.startswith(known[0], begin):
            return None
        nonce = end + 2 + len(url) + 2
        try:
            return messages.Request(
                TypeUrl(url.decode()),
                names=known[1],
                version=content[2:begin].decode(),
                nonce=content[nonce:].decode(),
            )
        except UnicodeDecodeError:
            return None

    def note(self, content: bytes, request: messages.Request) -> None:
        """Remember the names of a request that was parsed from `content`."""
        found = _bounds(content) if len(request.names) >= FEWEST else None
        if found is None:
            return
        begin, end, url = found
        said = content[begin:end]
        if len(said) * 4 > self._most or said != b"".join(map(_written, request.names)):
            return
        self._forget((url, len(said)))
        self._known[url, len(said)] = said, request.names
        self._bytes += len(said)
        while self._bytes > self._most:
            self._forget(next(iter(self._known)))

    def _forget(self, key: tuple[bytes, int]) -> None:
        known = self._known.pop(key, None)
        if known is not None:
            self._bytes -= len(known[0])


def _bounds(content: bytes) -> tuple[int, int, bytes] | None:
    """Return where names begin and end, and the type, of a request that acknowledges, as usual.

    That is: a version, names, a type and a nonce, each of the texts short, and nothing else.
    """
    url = content.rfind(_PREFIX)
    if url < 2 or content[0] != _VERSION or content[1] >= _SHORT:
        return None
    begin, end, size = 2 + content[1], url - 2, content[url - 1]
    nonce = url + size
    is_usual = (
        begin < end
        and content[begin] == _NAME
        and content[end] == _TYPE
        and size < _SHORT
        and nonce + 2 <= len(content)
        and content[nonce] == _NONCE
        and content[nonce + 1] < _SHORT
        and nonce + 2 + content[nonce + 1] == len(content)
    )
    return (begin, end, content[url:nonce]) if is_usual else None


def _written(name: str) -> bytes:
    text = name.encode()
    size, rest = len(text) & 0x7F, len(text) >> 7
    # A name of more than 16,000 bytes was refused before.
    return bytes((_NAME, size | _SHORT, rest) if rest else (_NAME, size)) + text
