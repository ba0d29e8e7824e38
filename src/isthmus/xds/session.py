"""One discovery stream without its socket: what is heard and given goes in, actions come out.

The legal protocol is the table below: for each state of a type and each kind of request, what
follows. A pair that is absent ends the stream. The driver calls `heard` and `given` whenever
something happens, and `next` whenever the client can take one more message; between two calls
of `next` only the latest state is kept.

Source: spec section 4.6.
"""

import itertools
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from isthmus.base import hashing
from isthmus.resources import snapshot as snapshots
from isthmus.resources.snapshot import Snapshot, TypeUrl
from isthmus.xds import collections, commons, ledgers, ordering, subscription, warming
from isthmus.xds.messages import Accepted, Close, Flavour, Offer, Refused, Report, Request

MOST_TYPES: Final = 32
MOST_NAMES: Final = 50_000
"""Bounds of what one stream may subscribe to: types, and names of one type."""

MOST_OUTSTANDING: Final = 32
"""Offers whose answers are still told apart; an answer to an older one counts as stale."""

EVERY_NAME: Final = frozenset({snapshots.EVERYTHING})


class State(hashing.Word):
    """How far the talk about one type has come."""

    NEW = "never asked for"
    ASKED = "asked for, nothing offered"
    OFFERED = "newest offer unanswered"
    SETTLED = "newest offer answered"


class Input(hashing.Word):
    """What kind of request was heard."""

    ASK = "without a nonce"
    ACCEPT = "accepts the newest offer"
    ACCEPT_OLDER = "accepts an older offer"
    REPEAT = "names an offer that was answered"
    STRANGE = "names no offer of this stream"
    REFUSE = "refuses the newest offer"
    REFUSE_OLDER = "refuses an older offer"
    REFUSE_AGAIN = "refuses an offer that was answered"
    REFUSE_STRANGE = "refuses no offer of this stream"
    REFUSE_NOTHING = "refuses without a nonce"


class Effect(hashing.Word):
    """What one step of an answer to a request is."""

    BEGIN = "begin the subscription"
    RESTART = "forget what was offered"
    AMEND = "change the subscription"
    ACCEPT = "report the offer as accepted"
    REFUSE = "report the offer as refused"


Row = tuple[tuple[Effect, ...], State]
Table = Mapping[tuple[State, Input], Row]

_BEGIN: Row = ((Effect.BEGIN,), State.ASKED)

_COMMON: Final[dict[tuple[State, Input], Row]] = {
    # The nonce of another stream, or a refusal left over from it: the client goes on from there.
    (State.NEW, Input.ASK): _BEGIN,
    (State.NEW, Input.STRANGE): _BEGIN,
    (State.NEW, Input.REFUSE_STRANGE): _BEGIN,
    (State.NEW, Input.REFUSE_NOTHING): _BEGIN,
    (State.OFFERED, Input.ACCEPT): ((Effect.ACCEPT, Effect.AMEND), State.SETTLED),
    (State.OFFERED, Input.REFUSE): ((Effect.REFUSE, Effect.AMEND), State.SETTLED),
    (State.OFFERED, Input.REFUSE_STRANGE): ((), State.OFFERED),
    (State.SETTLED, Input.REPEAT): ((Effect.AMEND,), State.SETTLED),
    (State.SETTLED, Input.REFUSE_AGAIN): ((Effect.AMEND,), State.SETTLED),
    (State.SETTLED, Input.REFUSE_STRANGE): ((), State.SETTLED),
}

STATE_OF_THE_WORLD: Final[Table] = MappingProxyType(
    {
        **_COMMON,
        (State.ASKED, Input.ASK): ((Effect.RESTART,), State.ASKED),
        (State.ASKED, Input.STRANGE): ((Effect.RESTART,), State.ASKED),
        (State.OFFERED, Input.ASK): ((Effect.RESTART,), State.OFFERED),
        (State.SETTLED, Input.ASK): ((Effect.RESTART,), State.SETTLED),
        # A stale request is not answered, nor are its names believed: the client will answer
        # the newest offer with all names that it wants by then.
        (State.OFFERED, Input.STRANGE): ((), State.OFFERED),
        (State.SETTLED, Input.STRANGE): ((), State.SETTLED),
        (State.OFFERED, Input.ACCEPT_OLDER): ((Effect.ACCEPT,), State.OFFERED),
        (State.SETTLED, Input.ACCEPT_OLDER): ((Effect.ACCEPT,), State.SETTLED),
        (State.OFFERED, Input.REFUSE_OLDER): ((Effect.REFUSE,), State.OFFERED),
        (State.SETTLED, Input.REFUSE_OLDER): ((Effect.REFUSE,), State.SETTLED),
    }
)

