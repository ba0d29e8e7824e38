"""A graph of collections that keeps itself up to date, one transaction at a time.

Rules for a derivation: it keeps no state, asks only its `Reader`, and answers the same when asked
again. Then, for every history, what the graph holds is what computing everything from the sources
would give. The order of declaration is the order of computation, so that no cycle can be made.

One thread. A transaction is applied as a whole when its block ends, and not at all when the block
raises; nobody ever sees a part of it. This room knows no Kubernetes and no Envoy.
"""

import contextlib
import heapq
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, MutableMapping
from typing import TypeVar

from isthmus.base import errors, hashing
from isthmus.engine import (
    cells,
    changes,
    collections,
    explanations,
    faults,
    groupings,
    hearing,
    mentions,
    nodes,
    products,
    reader,
    sights,
    transactions,
)

I = TypeVar("I")  # noqa: E741
K = TypeVar("K")
V = TypeVar("V")
K2 = TypeVar("K2")
V2 = TypeVar("V2")
K3 = TypeVar("K3")
V3 = TypeVar("V3")
G = TypeVar("G")
R = TypeVar("R", bound=collections.Readable)

Listener = Callable[[changes.Changes], None]
Transaction = transactions.Transaction
Heard = hearing.Heard
heard = hearing.heard
Ways = nodes.Ways
Naming = mentions.Naming


class Phase(hashing.Word):
    """What a graph is at."""

    IDLE = "idle"
    OPEN = "in an open transaction"
    COMPUTING = "computing"
    PUBLISHING = "telling its listeners"


