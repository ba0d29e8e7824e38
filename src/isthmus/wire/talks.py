"""The talk with one proxy, from its first message on: no task waits, the event loop calls.

What was heard goes to the session at once, and what is to be told waits for the stream's turn. A
proxy that does not read has one message on its way and a set of names that wait; in the end it is
sent away.

Source: spec section 4.6; security rule XA-5; performance rule 6.
"""

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol

from typing_extensions import override

from isthmus.base import clock, logs, tasks
from isthmus.resources.snapshot import (
    ADDRESSES,
    CLUSTERS,
    ENDPOINTS,
    MEMBERS,
    Snapshot,
    TypeUrl,
)
from isthmus.wire import (
    admission,
    counting,
    encoding,
    nodes,
    printing,
    streams,
    turns,
    wheel,
    wishes,
)
from isthmus.wire.h2 import outlet
from isthmus.wire.limits import Limits
from isthmus.xds import messages, session
from isthmus.xds.messages import Flavour

_LOG = logs.Log("isthmus.ads")

Changed = Mapping[TypeUrl, frozenset[str]]

_ANSWERED_AT_ONCE: Final = frozenset({ENDPOINTS, MEMBERS})
"""Of clusters the answer may wait for their endpoints."""

MOST_JOINED: Final = 256
KEPT_S: Final = 2.0
"""Seconds in which a message must be told again, or it is made anew for whoever comes later."""
MOST_AHEAD: Final = 65_536
"""Bytes of endpoints that may be unanswered; then changes wait, which they do in one message.

Sockets hold megabytes. Whoever reads slowly would be sent one message after the other, each older
than what is known when it is read.
"""
LEAST_AHEAD: Final = MOST_AHEAD // 2
"""As what a shorter message counts: no more than two of them are unanswered either."""
FINE: Final = "OK"
TOO_SLOW: Final = ("DEADLINE_EXCEEDED", "the proxy does not read what it is sent")
OLD: Final = ("UNAVAILABLE", "the stream is old; connect again")
FAILED: Final = ("UNKNOWN", "the call has failed")


class Watch(Protocol):
    """What one proxy should have, from now until it is closed."""

    def snapshot(self) -> Snapshot:
        """Return what the proxy should have at this moment."""

    def on_change(self, wake: Callable[[Changed], None]) -> None:
        """Call `wake` with the names that may differ, whenever something changes."""

    def heeds(self, type_url: TypeUrl, names: frozenset[str]) -> None:
        """Of a type, call `wake` for changes of these names only; `*` stands for all.

        Before this was called for any type, it is called for every change.
        """

    def status(self, report: messages.Report) -> None:
        """Take note that the proxy accepted or refused an offer."""

    def close(self) -> None:
        """Forget the proxy."""


class Way(Protocol):
    """A stream's transport."""

    def say(self, message: outlet.Message) -> bool:
        """Send a message; if it is not on its way at once, `Talk.drained` is called later."""

    def send(self, message: outlet.Message) -> bool:
        """Send a message that none follows: `say` and `flush` in one."""

    def flush(self) -> None:
        """Write what was said."""

    def close(self, status: str, text: str) -> None:
        """End the stream with a gRPC status of this name."""


