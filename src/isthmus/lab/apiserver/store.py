"""All objects of one cluster, and the recent past of every one of them.

One counter rises with every write. A ring of changes makes it possible to watch from a moment
that has passed and to list as of one; what has left the ring is gone, and says so. It knows
nothing of kinds, users or validity. Stored objects are never changed in place.
"""

import asyncio
import bisect
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import msgspec

from isthmus.lab.apiserver import errors
from isthmus.lab.apiserver.values import Obj

ADDED = "ADDED"
MODIFIED = "MODIFIED"
DELETED = "DELETED"

_LONGEST_QUEUE = 20_000
_ENCODER = msgspec.json.Encoder()


class Entry:
    """One object as of one revision, with its bytes once somebody wanted them.

    Attributes:
        obj: Never changed in place.
    """

    __slots__ = ("_encoded", "obj", "revision")

    def __init__(self, obj: Obj, *, revision: int) -> None:
        self.obj = obj
        self.revision = revision
        self._encoded: bytes | None = None

    @property
    def encoded(self) -> bytes:
        """The object as JSON."""
        if self._encoded is None:
            self._encoded = _ENCODER.encode(self.obj)
        return self._encoded


@dataclass(frozen=True, slots=True)
class Change:
    """One write.

    Attributes:
        entry: After the write; for `DELETED` the last state with the revision of its deletion.
        previous: Before the write; None for `ADDED`.
    """

    revision: int
    resource: str
    type: str
    namespace: str
    name: str
    entry: Entry
    previous: Entry | None


