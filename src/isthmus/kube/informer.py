"""Follows one kind of one API server and tells what changed: drives `listwatch` over a client.

It decides nothing about objects. One that cannot be read becomes a finding and keeps its last
good form; an API server that is silent keeps the whole cache, with its age.

Source: performance rules 8, 9 and 11; design rules 5 and 7.
"""

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable, Hashable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar, cast

import msgspec
from typing_extensions import TypeVar as DefaultedTypeVar

from isthmus.base import clock, errors, logs, memory
from isthmus.kube import client, kinds, listwatch, nesting, objects, paging, problems, sharing

V = TypeVar("V", bound=objects.Object)

Key = tuple[str, str]
"""Namespace, empty for cluster-wide kinds, and name."""

K = DefaultedTypeVar("K", bound=Hashable, default=Key)
"""What names an object to whoever listens, who may keep it as it is."""

T = TypeVar("T")

_LOG = logs.Log("isthmus.kube")
WATCH_S = 300
Unreadable = msgspec.DecodeError | UnicodeDecodeError
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError)
_TOO_DEEP = f"it is nested deeper than {nesting.MOST_LEVELS} levels"


class _Versioned(msgspec.Struct, rename="camel", gc=False):
    resource_version: str = ""
    name: str = ""
    namespace: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _Bare(msgspec.Struct, gc=False):
    metadata: _Versioned = msgspec.field(default_factory=_Versioned)


class _ListAnswer(msgspec.Struct, gc=False):
    metadata: _Versioned = msgspec.field(default_factory=_Versioned)
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct, gc=False):
    type: str
    object: msgspec.Raw


class _Status(msgspec.Struct, gc=False):
    code: int = 0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Health:
    """How well one kind is followed.

    Attributes:
        answered_at: Monotonic time of the last good answer; None before the first.
        error: What the last failure said; empty while all is well.
    """

    synced: bool
    missing: bool
    answered_at: float | None
    error: str