DELTA: Final[Table] = MappingProxyType(
    {
        **_COMMON,
        # Here each request tells a difference, so that none may be lost, however stale its nonce.
        (State.ASKED, Input.ASK): ((Effect.AMEND,), State.ASKED),
        (State.ASKED, Input.STRANGE): ((Effect.AMEND,), State.ASKED),
        (State.OFFERED, Input.ASK): ((Effect.AMEND,), State.OFFERED),
        (State.SETTLED, Input.ASK): ((Effect.AMEND,), State.SETTLED),
        (State.OFFERED, Input.STRANGE): ((Effect.AMEND,), State.OFFERED),
        (State.SETTLED, Input.STRANGE): ((Effect.AMEND,), State.SETTLED),
        (State.OFFERED, Input.ACCEPT_OLDER): ((Effect.ACCEPT, Effect.AMEND), State.OFFERED),
        (State.SETTLED, Input.ACCEPT_OLDER): ((Effect.ACCEPT, Effect.AMEND), State.SETTLED),
        (State.OFFERED, Input.REFUSE_OLDER): ((Effect.REFUSE, Effect.AMEND), State.OFFERED),
        (State.SETTLED, Input.REFUSE_OLDER): ((Effect.REFUSE, Effect.AMEND), State.SETTLED),
    }
)

