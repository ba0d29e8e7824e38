"""The pods of all clusters, kept as text in columns: there are as many as a mesh has endpoints.

A pod is a piece of bytes: its name, its address, and the numbers of its node and of what it shares
with others. Objects are made of that for whoever looks and are gone with them, keys too, so that
beside these bytes nothing is kept for a pod: no entry of a table, no text, no object.

The pods of a namespace lie in buckets of a few dozen, found by their names' hash as in any table;
there is one bucket more for each few dozen pods, and never all are put anew at once. In the bytes
of a bucket a name stands between two that no text contains:

    0xff name 0xfe node node shared shared address   0xff name 0xfe ...

It decides nothing about pods. What is not packed is kept as it is.

Source: performance rule 8; docs/decisions/0067-pods-are-kept-in-columns.md.
"""

import re
from collections.abc import Callable, Collection, Hashable, Iterator, MutableMapping
from typing import Final, Generic, TypeVar, cast, overload

from typing_extensions import override

from isthmus.kube import objects, packed
from isthmus.mesh.identities import ClusterId, ObjectKey

T = TypeVar("T")
D = TypeVar("D")

BEFORE: Final = b"\xff"
AFTER: Final = b"\xfe"
"""What stands before a name and after it: bytes of no text in UTF-8."""

ANY: Final = "surrogatepass"
"""Texts may hold halves of characters, which UTF-8 does not know; they are written all the same."""

MEAN: Final = 16
"""So many pods are in a bucket: a look takes longer where there are more, and each bucket takes
some forty bytes."""

DIGIT: Final = 7
"""Bits of the lower one of the two characters that a number is written in."""

LOWER: Final = (1 << DIGIT) - 1
NUMBERS: Final = 4
"""So many characters of a pod are its numbers."""


