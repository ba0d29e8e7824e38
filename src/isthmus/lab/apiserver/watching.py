"""Watches over HTTP: what was, what happens, bookmarks, and the word that the past is gone.

It turns stored changes into the events that one client's selectors and form let through. The
order is that of the store; nothing is merged or left out.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from isthmus.lab.apiserver import errors, lists, requests, selectable, selectors, store
from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.state import State

INITIAL_EVENTS_END = "k8s.io/initial-events-end"

Encode: TypeAlias = Callable[[store.Entry], bytes]
"""Returns an object in the form that the client wants."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What a watch request asks for.

    Attributes:
        after: Send changes after this revision; None to begin with what is there.
        initial_end: Whether a bookmark marks the end of what is there.
        timeout_s: When to end; 0 for the server's choice.
    """

    namespace: str
    matches: selectors.Match
    after: int | None
    bookmarks: bool
    initial_end: bool
    timeout_s: int


def wish(
    state: State, *, namespace: str, query: Mapping[str, str], resource: Resource | None = None
) -> Wish:
    """Read a watch request; raises 400, 422 or 504."""
    initial = query.get("sendInitialEvents")
    bookmarks = selectors.go_bool(query.get("allowWatchBookmarks"))
    match = query.get("resourceVersionMatch") or ""
    given = query.get("resourceVersion") or ""
    if initial is None and match:
        raise _forbidden(
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        )
    if initial is not None and match != "NotOlderThan":
        raise _forbidden("sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
    starts_full = selectors.go_bool(initial) if initial is not None else given in ("", "0")
    if starts_full and initial is not None and not bookmarks:
        raise _forbidden("sendInitialEvents requires setting allowWatchBookmarks")
    revision = requests.number(given or "0", "resourceVersion")
    if not starts_full:
        lists.check_reached(state, revision)
    return Wish(
        namespace,
        selectors.parse(
            labels=query.get("labelSelector", ""),
            fields=query.get("fieldSelector", ""),
            known=None if resource is None else selectable.fields_of(resource),
        ),
        None if starts_full else revision or state.store.revision,
        bookmarks,
        initial is not None and starts_full,
        requests.number(query.get("timeoutSeconds") or "0", "timeoutSeconds"),
    )


def _forbidden(why: str) -> errors.ApiError:
    cause = errors.Cause("sendInitialEvents", f"Forbidden: {why}", "FieldValueForbidden")
    return errors.invalid("ListOptions", name="", causes=[cause], group="meta.k8s.io")


class Watch:
    """One client's view of the changes of one resource.

    Attributes:
        feed: What is to come; close it when done.
    """

    def __init__(self, state: State, resource: Resource, wanted: Wish, encode: Encode) -> None:
        self._state = state
        self._resource = resource
        self._wish = wanted
        self._encode = encode
        self.feed = state.store.feed(resource.key, wanted.namespace)

    def beginning(self) -> Iterator[bytes]:
        """Yield what comes before anything new; the last line may say that the past is gone."""
        wanted = self._wish
        kept = self._state.store
        if wanted.after is None:
            for entry in kept.entries(self._resource.key, wanted.namespace):
                if wanted.matches(entry.obj):
                    yield frame(store.ADDED, self._encode(entry))
            if wanted.initial_end:
                yield self.bookmark(initial_end=True)
            return
        try:
            missed = kept.changes(
                self._resource.key, after=wanted.after, namespace=wanted.namespace
            )
        except errors.ApiError as error:
            self.feed.close()
            yield failure(error)
            return
        yield from self.lines(missed)

    def lines(self, changes: Iterable[store.Change]) -> Iterator[bytes]:
        """Yield the events of `changes` that this client is to see."""
        for change in changes:
            kind = self._kind(change)
            if kind == store.DELETED and change.type != store.DELETED and change.previous:
                # It only left the selection: the client gets the state that it knew.
                yield frame(kind, self._encode(_as_of(change.previous, change.revision)))
            elif kind:
                yield frame(kind, self._encode(change.entry))

    def _kind(self, change: store.Change) -> str:
        matches = self._wish.matches
        if matches is selectors.everything:
            return change.type
        was = change.previous is not None and matches(change.previous.obj)
        now = change.type != store.DELETED and matches(change.entry.obj)
        if now:
            return store.MODIFIED if was else store.ADDED
        return store.DELETED if was else ""

    def bookmark(self, *, initial_end: bool = False) -> bytes:
        """Return the event that says up to where the client has seen everything."""
        meta: dict[str, object] = {
            "resourceVersion": str(self._state.store.revision),
            "creationTimestamp": None,
        }
        if initial_end:
            meta["annotations"] = {INITIAL_EVENTS_END: "true"}
        mark = {
            "kind": self._resource.kind,
            "apiVersion": self._resource.api_version,
            "metadata": meta,
        }
        entry = store.Entry(mark, revision=self._state.store.revision)
        return frame("BOOKMARK", self._encode(entry))


def _as_of(entry: store.Entry, revision: int) -> store.Entry:
    meta = {**entry.obj["metadata"], "resourceVersion": str(revision)}
    return store.Entry({**entry.obj, "metadata": meta}, revision=revision)


def frame(kind: str, encoded: bytes) -> bytes:
    """Return one line of a watch."""
    return b'{"type":"' + kind.encode() + b'","object":' + encoded + b"}\n"


def failure(error: errors.ApiError) -> bytes:
    """Return the line that ends a watch with an error."""
    return frame("ERROR", msgspec.json.encode(error.status()))
