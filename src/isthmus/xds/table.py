"""The legal protocol as a table: what follows from a request, for each state of a type.

A pair that is absent ends the stream. Refuses to know what is told; `session` does what follows.

Source: spec section 4.6.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from isthmus.base import hashing
from isthmus.xds.messages import Flavour


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