class Feed:
    """Changes of one resource as they happen, queued for one reader."""

    def __init__(self, store: "Store", resource: str, namespace: str) -> None:
        self._store = store
        self._resource = resource
        self._namespace = namespace
        self._queue: deque[Change] = deque()
        self._ready = asyncio.Event()
        self.closed = False
        self.overrun = False

    def push(self, change: Change) -> None:
        """Queue a change; a reader that is hopelessly behind is cut off."""
        if self._namespace and change.namespace != self._namespace:
            return
        if len(self._queue) >= _LONGEST_QUEUE:
            self.overrun = True
            self.close()
            return
        self._queue.append(change)
        self._ready.set()

    def take(self) -> list[Change]:
        """Return what has come in, without waiting."""
        taken = list(self._queue)
        self._queue.clear()
        if not self.closed:
            self._ready.clear()
        return taken

    async def wait(self, delay_s: float | None = None) -> bool:
        """Wait until something came in or the feed closed; False when `delay_s` passed."""
        if self._ready.is_set():
            return True
        try:
            async with asyncio.timeout(delay_s):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Take no more changes; what is queued may still be taken."""
        self.closed = True
        self._ready.set()
        self._store.forget(self._resource, self)


class Store:
    """The objects, the counter and the past.

    Attributes:
        revision: That of the latest write.
        floor: Changes up to and including this revision are forgotten.
    """

    def __init__(self, *, history: int = 10_000) -> None:
        self.revision = 1
        self.floor = 0
        self._history = history
        self._log: list[Change] = []
        self._objects: dict[str, dict[tuple[str, str], Entry]] = {}
        self._by_uid: dict[str, tuple[str, str, str]] = {}
        self._by_owner: dict[str, set[tuple[str, str, str]]] = {}
        self._feeds: dict[str, set[Feed]] = {}

    def get(self, resource: str, *, name: str, namespace: str = "") -> Entry | None:
        """Return an object, if there."""
        return self._objects.get(resource, {}).get((namespace, name))

    def entries(self, resource: str, namespace: str = "") -> list[Entry]:
        """Return the objects of a resource, sorted by namespace and name."""
        found = self._objects.get(resource, {})
        return [
            entry for key, entry in sorted(found.items()) if not namespace or key[0] == namespace
        ]

    def resources_in(self, namespace: str) -> Iterator[tuple[str, Entry]]:
        """Yield everything that lies in a namespace."""
        for resource, found in list(self._objects.items()):
            for key, entry in list(found.items()):
                if key[0] == namespace:
                    yield resource, entry

    def at(self, resource: str, *, revision: int, namespace: str = "") -> list[Entry]:
        """Return the objects as they were at `revision`; raises 410 when that is forgotten."""
        if revision < self.floor:
            raise errors.expired(f"The resourceVersion is too old: {revision} ({self.floor})")
        found = dict(self._objects.get(resource, {}))
        for change in reversed(self._after(revision)):
            if change.resource != resource:
                continue
            key = (change.namespace, change.name)
            if change.previous is None:
                found.pop(key, None)
            else:
                found[key] = change.previous
        return [
            entry for key, entry in sorted(found.items()) if not namespace or key[0] == namespace
        ]

    def changes(self, resource: str, *, after: int, namespace: str = "") -> list[Change]:
        """Return the changes after a revision; raises 410 when some are forgotten."""
        if after < self.floor:
            raise errors.expired(f"too old resource version: {after} ({self.floor})")
        return [
            change
            for change in self._after(after)
            if change.resource == resource and (not namespace or change.namespace == namespace)
        ]

    def _after(self, revision: int) -> list[Change]:
        start = bisect.bisect_right(self._log, revision, key=lambda change: change.revision)
        return self._log[start:]

    def put(self, resource: str, obj: Obj) -> Obj:
        """Store `obj` under its name, set its new revision, tell everybody; return it."""
        meta = obj["metadata"]
        namespace, name = meta.get("namespace", ""), meta["name"]
        self.revision += 1
        meta["resourceVersion"] = str(self.revision)
        entry = Entry(obj, revision=self.revision)
        found = self._objects.setdefault(resource, {})
        previous = found.get((namespace, name))
        found[(namespace, name)] = entry
        key = (resource, namespace, name)
        if previous is not None:
            self._disown(previous.obj, key)
        self._by_uid[meta["uid"]] = key
        for owner in meta.get("ownerReferences") or ():
            self._by_owner.setdefault(owner.get("uid", ""), set()).add(key)
        kind = ADDED if previous is None else MODIFIED
        self._record(Change(self.revision, resource, kind, namespace, name, entry, previous))
        return obj

    def remove(self, resource: str, obj: Obj) -> Obj:
        """Delete the object with the name of `obj`, its last state, and tell everybody."""
        namespace, name = obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
        previous = self._objects[resource].pop((namespace, name))
        self.revision += 1
        meta = {**obj["metadata"], "resourceVersion": str(self.revision)}
        last = {**obj, "metadata": meta}
        self._by_uid.pop(meta["uid"], None)
        self._disown(previous.obj, (resource, namespace, name))
        entry = Entry(last, revision=self.revision)
        self._record(Change(self.revision, resource, DELETED, namespace, name, entry, previous))
        return last

    def _disown(self, obj: Obj, key: tuple[str, str, str]) -> None:
        for owner in obj["metadata"].get("ownerReferences") or ():
            keys = self._by_owner.get(owner.get("uid", ""))
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del self._by_owner[owner.get("uid", "")]

    def owned_by(self, uid: str) -> Iterable[tuple[str, Entry]]:
        """Return the objects that name `uid` among their owners, with their resource."""
        found = []
        for resource, namespace, name in sorted(self._by_owner.get(uid, ())):
            entry = self.get(resource, name=name, namespace=namespace)
            if entry is not None:
                found.append((resource, entry))
        return found

    def by_uid(self, uid: str) -> tuple[str, Entry] | None:
        """Return the object with this uid and its resource, if there."""
        key = self._by_uid.get(uid)
        if key is None:
            return None
        entry = self.get(key[0], namespace=key[1], name=key[2])
        return None if entry is None else (key[0], entry)

    def feed(self, resource: str, namespace: str = "") -> Feed:
        """Open a feed of what happens from now on."""
        made = Feed(self, resource, namespace)
        self._feeds.setdefault(resource, set()).add(made)
        return made

    def forget(self, resource: str, feed: Feed) -> None:
        """Stop feeding a reader."""
        self._feeds.get(resource, set()).discard(feed)

    def close_feeds(self, resource: str) -> None:
        """End every feed of a resource that is no longer served."""
        for feed in list(self._feeds.get(resource, ())):
            feed.close()

    def compact(self, revision: int | None = None) -> None:
        """Forget changes up to `revision`, or all."""
        upto = self.revision if revision is None else min(revision, self.revision)
        self._log = self._after(upto)
        self.floor = max(self.floor, upto)

    def _record(self, change: Change) -> None:
        self._log.append(change)
        # Cut off half a ring at a time: cutting one change per write would copy the ring each time.
        if len(self._log) > self._history + max(self._history // 2, 1):
            self.compact(self._log[-self._history - 1].revision)
        for feed in list(self._feeds.get(change.resource, ())):
            feed.push(change)
