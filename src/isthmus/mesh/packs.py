"""Endpoints packed: what there is of each beside the others, and what they share once.

It decides how endpoints are kept, and nothing about which there are. What is asked of all of them
at once is answered without an object for each; whoever goes through them gets such objects.

Source: docs/decisions/0070-endpoints-are-packed.md.
"""

import functools
import itertools
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

import msgspec
from typing_extensions import override

from isthmus.mesh import workloads
from isthmus.mesh.workloads import Endpoint, Likeness, Spot

Which = str
"""Numbers of some endpoints of a pack, each as a character: no bytes, since there may be many."""

EVERY: Final[Which] = ""
"""Stands for all of them."""

FIRST: Final[Which] = chr(0)

FEW: Final = 8
"""So few numbers are often the same in several packs."""

OCTETS: Final = struct.Struct("4B")
END: Final = b"\xff"
"""Ends a text: it is in no character of UTF-8."""

_WRITTEN: Final = tuple([str(number) for number in range(256)])

Some = TypeVar("Some")

Row = tuple[str, Likeness, Spot]
"""An endpoint's address, what it has in common with others, and where it is."""


class Pack(msgspec.Struct, frozen=True, gc=False):
    """Some endpoints, in order; `packed` makes it.

    Attributes:
        addresses: Four bytes for each, or text.
        likes: One for each, or the one that all have.
        spots: One for each, or the one that all have.
        is_text: Whether `addresses` is text, since not all are IPv4 as it is usually written.
    """

    addresses: bytes = b""
    likes: Likeness | tuple[Likeness, ...] = ()
    spots: Spot | tuple[Spot, ...] = ()
    is_text: bool = False

    def __len__(self) -> int:
        """Return how many there are."""
        if self.is_text:
            return self.addresses.count(END)
        return len(self.addresses) // OCTETS.size

    def __iter__(self) -> Iterator[Endpoint]:
        """Yield them one by one."""
        return map(endpoint, self.rows())

    @override
    def __hash__(self) -> int:
        return hash(self.addresses)

    def rows(self, which: Which = EVERY) -> Iterable[Row]:
        """Return what there is of each, or of those whose numbers are given."""
        return zip(self.texts(which), self.each_like(which), self.each_spot(which), strict=True)

    def texts(self, which: Which = EVERY) -> list[str]:
        """Return their addresses."""
        if not self.is_text:
            return _texts(self.octets(which))
        found = self.addresses.split(END)[:-1]
        return [one.decode(errors="surrogatepass") for one in _some(found, which)]

    def octets(self, which: Which = EVERY) -> bytes:
        """Return their addresses, which are no text, as they are kept."""
        kept = self.addresses
        if not which:
            return kept
        return b"".join([kept[4 * one : 4 * one + 4] for one in map(ord, which)])

    def is_same(self, which: Which, other: "Pack", others: Which) -> bool:
        """Say whether some of them are just some of another pack, in order."""
        if self is other and which == others:
            return True
        if self.is_text or other.is_text:
            are_there = self.texts(which) == other.texts(others)
        else:
            are_there = self.octets(which) == other.octets(others)
        return (
            are_there
            and tuple(self.each_like(which)) == tuple(other.each_like(others))
            and tuple(self.each_spot(which)) == tuple(other.each_spot(others))
        )

    def hash_of(self, which: Which) -> int:
        """Return the same number for some of them as for the same of another pack."""
        if not self.is_text:
            return hash(self.octets(which))
        found = tuple(self.texts(which))
        return hash(_numbers(found) or found)

    def each_like(self, which: Which = EVERY) -> Sequence[Likeness]:
        """Return what each has in common with others."""
        if isinstance(self.likes, Likeness):
            return (self.likes,) * len(which or self)
        return _some(self.likes, which)

    def kinds(self) -> Sequence[Likeness]:
        """Return what they have in common with others, each once."""
        if isinstance(self.likes, Likeness):
            return (self.likes,)
        return tuple({id(one): one for one in self.likes}.values())

    def like(self, which: Which = EVERY) -> Likeness:
        """Return what the first of them has in common with others."""
        if isinstance(self.likes, Likeness):
            return self.likes
        return self.likes[ord(which[0]) if which else 0]

    def spot(self, which: Which = EVERY) -> Spot:
        """Return where the first of them is."""
        if isinstance(self.spots, Spot):
            return self.spots
        return self.spots[ord(which[0]) if which else 0]

    def each_spot(self, which: Which = EVERY) -> Sequence[Spot]:
        """Return where each is."""
        if isinstance(self.spots, Spot):
            return (self.spots,) * len(which or self)
        return _some(self.spots, which)


class Packs(msgspec.Struct, frozen=True, gc=False):
    """The endpoints of a service: those of each cluster are a pack."""

    parts: tuple[Pack, ...] = ()

    def __len__(self) -> int:
        """Return how many there are."""
        return sum(map(len, self.parts))

    def __iter__(self) -> Iterator[Endpoint]:
        """Yield them one by one."""
        return itertools.chain.from_iterable(self.parts)

    def each_like(self) -> Iterator[Likeness]:
        """Yield what each has in common with others."""
        return itertools.chain.from_iterable([one.each_like() for one in self.parts])

    def kinds(self) -> Sequence[Likeness]:
        """Return what they have in common with others, each once."""
        found = {id(like): like for one in self.parts for like in one.kinds()}
        return tuple(found.values())


NOTHING: Final = Pack()
NOBODY: Final = Packs()


def packed(rows: Sequence[Row]) -> Pack:
    """Return endpoints packed, in their order."""
    if not rows:
        return NOTHING
    addresses = tuple([address for address, _, _ in rows])
    likes = tuple([like for _, like, _ in rows])
    spots = tuple([spot for _, _, spot in rows])
    numbers = _numbers(addresses)
    return Pack(
        numbers or b"".join([_text(one) for one in addresses]),
        likes[0] if likes.count(likes[0]) == len(likes) else likes,
        spots[0] if spots.count(spots[0]) == len(spots) else spots,
        is_text=not numbers,
    )


def numbered(numbers: Sequence[int]) -> Which:
    """Return numbers as they are kept: where they are few, one object for many packs."""
    found = "".join(map(chr, numbers))
    return _shared(found) if len(found) <= FEW else found


@functools.lru_cache(maxsize=4096)
def _shared(which: Which) -> Which:
    return which


def row(endpoint: Endpoint) -> Row:
    """Return what there is of an endpoint."""
    place = workloads.spot(endpoint.node, endpoint.locality)
    return endpoint.address, endpoint.like, place


def endpoint(row_: Row) -> Endpoint:
    """Return the endpoint of which there is that."""
    address, like, place = row_
    return Endpoint(address, like, *place)


def _numbers(addresses: tuple[str, ...]) -> bytes:
    """Return IPv4 addresses as numbers; nothing unless all are just that."""
    try:
        found = bytes(map(int, ".".join(addresses).split(".")))
    except ValueError:
        return b""
    if len(found) != OCTETS.size * len(addresses):
        return b""
    return found if tuple(_texts(found)) == addresses else b""


def _texts(octets: bytes) -> list[str]:
    # From a table: this is done for all endpoints that share a place with one that changes.
    said = _WRITTEN
    return [f"{said[a]}.{said[b]}.{said[c]}.{said[d]}" for a, b, c, d in OCTETS.iter_unpack(octets)]


def _text(address: str) -> bytes:
    return address.encode(errors="surrogatepass") + END


def _some(found: Sequence[Some], which: Which) -> Sequence[Some]:
    return [found[one] for one in map(ord, which)] if which else found
