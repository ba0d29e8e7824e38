"""Who calls: what a connection shows, and what was proven from it.

Identity comes from proof, never from what a client says of itself: a service-account token is
reviewed by the API server of the cluster that the caller says it belongs to, or a client
certificate was verified against the mesh's roots.

Source: spec section 1.3.1; security rules CA-4, XA-1 and XA-2.

    IsthmusError
    └── CallerRefused
"""

from dataclasses import dataclass
from typing import Protocol

from typing_extensions import override

from isthmus.base import errors
from isthmus.mesh.identities import ClusterId


class CallerRefused(errors.IsthmusError):
    """The caller did not prove who it is."""

    code = "ISM-WIRE-001"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a connection shows.

    Attributes:
        token: The bearer token, or empty. Never logged, never part of a text.
        claimed_cluster: The cluster that the caller says it belongs to, or empty.
        peer_identities: URI names of a verified client certificate; empty without one.
        peer: Network address, for logs.
        peer_chain: That certificate and what was sent with it, as PEM; empty without one.
    """

    token: str
    claimed_cluster: str
    peer_identities: tuple[str, ...] = ()
    peer: str = ""
    peer_chain: str = ""

    @override
    def __repr__(self) -> str:
        return f"Credentials(claimed_cluster={self.claimed_cluster!r}, peer={self.peer!r})"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who was proven to call.

    Attributes:
        pod: Name of the pod that the token is bound to; empty when it is bound to none.
    """

    cluster: ClusterId
    namespace: str
    service_account: str
    pod: str = ""
    pod_uid: str = ""


class Authenticator(Protocol):
    """Finds out who calls."""

    async def authenticate(self, credentials: Credentials) -> Caller:
        """Return who calls.

        Raises:
            CallerRefused: Nothing was proven (ISM-WIRE-001).
        """