class Ground:
    """What all talks of a service stand on."""

    def __init__(
        self, limits: Limits, counters: counting.Counters, *, system_clock: clock.Clock
    ) -> None:
        self.limits = limits
        self.counters = counters
        self.wheel = wheel.Wheel()
        self.press = printing.Press()
        self.turns = turns.Turns(counters, system_clock=system_clock)
        self._is_aging = False
        self._printed: printing.Print | None = None
        """What was asked for last, which the next one is likely to be told as well."""
        self._joined: dict[tuple[int, int], tuple[Changed, Changed, Changed]] = {}
        """What became of two changes, by who they are; they are kept, for nobody else to be them."""

    def printed(self, offer: messages.Offer, *, flavour: Flavour) -> printing.Print:
        """Return an offer as a message, which is kept as long as others are told the same."""
        last = self._printed
        if last is not None and last.offer is offer:
            return last
        self._age_later()
        self._printed = self.press.printed(offer, flavour=flavour)
        return self._printed

    def joined(self, before: Changed, changed: Changed) -> Changed:
        """Return two changes as one, which is the same for all whom both concern."""
        known = self._joined.get((id(before), id(changed)))
        if known is None:
            self._age_later()
            if len(self._joined) >= MOST_JOINED:
                self._joined.clear()
            both = {
                each: before.get(each, frozenset()) | changed.get(each, frozenset())
                for each in {**before, **changed}
            }
            known = self._joined[id(before), id(changed)] = before, changed, both
        return known[2]

    def opening(
        self, content: bytes, *, flavour: Flavour
    ) -> tuple[messages.Request, nodes.Claim | None]:
        """Parse the first request of a stream, and the node in it if there is one.

        Raises:
            encoding.MessageRefused: It is malformed or beyond a limit.
        """
        self._age_later()
        return self.press.opening(content, flavour=flavour)

    def _age_later(self) -> None:
        if not self._is_aging:
            self._is_aging = True
            self.wheel.after(KEPT_S, self._age)

    def _age(self) -> None:
        self._is_aging, self._printed = False, None
        self._joined.clear()
        if self.press.age():
            self._age_later()


