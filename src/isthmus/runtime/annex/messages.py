"""What the control plane and its annex say to each other.

They are sent as `framing` says. One that cannot be read is reported and left out; the next is read as
if it had not been there.
"""

from typing import Final, TypeAlias

import msgspec

from isthmus.base import errors
from isthmus.inject import settings as inject_settings
from isthmus.wire import notary

MOST_BYTES: Final = 8 << 20


class Untellable(errors.IsthmusError):
    """A state that the other process could not read."""

    code = "ISM-RUN-032"


class State(msgspec.Struct, frozen=True, tag=True):
    """All that the process works with, whole; a new one takes the place of the last.

    Attributes:
        authority: Files of the authority in force, by name; empty while there is none.
        chain_pem: The certificate to serve with; empty while there is none.
        injection: None while pods cannot be given proxies.
        unready: Why the control plane cannot serve yet; empty when it can.
        usual_s: How long certificates live; `longest_s` at most.
    """

    authority: dict[str, str]
    chain_pem: str
    key_pem: str
    injection: inject_settings.InjectionSettings | None
    unready: str
    usual_s: int
    longest_s: int


class Sign(msgspec.Struct, frozen=True, tag=True):
    """Asks for a certificate."""

    number: int
    wanted: notary.Wanted


class Signed(msgspec.Struct, frozen=True, tag=True):
    """Answers a question of that number; `fault` says why there is no chain."""

    number: int
    chain: tuple[str, ...]
    fault: notary.Unsigned | None = None


class Counted(msgspec.Struct, frozen=True, tag=True):
    """How many pods were asked about since the last time, and what became of them."""

    requests: int
    success: int
    failure: int
    skip: int


class Listening(msgspec.Struct, frozen=True, tag=True):
    """API servers that ask about pods are heard from now on."""


Asked: TypeAlias = State | Sign
Told: TypeAlias = Signed | Counted | Listening

_ENCODER: Final = msgspec.msgpack.Encoder()
_STATES: Final = msgspec.msgpack.Decoder(State)


def check(state: State) -> None:
    """Make sure that a state will be read on the other side.

    Raises:
        Untellable: It would not be (ISM-RUN-032).
    """
    try:
        content = _ENCODER.encode(state)
        _STATES.decode(content)
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        reason = str(error)[:200]
    else:
        if len(content) <= MOST_BYTES:
            return
        reason = f"{len(content)} bytes are more than {MOST_BYTES}"
    raise Untellable(
        "settings for injection cannot be handed to the process that injects",
        detail=reason,
        still_working="pods get proxies by the last settings that could be; certificates are signed",
        hint="correct ConfigMap `istio-sidecar-injector`",
    )
