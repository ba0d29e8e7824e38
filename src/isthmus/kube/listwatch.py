"""Decides how one kind of one API server is followed: when to list, watch, wait, start again.

A table of states without I/O, clock or chance: it is told what was heard and answers what to ask
next and which objects changed. What an answer looks like in bytes, and how time passes, is the
driver's matter. Versions are opaque texts; the newest one seen bounds how old a list may be.

    listing   page, last page        -> more pages | watching, with one batch of all differences
              refused or silent      -> listing again, later; the cache stays as it is
              pages without end      -> the same, in one piece
              page token expired     -> listing from the start; the third time in one piece
              version not there yet  -> listing with a quorum read
              kind not served        -> counts as listed; asks again, and is empty if that lasts
    watching  event                  -> a batch, or nothing if it changes nothing that we read
              bookmark               -> a newer version to continue from
              end, cut, silence      -> watching from the newest version
              version expired        -> listing
              refused                -> watching, later; the third time listing

Source: Kubernetes API concepts (efficient detection of changes); design rule 5; drills 05 to 08.
"""

from collections.abc import Hashable, Mapping, MutableMapping
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar, assert_never

from isthmus.kube import paging

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

PAGE = 500
FIRST_DELAY_S = 0.25
# The five kinds of a cluster ask less than once a second in all; one that is back is heard in 10 s.
LONGEST_DELAY_S = 7.0
# A kind that is not served is asked for steadily, so that an installed one is found soon.
MISSING_DELAY_S = 2.0
# A watch that lived this long was worth having: what ends it is no sign of trouble.
GOOD_WATCH_S = 5.0
TOKENS_TO_LOSE = 2
WATCHES_TO_FAIL = 3
MISSING_TO_EMPTY = 3


# --- what is heard --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Page(Generic[K, V]):
    """A page of a list; a value of None is an object that could not be read.

    Attributes:
        token: Continues the list; empty on the last page.
        size_bytes: How large it was.
    """

    items: Mapping[K, V | None]
    version: str
    token: str = ""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Changed(Generic[K, V]):
    """An object was added or changed; a value of None could not be read."""

    key: K
    value: V | None
    version: str