class Pods(MutableMapping[ObjectKey, objects.AnyPod]):
    """All pods, by key; what is got equals what was put, and may be another object."""

    __slots__ = ("_clusters", "_count", "_nodes", "_others", "_shared")

    def __init__(self) -> None:
        self._clusters: dict[ClusterId, dict[str, Shelf]] = {}
        self._count = 0
        self._nodes = Parts[str](str)
        self._shared = Parts[objects.Pod](id)
        self._others: dict[ObjectKey, objects.AnyPod] = {}
        """Pods that are not packed, or not under their own names."""

    @overload
    def get(self, key: ObjectKey, default: None = None, /) -> objects.AnyPod | None: ...
    @overload
    def get(self, key: ObjectKey, default: D, /) -> objects.AnyPod | D: ...
    @override
    def get(self, key: ObjectKey, default: D | None = None, /) -> objects.AnyPod | D | None:
        shelves = self._clusters.get(key.cluster)
        shelf = shelves.get(key.namespace) if shelves is not None else None
        found = shelf.find(key.name) if shelf is not None else None
        if found is None:
            return self._others.get(key, default) if self._others else default
        text = found.decode("utf-8", ANY)
        node, shared = _numbers(text)
        return packed.Pod(
            self._shared.things[shared],  # type: ignore[arg-type]  # As `packed.pod` makes them.
            name=key.name,
            node=self._nodes.things[node],
            address=text[NUMBERS:],
        )

    @override
    def __getitem__(self, key: ObjectKey) -> objects.AnyPod:
        found = self.get(key)
        if found is None:
            raise KeyError(key)
        return found

    @override
    def __contains__(self, key: object) -> bool:
        if not isinstance(key, ObjectKey):
            return False
        shelf = self._clusters.get(key.cluster, {}).get(key.namespace)
        return (shelf is not None and shelf.find(key.name) is not None) or key in self._others

    @override
    def __setitem__(self, key: ObjectKey, value: objects.AnyPod) -> None:
        if type(value) is not packed.Pod or value.name != key.name:
            self._drop(key)
            self._others[key] = value
            return
        self._others.pop(key, None)
        # What is new is counted before what is old is not: what both have keeps its number.
        written = _text(self._nodes.use(value.node), self._shared.use(packed.shared_in(value)))
        shelf = self._clusters.setdefault(key.cluster, {}).get(key.namespace)
        if shelf is None:
            shelf = self._clusters[key.cluster][key.namespace] = Shelf()
        old = shelf.put(key.name, (written + value.address).encode("utf-8", ANY))
        if old is None:
            self._count += 1
        else:
            self._let_go(old)

    @override
    def __delitem__(self, key: ObjectKey) -> None:
        if not self._drop(key):
            del self._others[key]

    @override
    def __len__(self) -> int:
        return self._count + len(self._others)

    @override
    def __iter__(self) -> Iterator[ObjectKey]:
        """Go through the keys, of each namespace by name; they are made for that."""
        for cluster in self._clusters:
            yield from self._on_shelves(cluster)
        yield from self._others

    def of_cluster(self, cluster: ClusterId) -> Iterator[ObjectKey]:
        """Go through the keys of one cluster, without looking at others'."""
        yield from self._on_shelves(cluster)
        yield from (key for key in self._others if key.cluster == cluster)

    def on_nodes(self, nodes: Collection[tuple[ClusterId, str]]) -> Iterator[ObjectKey]:
        """Go through the keys of those on some nodes, of which others' bytes are only searched."""
        for cluster in dict.fromkeys([cluster for cluster, _ in nodes]):
            wanted = [self._nodes.number(node) for at, node in nodes if at == cluster]
            marks = [_number(one).encode("utf-8", ANY) for one in wanted if one is not None]
            pattern = re.compile(b"\xff([^\xfe]*)\xfe(?:%b)" % b"|".join(map(re.escape, marks)))
            for namespace, shelf in self._clusters.get(cluster, {}).items() if marks else ():
                for name in shelf.names_like(pattern):
                    yield ObjectKey(cluster, namespace, name)
        for key, pod in self._others.items():
            if (key.cluster, pod.node_name) in nodes:
                yield key

    def refers_to(self) -> tuple[int, int]:
        """Return to how many nodes and to how many shared objects pods refer."""
        return len(self._nodes), len(self._shared)

    def _on_shelves(self, cluster: ClusterId) -> Iterator[ObjectKey]:
        for namespace, shelf in self._clusters.get(cluster, {}).items():
            for name in shelf.names():
                yield ObjectKey(cluster, namespace, name)

    def _drop(self, key: ObjectKey) -> bool:
        """Take a pod off its shelf, and empty shelves away; say whether it was there."""
        shelves = self._clusters.get(key.cluster, {})
        shelf = shelves.get(key.namespace)
        found = shelf.pop(key.name) if shelf is not None else None
        if shelf is None or found is None:
            return False
        self._count -= 1
        self._let_go(found)
        if not shelf.count:
            del shelves[key.namespace]
            if not shelves:
                del self._clusters[key.cluster]
        return True

    def _let_go(self, written: bytes) -> None:
        node, shared = _numbers(written.decode("utf-8", ANY))
        self._nodes.drop(node)
        self._shared.drop(shared)