class Graph:
    """Declares collections, changes sources, and answers from outside."""

    def __init__(self) -> None:
        self._phase = Phase.IDLE
        self._names: dict[str, collections.Readable] = {}
        self._nodes: dict[int, nodes.Node] = {}
        self._agenda: list[int] = []
        self._listeners: list[Listener] = []
        self._recomputed = 0
        self._last: weakref.ref[changes.Changes] | None = None
        """The batch that was published last, for as long as anybody keeps it."""

    # --- declaring

    def source(
        self, name: str, *, content: MutableMapping[K, V] | None = None
    ) -> collections.Source[K, V]:
        """Declare a collection that transactions write.

        Its entries are in `content`, if that is given, which nobody else may write. It may make
        values and keys anew for each look, as long as they equal what was put.
        """
        rank = len(self._names)
        return self._named(collections.Source(name, owner=self, rank=rank, content=content))

    def derive(
        self,
        name: str,
        over: collections.Collection[K, V],
        function: nodes.Derivation[K, V, K2, V2],
        *,
        while_any: collections.Collection[K3, V3] | None = None,
        ways: nodes.Ways[K, V] | None = None,
    ) -> collections.Collection[K2, V2]:
        """Declare what `function` makes of each entry of `over`.

        Two outputs of one key: the one of the smaller input key wins, and a finding says so.
        As long as `while_any` is empty nothing is made. `ways` take less than records of what
        was read, where it is known otherwise.
        """
        self._check_own(over)
        for one in ways.hears if ways is not None else ():
            self._check_own(one.of)
        out = self._named(collections.Kept[K2, V2](name, owner=self, rank=len(self._names)))
        self._add(
            nodes.Derive(
                out,
                over=over,
                function=function,
                enqueue=self._enqueue,
                gate=self._gate(out, while_any),
                ways=ways,
            )
        )
        return out

    def index(
        self,
        name: str,
        of: collections.Collection[K, V],
        by: Callable[[K, V], Iterable[I]],
        *,
        while_any: collections.Collection[K3, V3] | None = None,
    ) -> collections.Index[I, K, V]:
        """Declare groups of the entries of `of`, which may each be in any number of groups.

        As long as `while_any` is empty there are none.
        """
        self._check_own(of)
        rank = len(self._names)
        out = self._named(collections.Index[I, K, V](name, owner=self, rank=rank, of=of.content))
        self._add(
            groupings.Grouping(
                out, of=of, by=by, enqueue=self._enqueue, gate=self._gate(out, while_any)
            )
        )
        return out

    def index_by_key(
        self,
        name: str,
        of: collections.Collection[K, V],
        by: Callable[[K], Iterable[I]],
    ) -> collections.Index[I, K, V]:
        """Declare groups that follow from the keys of `of` alone."""
        return self.index(name, of, lambda key, _: by(key))

    def mentions(
        self, name: str, of: collections.Collection[K, V], by: mentions.Naming[I, V]
    ) -> mentions.Mentions[I, K, V]:
        """Declare which entries of `of` name something: who asks hears of keys, not of values."""
        self._check_own(of)
        rank = len(self._names)
        out = self._named(mentions.Mentions(name, owner=self, rank=rank, of=of.content, by=by))
        self._add(mentions.Mentioning(out, of=of, by=by, enqueue=self._enqueue))
        return out

    def sight(
        self,
        name: str,
        over: collections.Collection[K, V],
        function: Callable[[K, V, G], V2 | None],
        *,
        alike: Callable[[K, V], I],
        given: Callable[[reader.Reader, I], G],
        find: Callable[[Collection[I]], Iterable[K]] | None = None,
    ) -> collections.Collection[K, V2]:
        """Declare what `function` makes of each entry of `over`, whenever somebody looks at it.

        Nothing is kept of it. `alike` says of which kind an entry is, and `given` what entries of a
        kind need besides themselves, for which alone it may read. `function` gives nothing of an entry
        by returning None; an entry for which it raises is absent, and a finding says so. Who hears of
        a change hears what was there before, as of any collection. `find` yields the keys of some
        kinds' entries, where `over` can tell without going through all.
        """
        self._check_own(over)
        node = sights.Sight(
            name,
            over=over,
            making=sights.Making(function, alike, given, find),
            place=(self, len(self._names)),
            enqueue=self._enqueue,
        )
        out = self._named(node.out)
        self._add(node)
        return out

    def product(
        self,
        name: str,
        over: collections.Collection[K, V],
        places: collections.Collection[K2, None],
        sees: Callable[[K2, V], bool],
    ) -> collections.Collection[tuple[K2, K], V]:
        """Declare each entry of `over` for each of `places` that sees it, which `sees` says."""
        self._check_own(over)
        self._check_own(places)
        rank = len(self._names)
        out = self._named(collections.Kept[tuple[K2, K], V](name, owner=self, rank=rank))
        self._add(products.Product(out, over=over, places=places, sees=sees, enqueue=self._enqueue))
        return out

    def join(
        self, name: str, *members: collections.Collection[K, V]
    ) -> collections.Collection[K, V]:
        """Declare the union of `members`; of equal keys the earlier member's wins."""
        for member in members:
            self._check_own(member)
        out = self._named(collections.Kept[K, V](name, owner=self, rank=len(self._names)))
        self._add(nodes.Join(out, members=members, enqueue=self._enqueue))
        return out

    def single(self, name: str, function: Callable[[reader.Reader], V]) -> collections.Single[V]:
        """Declare one value, computed from what `function` reads."""
        out = self._named(collections.Single[V](name, owner=self, rank=len(self._names)))
        self._add(nodes.Sole(out, function=function, enqueue=self._enqueue))
        return out

    def listen(self, listener: Listener) -> None:
        """Call `listener` once after every transaction that changed anything."""
        self._listeners.append(listener)

    # --- changing

    @contextlib.contextmanager
    def transaction(self) -> Iterator[transactions.Transaction]:
        """Open a transaction; at the end of the block it is applied, computed and published.

        The block must not await: the graph refuses a second transaction meanwhile.

        Raises:
            TransactionReentered: Another one is open, or under way (ISM-ENGINE-001).
        """
        self._enter(Phase.OPEN)
        transaction = transactions.Transaction(owner=self)
        try:
            yield transaction
            self._phase = Phase.COMPUTING
            batch = self._apply(transaction.close())
            self._phase = Phase.PUBLISHING
            self._publish(batch)
        finally:
            transaction.close()
            self._phase = Phase.IDLE

    # --- reading from outside

    def get(self, collection: collections.Collection[K, V], key: K) -> V | None:
        """Return the value of `key`, or None."""
        return collection.content.get(key)

    def items(self, collection: collections.Collection[K, V]) -> Mapping[K, V]:
        """Return all entries, read-only; the view follows later transactions."""
        return collection.view

    def lookup(self, index: collections.Groups[I, K, V], group: I) -> Mapping[K, V]:
        """Return the entries of one group, read-only."""
        return index.bucket(group)

    def value(self, single: collections.Single[V]) -> V:
        """Return a single value.

        Raises:
            NoValueYet: Its derivation has never succeeded (ISM-ENGINE-006).
        """
        if single.content is collections.ABSENT:
            raise faults.NoValueYet(f"`{single.name}` has no value yet")
        return single.content

    # --- looking inside

    def named(self, name: str) -> collections.Readable | None:
        """Return what was declared under `name`."""
        return self._names.get(name)

    def recomputed(self) -> int:
        """Return how many functions of derivations the last transaction ran."""
        return self._recomputed

    def findings(self) -> tuple[errors.Finding, ...]:
        """Return what is wrong with derivations at present, in order of declaration."""
        return tuple(found for node in self._nodes.values() for found in node.findings())

    def explain(self, collection: collections.Collection[K, V], key: K) -> explanations.Explanation:
        """Return what the value of `key` came from, down to the sources."""
        return explanations.explain(self._nodes, (collection, key))

    def explain_single(self, single: collections.Single[V]) -> explanations.Explanation:
        """Return what a single value came from, down to the sources."""
        return explanations.explain(self._nodes, (single, collections.WHOLE))

    # --- inside

    def _named(self, out: R) -> R:
        if self._phase is not Phase.IDLE:
            self._refuse(f"declare `{out.name}`")
        if out.name in self._names:
            raise faults.NameTaken(f"`{out.name}` is declared already")
        self._names[out.name] = out
        return out

    def _add(self, node: nodes.Node) -> None:
        """Fill a new collection at once; nobody can have listened to it before."""
        self._nodes[node.out.rank] = node
        self._phase = Phase.COMPUTING
        try:
            for out in self._compute():
                out.take_changes()
        finally:
            self._phase = Phase.IDLE

    def _check_own(self, readable: collections.Readable) -> None:
        if readable.owner is not self:
            raise faults.ReadOutOfOrder(f"`{readable.name}` belongs to another graph")

    def _gate(
        self, out: collections.Readable, by: collections.Collection[K, V] | None
    ) -> cells.Gate | None:
        if by is None:
            return None
        self._check_own(by)
        return cells.Gate(by, rank=out.rank, enqueue=self._enqueue)

    def _enter(self, phase: Phase) -> None:
        if self._phase is not Phase.IDLE:
            self._refuse("open a transaction")
        self._phase = phase

    def _refuse(self, act: str) -> None:
        raise faults.TransactionReentered(
            f"cannot {act}: the graph is {self._phase.value}",
            still_working="the graph is as before",
            hint="collect changes and make one transaction of them, from outside",
        )

    def _enqueue(self, rank: int) -> None:
        heapq.heappush(self._agenda, rank)

    def _apply(self, writes: transactions.Writes) -> changes.Changes:
        self._recomputed = 0
        last = None if self._last is None else self._last()
        if last is not None:
            last.settle()
        batch = dict[collections.Readable, Mapping[object, object]]()
        for source in tuple(writes):
            # Who holds its entries otherwise needs what was written no more, which may be all.
            _settle(source, writes.pop(source))
            if found := source.take_changes():
                batch[source] = found
        for out in self._compute():
            if found := out.take_changes():
                batch[out] = found
        made = changes.Changes(batch)
        self._last = weakref.ref(made)
        return made

    def _compute(self) -> list[collections.Readable]:
        refreshed = []
        while self._agenda:
            node = self._nodes[heapq.heappop(self._agenda)]
            self._recomputed += node.refresh()
            refreshed.append(node.out)
        return refreshed

    def _publish(self, batch: changes.Changes) -> None:
        """Tell everyone, also after one of them has raised."""
        if not batch:
            return
        raised = []
        for listener in tuple(self._listeners):
            try:
                listener(batch)
            except Exception as error:  # The others must hear of it all the same.
                raised.append(error)
        if raised:
            raise ExceptionGroup("listeners failed; the transaction holds", raised)


def _settle(
    source: collections.Source[object, object],
    entries: Mapping[object, "object | collections.Absent"],
) -> None:
    for key, value in entries.items():
        source.settle(key, value)
    source.announce()
