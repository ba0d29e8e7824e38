"""One discovery stream without its socket: what is heard and given goes in, actions come out.

What may be said, and what follows, is a table of its own. The driver calls `heard` and `given`
whenever something happens, and `next` whenever the client can take one more message; between two
calls of `next` only the latest state is kept.

Source: spec section 4.6.
"""

import itertools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from isthmus.resources import snapshot as snapshots
from isthmus.resources.snapshot import Snapshot, TypeUrl
from isthmus.xds import (
    bounds,
    collections,
    commons,
    ledgers,
    ordering,
    subscription,
    table,
    warming,
)
from isthmus.xds.messages import Accepted, Close, Flavour, Offer, Refused, Report, Request

EVERY_NAME: Final = frozenset({snapshots.EVERYTHING})


@dataclass(frozen=True, slots=True)
class _Waiting:
    """An offer that was not answered yet; one object for all who were made the same offer.

    Attributes:
        names: Those of its resources.
        accepted: What is reported once it is.
    """

    nonce: str
    version: str
    names: tuple[str, ...]
    accepted: Report


@dataclass(frozen=True, slots=True)
class _Told:
    """A message, and what is to be known of it until it is answered.

    Attributes:
        changed: As in `subscription.Draft`.
        fresh: Clusters that the client did not have at all.
    """

    offer: Offer
    changed: tuple[str, ...]
    fresh: tuple[str, ...]
    waiting: _Waiting


@dataclass(slots=True)
class _Talk:
    """How far the talk about one type has come with one client."""

    held: subscription.Subscription
    state: table.State = table.State.NEW
    newest: str = ""
    waiting: tuple[_Waiting, ...] = ()


_Step = tuple[subscription.Subscription, _Told | None]
_STEPS: Final[commons.Steps[subscription.Subscription]] = commons.Steps()


