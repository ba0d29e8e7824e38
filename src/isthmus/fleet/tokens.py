"""What a service account's token says of itself: until when it holds, and what it ends with.

Pure. Nothing here verifies a token: it is our own, and the API server that made it judges it.
What is read only decides when to ask for the next one and when to warn, so a clock that is wrong
by minutes changes nothing that anybody notices.

Source: security rule RS-3; docs/decisions/0011-who-renews-a-remote-token.md.
"""

import base64
import datetime
from dataclasses import dataclass

import msgspec

from isthmus.base import clock, errors
from isthmus.mesh.identities import ClusterId

SKEW_S = 120.0
"""How wrong our clock, or the API server's, may be before anybody is told that a token ended."""

EXPIRES_SOON = "ISM-FLEET-016"
HAS_EXPIRED = "ISM-FLEET-017"
LONGEST_S = 24 * 3600
SHORTEST_S = 600


class _Named(msgspec.Struct, frozen=True):
    name: str = ""
    uid: str = ""


class _Kubernetes(msgspec.Struct, frozen=True):
    namespace: str = ""
    serviceaccount: _Named = _Named()
    secret: _Named | None = None


class _Payload(msgspec.Struct, frozen=True):
    exp: int | float | None = None
    iat: int | float | None = None
    kubernetes: _Kubernetes = msgspec.field(name="kubernetes.io", default=_Kubernetes())
    legacy_namespace: str = msgspec.field(name="kubernetes.io/serviceaccount/namespace", default="")
    legacy_secret: str = msgspec.field(name="kubernetes.io/serviceaccount/secret.name", default="")
    legacy_account: str = msgspec.field(
        name="kubernetes.io/serviceaccount/service-account.name", default=""
    )


@dataclass(frozen=True, slots=True)
class Token:
    """What a token says.

    Attributes:
        issued: When it began; None for one that never ends.
        expires: When it ends; None for one that never does.
        secret: Name of the Secret with which it ends, or that holds it; empty if there is none.
        secret_uid: Its uid, if the token names it.
    """

    namespace: str = ""
    account: str = ""
    issued: clock.Instant | None = None
    expires: clock.Instant | None = None
    secret: str = ""
    secret_uid: str = ""

    @property
    def life_s(self) -> float:
        """How long it holds from begin to end; 0 for one that never ends."""
        if self.issued is None or self.expires is None:
            return 0.0
        return max(0.0, (self.expires - self.issued).total_seconds())


def read(token: str) -> Token:
    """Return what a token says; what is no such token says nothing."""
    parts = token.split(".")
    if len(parts) != 3:
        return Token()
    try:
        raw = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
        payload = msgspec.json.decode(raw, type=_Payload)
        issued, expires = _instant(payload.iat), _instant(payload.exp)
    except (
        ValueError,
        OverflowError,
        OSError,
        RecursionError,
    ):  # Of any kind: no base64, no JSON, no time.
        return Token()
    inner = payload.kubernetes
    bound = inner.secret or _Named()
    return Token(
        namespace=inner.namespace or payload.legacy_namespace,
        account=inner.serviceaccount.name or payload.legacy_account,
        issued=issued if expires else None,
        expires=expires,
        secret=bound.name or payload.legacy_secret,
        secret_uid=bound.uid,
    )


def is_due(token: Token, *, now: clock.Instant) -> bool:
    """Tell whether half of a token's life is over."""
    if token.expires is None:
        return False
    return (token.expires - now).total_seconds() <= token.life_s / 2


def finding_of(
    cluster: ClusterId, secret: str, token: Token, *, now: clock.Instant
) -> errors.Finding | None:
    """Say that a token ends soon, with a third of its life left, or that it has ended."""
    if token.expires is None:
        return None
    left_s = (token.expires - now).total_seconds()
    ended = left_s < -SKEW_S
    if not ended and left_s > token.life_s / 3:
        return None
    when = token.expires.strftime("%Y-%m-%dT%H:%M:%SZ")
    return errors.Finding(
        HAS_EXPIRED if ended else EXPIRES_SOON,
        f"Secret {secret}, key {cluster}",
        f"its token ended at {when}" if ended else f"its token ends at {when}",
        still_working=f"cluster `{cluster}` keeps its last endpoints"
        if ended
        else f"cluster `{cluster}` is followed until then",
        hint=f"isthmus rotate-remote-secret --name={cluster} --context=… --to-context=…",
    )


def _instant(seconds: float | None) -> clock.Instant | None:
    return None if seconds is None else datetime.datetime.fromtimestamp(seconds, datetime.UTC)
