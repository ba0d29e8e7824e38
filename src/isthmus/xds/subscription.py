"""What one client wants of one type, what it was offered, and what it must hear next.

What waits to be told is a set of names, never a queue: however often something changes before
the client is ready, it hears the latest state once. Whether a request is allowed is decided by
the session, not here. A subscription is made of values and is itself one once it is `settled`:
what happens is done to a copy, so that all clients of which the same is true share it.

Source: spec section 4.6; xDS protocol, "Subscribing to resources".
"""

import hashlib
import weakref
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Final

from isthmus.resources.snapshot import MEMBERS, NOWHERE, Leads, Resource, TypeUrl
from isthmus.xds import collections, commons, ledgers, messages, ordering
from isthmus.xds.messages import WILDCARD, Flavour
from isthmus.xds.ordering import Part

MOST_MESSAGE: Final = 4096
"""Characters of a client's refusal that are kept."""

SET_BYTES: Final = 64
"""What a name takes in a set, at most."""

LEAF_BYTES: Final = 8

NAME_PARTS: Final = frozenset("-_|/")
"""Characters that can continue a name, besides letters and digits."""


NOBODY: Final = frozenset[str]()

_Parts = tuple[
    TypeUrl,
    Flavour,
    frozenset[str],
    bool,
    ledgers.Ledger,
    frozenset[str],
    frozenset[str],
    frozenset[str],
    bool,
    bool,
    frozenset[str],
]

_SETTLED: Final[weakref.WeakValueDictionary[_Parts, "Subscription"]] = weakref.WeakValueDictionary()


@dataclass(frozen=True, slots=True)
class Draft:
    """What the next message about a type contains.

    Attributes:
        changed: Names whose content the client did not have, or must hear again.
    """

    resources: tuple[Resource, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]

    def digest(self) -> str:
        """Return a short text that follows from the content alone."""
        content = hashlib.blake2b(digest_size=6)
        for resource in self.resources:
            content.update(f"{resource.name}\0{resource.version}\0".encode())
        for name in self.removed:
            content.update(f"{name}\0\0".encode())
        return content.hexdigest()