@dataclass(slots=True, eq=False)
class Talk:
    """One stream of one proxy."""

    ground: Ground
    way: Way = field(kw_only=True)
    watch: Watch = field(kw_only=True)
    record: streams.Record = field(kw_only=True)
    gone: "Callable[[Talk], None]" = field(kw_only=True)
    _session: session.Session = field(init=False)
    _changed: Changed | None = None
    _changed_at: float | None = None
    _held_back_at: float | None = None
    _flavour: Flavour = field(init=False)
    _kind: TypeUrl | None = None
    """The type whose times are at hand: nearly always the one that is told next as well."""
    _sent_at: clock.Instant | None = None
    _answered_at: clock.Instant | None = None
    _unsent: printing.Print | None = None
    """What the proxy has not read yet: others may be told the same meanwhile."""
    _newest: str = ""
    """The nonce of what was told last of endpoints, which answers all before it."""
    _ahead: int = 0
    _is_asked: bool = False
    _patience: wheel.Token | None = None
    _wishes: wishes.Wishes | None = None
    _waits_for_more: bool = False
    _is_over: bool = False
    _age: wheel.Token | None = None
    _deadline: wheel.Token | None = None

    def __post_init__(self) -> None:
        # What is needed for each message is kept together.
        self._flavour = self.record.flavour
        self._session = session.Session(self._flavour)

    @override
    def __str__(self) -> str:
        return self.record.id

    @property
    def key(self) -> tuple[str, ...]:
        """What counts as the same pod: what was proven, not what it says."""
        return admission.pod_of(self.record.caller, self.record.node)

    def status(self) -> streams.StreamStatus:
        """Return how far the proxy has come."""
        at_hand = {self._kind: (self._sent_at, self._answered_at)} if self._kind else {}
        return self.record.status(self._session.talks, at_hand)

    def begin(self, first: messages.Request) -> None:
        """Take in the first message, and follow what the proxy should have."""
        self.watch.on_change(self._wake)
        self._session.given(self.watch.snapshot())
        limits = self.ground.limits
        if limits.age_s:
            # Those that came together must not leave together.
            age_s = limits.age_s * random.uniform(0.5, 1.5)
            self._age = self.ground.wheel.after(age_s, self._grow_old)
        self._hear(first)
        if first.type_url == ADDRESSES and not self._is_over:
            # A node proxy lets in whom a policy keeps out of which it has heard the name alone:
            # it has time to ask for policies as well, and then hears of these first.
            self._waits_for_more = True
            self._go_on_later()

    def stop(self, status: str, text: str) -> None:
        """End the stream with a status."""
        if self._is_over:
            return
        if status != FINE:
            self.ground.counters.refused.add(1, status)
        self._close()
        self.way.close(status, text)

    # What the transport tells.

    def heard(self, content: bytes) -> None:
        """Take in a message."""
        try:
            request = self.ground.press.request(content, flavour=self._flavour)
        except encoding.MessageRefused as error:
            self.stop(error.status, str(error))
            return
        if not tasks.attempt(self, self._hear, request):
            self.stop(*FAILED)

    def heard_out(self) -> None:
        """End with the proxy, which says nothing more."""
        self.stop(FINE, "")

    def drained(self) -> None:
        """Go on, since the proxy reads again."""
        if self._held_back_at is None:
            return
        passed = asyncio.get_running_loop().time() - self._held_back_at
        self.ground.counters.send_time.observe(passed)
        self._held_back_at = self._unsent = None
        self._drop_deadline()
        # The state may have moved on while the proxy was slow.
        self.ground.turns.answer(self)

    def lost(self) -> None:
        """Take note that nobody is there any more."""
        if not self._is_over:
            self._close()

    # What is told.

    def tell(self, turn: turns.Turns) -> None:
        """Tell the proxy all that it should hear."""
        if self._wishes is not None and not tasks.attempt(self, self._hear_wishes):
            self.stop(*FAILED)
        if self._is_over or self._waits_for_more or self._held_back_at is not None:
            return
        if self._ahead >= MOST_AHEAD and not self._is_asked:
            if self._patience is None:
                self._patience = self.ground.wheel.after(
                    self.ground.limits.answer_s, self._lose_patience
                )
            return
        if not tasks.attempt(self, self._tell, turn):
            self.stop(*FAILED)

    def _tell(self, turn: turns.Turns) -> None:
        held = self._session
        if (changed := self._changed) is not None:
            self._changed = None
            offer = held.next_of(self.watch.snapshot(), changed)
        else:
            offer = held.next()
        offered: printing.Print | None = None
        is_free = True
        while offer is not None and is_free:
            offered = self.ground.printed(offer, flavour=self._flavour)
            if offer.type_url != self._kind:
                self._have_at_hand(offer.type_url)
            self._sent_at = turn.now()
            turn.sent(offered)
            if offer.type_url in _ANSWERED_AT_ONCE:
                self._newest = offer.nonce
                self._ahead += max(offered.message.size, LEAST_AHEAD)
            if held.is_told:
                is_free = self.way.send(offered.message)
                break
            is_free = self.way.say(offered.message)
            offer = held.next() if is_free else None
        else:
            self.way.flush()
        if not is_free:
            self._hold_back(offered)
            return
        self._is_asked = False
        if self._changed_at is not None and (held.is_told or not held.holds_back):
            turn.converged(self._changed_at)
            self._changed_at = None

    def _have_at_hand(self, kind: TypeUrl) -> None:
        times = self.record.times
        if self._kind is not None:
            times[self._kind] = self._sent_at, self._answered_at
        self._kind = kind
        self._sent_at, self._answered_at = times.pop(kind, (None, None))

    def _was_answered(self) -> None:
        self._ahead = 0
        if self._patience is not None:
            self.ground.wheel.drop(self._patience)
            self._patience = None
            # Together with all others, who then hear the same.
            self.ground.turns.change(self)

    def _lose_patience(self) -> None:
        self._patience, self._ahead = None, 0
        if not self._is_over:
            self.ground.turns.change(self)

    def _answer(self) -> None:
        self._is_asked = True
        self.ground.turns.answer(self)

    def _hold_back(self, unsent: printing.Print | None) -> None:
        if self._is_over:
            return
        self._unsent = unsent
        self._held_back_at = asyncio.get_running_loop().time()
        self._deadline = self.ground.wheel.after(self.ground.limits.write_s, self._send_away)

    def _send_away(self) -> None:
        self._deadline = None
        self.ground.counters.write_timeouts.add()
        self.stop(*TOO_SLOW)

    def _grow_old(self) -> None:
        self._age = None
        self.stop(*OLD)

    def _go_on_later(self) -> None:
        asyncio.get_running_loop().call_later(self.ground.limits.together_s, self._go_on)

    def _go_on(self) -> None:
        self._waits_for_more = self._session.says_more = False
        if not self._is_over:
            self._answer()

    def _wake(self, changed: Changed) -> None:
        if self._is_over:
            return
        before, at = self._changed, self.ground.turns.change(self)
        if self._changed_at is None:
            self._changed_at = at
        if before is None:
            # It is the same for all whom it concerns.
            self._changed = changed
        elif before is not changed:
            self._changed = self.ground.joined(before, changed)

    def _is_gathered(self, request: messages.Request) -> bool:
        """Put a request together with others, if it may be; of a type that was asked for before."""
        kind = request.type_url
        if not wishes.is_wish(request, self._flavour) or not self._session.subscribed(kind):
            return False
        if self._wishes is None:
            self._wishes = wishes.Wishes(kind)
            self.ground.turns.answer(self)
        return self._wishes.take(request)

    def _hear_wishes(self) -> None:
        gathered, self._wishes = self._wishes, None
        if gathered is not None and not self._is_over:
            self._take_in(gathered.request())

    def _hear(self, request: messages.Request) -> None:
        if self._wishes is None and self._is_accepted(request):
            # As nearly always.
            return
        if not self._is_gathered(request):
            self._hear_wishes()
            if not self._is_over and not self._is_accepted(request):
                self._take_in(request)

    def _is_accepted(self, request: messages.Request) -> bool:
        """Take in a request that accepts the newest offer, and no more, if it is one."""
        accepted = self._session.accepted(request)
        if accepted is None:
            return False
        self._report(accepted)
        if request.type_url == CLUSTERS and not self._session.is_told:
            # Something may have waited for this.
            self._answer()
        return True

    def _take_in(self, request: messages.Request) -> None:
        said_more = self._session.says_more
        actions = self._session.heard(request)
        if self._session.says_more and not said_more:
            self._go_on_later()
        for action in actions:
            if isinstance(action, messages.Close):
                self.stop(action.code, action.message)
                return
            self._report(action)
        if not actions or not _only_accepts(request, self._flavour):
            kind = request.type_url
            self.watch.heeds(kind, self._session.heeds(kind))
            self._waits_for_more = False
            self._answer()

    def _report(self, report: messages.Report) -> None:
        outcome = report.outcome
        if outcome.type_url != self._kind:
            self._have_at_hand(outcome.type_url)
        self._answered_at = self.ground.turns.now()
        if outcome.nonce == self._newest:
            self._was_answered()
        if isinstance(outcome, messages.Refused):
            kind = printing.short(outcome.type_url)
            self.ground.counters.rejects.add(1, kind)
            _LOG.warning(
                "proxy refused an update",
                stream=self.record.id,
                cluster=str(self.record.caller.cluster),
                type=kind,
                resources=", ".join(outcome.names[:10]),
                reason=outcome.message[:500],
            )
        self.watch.status(report)

    def _drop_deadline(self) -> None:
        if self._deadline is not None:
            self.ground.wheel.drop(self._deadline)
            self._deadline = None

    def _close(self) -> None:
        self._is_over = True
        self._unsent = None
        self._drop_deadline()
        for each in (self._age, self._patience):
            if each is not None:
                self.ground.wheel.drop(each)
        self._age = self._patience = None
        self.ground.turns.leave(self)
        tasks.attempt(self.record.id, self.watch.close)
        self.gone(self)


def _only_accepts(request: messages.Request, flavour: Flavour) -> bool:
    """Say whether a request that answers an offer asks for nothing else."""
    asks = request.subscribe or request.unsubscribe or request.error is not None
    return flavour is Flavour.DELTA and not asks