class Session:
    """The talk with one client about all types."""

    __slots__ = (
        "_fresh",
        "_snapshot",
        "_steps",
        "_table",
        "_talks",
        "_turn",
        "flavour",
        "is_told",
        "says_more",
    )

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self._table = table.TABLES[flavour]
        self._snapshot: Snapshot | None = None
        self._talks: dict[TypeUrl, _Talk] = {}
        self._steps: tuple[ordering.Step, ...] = ()
        self._turn = collections.FIRST_TURN
        self._fresh: tuple[str, ...] = ()
        """Clusters that it may not use yet, if it was told of them and has not answered."""
        self.is_told = False
        """Whether `next` has nothing to say, for certain."""
        self.says_more = False
        """Whether the client is about to say more: until then there is nothing for it.

        It has clusters from another stream; which assignments it has was not heard yet. Whoever
        tires of waiting says that it is not.
        """

    def heard(self, request: Request) -> list[Report | Close]:
        """Take in a request; return what to report, or that the stream must end."""
        report = self.accepted(request)
        return self._heard(request) if report is None else [report]

    def _heard(self, request: Request) -> list[Report | Close]:
        talk = self._talks.get(request.type_url)
        state = table.State.NEW if talk is None else talk.state
        spoken = _classified(request, talk)
        row = self._table.get((state, spoken))
        if row is None or not request.type_url:
            return [Close("INVALID_ARGUMENT", f"{_type(request)}: {spoken.value}: {state.value}")]
        if talk is None:
            if len(self._talks) >= bounds.MOST_TYPES:
                return [Close("RESOURCE_EXHAUSTED", f"more than {bounds.MOST_TYPES} types")]
            talk = self._opened(request.type_url)
            if request.type_url == snapshots.ENDPOINTS:
                self._turn = request.made(collections.turn_after)
                self.says_more = False
            elif request.type_url == snapshots.CLUSTERS and request.initial_versions:
                self.says_more = snapshots.ENDPOINTS not in self._talks
        effects, talk.state = row
        self.is_told = False
        reports: list[Report | Close] = []
        for effect in effects:
            if effect is table.Effect.ACCEPT:
                reports.append(_answered(talk, request.nonce).accepted)
            elif effect is table.Effect.REFUSE:
                reports.append(_refused(talk, request))
            else:
                _asked(talk, effect, request)
        snapshot = self._snapshot or snapshots.EMPTY
        if most := bounds.exceeded(talk.held.names, lambda: snapshot.of(request.type_url)):
            return [Close("RESOURCE_EXHAUSTED", f"{_type(request)}: more than {most} names")]
        return reports

    def accepted(self, request: Request) -> Report | None:
        """Take in a request that accepts the newest offer, and no more; return what to report.

        Nearly all requests are of this kind. None is for `heard`; then nothing was taken in.
        """
        talk = self._talks.get(request.type_url)
        if talk is None or talk.newest != request.nonce or talk.state is not table.State.OFFERED:
            return None
        asks = request.subscribe or request.unsubscribe or request.error is not None
        if asks or self.flavour is not Flavour.DELTA or not talk.waiting:
            return None
        *older, newest = talk.waiting
        if newest.nonce != request.nonce:
            return None
        talk.waiting, talk.state = tuple(older), table.State.SETTLED
        return newest.accepted

    def given(
        self, snapshot: Snapshot, changed: Mapping[TypeUrl, frozenset[str]] | None = None
    ) -> None:
        """Take in what the client should have from now on, at a cost proportional to `changed`.

        Args:
            snapshot: What it should have.
            changed: Names that may differ from what was given last; None when it is not known.
        """
        self._snapshot, self.is_told = snapshot, False
        for type_url in self._talks if changed is None else changed:
            talk = self._talks.get(type_url)
            if talk is not None:
                names = None if changed is None else changed[type_url]
                if type_url == snapshots.MEMBERS and names is not None:
                    names = collections.all_named(names, self._turn)
                _touched(talk, names)

    @property
    def holds_back(self) -> bool:
        """Whether something may be due that is told only after an answer about clusters.

        An Envoy gives it when all its clusters have what they wait for.
        """
        return bool(self._fresh) and self._talks[snapshots.CLUSTERS].state is table.State.OFFERED

    def next(self) -> Offer | None:
        """Return the next message for the client and count it as sent; None when all is told.

        Clients that hear the same are given the same object.
        """
        due = self._due()
        return None if due is None else self._offered(*due)

    def next_of(
        self, snapshot: Snapshot, changed: Mapping[TypeUrl, frozenset[str]]
    ) -> Offer | None:
        """Take in what has changed, as `given`, and return the `next` message.

        Nearly always one type has changed and nothing else waits: then all of it is one step, which
        is looked up for all clients but the first.
        """
        talk = self._alone(changed) if self.is_told and not self.holds_back else None
        stamp = snapshot.stamp_of(talk.held.type_url) if talk is not None else ()
        if talk is None or not stamp:
            self.given(snapshot, changed)
            return self.next()
        (names,) = changed.values()
        clusters = self._talks.get(snapshots.CLUSTERS)
        has = None if clusters is None else clusters.held
        key = (talk.held, names, stamp, has, self._turn)
        steps: commons.Steps[_Step] = commons.steps_of(stamp)
        step = steps.known(key)
        if step is None:
            before = talk.held
            self.given(snapshot, changed)
            due = self._due()
            told = None if due is None else due[1]
            said = 0 if told is None else len(told.waiting.names) + len(told.offer.removed)
            step = talk.held, told
            steps.note(key, step, _bytes(talk.held, said, after=before))
        self._snapshot = snapshot
        talk.held, told = step
        self.is_told = not talk.held.is_pending
        return None if told is None else self._offered(talk, told)

    def _alone(self, changed: Mapping[TypeUrl, frozenset[str]]) -> _Talk | None:
        """Return the talk about the one type that has changed, if no other follows from it."""
        if len(changed) != 1:
            return None
        (type_url,) = changed
        talk = self._talks.get(type_url)
        is_led = type_url == snapshots.CLUSTERS or type_url in ordering.ON_DEMAND
        return None if is_led else talk

    def _due(self) -> tuple[_Talk, _Told] | None:
        """Count the next message as told, and return it with what it is about."""
        if self._snapshot is None or self.says_more or self.is_told:
            return None
        waits = False
        for step in self._steps:
            talk = self._talks[step.type_url]
            if not talk.held.is_pending:
                continue
            if self._fresh and self._must_wait(step):
                waits = True
                continue
            held, told = self._taken(talk, step.part)
            if step.type_url == snapshots.CLUSTERS and told is not None:
                first = self._due_before(told, has=talk.held.known)
                if first is not None:
                    return first
            talk.held = held
            if told is not None:
                return talk, told
            waits = waits or held.is_pending
        self.is_told = not waits
        return None

    def _must_wait(self, step: ordering.Step) -> bool:
        """Say whether a step would lead the client to clusters that it cannot use yet."""
        if step not in ordering.LEADING or self._snapshot is None:
            return False
        known = (self._talks.get(one) for one in (snapshots.ENDPOINTS, snapshots.MEMBERS))
        has = [ledgers.NOTHING if talk is None else talk.held.known for talk in known]
        sets = self._snapshot.of(snapshots.ENDPOINTS)
        fresh = self._fresh if self.holds_back else ()
        self._fresh = warming.waiting(
            fresh, sets=sets, assignments=has[0], members=has[1], turn=self._turn
        )
        return bool(self._fresh)

    def _taken(self, talk: _Talk, part: ordering.Part) -> _Step:
        assert self._snapshot is not None
        clusters = self._talks.get(snapshots.CLUSTERS)
        concerns = talk.held.type_url == snapshots.ENDPOINTS and self.flavour is Flavour.DELTA
        has = clusters.held.known if concerns and clusters is not None else ledgers.NOTHING
        return _taken(talk.held, part, self._snapshot, turn=self._turn, clusters=has)

    def _due_before(self, told: _Told, *, has: ledgers.Ledger) -> tuple[_Talk, _Told] | None:
        """Return what must be told of endpoints before these clusters are; None as a rule."""
        talk = self._talks.get(snapshots.ENDPOINTS)
        if talk is None or not has or self.flavour is not Flavour.DELTA:
            return None
        names = warming.returning(told.offer.resources, has=has, assignments=talk.held.known)
        if not names:
            return None
        _forced(talk, names)
        talk.held, first = self._taken(talk, ordering.Part.ADDITIONS)
        return None if first is None else (talk, first)

    def subscribed(self, type_url: TypeUrl) -> frozenset[str]:
        """Return the names that the client wants of a type; `*` stands for all.

        Clients that want the same are said to want the same object.
        """
        talk = self._talks.get(type_url)
        return subscription.NOBODY if talk is None else talk.held.names

    def heeds(self, type_url: TypeUrl) -> frozenset[str]:
        """Return the names of a type whose changes matter to the client; `*` stands for all."""
        talk = self._talks.get(type_url)
        if talk is None:
            return subscription.NOBODY
        if type_url == snapshots.MEMBERS:
            return collections.all_named(talk.held.names, collections.FIRST_TURN)
        return EVERY_NAME if talk.held.is_on_demand else talk.held.names

    def waiting(self, type_url: TypeUrl) -> int:
        """Return how many offers of a type are remembered until they are answered."""
        talk = self._talks.get(type_url)
        return 0 if talk is None else len(talk.waiting)

    def _opened(self, type_url: TypeUrl) -> _Talk:
        talk = _Talk(subscription.Subscription(type_url, self.flavour).settled())
        self._talks[type_url] = talk
        self._steps = ordering.steps(frozenset(self._talks))
        return talk

    def _offered(self, talk: _Talk, told: _Told) -> Offer:
        offer, waiting = told.offer, told.waiting
        if talk.waiting and any(one.nonce == offer.nonce for one in talk.waiting):
            # The same again before it was answered: each answer must say which one it is for.
            known = {one.nonce for one in talk.waiting}
            numbered = (f"{offer.nonce}-{number}" for number in itertools.count(2))
            offer = replace(offer, nonce=next(one for one in numbered if one not in known))
            waiting = _waiting(offer, waiting.names)
        before = self._fresh if self.holds_back else ()
        self._fresh = tuple(dict.fromkeys(before + told.fresh))
        talk.newest = offer.nonce
        talk.state = table.State.OFFERED
        talk.waiting = (*talk.waiting[-bounds.MOST_OUTSTANDING + 1 :], waiting)
        if offer.type_url == snapshots.CLUSTERS and told.changed:
            # A changed cluster waits for endpoints before it takes traffic, and does not ask
            # for names that it already subscribed to. An endpoint set has its cluster's name.
            endpoints = self._talks.get(snapshots.ENDPOINTS)
            if endpoints is not None:
                _forced(endpoints, told.changed)
            # The same for the collections that endpoint sets consist of.
            members = self._talks.get(snapshots.MEMBERS)
            if members is not None:
                _forced(members, self._collections(told.changed))
        return offer

    def _collections(self, clusters: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of what the endpoint sets of some clusters consist of."""
        assert self._snapshot is not None
        known = self._snapshot.of(snapshots.ENDPOINTS)
        sets = (known[name] for name in clusters if name in known)
        names = (each.name for one in sets for each in one.collections)
        return tuple(collections.named(name, self._turn) for name in names)


# --- steps, each the same for all clients of which the same is true


def _asked(talk: _Talk, effect: table.Effect, request: Request) -> None:
    held = talk.held
    is_empty = held.flavour is Flavour.DELTA and not (request.subscribe or request.unsubscribe)
    if is_empty and effect is table.Effect.AMEND:
        return
    # What a client has from another stream is the same as what others have, in another order.
    tells = held.type_url != snapshots.MEMBERS
    has = request.made(ledgers.claimed) if tells else ledgers.NOTHING

    def act(fresh: subscription.Subscription) -> None:
        match effect:
            case table.Effect.BEGIN:
                fresh.begin(request, has=has)
            case table.Effect.RESTART:
                fresh.restart(request)
            case _:
                fresh.amend(request)

    key = (held, effect, request.names, request.subscribe, request.unsubscribe, has)
    talk.held = _after(held, act, key, len(request.names) + len(request.subscribe))


def _touched(talk: _Talk, names: frozenset[str] | None) -> None:
    talk.held = _after(
        talk.held, lambda fresh: fresh.touch(names), (talk.held, names), len(names or ())
    )


def _forced(talk: _Talk, names: tuple[str, ...]) -> None:
    key = (talk.held, table.Effect.BEGIN, names)
    talk.held = _after(talk.held, lambda fresh: fresh.force(names), key, len(names))


def _after(
    held: subscription.Subscription,
    act: Callable[[subscription.Subscription], None],
    key: Hashable,
    names: int,
) -> subscription.Subscription:
    def step() -> tuple[subscription.Subscription, int]:
        fresh = held.copied()
        act(fresh)
        settled = fresh.settled()
        return settled, _bytes(settled, names, after=held)

    # Of those who ask on demand no two ask for the same.
    return step()[0] if held.is_on_demand else _STEPS.taken(key, step)


def _taken(
    held: subscription.Subscription,
    part: ordering.Part,
    snapshot: Snapshot,
    *,
    turn: str,
    clusters: ledgers.Ledger,
) -> _Step:
    concerned = turn if held.type_url in collections.CONCERNED else collections.FIRST_TURN

    def step() -> tuple[_Step, int]:
        fresh = held.copied()
        named = collections.in_turn(snapshot.of(held.type_url), concerned)
        draft = fresh.take(
            warming.Told(named, clusters) if clusters else named,
            part=part,
            leads=snapshot.leads_of(held.type_url),
            turn=concerned,
        )
        told = None if draft is None else _told(held, draft)
        names = 0 if draft is None else len(draft.resources) + len(draft.removed)
        settled = fresh.settled()
        return (settled, told), _bytes(settled, names, after=held)

    stamp = snapshot.stamp_of(held.type_url)
    if not stamp or held.is_on_demand:
        return step()[0]
    steps: commons.Steps[_Step] = commons.steps_of(stamp)
    return steps.taken((held, part, stamp, concerned, clusters), step)


def _bytes(
    settled: subscription.Subscription, names: int, *, after: subscription.Subscription
) -> int:
    """Return about how much is kept where a step is remembered, of which so many names were said."""
    said = names * commons.NAME_BYTES
    return commons.STEP_BYTES + said + settled.bytes_besides(after)


def _told(before: subscription.Subscription, draft: subscription.Draft) -> _Told:
    # Version and nonce follow from the content, for the message to be the same for all.
    version = draft.digest()
    offer = Offer(before.type_url, version, version, draft.resources, draft.removed)
    is_all = len(draft.changed) == len(draft.resources)
    names = draft.changed if is_all else tuple(one.name for one in draft.resources)
    fresh = tuple(name for name in draft.changed if name not in before.known)
    if before.type_url != snapshots.CLUSTERS:
        fresh = ()
    return _Told(offer, draft.changed, fresh, _waiting(offer, names))


def _waiting(offer: Offer, names: tuple[str, ...]) -> _Waiting:
    accepted = Report(Accepted(offer.type_url, offer.version, offer.nonce))
    return _Waiting(offer.nonce, offer.version, names, accepted)


def _answered(talk: _Talk, nonce: str) -> _Waiting:
    newest = talk.waiting[-1]
    if newest.nonce == nonce:
        talk.waiting = talk.waiting[:-1]
        return newest
    found = next(one for one in talk.waiting if one.nonce == nonce)
    talk.waiting = tuple(one for one in talk.waiting if one is not found)
    return found


def _refused(talk: _Talk, request: Request) -> Report:
    offer = _answered(talk, request.nonce)
    message = (request.error or "")[: subscription.MOST_MESSAGE]
    fresh = talk.held.copied()
    blamed = fresh.refuse(offer.names, message)
    talk.held = fresh.settled()
    return Report(
        Refused(request.type_url, offer.version, offer.nonce, blamed, message, offer.names)
    )


def _type(request: Request) -> str:
    return request.type_url.removeprefix(snapshots.PREFIX)[:200] or "no type"


def _classified(request: Request, talk: _Talk | None) -> table.Input:
    is_refusal = request.error is not None
    if not request.nonce:
        return table.Input.REFUSE_NOTHING if is_refusal else table.Input.ASK
    if talk is None:
        return table.Input.REFUSE_STRANGE if is_refusal else table.Input.STRANGE
    if talk.waiting and any(one.nonce == request.nonce for one in talk.waiting):
        if request.nonce == talk.newest:
            return table.Input.REFUSE if is_refusal else table.Input.ACCEPT
        return table.Input.REFUSE_OLDER if is_refusal else table.Input.ACCEPT_OLDER
    if request.nonce == talk.newest:
        return table.Input.REFUSE_AGAIN if is_refusal else table.Input.REPEAT
    return table.Input.REFUSE_STRANGE if is_refusal else table.Input.STRANGE