TABLES: Final[Mapping[Flavour, Table]] = MappingProxyType(
    {Flavour.STATE_OF_THE_WORLD: STATE_OF_THE_WORLD, Flavour.DELTA: DELTA}
)


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
    """

    offer: Offer
    changed: tuple[str, ...]
    waiting: _Waiting


@dataclass(slots=True)
class _Talk:
    """How far the talk about one type has come with one client."""

    held: subscription.Subscription
    state: State = State.NEW
    newest: str = ""
    waiting: tuple[_Waiting, ...] = ()


_Step = tuple[subscription.Subscription, _Told | None]
_STEPS: Final[commons.Steps[subscription.Subscription]] = commons.Steps()


class Session:
    """The talk with one client about all types."""

    __slots__ = ("_snapshot", "_steps", "_table", "_talks", "_turn", "flavour", "says_more")

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self._table = TABLES[flavour]
        self._snapshot: Snapshot | None = None
        self._talks: dict[TypeUrl, _Talk] = {}
        self._steps: tuple[ordering.Step, ...] = ()
        self._turn = collections.FIRST_TURN
        self.says_more = False
        """Whether the client is about to say more: until then there is nothing for it.

        It has clusters from another stream; which assignments it has was not heard yet. Whoever
        tires of waiting says that it is not.
        """

    def heard(self, request: Request) -> list[Report | Close]:
        """Take in a request; return what to report, or that the stream must end."""
        talk = self._talks.get(request.type_url)
        state = State.NEW if talk is None else talk.state
        spoken = _classified(request, talk)
        row = self._table.get((state, spoken))
        if row is None or not request.type_url:
            return [Close("INVALID_ARGUMENT", f"{_type(request)}: {spoken.value}: {state.value}")]
        if talk is None:
            if len(self._talks) >= MOST_TYPES:
                return [Close("RESOURCE_EXHAUSTED", f"more than {MOST_TYPES} types")]
            talk = self._opened(request.type_url)
            if request.type_url == snapshots.ENDPOINTS:
                self._turn = collections.turn_after(request.initial_versions.values())
                self.says_more = False
            elif request.type_url == snapshots.CLUSTERS and request.initial_versions:
                self.says_more = snapshots.ENDPOINTS not in self._talks
        effects, talk.state = row
        reports: list[Report | Close] = []
        for effect in effects:
            if effect is Effect.ACCEPT:
                reports.append(_answered(talk, request.nonce).accepted)
            elif effect is Effect.REFUSE:
                reports.append(_refused(talk, request))
            else:
                _asked(talk, effect, request)
        if len(talk.held.names) > MOST_NAMES:
            return [Close("RESOURCE_EXHAUSTED", f"{_type(request)}: more than {MOST_NAMES} names")]
        return reports

    def accepted(self, request: Request) -> Report | None:
        """Take in a request that accepts the newest offer, and no more; return what to report.

        Nearly all requests are of this kind. None is for `heard`; then nothing was taken in.
        """
        talk = self._talks.get(request.type_url)
        if talk is None or talk.newest != request.nonce or talk.state is not State.OFFERED:
            return None
        asks = request.subscribe or request.unsubscribe or request.error is not None
        if asks or self.flavour is not Flavour.DELTA or not talk.waiting:
            return None
        *older, newest = talk.waiting
        if newest.nonce != request.nonce:
            return None
        talk.waiting, talk.state = tuple(older), State.SETTLED
        return newest.accepted

    def given(
        self, snapshot: Snapshot, changed: Mapping[TypeUrl, frozenset[str]] | None = None
    ) -> None:
        """Take in what the client should have from now on, at a cost proportional to `changed`.

        Args:
            snapshot: What it should have.
            changed: Names that may differ from what was given last; None when it is not known.
        """
        self._snapshot = snapshot
        for type_url in self._talks if changed is None else changed:
            talk = self._talks.get(type_url)
            if talk is not None:
                names = None if changed is None else changed[type_url]
                if type_url == snapshots.MEMBERS and names is not None:
                    names = collections.all_named(names, self._turn)
                _touched(talk, names)

    def next(self) -> Offer | None:
        """Return the next message for the client and count it as sent; None when all is told.

        Clients that hear the same are given the same object.
        """
        if self._snapshot is None or self.says_more:
            return None
        for step in self._steps:
            talk = self._talks[step.type_url]
            if talk.held.is_pending:
                held, told = self._taken(talk, step.part)
                if step.type_url == snapshots.CLUSTERS and told is not None:
                    first = self._offered_before(told, has=talk.held.known)
                    if first is not None:
                        return first
                talk.held = held
                if told is not None:
                    return self._offered(talk, told)
        return None

    def _taken(self, talk: _Talk, part: ordering.Part) -> _Step:
        assert self._snapshot is not None
        clusters = self._talks.get(snapshots.CLUSTERS)
        concerns = talk.held.type_url == snapshots.ENDPOINTS and self.flavour is Flavour.DELTA
        has = clusters.held.known if concerns and clusters is not None else ledgers.NOTHING
        return _taken(talk.held, part, self._snapshot, turn=self._turn, clusters=has)

    def _offered_before(self, told: _Told, *, has: ledgers.Ledger) -> Offer | None:
        """Return what must be told of endpoints before these clusters are; None as a rule."""
        talk = self._talks.get(snapshots.ENDPOINTS)
        if talk is None or not has or self.flavour is not Flavour.DELTA:
            return None
        names = warming.returning(told.offer.resources, has=has, assignments=talk.held.known)
        if not names:
            return None
        _forced(talk, names)
        talk.held, first = self._taken(talk, ordering.Part.ADDITIONS)
        return None if first is None else self._offered(talk, first)

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
        self._steps = ordering.steps(frozenset(self._talks), flavour=self.flavour)
        return talk

    def _offered(self, talk: _Talk, told: _Told) -> Offer:
        offer, waiting = told.offer, told.waiting
        if talk.waiting and any(one.nonce == offer.nonce for one in talk.waiting):
            # The same again before it was answered: each answer must say which one it is for.
            known = {one.nonce for one in talk.waiting}
            numbered = (f"{offer.nonce}-{number}" for number in itertools.count(2))
            offer = replace(offer, nonce=next(one for one in numbered if one not in known))
            waiting = _waiting(offer, waiting.names)
        talk.newest = offer.nonce
        talk.state = State.OFFERED
        talk.waiting = (*talk.waiting[-MOST_OUTSTANDING + 1 :], waiting)
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


def _asked(talk: _Talk, effect: Effect, request: Request) -> None:
    held = talk.held
    is_empty = held.flavour is Flavour.DELTA and not (request.subscribe or request.unsubscribe)
    if is_empty and effect is Effect.AMEND:
        return
    # What a client has from another stream is the same as what others have, in another order.
    initial = request.initial_versions
    has = ledgers.claimed(initial if held.type_url != snapshots.MEMBERS else {})

    def act(fresh: subscription.Subscription) -> None:
        match effect:
            case Effect.BEGIN:
                fresh.begin(request, has=has)
            case Effect.RESTART:
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
    key = (talk.held, Effect.BEGIN, names)
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
        told = None if draft is None else _told(held.type_url, draft)
        names = 0 if draft is None else len(draft.resources) + len(draft.removed)
        settled = fresh.settled()
        return (settled, told), _bytes(settled, names, after=held)

    stamp = snapshot.stamp_of(held.type_url)
    if not stamp or held.is_on_demand:
        return step()[0]
    steps = stamp[-1].kept
    if not isinstance(steps, commons.Steps):
        steps = stamp[-1].kept = commons.Steps[_Step](commons.MOST_EDITION_BYTES)
    return steps.taken((held, part, stamp, concerned, clusters), step)


def _bytes(
    settled: subscription.Subscription, names: int, *, after: subscription.Subscription
) -> int:
    """Return about how much is kept where a step is remembered, of which so many names were said."""
    said = names * commons.NAME_BYTES
    return commons.STEP_BYTES + said + settled.bytes_besides(after)


def _told(type_url: TypeUrl, draft: subscription.Draft) -> _Told:
    # Version and nonce follow from the content, for the message to be the same for all.
    version = draft.digest()
    offer = Offer(type_url, version, version, draft.resources, draft.removed)
    is_all = len(draft.changed) == len(draft.resources)
    names = draft.changed if is_all else tuple(one.name for one in draft.resources)
    return _Told(offer, draft.changed, _waiting(offer, names))


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


def _classified(request: Request, talk: _Talk | None) -> Input:
    is_refusal = request.error is not None
    if not request.nonce:
        return Input.REFUSE_NOTHING if is_refusal else Input.ASK
    if talk is None:
        return Input.REFUSE_STRANGE if is_refusal else Input.STRANGE
    if talk.waiting and any(one.nonce == request.nonce for one in talk.waiting):
        if request.nonce == talk.newest:
            return Input.REFUSE if is_refusal else Input.ACCEPT
        return Input.REFUSE_OLDER if is_refusal else Input.ACCEPT_OLDER
    if request.nonce == talk.newest:
        return Input.REFUSE_AGAIN if is_refusal else Input.REPEAT
    return Input.REFUSE_STRANGE if is_refusal else Input.STRANGE
