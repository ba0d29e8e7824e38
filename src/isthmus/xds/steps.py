"""Single steps of the talk about one type, each the same for all clients of which the same is true.

What follows from a step is a function of what a client wants and has, of what happened, and of what
there is: it is computed for the first and looked up for the others.

Source: spec section 4.6; docs/decisions/0042.
"""

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Final

from isthmus.resources import snapshot as snapshots
from isthmus.resources.snapshot import Snapshot
from isthmus.xds import (
    bounds,
    collections,
    commons,
    ledgers,
    ordering,
    standings,
    subscription,
    table,
    warming,
)
from isthmus.xds.messages import Accepted, Flavour, Offer, Refused, Report, Request
from isthmus.xds.standings import Talk


@dataclass(frozen=True, slots=True)
class Told:
    """A message, and what is to be known of it until it is answered.

    Attributes:
        changed: As in `subscription.Draft`.
        fresh: Clusters that the client did not have at all.
    """

    offer: Offer
    changed: tuple[str, ...]
    fresh: tuple[str, ...]
    waiting: standings.Waiting


Step = tuple[subscription.Subscription, Told | None]

_STEPS: Final[commons.Steps[subscription.Subscription]] = commons.Steps()


def asked(talk: Talk, effect: table.Effect, request: Request) -> Talk:
    """Return the talk after a request that asks for something."""
    held = talk.held
    is_empty = held.flavour is Flavour.DELTA and not (request.subscribe or request.unsubscribe)
    if is_empty and effect is table.Effect.AMEND:
        return talk
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
    return _after(talk, act, key, len(request.names) + len(request.subscribe))


def touched(talk: Talk, names: frozenset[str] | None) -> Talk:
    """Return the talk after names have changed; None is all of them."""
    return _after(talk, lambda fresh: fresh.touch(names), (talk.held, names), len(names or ()))


def forced(talk: Talk, names: tuple[str, ...]) -> Talk:
    """Return the talk with a client that waits for names anew, though it has them."""
    key = (talk.held, table.Effect.BEGIN, names)
    return _after(talk, lambda fresh: fresh.force(names), key, len(names))


def _after(
    talk: Talk,
    act: Callable[[subscription.Subscription], None],
    key: Hashable,
    names: int,
) -> Talk:
    held = talk.held

    def step() -> tuple[subscription.Subscription, int]:
        fresh = held.copied()
        act(fresh)
        settled = fresh.settled()
        return settled, _bytes(settled, names, after=held)

    # Of those who ask on demand no two ask for the same.
    return talk.holding(step()[0] if held.is_on_demand else _STEPS.taken(key, step))


def taken(
    held: subscription.Subscription,
    part: ordering.Part,
    snapshot: Snapshot,
    *,
    turn: str,
    clusters: ledgers.Ledger,
) -> Step:
    """Return what one part of what is due comes to: what the client has then, and what it is told.

    Its `clusters` are given if they decide that; else nothing.
    """
    concerned = turn if held.type_url in collections.CONCERNED else collections.FIRST_TURN

    def step() -> tuple[Step, int]:
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
    steps: commons.Steps[Step] = commons.steps_of(stamp)
    return steps.taken((held, part, stamp, concerned, clusters), step)


def bytes_of(step: Step, *, after: subscription.Subscription) -> int:
    """Return about how much is kept where a step is remembered."""
    settled, told = step
    said = 0 if told is None else len(told.waiting.names) + len(told.offer.removed)
    return _bytes(settled, said, after=after)


def _bytes(
    settled: subscription.Subscription, names: int, *, after: subscription.Subscription
) -> int:
    said = names * commons.NAME_BYTES
    return commons.STEP_BYTES + said + settled.bytes_besides(after)


def _told(before: subscription.Subscription, draft: subscription.Draft) -> Told:
    # Version and nonce follow from the content, for the message to be the same for all.
    version = draft.digest()
    offer = Offer(before.type_url, version, version, draft.resources, draft.removed)
    is_all = len(draft.changed) == len(draft.resources)
    names = draft.changed if is_all else tuple(one.name for one in draft.resources)
    fresh = tuple(name for name in draft.changed if name not in before.known)
    if before.type_url != snapshots.CLUSTERS:
        fresh = ()
    return Told(offer, draft.changed, fresh, waiting(offer, names))


def waiting(offer: Offer, names: tuple[str, ...]) -> standings.Waiting:
    """Return what is known of an offer of some names until it is answered."""
    accepted = Report(Accepted(offer.type_url, offer.version, offer.nonce))
    return standings.Waiting(offer.nonce, offer.version, names, accepted)


def offered(talk: Talk, offer: Offer, waiting: standings.Waiting) -> Talk:
    """Return the talk after an offer was made, which waits for its answer."""
    refused = talk.refused
    if refused:
        told = (resource.name for resource in offer.resources)
        refused = refused.difference(told, offer.removed)
    return Talk(
        talk.held,
        table.State.OFFERED,
        offer.nonce,
        offer.version,
        (*talk.waiting[-bounds.MOST_OUTSTANDING + 1 :], waiting),
        talk.acked,
        refused,
        talk.error if refused else "",
    )


def accepted(talk: Talk, nonce: str) -> tuple[Talk, Report]:
    """Return the talk after an offer was accepted, and what to report."""
    talk, offer = _answered(talk, nonce)
    return talk._replace(acked=offer.nonce), offer.accepted


def refused(talk: Talk, request: Request) -> tuple[Talk, Report]:
    """Return the talk after an offer was refused, and what to report."""
    talk, offer = _answered(talk, request.nonce)
    message = (request.error or "")[: subscription.MOST_MESSAGE]
    fresh = talk.held.copied()
    blamed = fresh.refuse(offer.names, message)
    refusal = Refused(request.type_url, offer.version, offer.nonce, blamed, message, offer.names)
    # It may take the rest when that is offered without what it blames.
    names = talk.refused | frozenset(blamed or offer.names)
    talk = talk._replace(held=fresh.settled(), refused=names, error=message or "refused")
    return talk, Report(refusal)


def _answered(talk: Talk, nonce: str) -> tuple[Talk, standings.Waiting]:
    found = next(one for one in reversed(talk.waiting) if one.nonce == nonce)
    rest = tuple(one for one in talk.waiting if one is not found)
    return talk._replace(waiting=rest), found
