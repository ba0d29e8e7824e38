"""What a proxy says of itself in its first message, and whether that agrees with its proof.

A claim may say less than the proof, never something else: who a proxy is follows from how it
proved itself. Where it is, is for the registry to say; its own word counts only where the
registry has none.

Source: spec sections 4.2 and 4.4; security rule XA-2.

    IsthmusError
    └── NodeRefused
"""

import ipaddress
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from isthmus.base import errors
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.localities import NOWHERE, Locality
from isthmus.mesh.proxies import ProxyKind
from isthmus.wire import callers

NO_CLUSTER: Final = ClusterId("")
NO_NETWORK: Final = NetworkId("")
ID_PARTS: Final = 4
MOST_LABELS: Final = 256
EXCHANGE: Final = ("istio.metadata_exchange", "envoy.filters.network.metadata_exchange")
"""Extensions that only Istio's own build of Envoy has."""

COLLECTIONS: Final = (1, 40)
"""The first release of Envoy that was tried with endpoints told one by one, in differences."""

Json = None | bool | float | str | Sequence["Json"] | Mapping[str, "Json"]


class NodeRefused(errors.IsthmusError):
    """A proxy says something of itself that cannot be, or that its proof does not cover.

    Attributes:
        status: Name of the gRPC status that it gets.
    """

    code = "ISM-XDS-001"

    def __init__(self, happened: str, *, status: str = "INVALID_ARGUMENT", hint: str = "") -> None:
        super().__init__(
            happened,
            still_working="the proxy keeps its last configuration; all others are served",
            hint=hint
            or "compare the pod's `ISTIO_META_*` variables with its namespace and cluster",
        )
        self.status = status


@dataclass(frozen=True, slots=True)
class Node:
    """A proxy, by its own word.

    Attributes:
        id: The node id as it was given.
        name: `<pod>.<namespace>`.
        addresses: Its own IP addresses, first the one that it names itself by.
        account: The service account that it claims, or empty.
        requested_networks: Networks whose endpoints it wants; empty for all.
        version: Version of Istio's proxy that it claims to be.
        has_metadata_exchange: Whether it is Istio's own build of Envoy.
        captures_dns: Whether its agent answers its pod's questions for names.
        allocates_addresses: Whether names without an address shall get one.
        marks_sockets: Whether its sockets are marked as its own.
        ends_tunnels: Whether it wants to end HBONE.
        begins_tunnels: Whether it wants to speak HBONE to whoever takes it.
        follows_collections: Whether it can be told of each endpoint by itself.
    """

    id: str
    kind: ProxyKind
    name: str
    pod: str
    namespace: str
    domain: str
    addresses: tuple[str, ...]
    cluster: ClusterId = NO_CLUSTER
    network: NetworkId = NO_NETWORK
    account: str = ""
    mesh_id: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    locality: Locality = NOWHERE
    host: str = ""
    requested_networks: tuple[NetworkId, ...] = ()
    interception: str = ""
    version: str = ""
    envoy_version: str = ""
    has_metadata_exchange: bool = False
    captures_dns: bool = False
    allocates_addresses: bool = False
    marks_sockets: bool = False
    ends_tunnels: bool = False
    begins_tunnels: bool = False
    follows_collections: bool = False


@dataclass(frozen=True, slots=True)
class Claim:
    """The parts of a protobuf node that are read, as plain values.

    Attributes:
        speaks_delta: Whether the stream is one of differences.
    """

    id: str
    metadata: Mapping[str, Json]
    locality: Locality = NOWHERE
    envoy_version: str = ""
    extensions: frozenset[str] = frozenset()
    speaks_delta: bool = False