class Shelf:
    """What is written of the pods of one namespace, by name.

    The table grows and shrinks by one bucket at a time: of the hash, so many bits count that there
    are numbers for all buckets; a number for which there is none yet is that of the bucket which
    the missing one will be split from.

    Source: W. Litwin, "Linear hashing: a new tool for file and table addressing", VLDB 1980.

    Attributes:
        buckets: What is written of all, in any order.
        count: How many there are.
    """

    __slots__ = ("_mask", "buckets", "count")

    def __init__(self) -> None:
        self.buckets = [b""]
        self.count = 0
        self._mask = 0
        """The bits that count; without the highest of them there are buckets for all numbers."""

    def find(self, name: str) -> bytes | None:
        """Return what is written of a pod."""
        bucket = self.buckets[self._place(name)]
        marked = _marked(name)
        at = bucket.find(marked)
        if at < 0:
            return None
        at += len(marked)
        end = bucket.find(BEFORE, at)
        return bucket[at:end] if end >= 0 else bucket[at:]

    def put(self, name: str, written: bytes) -> bytes | None:
        """Write this of a pod; return what was there instead."""
        place, marked = self._place(name), _marked(name)
        old, rest = _without(self.buckets[place], marked)
        self.buckets[place] = rest + marked + written
        if old is None:
            self.count += 1
            if self.count > MEAN * len(self.buckets):
                self._grow()
        return old

    def pop(self, name: str) -> bytes | None:
        """Write nothing of a pod any more; return what was there."""
        place = self._place(name)
        old, self.buckets[place] = _without(self.buckets[place], _marked(name))
        if old is not None:
            self.count -= 1
            # There may be one bucket too many, and more, lest it change with each pod.
            if self.count < MEAN * (len(self.buckets) * 3 // 4 - 1):
                self._shrink()
        return old

    def names(self) -> list[str]:
        """Return the names in order: where the hash has put them is another place in each run."""
        written = b"".join(self.buckets).split(BEFORE)[1:]
        return sorted([_name_in(one) for one in written])

    def names_like(self, pattern: re.Pattern[bytes]) -> list[str]:
        """Return the names of those that match, in order."""
        found = [name for bucket in self.buckets for name in pattern.findall(bucket)]
        return sorted([name.decode("utf-8", ANY) for name in found])

    def _place(self, name: str) -> int:
        # Python's hash and none that anybody can compute: whoever names pods could have all of
        # them in one bucket.
        place = hash(name) & self._mask
        return place if place < len(self.buckets) else place & self._mask >> 1

    def _grow(self) -> None:
        new = len(self.buckets)
        if new > self._mask:
            self._mask = self._mask << 1 | 1
        low = new & self._mask >> 1
        parts: tuple[list[bytes], list[bytes]] = ([], [])
        for one in self.buckets[low].split(BEFORE)[1:]:
            parts[hash(_name_in(one)) & self._mask == new].append(BEFORE + one)
        self.buckets[low] = b"".join(parts[0])
        self.buckets.append(b"".join(parts[1]))

    def _shrink(self) -> None:
        last = self.buckets.pop()
        self.buckets[len(self.buckets) & self._mask >> 1] += last
        if len(self.buckets) - 1 <= self._mask >> 1:
            self._mask >>= 1


class Parts(Generic[T]):
    """What many pods refer to by number, for as long as any does.

    Attributes:
        things: By number; nothing is kept at numbers that are free.
    """

    __slots__ = ("_counts", "_free", "_named", "_numbers", "things")

    def __init__(self, named: Callable[[T], Hashable]) -> None:
        self.things: list[T] = []
        self._named = named
        """Says by what things are told apart, as long as they are kept."""
        self._numbers: dict[Hashable, int] = {}
        self._counts: list[int] = []
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._numbers)

    def use(self, thing: T) -> int:
        """Return the number of a thing, which counts once more."""
        name = self._named(thing)
        number = self._numbers.get(name)
        if number is not None:
            self._counts[number] += 1
            return number
        if self._free:
            number = self._free.pop()
            self.things[number], self._counts[number] = thing, 1
        else:
            number = len(self.things)
            self.things.append(thing)
            self._counts.append(1)
        self._numbers[name] = number
        return number

    def number(self, thing: T) -> int | None:
        """Return the number of a thing, if anybody uses it."""
        return self._numbers.get(self._named(thing))

    def drop(self, number: int) -> None:
        """Count a thing once less, and forget it when nobody uses it."""
        self._counts[number] -= 1
        if not self._counts[number]:
            del self._numbers[self._named(self.things[number])]
            # Sound: nobody looks at it until it is used for something else.
            self.things[number] = cast("T", None)
            self._free.append(number)


def _marked(name: str) -> bytes:
    return BEFORE + name.encode("utf-8", ANY) + AFTER


def _name_in(written: bytes) -> str:
    return written[: written.index(AFTER)].decode("utf-8", ANY)


def _without(bucket: bytes, marked: bytes) -> tuple[bytes | None, bytes]:
    """Return what is written of a pod, if anything is, and the bucket without it."""
    at = bucket.find(marked)
    if at < 0:
        return None, bucket
    start = at + len(marked)
    end = bucket.find(BEFORE, start)
    if end < 0:
        end = len(bucket)
    return bucket[start:end], bucket[:at] + bucket[end:]


def _text(node: int, shared: int) -> str:
    """Return two numbers as four characters, each a byte or two where there are not very many."""
    return _number(node) + _number(shared)


def _number(number: int) -> str:
    return chr(number >> DIGIT) + chr(number & LOWER)


def _numbers(text: str) -> tuple[int, int]:
    return ord(text[0]) << DIGIT | ord(text[1]), ord(text[2]) << DIGIT | ord(text[3])
