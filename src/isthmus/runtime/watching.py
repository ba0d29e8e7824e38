"""What one connected proxy should have, wherever that is compiled.

In the control plane's own process the source is the compiler; in a process that only tells proxies
it is what that one was told.

Source: docs/decisions/0051.
"""

from collections.abc import Hashable
from typing import Generic, Protocol, TypeVar

from typing_extensions import override

from isthmus.resources.snapshot import Snapshot, TypeUrl
from isthmus.runtime import catalog
from isthmus.wire import ads
from isthmus.xds import messages

S = TypeVar("S", bound=Hashable)
"""What stands for a scope."""


class Source(Protocol[S]):
    """Where it comes from what proxies should have."""

    @property
    def catalog(self) -> catalog.Catalog[S]:
        """What each scope holds."""

    def see(self, fresh: tuple[S, ...], *, instead_of: tuple[S, ...]) -> None:
        """Have fresh scopes ready, and forget those that nobody sees any more."""

    def implied_of(self, key: str) -> frozenset[str]:
        """Return what the proxy of a key wants without naming it."""

    def close(self, key: str) -> None:
        """Forget a proxy."""


class ProxyWatch(ads.Watch, Generic[S]):
    """What one proxy should have. It is woken by being called."""

    __slots__ = ("_implies", "_is_closed", "_key", "_sees", "_source", "_wakes")

    def __init__(self, source: Source[S], key: str, *, implies: bool = True) -> None:
        """Begin to see nothing.

        Args:
            source: Where it comes from.
            key: How the source calls it.
            implies: Whether the proxy may want anything without naming it.
        """
        self._source = source
        self._key = key
        self._implies = implies
        self._sees = source.catalog.read((), self)
        self._wakes: tuple[catalog.Wake, ...] = ()
        self._is_closed = False

    @property
    def key(self) -> str:
        """How the source calls it."""
        return self._key

    @property
    def scopes(self) -> tuple[S, ...]:
        """What it sees."""
        return self._sees.scopes

    @override
    def snapshot(self) -> Snapshot:
        if self._implies and (implied := self._source.implied_of(self._key)):
            return self._sees.following(implied)
        return self._sees.snapshot

    @override
    def on_change(self, wake: catalog.Wake) -> None:
        self._wakes = (*self._wakes, wake)

    @override
    def heeds(self, type_url: TypeUrl, names: frozenset[str]) -> None:
        self._sees.want(self, type_url, names)

    @override
    def status(self, report: messages.Report) -> None:
        """Nothing: the stream itself keeps the record."""

    @override
    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._source.close(self._key)

    def move(self, scopes: tuple[S, ...]) -> None:
        """See other scopes from now on, and tell the proxy of the difference."""
        old, shelves = self._sees.scopes, self._source.catalog
        if scopes == old:
            return
        # Later nothing is known of what nobody else sees.
        gone = shelves.names(scope for scope in old if scope not in scopes)
        wants = shelves.leave(old, self)
        self._source.see(scopes, instead_of=old)
        self._sees = shelves.read(scopes, self)
        for type_url, names in wants.items():
            self._sees.want(self, type_url, names)
        if self._wakes:
            come = shelves.names(scope for scope in scopes if scope not in old)
            self(catalog.joined((gone, come)))

    def leave(self) -> None:
        """See nothing any more."""
        self._source.catalog.leave(self._sees.scopes, self)
        self._source.see((), instead_of=self._sees.scopes)

    def __call__(self, changed: catalog.Changed) -> None:
        """Tell the proxy of a change."""
        for wake in self._wakes:
            wake(changed)