@dataclass(frozen=True, slots=True)
class Deleted(Generic[K]):
    """An object is gone."""

    key: K
    version: str


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Nothing that matches happened up to this version."""

    version: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The watch ended: as agreed, cut in the middle of an event, or by silence."""

    lasted_s: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A request, or an event of a watch, said that it cannot go on.

    Attributes:
        why: `expired`: the version or page token is too old; `ahead`: the version is newer than
            the server's; `missing`: the kind is not served; `endless`: a list had no end; `other`:
            all else.
    """

    why: Literal["expired", "ahead", "missing", "endless", "other"]


Heard = Page[K, V] | Changed[K, V] | Deleted[K] | Bookmark | Ended | Failed


# --- what to ask ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class List:
    """Ask for a page.

    Attributes:
        not_older_than: Version that the answer must have reached; empty for a quorum read.
        token: Continues an earlier page; then nothing else is asked for.
        limit: Most objects in the page; 0 for all.
    """

    not_older_than: str = ""
    token: str = ""
    limit: int = PAGE
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Watch:
    """Ask for the events since a version."""

    version: str
    delay_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer(Generic[K, V]):
    """What follows from what was heard.

    Attributes:
        ask: The next request; None while the watch that runs should go on.
        changes: The objects that differ from before; None is a deletion.
        synced: Whether the first whole list is in, so that the cache may be relied on.
    """

    ask: List | Watch | None
    changes: Mapping[K, V | None]
    synced: bool


@dataclass(slots=True)
class ListWatch(Generic[K, V]):
    """Follows one kind; `cache` is the server's state as last seen.

    Attributes:
        endless: Whether the last list had no end.
        longest_delay_s: How long, about, a server that fails is left alone at most.
    """

    cache: MutableMapping[K, V] = field(default_factory=dict)
    synced: bool = False
    missing: bool = False
    endless: bool = False
    longest_delay_s: float = LONGEST_DELAY_S
    _version: str = ""
    _watching: bool = False
    _pages: dict[K, V | None] = field(default_factory=dict)
    _told: paging.Pages = field(default_factory=paging.Pages)
    _failures: int = 0
    _lost_tokens: int = 0

    def begin(self) -> List:
        """Return the first request."""
        return List()

    def heard(self, what: Heard[K, V], *, spread: float) -> Answer[K, V]:
        """Take in what was heard and say what to ask next.

        Args:
            what: What came in.
            spread: A number from 0 to 1, drawn anew each time, that scatters delays.
        """
        match what:
            case Page():
                return self._page(what, spread)
            case Changed():
                return self._changed(what)
            case Deleted():
                return self._deleted(what)
            case Bookmark():
                self._progress(what.version)
                return self._answer(None)
            case Ended():
                return self._ended(what, spread)
            case Failed():
                return self._failed(what, spread)
        assert_never(what)  # pragma: no cover

    # --- listing ----------------------------------------------------------------------------------

    def _page(self, page: Page[K, V], spread: float) -> Answer[K, V]:
        known = len(self._pages)
        self._pages.update(page.items)
        if page.token:
            has_news = len(self._pages) > known
            if self._told.leads_on(has_news=has_news, size_bytes=page.size_bytes):
                return self._answer(List(token=page.token))
            self.endless, self._lost_tokens = True, TOKENS_TO_LOSE
            return self._failed(Failed("endless"), spread)
        listed, self._pages, self._told = self._pages, {}, paging.Pages()
        self.endless = False
        # An object that cannot be read keeps its last good form.
        changes: dict[K, V | None] = {
            key: value
            for key, value in listed.items()
            if value is not None and self.cache.get(key) != value
        }
        changes |= {key: None for key in self.cache if key not in listed}
        self._keep(changes)
        self._version = page.version
        self._watching = True
        self.synced, self.missing = True, False
        self._lost_tokens = 0
        return self._answer(Watch(self._version), changes)

    def _failed(self, failure: Failed, spread: float) -> Answer[K, V]:
        # The first expiry of a watch is a matter of course: list at once.
        at_once = failure.why == "expired" and self._watching and not self._failures
        had_pages, self._pages, self._told = bool(self._pages), {}, paging.Pages()
        self._failures += 1
        delay_s = 0.0 if at_once else self._delay_s(spread)
        if failure.why == "missing":
            return self._missing(spread)
        if failure.why == "other" and self._watching and self._failures < WATCHES_TO_FAIL:
            return self._answer(Watch(self._version, delay_s))
        if failure.why == "expired" and had_pages:
            self._lost_tokens += 1
        self._watching = False
        # A server that was set back to an older state never reaches our version: read by quorum.
        bound = "" if failure.why == "ahead" else self._version
        limit = 0 if self._lost_tokens >= TOKENS_TO_LOSE else PAGE
        if failure.why == "ahead":
            self._version = ""
        return self._answer(List(not_older_than=bound, limit=limit, delay_s=delay_s))

    def _missing(self, spread: float) -> Answer[K, V]:
        self._watching = False
        self.synced = self.missing = True
        # Deletions precede a kind's own; unseen ones are believed only when it stays away.
        gone = self.cache if self._failures >= MISSING_TO_EMPTY else ()
        changes: dict[K, V | None] = dict.fromkeys(gone)
        self._keep(changes)
        return self._answer(List(delay_s=MISSING_DELAY_S * (0.75 + 0.5 * spread)), changes)

    # --- watching ---------------------------------------------------------------------------------

    def _changed(self, event: Changed[K, V]) -> Answer[K, V]:
        self._progress(event.version)
        if event.value is None or self.cache.get(event.key) == event.value:
            return self._answer(None)
        return self._batch({event.key: event.value})

    def _deleted(self, event: Deleted[K]) -> Answer[K, V]:
        self._progress(event.version)
        return self._batch({event.key: None} if event.key in self.cache else {})

    def _ended(self, end: Ended, spread: float) -> Answer[K, V]:
        if end.lasted_s >= GOOD_WATCH_S:
            self._failures = 0
        self._failures += 1
        # A watch that ends in good time is opened again at once; one that keeps ending, later.
        delay_s = 0.0 if self._failures == 1 else self._delay_s(spread)
        return self._answer(Watch(self._version, delay_s))

    # --- both -------------------------------------------------------------------------------------

    def _progress(self, version: str) -> None:
        self._version = version or self._version
        self._failures = 0

    def _delay_s(self, spread: float) -> float:
        grown = FIRST_DELAY_S * 2.0 ** min(self._failures - 1, 16)
        return float(min(grown, self.longest_delay_s) * (0.75 + 0.5 * spread))

    def _batch(self, changes: dict[K, V | None]) -> Answer[K, V]:
        self._keep(changes)
        return self._answer(None, changes)

    def _keep(self, changes: Mapping[K, V | None]) -> None:
        for key, value in changes.items():
            if value is None:
                self.cache.pop(key, None)
            else:
                self.cache[key] = value

    def _answer(
        self, ask: List | Watch | None, changes: Mapping[K, V | None] | None = None
    ) -> Answer[K, V]:
        return Answer(ask, changes or {}, self.synced)
