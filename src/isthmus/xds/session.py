"""One discovery stream without its socket: what is heard and given goes in, actions come out.

The legal protocol is the table below: for each state of a type and each kind of request, what
follows. A pair that is absent ends the stream. The driver calls `heard` and `given` whenever
something happens, and `next` whenever the client can take one more message; between two calls
of `next` only the latest state is kept.

Source: spec section 4.6.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Final

from isthmus.base import hashing
from isthmus.resources import snapshot as snapshots
from isthmus.resources.snapshot import Snapshot, TypeUrl
from isthmus.xds import ordering, subscription
from isthmus.xds.messages import Accepted, Close, Flavour, Offer, Refused, Report, Request

MOST_TYPES: Final = 32
MOST_NAMES: Final = 50_000
"""Bounds of what one stream may subscribe to: types, and names of one type."""


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


class Session:
    """The talk with one client about all types."""

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self._table = TABLES[flavour]
        self._snapshot: Snapshot | None = None
        self._subscriptions: dict[TypeUrl, subscription.Subscription] = {}
        self._states: dict[TypeUrl, State] = {}
        self._steps: tuple[ordering.Step, ...] = ()
        self._offers = 0

    def heard(self, request: Request) -> list[Report | Close]:
        """Take in a request; return what to report, or that the stream must end."""
        held = self._subscriptions.get(request.type_url)
        state = self._states.get(request.type_url, State.NEW)
        spoken = _classified(request, held)
        row = self._table.get((state, spoken))
        if row is None or not request.type_url:
            return [Close("INVALID_ARGUMENT", f"{_type(request)}: {spoken.value}: {state.value}")]
        if held is None:
            if len(self._subscriptions) >= MOST_TYPES:
                return [Close("RESOURCE_EXHAUSTED", f"more than {MOST_TYPES} types")]
            held = self._opened(request.type_url)
        effects, self._states[request.type_url] = row
        reports: list[Report | Close] = []
        for effect in effects:
            reports.extend(_applied(effect, request, held))
        if len(held.names) > MOST_NAMES:
            return [Close("RESOURCE_EXHAUSTED", f"{_type(request)}: more than {MOST_NAMES} names")]
        return reports

    def given(
        self, snapshot: Snapshot, changed: Mapping[TypeUrl, frozenset[str]] | None = None
    ) -> None:
        """Take in what the client should have from now on, at a cost proportional to `changed`.

        Args:
            snapshot: What it should have.
            changed: Names that may differ from what was given last; None when it is not known.
        """
        self._snapshot = snapshot
        for type_url in self._subscriptions if changed is None else changed:
            held = self._subscriptions.get(type_url)
            if held is not None:
                held.touch(None if changed is None else changed[type_url])

    def next(self) -> Offer | None:
        """Return the next message for the client and count it as sent; None when all is told."""
        if self._snapshot is None:
            return None
        for step in self._steps:
            held = self._subscriptions[step.type_url]
            if held.is_pending:
                draft = held.take(
                    self._snapshot.of(step.type_url),
                    part=step.part,
                    leads=self._snapshot.leads_of(step.type_url),
                )
                if draft is not None:
                    return self._offered(held, draft)
        return None

    def subscribed(self, type_url: TypeUrl) -> frozenset[str]:
        """Return the names that the client wants of a type; `*` stands for all."""
        held = self._subscriptions.get(type_url)
        return frozenset() if held is None else frozenset(held.names)

    def _opened(self, type_url: TypeUrl) -> subscription.Subscription:
        held = subscription.Subscription(type_url, self.flavour)
        self._subscriptions[type_url] = held
        self._steps = ordering.steps(frozenset(self._subscriptions), flavour=self.flavour)
        return held

    def _offered(self, held: subscription.Subscription, draft: subscription.Draft) -> Offer:
        self._offers += 1
        version = draft.digest()
        nonce = f"{self._offers}-{version}"
        offer = Offer(held.type_url, version, nonce, draft.resources, draft.removed)
        held.offered(offer)
        self._states[held.type_url] = State.OFFERED
        if held.type_url == snapshots.CLUSTERS and snapshots.ENDPOINTS in self._subscriptions:
            # A changed cluster waits for endpoints before it takes traffic, and does not ask
            # for names that it already subscribed to. An endpoint set has its cluster's name.
            self._subscriptions[snapshots.ENDPOINTS].force(draft.changed)
        return offer


def _type(request: Request) -> str:
    return request.type_url.removeprefix(snapshots.PREFIX)[:200] or "no type"


def _classified(request: Request, held: subscription.Subscription | None) -> Input:
    is_refusal = request.error is not None
    if not request.nonce:
        return Input.REFUSE_NOTHING if is_refusal else Input.ASK
    if held is not None and request.nonce in held.outstanding:
        if request.nonce == held.newest:
            return Input.REFUSE if is_refusal else Input.ACCEPT
        return Input.REFUSE_OLDER if is_refusal else Input.ACCEPT_OLDER
    if held is not None and request.nonce == held.newest:
        return Input.REFUSE_AGAIN if is_refusal else Input.REPEAT
    return Input.REFUSE_STRANGE if is_refusal else Input.STRANGE


def _applied(effect: Effect, request: Request, held: subscription.Subscription) -> Iterator[Report]:
    match effect:
        case Effect.BEGIN:
            held.begin(request)
        case Effect.RESTART:
            held.restart(request)
        case Effect.AMEND:
            held.amend(request)
        case Effect.ACCEPT:
            version = held.accept(request.nonce)
            yield Report(Accepted(held.type_url, version, request.nonce))
        case _:
            message = (request.error or "")[: subscription.MOST_MESSAGE]
            version, names = held.refuse(request.nonce, message)
            yield Report(Refused(held.type_url, version, request.nonce, names, message))
