"""From where a client stands to where it stands next: what happens on the way, step by step.

Works with where it stands as if that could change; when all has happened it has arrived, which is
nearly always where others have arrived before.

Source: spec section 4.6.
"""

import itertools
from collections.abc import Mapping
from dataclasses import replace

from isthmus.resources import snapshot as snapshots
from isthmus.resources.snapshot import Snapshot, Stamp, TypeUrl
from isthmus.xds import (
    bounds,
    collections,
    commons,
    ledgers,
    ordering,
    standings,
    steps,
    subscription,
    table,
    warming,
)
from isthmus.xds.messages import Close, Flavour, Offer, Report, Request
from isthmus.xds.standings import Talk


class Passage:
    """What happens to one client.

    Attributes:
        is_told: As of a session.
        says_more: As of a session.
    """

    __slots__ = ("_flavour", "_fresh", "_snapshot", "_talks", "_turn", "is_told", "says_more")

    def __init__(self, at: standings.Standing, snapshot: Snapshot | None) -> None:
        facts = at.facts
        self._flavour = facts.flavour
        self._talks = dict(at.talks)
        self._turn = facts.turn
        self._fresh = facts.fresh
        self._snapshot = snapshot
        self.is_told = facts.is_told
        self.says_more = facts.says_more

    def arrived(self) -> standings.Standing:
        """Return where the client stands now; this is over."""
        talks = tuple(self._talks.values())
        return standings.standing(
            standings.Facts(
                self._flavour, talks, self._turn, self._fresh, self.is_told, self.says_more
            )
        )

    def heard(self, request: Request) -> list[Report | Close]:
        """Take in a request; return what to report, or that the stream must end."""
        talk = self._talks.get(request.type_url)
        state = table.State.NEW if talk is None else talk.state
        spoken = _classified(request, talk)
        row = table.TABLES[self._flavour].get((state, spoken))
        if row is None or not request.type_url:
            return [Close("INVALID_ARGUMENT", f"{_type(request)}: {spoken.value}: {state.value}")]
        if talk is None:
            if len(self._talks) >= bounds.MOST_TYPES:
                return [Close("RESOURCE_EXHAUSTED", f"more than {bounds.MOST_TYPES} types")]
            talk = self._opened(request)
        effects, state = row
        self.is_told = False
        talk = talk._replace(state=state)
        reports: list[Report | Close] = []
        for effect in effects:
            if effect is table.Effect.ACCEPT:
                talk, report = steps.accepted(talk, request.nonce)
                reports.append(report)
            elif effect is table.Effect.REFUSE:
                talk, report = steps.refused(talk, request)
                reports.append(report)
            else:
                talk = steps.asked(talk, effect, request)
        self._talks[request.type_url] = talk
        snapshot = self._snapshot or snapshots.EMPTY
        if most := bounds.exceeded(talk.held.names, lambda: snapshot.of(request.type_url)):
            return [Close("RESOURCE_EXHAUSTED", f"{_type(request)}: more than {most} names")]
        return reports

    def _opened(self, request: Request) -> Talk:
        type_url = request.type_url
        talk = Talk(subscription.Subscription(type_url, self._flavour).settled())
        self._talks = dict(sorted([*self._talks.items(), (type_url, talk)]))
        if type_url == snapshots.ENDPOINTS:
            self._turn = request.made(collections.turn_after)
            self.says_more = False
        elif type_url == snapshots.CLUSTERS and request.initial_versions:
            self.says_more = snapshots.ENDPOINTS not in self._talks
        return talk

    def given(self, changed: Mapping[TypeUrl, frozenset[str]] | None) -> None:
        """Take note of names that may differ from what was given last; None if it is not known."""
        self.is_told = False
        for type_url in list(self._talks) if changed is None else changed:
            talk = self._talks.get(type_url)
            if talk is not None:
                names = None if changed is None else changed[type_url]
                if type_url == snapshots.MEMBERS and names is not None:
                    names = collections.all_named(names, self._turn)
                self._talks[type_url] = steps.touched(talk, names)

    def next(self) -> Offer | None:
        """Return the next message for the client and count it as sent; None when all is told."""
        due = self._due()
        return None if due is None else self._offered(*due)

    def is_one_step(self, type_url: TypeUrl) -> bool:
        """Say whether a change of a type is told in one message, which leads to no other."""
        is_led = type_url == snapshots.CLUSTERS or type_url in ordering.ON_DEMAND
        return self.is_told and not self._holds_back and not is_led and type_url in self._talks

    def stepped(self, type_url: TypeUrl, names: frozenset[str], stamp: Stamp) -> Offer | None:
        """Take note that names of such a type have changed, and return the `next` message.

        Those who stand elsewhere, but have and want the same of the type, are told the same.
        """
        talk, clusters = self._talks[type_url], self._talks.get(snapshots.CLUSTERS)
        has = None if clusters is None else clusters.held
        key = (talk.held, names, stamp, has, self._turn)
        known: commons.Steps[steps.Step] = commons.steps_of(stamp)
        step = known.known(key)
        if step is None:
            self.given({type_url: names})
            due = self._due()
            step = self._talks[type_url].held, None if due is None else due[1]
            known.note(key, step, steps.bytes_of(step, after=talk.held))
        held, told = step
        talk = self._talks[type_url] = talk.holding(held)
        self.is_told = not held.is_pending
        return None if told is None else self._offered(talk, told)

    @property
    def _holds_back(self) -> bool:
        return standings.holds_back(self._talks, self._fresh)

    def _due(self) -> tuple[Talk, steps.Told] | None:
        """Count the next message as told, and return it with what it is about."""
        if self._snapshot is None or self.says_more or self.is_told:
            return None
        waits = False
        for step in ordering.steps(frozenset(self._talks)):
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
            talk = self._put(talk.holding(held))
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
        fresh = self._fresh if self._holds_back else ()
        self._fresh = warming.waiting(
            fresh, sets=sets, assignments=has[0], members=has[1], turn=self._turn
        )
        return bool(self._fresh)

    def _taken(self, talk: Talk, part: ordering.Part) -> steps.Step:
        assert self._snapshot is not None  # both callers have just seen it
        clusters = self._talks.get(snapshots.CLUSTERS)
        concerns = talk.held.type_url == snapshots.ENDPOINTS and self._flavour is Flavour.DELTA
        has = clusters.held.known if concerns and clusters is not None else ledgers.NOTHING
        return steps.taken(talk.held, part, self._snapshot, turn=self._turn, clusters=has)

    def _due_before(
        self, told: steps.Told, *, has: ledgers.Ledger
    ) -> tuple[Talk, steps.Told] | None:
        """Return what must be told of endpoints before these clusters are; None as a rule."""
        talk = self._talks.get(snapshots.ENDPOINTS)
        if talk is None or not has or self._flavour is not Flavour.DELTA:
            return None
        names = warming.returning(told.offer.resources, has=has, assignments=talk.held.known)
        if not names:
            return None
        talk = steps.forced(talk, names)
        held, first = self._taken(talk, ordering.Part.ADDITIONS)
        talk = self._put(talk.holding(held))
        return None if first is None else (talk, first)

    def _offered(self, talk: Talk, told: steps.Told) -> Offer:
        offer, waiting = told.offer, told.waiting
        if any(one.nonce == offer.nonce for one in talk.waiting):
            # The same again before it was answered: each answer must say which one it is for.
            known = {one.nonce for one in talk.waiting}
            numbered = (f"{offer.nonce}-{number}" for number in itertools.count(2))
            offer = replace(offer, nonce=next(one for one in numbered if one not in known))
            waiting = steps.waiting(offer, waiting.names)
        before = self._fresh if self._holds_back else ()
        self._fresh = tuple(dict.fromkeys(before + told.fresh))
        self._put(steps.offered(talk, offer, waiting))
        if offer.type_url == snapshots.CLUSTERS and told.changed:
            # A changed cluster waits for endpoints before it takes traffic, and does not ask
            # for names that it already subscribed to. An endpoint set has its cluster's name.
            self._force(snapshots.ENDPOINTS, told.changed)
            # The same for the collections that endpoint sets consist of.
            self._force(snapshots.MEMBERS, self._collections(told.changed))
        return offer

    def _put(self, talk: Talk) -> Talk:
        self._talks[talk.held.type_url] = talk
        return talk

    def _force(self, type_url: TypeUrl, names: tuple[str, ...]) -> None:
        talk = self._talks.get(type_url)
        if talk is not None:
            self._talks[type_url] = steps.forced(talk, names)

    def _collections(self, clusters: tuple[str, ...]) -> tuple[str, ...]:
        """Return the names of what the endpoint sets of some clusters consist of."""
        assert self._snapshot is not None  # nothing is offered without
        known = self._snapshot.of(snapshots.ENDPOINTS)
        sets = (known[name] for name in clusters if name in known)
        names = (each.name for one in sets for each in one.collections)
        return tuple(collections.named(name, self._turn) for name in names)


def _type(request: Request) -> str:
    return request.type_url.removeprefix(snapshots.PREFIX)[:200] or "no type"


def _classified(request: Request, talk: Talk | None) -> table.Input:
    is_refusal = request.error is not None
    if not request.nonce:
        return table.Input.REFUSE_NOTHING if is_refusal else table.Input.ASK
    if talk is None:
        return table.Input.REFUSE_STRANGE if is_refusal else table.Input.STRANGE
    if any(one.nonce == request.nonce for one in talk.waiting):
        if request.nonce == talk.newest:
            return table.Input.REFUSE if is_refusal else table.Input.ACCEPT
        return table.Input.REFUSE_OLDER if is_refusal else table.Input.ACCEPT_OLDER
    if request.nonce == talk.newest:
        return table.Input.REFUSE_AGAIN if is_refusal else table.Input.REPEAT
    return table.Input.REFUSE_STRANGE if is_refusal else table.Input.STRANGE