@dataclass(slots=True, weakref_slot=True, eq=False)
class Subscription:
    """One client's interest in one type.

    Attributes:
        names: What it wants; `*` stands for everything.
        has_named: Whether it ever gave a name: after that, an empty list means nothing.
        known: The version of each resource that it was last offered or said to have.
        due: Names to look at before the next message.
        forced: Names that it must hear even when it was offered the same before.
        gone: Delta only: names to tell as removed.
        is_whole: Whether every name must be looked at.
        is_owed: Whether it waits for an answer, even an empty one.
        tainted: Names of a refused offer whose culprit the client did not name.
        told: All that it was told last, where a message says all; that follows from `known`.
        is_pending: Whether there may be something to tell; true of what is settled.
    """

    type_url: TypeUrl
    flavour: Flavour
    names: frozenset[str] = NOBODY
    has_named: bool = False
    known: ledgers.Ledger = ledgers.NOTHING
    due: frozenset[str] = NOBODY
    forced: frozenset[str] = NOBODY
    gone: frozenset[str] = NOBODY
    is_whole: bool = False
    is_owed: bool = False
    tainted: frozenset[str] = NOBODY
    is_pending: bool = False
    told: tuple[Resource, ...] = ()

    def copied(self) -> "Subscription":
        """Return another one, to be changed."""
        return Subscription(*self._parts(), told=self.told)

    def settled(self) -> "Subscription":
        """Return the one subscription of which all of this is true; not to be changed any more."""
        self.is_pending = self.is_owed or self.is_whole or bool(self.due or self.gone)
        self.names = commons.names(self.names)
        return _SETTLED.setdefault(self._parts(), self)

    def bytes_besides(self, other: "Subscription") -> int:
        """Return about how much it holds that another one does not hold as well."""
        sets = (self.names, self.due, self.forced, self.gone, self.tainted)
        known = {id(one) for one in (other.names, other.due, other.forced, other.gone)}
        own = {id(one): len(one) for one in sets if id(one) not in known}
        leaves = 0 if self.known is other.known else self.known.leaves
        told = 0 if self.told is other.told else len(self.told)
        return SET_BYTES * sum(own.values()) + LEAF_BYTES * (leaves + told)

    def _parts(self) -> _Parts:
        return (
            self.type_url,
            self.flavour,
            self.names,
            self.has_named,
            self.known,
            self.due,
            self.forced,
            self.gone,
            self.is_whole,
            self.is_owed,
            self.tainted,
        )

    def begin(self, request: messages.Request, *, has: ledgers.Ledger = ledgers.NOTHING) -> None:
        """Start from what the first request says, of a client that `has` something already."""
        self.known = has
        if self.flavour is Flavour.DELTA:
            dropped = frozenset(request.unsubscribe)
            wanted = (frozenset(request.subscribe) or self._legacy()) - dropped
            if WILDCARD not in wanted:
                # What it has it goes on wanting, without naming it.
                wanted = wanted.union(has) - dropped
            self._add(wanted)
            self.is_whole = self.is_whole or self.is_on_demand
            # What the client has from another stream needs no repetition. Of assignments for which
            # a cluster waits since then it has another version.
            self.forced = self.forced.difference(self.known)
        else:
            self.amend(request)
        # Who subscribes to nothing, by taking it back in the same request, waits all the same.
        self.is_owed = bool(self.names or request.subscribe)

    def restart(self, request: messages.Request) -> None:
        """State of the world: forget what was offered and answer anew, in full."""
        self.known, self.told, self.gone = ledgers.NOTHING, (), NOBODY
        self.amend(request)
        self.is_whole = self.is_owed = bool(self.names)

    def amend(self, request: messages.Request) -> None:
        """Change the interest as `request` says."""
        if self.flavour is Flavour.DELTA:
            added, dropped = frozenset(request.subscribe), frozenset(request.unsubscribe)
        else:
            wanted = frozenset(request.names) or self._legacy()
            added, dropped = wanted - self.names, self.names - wanted
        self._drop(dropped - added)
        self._add(added)

    def refuse(self, names: Iterable[str], message: str) -> tuple[str, ...]:
        """Note that an offer of `names` is not in use; return the names that are blamed.

        What is blamed is not offered again before it changes. The rest of the offer may have
        been dropped along with it and is offered again without the culprits; when none is
        named, the whole offer is repeated as soon as a part of it changes.
        """
        offered = frozenset(names)
        if self.type_url == MEMBERS:
            # Nobody knows what it has of these: it is told all, as soon as anything changes.
            self.known = self.known.without(map(collections.of_member, offered))
        blamed = tuple(sorted(name for name in offered if _mentions(message, name)))
        if not self._tells_all:
            rest = frozenset(name for name in offered.difference(blamed) if self._wants(name))
            if blamed:
                self.due |= rest
                self.forced |= rest
            else:
                self.tainted |= rest
        return blamed

    def touch(self, names: frozenset[str] | None) -> None:
        """Look at `names` before the next message; None looks at all."""
        if names is None:
            self.is_whole = True
        elif WILDCARD in self.names or self.is_on_demand:
            self.due |= names
        else:
            self.due |= self.names & names

    def force(self, names: Iterable[str]) -> None:
        """Tell `names` again even when the client has them: it started to wait for them anew."""
        wanted = frozenset(name for name in names if self._wants(name))
        self.due |= wanted
        self.forced |= wanted

    def take(
        self,
        resources: Mapping[str, Resource],
        *,
        part: Part,
        leads: Leads = NOWHERE,
        turn: str = collections.FIRST_TURN,
    ) -> Draft | None:
        """Return what to tell now, and count it as told; None when there is nothing.

        `leads` says what names lead to beside the resources of these names, `turn` how collections
        are called on this stream.
        """
        if part is Part.REMOVALS:
            is_less = self._tells_all and bool(self.gone)
            return self._all(resources, {}, NOBODY) if is_less else self._finished((), part=part)
        is_whole = self.is_whole
        candidates = self._candidates(resources)
        if self.is_on_demand:
            if is_whole:
                candidates.update(*(leads.related.get(name, NOBODY) for name in leads.implied))
            candidates = self._reached(candidates, resources, leads)
        if self._tells_all:
            return self._take_all(resources, candidates, part=part)
        changed = self._news(candidates, resources)
        if not self.tainted.isdisjoint(changed):
            changed |= {name for name in self.tainted if self._wants(name)}
            self.tainted = NOBODY
        if self.type_url == MEMBERS:
            return self._take_members(resources, candidates, changed, part=part, turn=turn)
        chosen = tuple(resources[name] for name in sorted(changed) if name in resources)
        self._note_absent(frozenset(name for name in candidates if name not in resources))
        self.gone = frozenset(
            name for name in self.gone if name not in candidates or name not in resources
        )
        self.known = self.known.after({each.name: each.version for each in chosen})
        self.forced = NOBODY
        return self._finished(chosen, part=part)

    def _take_members(
        self,
        resources: Mapping[str, Resource],
        candidates: set[str],
        changed: set[str],
        *,
        part: Part,
        turn: str,
    ) -> Draft | None:
        """Return what to tell of collections; who waits for one that is not there hears that."""
        told, gone, versions = list[Resource](), set(self.gone), dict[str, str | None]()
        for name in sorted(candidates):
            collection, held = resources.get(name), self.known.get(name)
            now = None if collection is None else collection.version
            if name in changed and now is not None:
                has = None if name in self.forced else held
                told += collections.news(has, now, turn=turn).resources
            if held is not None:
                gone.update(collections.news(held, now, turn=turn).removed)
            if now is None and (held is not None or name in self.forced):
                gone.add(name)
            versions[name] = now
        self.gone = frozenset(gone)
        self.known = self.known.after(versions)
        self.forced = NOBODY
        return self._finished(tuple(told), part=part)

    @property
    def _tells_all(self) -> bool:
        # In state of the world, what is missing from a message about these types is removed.
        return self.flavour is Flavour.STATE_OF_THE_WORLD and self.type_url not in ordering.NAMED

    @property
    def is_on_demand(self) -> bool:
        """Whether it may name something else than it gets."""
        return self.type_url in ordering.ON_DEMAND and WILDCARD not in self.names

    def _wants(self, name: str) -> bool:
        if WILDCARD in self.names or name in self.names:
            return True
        return self.is_on_demand and name in self.known

    def _legacy(self) -> frozenset[str]:
        # A client that never named anything of a wildcard type wants all of it.
        legacy = not self.has_named and self.type_url not in ordering.NAMED
        return frozenset({WILDCARD}) if legacy else NOBODY

    def _add(self, names: frozenset[str]) -> None:
        if not names:
            return
        explicit = names - {WILDCARD} if WILDCARD in names else names
        self.names = _both(self.names, names)
        self.has_named = self.has_named or bool(explicit)
        self.is_whole = self.is_whole or WILDCARD in names
        self.is_owed = True
        # A client that asks again for what it has is answered: it may have lost it.
        self.due = _both(self.due, explicit)
        self.forced = _both(self.forced, explicit)

    def _drop(self, names: frozenset[str]) -> None:
        if not names:
            return
        self.names -= names
        if WILDCARD in names:
            self.known = self.known.without(frozenset(self.known) - self.names)
        self.known = self.known.without(names - {WILDCARD})
        if WILDCARD in self.names:
            # The client cannot know whether the wildcard still covers them: it must be told.
            self.due |= names
            self.forced |= names
        else:
            if not self.is_on_demand:
                self.due &= self.names
                self.gone &= self.names
            self.forced &= self.due

    def _candidates(self, resources: Mapping[str, Resource]) -> set[str]:
        candidates, self.due = set(self.due), NOBODY
        if self.is_whole:
            self.is_whole = False
            candidates.update(self.known, self.names)
            candidates |= resources.keys() if WILDCARD in self.names else set()
        candidates.discard(WILDCARD)
        return candidates

    def _reached(
        self, candidates: set[str], resources: Mapping[str, Resource], leads: Leads
    ) -> set[str]:
        """Return the resources that are wanted among candidates, and what is wanted in vain."""
        found, forced, astray = set[str](), set(self.forced), set[str]()
        for name in candidates:
            if name not in self.names:
                if name in self.known or self._concerns(resources.get(name), leads):
                    found.add(name)
                continue
            led_to = _led_to(name, resources, leads)
            found |= led_to or {name}
            if name in forced:
                forced |= led_to
            if led_to and name not in led_to and (name in forced or name in self.known):
                # An alias is no resource. Istio's node proxies wait for the very name that they
                # have asked for, and know of no aliases; that it is not there lets them look again.
                astray.add(name)
        self.forced = frozenset(forced - astray)
        self.gone |= astray
        self.known = self.known.without(astray)
        return found

    def _concerns(self, resource: Resource | None, leads: Leads) -> bool:
        """Say whether a resource that was not told of yet is wanted under another name."""
        if resource is None:
            return False
        wanted = (self.known, self.names, leads.implied)
        wholes = any(one in names for one in resource.parts_of for names in wanted)
        return wholes or any(one in self.names for one in resource.aliases)

    def _news(self, candidates: set[str], resources: Mapping[str, Resource]) -> set[str]:
        """Return those of which the client has another version, or must hear in any case."""
        forced, known = self.forced, self.known
        if not known:
            return (candidates & resources.keys()) | (candidates & forced)
        return {
            name
            for name in candidates
            if name in forced
            or known.get(name) != (resources[name].version if name in resources else None)
        }

    def _note_absent(self, names: frozenset[str]) -> None:
        if not names:
            return
        if self.flavour is Flavour.DELTA:
            self.gone |= {name for name in names if name in self.known or name in self.forced}
        self.known = self.known.without(names)

    def _take_all(
        self, resources: Mapping[str, Resource], candidates: set[str], *, part: Part
    ) -> Draft | None:
        """Return all that there is; with it, as an addition, what there was until now."""
        changed = self._news(candidates, resources)
        kept = dict[str, Resource]()
        self.forced = NOBODY
        if part is Part.ADDITIONS:
            changed &= resources.keys()
            gone = (one for one in self.told if one.name not in resources)
            kept = {one.name: one for one in gone if self._wants(one.name)}
        self.gone = frozenset(kept)
        if not changed and not self.is_owed:
            return None
        return self._all(resources, kept, changed)

    def _all(
        self, resources: Mapping[str, Resource], kept: dict[str, Resource], changed: Set[str]
    ) -> Draft:
        names = resources if WILDCARD in self.names else self.names & resources.keys()
        held = {**{name: resources[name] for name in names}, **kept}
        self.is_owed, self.gone = False, frozenset(kept)
        chosen = tuple(held[name] for name in sorted(held))
        self.told = chosen if self.type_url in ordering.REMOVED_LAST else ()
        self.known = ledgers.of({one.name: one.version for one in chosen})
        return Draft(chosen, (), tuple(sorted(changed & resources.keys())))

    def _finished(self, chosen: tuple[Resource, ...], *, part: Part) -> Draft | None:
        is_last = part is not Part.ADDITIONS
        removed = tuple(sorted(self.gone)) if is_last else ()
        # An answer that is owed but empty can wait for the removals, if any follow.
        is_empty = not chosen and not removed
        if is_empty and (not self.is_owed or self.gone):
            return None
        self.is_owed = False
        if is_last:
            self.gone = NOBODY
        return Draft(chosen, removed, tuple(one.name for one in chosen))


def _led_to(name: str, resources: Mapping[str, Resource], leads: Leads) -> set[str]:
    """Return the resources that a name stands for: by itself, as an alias, with its parts."""
    direct = {name} & resources.keys() | leads.related.get(name, NOBODY)
    return direct.union(*(leads.related.get(one, NOBODY) for one in direct))


def _both(one: frozenset[str], other: frozenset[str]) -> frozenset[str]:
    """Return the union; of a set with nothing, that set itself: large ones are kept once."""
    return one | other if one and other else one or other


def _mentions(message: str, name: str) -> bool:
    start = message.find(name)
    while start >= 0:
        end = start + len(name)
        before, after = message[max(start - 1, 0) : start], message[end : end + 2]
        if not _continues(before) and not _continues(after.removesuffix(".") or " "):
            return True
        start = message.find(name, start + 1)
    return False


def _continues(beside: str) -> bool:
    # A full stop continues a name only when more of the name follows.
    first = beside[:1]
    if first == ".":
        return beside[1:].isalnum()
    return first.isalnum() or first in NAME_PARTS
