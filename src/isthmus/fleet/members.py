"""One remote cluster in the fleet: by which secret, with which generations, and how that goes.

It decides nothing about when generations change; it says what is so.
"""

import hashlib
from dataclasses import dataclass

from isthmus.base import clock
from isthmus.fleet import generations, membership, statuses, tokens
from isthmus.kube import access
from isthmus.mesh.identities import ClusterId

_NO_TOKEN = tokens.Token()


@dataclass(slots=True)
class Member:
    """A cluster that is followed: with what, and with what soon."""

    wanted: membership.Wanted[access.Access]
    began: float
    number: int = 0
    current: generations.Generation | None = None
    coming: generations.Generation | None = None
    timed_out: bool = False
    unusable: str = ""
    live_digest: str = ""
    recalled_at: clock.Instant | None = None
    token: tokens.Token = _NO_TOKEN

    @property
    def is_known(self) -> bool:
        """Whether its objects are in the model, be they of now or of an earlier control plane."""
        return self.current is not None or self.recalled_at is not None

    @property
    def counts(self) -> bool:
        """Whether readiness need not wait for it."""
        return self.is_known or self.timed_out or bool(self.unusable)

    def status(self) -> statuses.Status:
        """Say in Istio's words how well it is followed."""
        if self.current is not None:
            return "synced"
        return "timeout" if self.timed_out else "syncing"

    def shown(self, *, now: clock.Instant) -> statuses.ClusterStatus:
        """Say all that people want to know of it."""
        followed = self.current or self.coming
        pending = self.coming.error() if self.coming else ""
        age_s = followed.age_s() if followed else 0.0
        if self.recalled_at is not None:
            age_s = (now - self.recalled_at).total_seconds()
        return statuses.ClusterStatus(
            self.wanted.cluster,
            self.wanted.secret,
            self.status(),
            age_s=max(0.0, age_s),
            error=(followed.error() if followed else "") or pending or self.unusable,
            generation=self.number,
            known=self.is_known,
            recalled=self.recalled_at is not None,
            digest=self.live_digest,
            token_expires=self.token.expires,
        )


@dataclass(frozen=True, slots=True)
class Link:
    """A remote cluster that is followed: by which secret, and the generation that is live."""

    cluster: ClusterId
    wanted: membership.Wanted[access.Access]
    generation: generations.Generation

    @property
    def server(self) -> str:
        """Fingerprint of the API server, whatever the credential."""
        return fingerprint(self.wanted.reached_by)


def fingerprint(reached_by: access.Access) -> str:
    """Return what tells an API server from others: its address and who vouches for it."""
    text = f"{reached_by.server}\n{reached_by.ca_pem}"
    return hashlib.sha256(text.encode()).hexdigest()
