"""Who is who: clusters, networks, hosts, and SPIFFE identities.

Source: spec section 1.2.
"""

from dataclasses import dataclass
from typing import Final, NewType

import msgspec
from typing_extensions import override

from isthmus.base import errors

ClusterId = NewType("ClusterId", str)
"""The name of a cluster in the mesh: the data key of its remote secret."""

ANYWHERE: Final = ClusterId("")
"""Stands for a cluster where it does not matter in which one is."""

NetworkId = NewType("NetworkId", str)
"""The name of a network; empty means "unknown", which counts as the same as any."""

Hostname = NewType("Hostname", str)
"""A fully qualified name of a service, lower case, without a trailing dot."""

TrustDomain = NewType("TrustDomain", str)
"""The first part of a SPIFFE identity."""


class ObjectKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """Names an object of one kind within the mesh; `namespace` is empty for cluster-wide kinds."""

    cluster: ClusterId
    namespace: str
    name: str


SEGMENTS = 5


class IdentityMalformed(errors.IsthmusError):
    """A text is no SPIFFE identity of a Kubernetes workload."""

    code = "ISM-MESH-001"


@dataclass(frozen=True, slots=True, order=True)
class SpiffeId:
    """The identity of a workload: a service account of a namespace in a trust domain."""

    trust_domain: TrustDomain
    namespace: str
    service_account: str

    @override
    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


def parse_spiffe_id(text: str) -> SpiffeId:
    """Read `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`.

    Raises:
        IdentityMalformed: The text has another form (ISM-MESH-001).
    """
    parts = text.removeprefix("spiffe://").split("/")
    if (
        not text.startswith("spiffe://")
        or len(parts) != SEGMENTS
        or parts[1] != "ns"
        or parts[3] != "sa"
        or not all(parts)
    ):
        raise IdentityMalformed(f"not a SPIFFE identity of a workload: `{text[:200]}`")
    return SpiffeId(TrustDomain(parts[0]), parts[2], parts[4])