def parse(claim: Claim) -> Node:
    """Read a node.

    Raises:
        NodeRefused: It is malformed (ISM-XDS-001).
    """
    parts = claim.id.split("~")
    if len(parts) != ID_PARTS:
        raise NodeRefused(f"node id has {len(parts)} parts instead of 4: `{claim.id[:200]}`")
    kind, address, name, domain = parts
    pod, _, in_name = name.rpartition(".")
    namespace = _text(claim, "NAMESPACE") or domain.partition(".")[0]
    if not pod or not namespace or in_name != namespace:
        raise NodeRefused(f"node id names no pod of namespace `{namespace[:63]}`: `{name[:200]}`")
    return Node(
        id=claim.id,
        kind=_kind(kind),
        name=name,
        pod=pod,
        namespace=namespace,
        domain=domain,
        addresses=_addresses(_text(claim, "INSTANCE_IPS"), own=address),
        cluster=ClusterId(_text(claim, "CLUSTER_ID")),
        network=NetworkId(_text(claim, "NETWORK")),
        account=_text(claim, "SERVICE_ACCOUNT"),
        mesh_id=_text(claim, "MESH_ID"),
        labels=_labels(claim.metadata.get("LABELS")),
        locality=claim.locality,
        host=_text(claim, "NODE_NAME"),
        requested_networks=tuple(
            NetworkId(part) for part in _text(claim, "REQUESTED_NETWORK_VIEW").split(",") if part
        ),
        interception=_text(claim, "INTERCEPTION_MODE"),
        version=_text(claim, "ISTIO_VERSION"),
        envoy_version=claim.envoy_version,
        has_metadata_exchange=not claim.extensions.isdisjoint(EXCHANGE),
        captures_dns=_flag(claim, "DNS_CAPTURE"),
        allocates_addresses=_flag(claim, "DNS_AUTO_ALLOCATE"),
        marks_sockets=_flag(claim, "MARKS_SOCKETS"),
        ends_tunnels=_flag(claim, "ENABLE_HBONE"),
        begins_tunnels=_flag(claim, "ENABLE_HBONE") and not _flag(claim, "DISABLE_HBONE_SEND"),
        follows_collections=claim.speaks_delta and _release(claim.envoy_version) >= COLLECTIONS,
    )


def check(node: Node, *, caller: callers.Caller) -> None:
    """Compare what a proxy says of itself with what it proved.

    Raises:
        NodeRefused: They contradict each other (ISM-XDS-001).
    """
    for what, claimed, proven in (
        ("cluster", node.cluster, caller.cluster),
        ("namespace", node.namespace, caller.namespace),
        ("service account", node.account, caller.service_account),
        # A certificate proves no pod; a token that is bound to one does.
        ("pod", node.pod if caller.pod else "", caller.pod),
    ):
        if claimed and claimed != proven:
            raise NodeRefused(
                f"authorization failed: claims {what} `{claimed[:253]}` but proved `{proven}`",
                status="PERMISSION_DENIED",
            )


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())


def _kind(text: str) -> ProxyKind:
    try:
        return ProxyKind(text)
    except ValueError:
        raise NodeRefused(f"unknown kind of proxy: `{text[:63]}`") from None


def _addresses(listed: str, *, own: str) -> tuple[str, ...]:
    given = tuple(part.strip() for part in listed.split(",") if part.strip())
    if given and all(_is_address(part) for part in given):
        return given
    if not _is_address(own):
        raise NodeRefused(f"node id has no IP address: `{own[:63]}`")
    return (own,)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _text(claim: Claim, key: str) -> str:
    value = claim.metadata.get(key)
    # Most proxies say the same: each text exists once, for as long as anybody says it.
    return sys.intern(value) if isinstance(value, str) else ""


def _flag(claim: Claim, key: str) -> bool:
    value = claim.metadata.get(key)
    return value is True or (isinstance(value, str) and value.lower() in {"true", "all"})


def _labels(value: Json) -> tuple[tuple[str, str], ...]:
    if not isinstance(value, Mapping):
        return ()
    pairs = (
        (sys.intern(key), sys.intern(text)) for key, text in value.items() if isinstance(text, str)
    )
    return tuple(sorted(pairs))[:MOST_LABELS]
