"""Which version of each resource a client has, as values that clients share.

Most clients have the same, but for a few names. A ledger never changes; it is made of leaves of
some names each, and equal leaves exist once. What follows from another ledger by a few changes
costs these alone, and however two clients came to have the same, they share all of it.
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from typing_extensions import override

MOST_IN_LEAF: Final = 16
LEAST_IN_LEAF: Final = 2
"""On average; beyond, a ledger is cut anew."""


class Leaf(dict[str, str]):
    """The versions of some names; never changed once it is in a ledger."""

    __slots__ = ("__weakref__",)

    # A leaf is compared as an object: of equal ones there is one.
    __hash__ = object.__hash__  # type: ignore[assignment]  # a dict has none
    __eq__ = object.__eq__
    __ne__ = object.__ne__


_EMPTY: Final = Leaf()
_LEAVES: Final[weakref.WeakValueDictionary[int, Leaf]] = weakref.WeakValueDictionary()


class Ledger:
    """Versions by name."""

    __slots__ = ("__weakref__", "_hash", "_leaves", "_size")

    def __init__(self, leaves: tuple[Leaf, ...] = (_EMPTY,), size: int = 0) -> None:
        self._leaves = leaves
        self._size = size
        self._hash = hash(leaves)

    def is_of(self, versions: Mapping[str, str]) -> bool:
        """Say whether it holds all of these versions, and no others."""
        said = versions.items()
        return self._size == len(versions) and all(leaf.items() <= said for leaf in self._leaves)

    @property
    def leaves(self) -> int:
        """How many parts it has."""
        return len(self._leaves)

    def get(self, name: str) -> str | None:
        """Return the version of a name, or None."""
        leaves = self._leaves
        return leaves[hash(name) & (len(leaves) - 1)].get(name)

    def after(self, changes: Mapping[str, str | None]) -> "Ledger":
        """Return what follows when these names have other versions, or with None are gone."""
        if not changes:
            return self
        if not self._size:
            return of({name: version for name, version in changes.items() if version is not None})
        leaves, mask = list(self._leaves), len(self._leaves) - 1
        fresh = dict[int, Leaf]()
        for name, version in changes.items():
            at = hash(name) & mask
            leaf = fresh.get(at)
            if leaf is None:
                leaf = fresh[at] = Leaf(leaves[at])
            if version is None:
                leaf.pop(name, None)
            else:
                leaf[name] = version
        size = self._size
        for at, leaf in fresh.items():
            size += len(leaf) - len(leaves[at])
            leaves[at] = leaf
        count = len(leaves)
        if size > count * MOST_IN_LEAF or (count > 1 and size < count * LEAST_IN_LEAF):
            return of({name: version for leaf in leaves for name, version in leaf.items()})
        for at, leaf in fresh.items():
            leaves[at] = _only(leaf)
        return Ledger(tuple(leaves), size)

    def without(self, names: Iterable[str]) -> "Ledger":
        """Return what is left when these names are gone."""
        return self.after({name: None for name in names if name in self})

    def __contains__(self, name: object) -> bool:
        leaves = self._leaves
        return name in leaves[hash(name) & (len(leaves) - 1)]

    def __iter__(self) -> Iterator[str]:
        for leaf in self._leaves:
            yield from leaf

    def __len__(self) -> int:
        return self._size

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ledger) and self._leaves == other._leaves

    @override
    def __hash__(self) -> int:
        return self._hash


NOTHING: Final = Ledger()


def of(versions: Mapping[str, str]) -> Ledger:
    """Return the ledger of all these versions."""
    if not versions:
        return NOTHING
    wanted, count = len(versions) * 2 // MOST_IN_LEAF, 1
    while count < wanted:
        count *= 2
    leaves, mask = [Leaf() for _ in range(count)], count - 1
    for name, version in versions.items():
        leaves[hash(name) & mask][name] = version
    return Ledger(tuple(map(_only, leaves)), len(versions))


_CLAIMED: Final[weakref.WeakValueDictionary[int, Ledger]] = weakref.WeakValueDictionary()


def claimed(versions: Mapping[str, str]) -> Ledger:
    """Return the ledger of what a client says to have, which is what others have said, as a rule.

    These are texts: none of them knows what it consists of.
    """
    digest = hash(frozenset(versions.items()))
    known = _CLAIMED.get(digest)
    if known is None or not known.is_of(versions):
        known = _CLAIMED[digest] = of(versions)
    return known


def _only(leaf: Leaf) -> Leaf:
    """Return the one leaf that is equal to this, which it is when there was none.

    A version that knows what it consists of is another one than a text that says the same: that is
    what a client claims to have.
    """
    if not leaf:
        return _EMPTY
    kinds = frozenset(map(type, leaf.values()))
    found = _LEAVES.setdefault(hash((frozenset(leaf.items()), kinds)), leaf)
    return found if found is leaf or _is_same(found, leaf) else leaf


def _is_same(one: Leaf, other: Leaf) -> bool:
    equal = dict.__eq__(one, other)
    return equal and all(type(one[name]) is type(version) for name, version in other.items())