class Informer(Generic[V, K]):
    """Follows one kind for as long as `run` runs."""

    _answered_at: float | None = None
    _error = ""
    _in_doubt = False

    def __init__(  # noqa: PLR0913  # each argument is an independent choice
        self,
        reads: client.Client,
        kind: kinds.Kind,
        decode: type[V],
        *,
        on_batch: Callable[[Mapping[K, V | None]], None] = lambda changes: None,
        on_finding: Callable[[K, errors.Finding | None], None] = lambda key, finding: None,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        optional: bool = False,
        longest_delay_s: float = listwatch.LONGEST_DELAY_S,
        admit: Callable[[], Awaitable[None]] | None = None,
        share: Callable[[V], V] = sharing.shared,
        named: Callable[[str, str], K] | None = None,
        cache: MutableMapping[K, V] | None = None,
        spread: Callable[[], float] = random.random,
        system_clock: clock.Clock | None = None,
    ) -> None:
        """Prepare to follow `kind`.

        Args:
            reads: The API server.
            kind: What to follow.
            decode: How its objects are read.
            on_batch: Called with what changed, maybe before `synced` is set; None is a deletion.
            on_finding: Called when an object cannot be read, and with None when it can again.
            namespace: Follow only this namespace.
            labels: A label selector.
            fields: A field selector.
            optional: Whether the kind may be unknown to the server; then it counts as empty.
            longest_delay_s: How long, about, a server that fails is left alone at most.
            admit: Awaited before a server is asked again, once there is something to lose; an
                `IsthmusError` keeps it from being believed.
            share: Lets an object that was just decoded share its parts with others.
            named: Makes the key of namespace and name; a pair of both, if none is given.
            cache: Where the objects are kept; empty at first.
            spread: Numbers from 0 to 1 that scatter delays.
            system_clock: Time.
        """
        self.kind = kind
        self.synced = asyncio.Event()
        self._reads = reads
        self._decoder = msgspec.json.Decoder(decode)
        self._share = share
        # Sound: without a name of their own, keys are pairs.
        self._named = named or cast("Callable[[str, str], K]", _pair)
        self._on_batch = on_batch
        self._on_finding = on_finding
        self._where = {"namespace": namespace, "labels": labels, "fields": fields}
        self._optional = optional
        self._admit = admit
        self._spread = spread
        self._clock = system_clock or clock.SystemClock()
        kept: MutableMapping[K, V] = {} if cache is None else cache
        self._state = listwatch.ListWatch[K, V](kept, longest_delay_s=longest_delay_s)
        self._broken = set[K]()
        self._ask: listwatch.List | listwatch.Watch = self._state.begin()

    @property
    def items(self) -> Mapping[K, V]:
        """The objects as last seen."""
        return self._state.cache

    def health(self) -> Health:
        """Return how well the kind is followed."""
        return Health(
            synced=self.synced.is_set(),
            missing=self._state.missing,
            answered_at=self._answered_at,
            error=self._error,
        )

    async def run(self) -> None:
        """Follow the kind until cancelled."""
        while True:
            ask = self._ask
            if ask.delay_s:
                await self._clock.sleep(ask.delay_s)
            if not await self._is_admitted():
                continue
            if isinstance(ask, listwatch.List):
                await self._list(ask)
            else:
                await self._watch(ask)

    def mute(self) -> None:
        """Tell nobody any more, and let go of who listened; to be called once `run` has ended.

        They hold us, too: held both ways, all objects would wait for the garbage collector, which
        never looks at what is frozen.
        """
        self._on_batch, self._on_finding, self._admit = _unheard, _unheard, None

    # --- asking -----------------------------------------------------------------------------------

    async def _is_admitted(self) -> bool:
        if self._admit is None or not self._in_doubt or not self.synced.is_set():
            return True
        try:
            await self._admit()
            self._in_doubt = False
        except errors.IsthmusError as error:
            self._note(error)
            self._hear(listwatch.Failed("other"))
            return False
        return True

    async def _list(self, ask: listwatch.List) -> None:
        query = {
            "limit": str(ask.limit) if ask.limit else "",
            "continue": ask.token,
            "labelSelector": self._where["labels"],
            "fieldSelector": self._where["fields"],
        }
        if ask.not_older_than and not ask.token:
            query["resourceVersion"] = ask.not_older_than
            query["resourceVersionMatch"] = "NotOlderThan"
        try:
            path = self.kind.path(namespace=self._where["namespace"])
            page = self._page(await self._reads.raw("GET", path, query=query))
        except (errors.IsthmusError, *_UNREADABLE) as error:
            self._fail(error)
            return
        self._hear(page)
        if self._state.endless:
            self._in_doubt = True
            self._note(paging.endless(self.kind.title))
        else:
            self._well()

    async def _watch(self, ask: listwatch.Watch) -> None:
        began = self._clock.monotonic()
        opened = False

        def on_open() -> None:
            nonlocal opened
            opened = True
            self._well()

        events = self._reads.watch(
            self.kind,
            resource_version=ask.version,
            timeout_s=WATCH_S,
            on_open=on_open,
            **self._where,
        )
        try:
            async with contextlib.aclosing(events):
                async for line in events:
                    heard = self._event(line)
                    self._well()
                    if heard is not None and self._hear(heard):
                        return
        except _UNREADABLE:
            # The connection was cut in the middle of an event: what was seen whole counts.
            pass
        except problems.Unreachable as error:
            if opened and isinstance(error.__cause__, TimeoutError):
                # Silence may be all that there is to say: whoever asks again will know.
                self._hear(listwatch.Ended(self._clock.monotonic() - began))
                return
            self._note(error)
        except problems.ApiError as error:
            self._fail(error)
            return
        if opened:
            # As long as a watch is open, what it has said is true.
            self._answered_at = self._clock.monotonic()
        self._hear(listwatch.Ended(self._clock.monotonic() - began))

    # --- hearing ----------------------------------------------------------------------------------

    def _hear(self, what: "listwatch.Heard[K, V]") -> bool:
        """Take in what was heard; return whether something else is to be asked."""
        if isinstance(what, listwatch.Ended | listwatch.Failed):
            self._in_doubt = True
        answer = self._state.heard(what, spread=self._spread())
        if answer.changes:
            self._on_batch(answer.changes)
        if answer.synced and (self._optional or not self._state.missing):
            self.synced.set()
        if answer.ask is None:
            return False
        self._ask = answer.ask
        return True

    def _fail(self, error: errors.IsthmusError | Unreadable) -> None:
        why: Literal["expired", "ahead", "missing", "other"] = "other"
        if isinstance(error, problems.ApiError):
            if error.is_expired:
                why = "expired"
            elif error.is_missing:
                why = "missing"
            elif "too large resource version" in error.message.lower():
                why = "ahead"
        if why == "missing" and self._optional:
            self._well()
        elif why != "expired":
            self._note(error)
        self._hear(listwatch.Failed(why))

    def _note(self, error: errors.IsthmusError | Unreadable) -> None:
        said = error.happened if isinstance(error, errors.IsthmusError) else str(error)
        detail = error.detail if isinstance(error, errors.IsthmusError) else ""
        shown = f"{said}: {detail.splitlines()[-1]}" if detail else said
        if shown != self._error:
            _LOG.warning("cannot follow a kind", kind=self.kind.title, error=shown)
        self._error = shown

    def _well(self) -> None:
        self._error = ""
        self._answered_at = self._clock.monotonic()

    # --- reading ----------------------------------------------------------------------------------

    def _page(self, content: bytes) -> listwatch.Page[K, V]:
        with memory.without_collection():
            answer, is_cut = _decoded(_LIST, content)
            items = dict(self._item(raw, is_cut=is_cut) for raw in answer.items or [])
        told = answer.metadata
        return listwatch.Page(items, told.resource_version, told.continue_, len(content))

    def _event(self, line: bytes) -> "listwatch.Heard[K, V] | None":
        event, is_cut = _decoded(_EVENT, line)
        if event.type == "ERROR":
            status = _STATUS.decode(event.object)
            expired = status.code == problems.GONE or status.reason in ("Expired", "Gone")
            if not expired:
                self._error = f"watch ended: {status.message or status.reason}"
            return listwatch.Failed("expired" if expired else "other")
        metadata = _BARE.decode(event.object).metadata
        if event.type == "BOOKMARK":
            return listwatch.Bookmark(metadata.resource_version)
        if event.type == "DELETED":
            key = self._named(metadata.namespace, metadata.name)
            self._readable(key)
            return listwatch.Deleted(key, metadata.resource_version)
        if event.type in ("ADDED", "MODIFIED"):
            key, value = self._item(event.object, is_cut=is_cut)
            return listwatch.Changed(key, value, metadata.resource_version)
        return None

    def _item(self, raw: msgspec.Raw, *, is_cut: bool) -> tuple[K, V | None]:
        try:
            if is_cut and nesting.CUT in bytes(raw):
                raise msgspec.ValidationError(_TOO_DEEP)
            value = self._share(self._readable_in(raw))
        except _UNREADABLE as error:
            bare, _ = _decoded(_BARE, bytes(raw))
            key = self._named(bare.metadata.namespace, bare.metadata.name)
            self._broken.add(key)
            self._on_finding(key, self._finding(bare.metadata, error))
            return key, None
        key = self._named(value.metadata.namespace, value.metadata.name)
        self._readable(key)
        return key, value

    def _readable_in(self, raw: msgspec.Raw) -> V:
        try:
            value = self._decoder.decode(raw)
        except RecursionError as error:
            # Nearly always the list that it stood in was too deep before.
            raise msgspec.ValidationError(_TOO_DEEP) from error
        # Whatever compares it or goes through it has less room than the decoder had.
        if isinstance(value, objects.FreeForm) and nesting.is_deep(value.spec):
            raise msgspec.ValidationError(_TOO_DEEP)
        return value

    def _readable(self, key: K) -> None:
        if key in self._broken:
            self._broken.discard(key)
            self._on_finding(key, None)

    def _finding(self, named: _Versioned, error: Unreadable) -> errors.Finding:
        return errors.Finding(
            problems.UNDECODABLE,
            f"{self.kind.kind} {'/'.join(part for part in (named.namespace, named.name) if part)}",
            f"cannot be read: {error}",
            still_working="its last readable form stays in use",
            hint="correct the field that is named",
        )


def _pair(namespace: str, name: str) -> Key:
    return namespace, name


def _unheard(*_: object) -> None:
    """Listen to nothing."""


_LIST = msgspec.json.Decoder(_ListAnswer)
_EVENT = msgspec.json.Decoder(_Event)
_STATUS = msgspec.json.Decoder(_Status)
_BARE = msgspec.json.Decoder(_Bare)


def _decoded(decoder: msgspec.json.Decoder[T], content: bytes) -> tuple[T, bool]:
    """Decode what a server said; if an object in it is nested too deeply, with that object cut."""
    try:
        return decoder.decode(content), False
    except RecursionError:
        return decoder.decode(nesting.cut(content)), True
