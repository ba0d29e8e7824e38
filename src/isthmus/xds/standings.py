"""Where a client stands: all that is true of the talk with it, about all types, as one value.

Most clients stand where others stand, and hear and say what those hear and say. All who stand alike
have the same object, and with it what followed when the first of them was told something or accepted
it: for the others that is one look, and nothing is kept for each of them.

Source: docs/decisions/0072.
"""

import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from isthmus.resources import snapshot as snapshots
from isthmus.resources.snapshot import TypeUrl
from isthmus.xds import collections, subscription, table
from isthmus.xds.messages import Flavour, Report, Request


@dataclass(frozen=True, slots=True, eq=False)
class Waiting:
    """An offer that was not answered yet; one object for all who were made the same offer.

    Attributes:
        names: Those of its resources.
        accepted: What is reported once it is.
    """

    nonce: str
    version: str
    names: tuple[str, ...]
    accepted: Report


BYTES: Final = 600
"""About what is kept of a standing beside what its subscriptions hold."""


class Talk(NamedTuple):
    """How far the talk about one type has come.

    Attributes:
        newest: Nonce of the newest offer, or empty when none was made; `version` is that one's.
        waiting: Offers that were not answered, oldest first.
        acked: Nonce of the offer that was accepted last, or empty.
        refused: The names that the client refuses, until it is told something else of them.
        error: What it said when it refused them; empty when it refuses none.
    """

    held: subscription.Subscription
    state: table.State = table.State.NEW
    newest: str = ""
    version: str = ""
    waiting: tuple[Waiting, ...] = ()
    acked: str = ""
    refused: frozenset[str] = subscription.NOBODY
    error: str = ""

    def holding(self, held: subscription.Subscription) -> "Talk":
        """Return the same with another subscription."""
        # A third of what `_replace` takes.
        return Talk(held, *self[1:])


Talks = Mapping[TypeUrl, Talk]


class Acceptance(NamedTuple):
    """What follows from a request that accepts the newest offer, and no more."""

    request: Request
    then: "weakref.ref[Standing]"
    report: Report


class Facts(NamedTuple):
    """What is true of the talk with a client.

    Attributes:
        talks: In the order of their types' names.
        turn: How collections are called on the stream.
        fresh: Clusters that it may not use yet, if it was told of them and has not answered.
        is_told: Whether nothing waits to be told, for certain.
        says_more: Whether the client is about to say more.
    """

    flavour: Flavour
    talks: tuple[Talk, ...] = ()
    turn: str = collections.FIRST_TURN
    fresh: tuple[str, ...] = ()
    is_told: bool = False
    says_more: bool = False


class Standing:
    """Where clients stand; never changed, but for what is remembered of what followed.

    Attributes:
        talks: By type.
        holds_back: Whether something may be due that is told only after an answer about clusters.
        acceptance: What followed when the newest offer was accepted.
    """

    __slots__ = ("__weakref__", "acceptance", "facts", "holds_back", "talks")

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self.talks: Talks = {each.held.type_url: each for each in facts.talks}
        self.holds_back = holds_back(self.talks, facts.fresh)
        self.acceptance: Acceptance | None = None

    def after(self, request: Request) -> tuple["Standing", Report] | None:
        """Return where clients stand that accept the newest offer, and say no more.

        None for any other request.
        """
        known = self.acceptance
        if known is not None and known.request is request:
            then = known.then()
            if then is not None:
                return then, known.report
        newest = self._accepted(request)
        if newest is None:
            return None
        talk = self.talks[request.type_url]
        settled = talk._replace(
            state=table.State.SETTLED, waiting=talk.waiting[:-1], acked=newest.nonce
        )
        talks = tuple(settled if each is talk else each for each in self.facts.talks)
        then = standing(self.facts._replace(talks=talks))
        self.acceptance = Acceptance(request, weakref.ref(then), newest.accepted)
        return then, newest.accepted

    def _accepted(self, request: Request) -> Waiting | None:
        talk = self.talks.get(request.type_url)
        if talk is None or talk.newest != request.nonce or talk.state is not table.State.OFFERED:
            return None
        asks = request.subscribe or request.unsubscribe or request.error is not None
        if asks or self.facts.flavour is not Flavour.DELTA or not talk.waiting:
            return None
        newest = talk.waiting[-1]
        return newest if newest.nonce == request.nonce else None


_STANDINGS: Final[weakref.WeakValueDictionary[Facts, Standing]] = weakref.WeakValueDictionary()


def standing(facts: Facts) -> Standing:
    """Return the one standing of which all of this is true."""
    found = _STANDINGS.get(facts)
    if found is None:
        found = _STANDINGS[facts] = Standing(facts)
    return found


def holds_back(talks: Talks, fresh: tuple[str, ...]) -> bool:
    """Say whether something may be due that is told only after an answer about clusters.

    An Envoy gives it when all its clusters have what they wait for.
    """
    clusters = talks.get(snapshots.CLUSTERS)
    return bool(fresh) and clusters is not None and clusters.state is table.State.OFFERED
