"""Policies about encryption, and how traffic is addressed and split.

Source: spec sections 3.5, 4.9, 6.4 and 8.2.
"""

from dataclasses import dataclass, field

from isthmus.base import hashing
from isthmus.mesh import requests
from isthmus.mesh.traffic import TrafficPolicy


class MtlsMode(hashing.Word):
    """What a workload accepts."""

    PERMISSIVE = "PERMISSIVE"
    STRICT = "STRICT"
    DISABLE = "DISABLE"


@dataclass(frozen=True, slots=True)
class PeerAuthentication:
    """One PeerAuthentication object; the oldest wins on each level.

    Attributes:
        selector: Labels that a workload must have; empty selects the namespace (or the mesh).
        mode: None inherits.
        port_modes: By container port; None inherits.
    """

    namespace: str
    name: str
    created: str
    selector: tuple[tuple[str, str], ...] = ()
    mode: MtlsMode | None = None
    port_modes: tuple[tuple[int, MtlsMode | None], ...] = ()


class ServerTls(hashing.Word):
    """What a gateway does with TLS on a port."""

    NONE = ""
    PASSTHROUGH = "PASSTHROUGH"
    AUTO_PASSTHROUGH = "AUTO_PASSTHROUGH"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"
    OPTIONAL_MUTUAL = "OPTIONAL_MUTUAL"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"

    @property
    def is_ended(self) -> bool:
        """Whether a gateway ends it with a certificate of its own."""
        return self in {ServerTls.SIMPLE, ServerTls.MUTUAL, ServerTls.OPTIONAL_MUTUAL}

    @property
    def asks_for_certificates(self) -> bool:
        """Whether clients are asked for a certificate."""
        return self in {ServerTls.MUTUAL, ServerTls.OPTIONAL_MUTUAL}


class TlsVersion(hashing.Word):
    """A version of TLS, as Istio spells it; the value puts them in order."""

    TLSV1_0 = 10
    TLSV1_1 = 11
    TLSV1_2 = 12
    TLSV1_3 = 13


@dataclass(frozen=True, slots=True)
class TlsLimits:
    """What a gateway accepts of clients.

    Attributes:
        ciphers: Of TLS 1.2 and before, in BoringSSL's spelling; empty for the usual ones.
    """

    lowest: TlsVersion = TlsVersion.TLSV1_2
    highest: TlsVersion = TlsVersion.TLSV1_3
    ciphers: tuple[str, ...] = ()


USUAL_LIMITS = TlsLimits()


@dataclass(frozen=True, slots=True)
class GatewayServer:
    """One port of a Gateway, with the hosts that it serves.

    Attributes:
        credential: Name of the Secret beside the gateway with its certificate, or empty.
        redirects: Whether plain requests are sent to https.
    """

    port: int
    port_name: str
    protocol: str
    hosts: tuple[str, ...]
    tls: ServerTls = ServerTls.NONE
    credential: str = ""
    limits: TlsLimits = USUAL_LIMITS
    redirects: bool = False


@dataclass(frozen=True, slots=True)
class Gateway:
    """One Gateway object: it configures the workloads that it selects.

    Attributes:
        is_kubernetes: Whether it is one of the Gateway API, which selects in its own namespace
            only, and is bound by routes of that API only.
    """

    namespace: str
    name: str
    selector: tuple[tuple[str, str], ...]
    servers: tuple[GatewayServer, ...]
    is_kubernetes: bool = False


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a route sends traffic; `host` is fully qualified."""

    host: str
    port: int = 0
    subset: str = ""
    weight: int = 100
    headers: requests.Headers = requests.UNCHANGED


@dataclass(frozen=True, slots=True)
class SniRoute:
    """TLS traffic that asks for one of `sni_hosts` on `port` (0: any), not decrypted.

    `gateways`, `source_namespace` and `source` are as in `HttpMatch`.

    Attributes:
        subnets: Where connections must be going; empty for anywhere.
    """

    port: int
    sni_hosts: tuple[str, ...]
    destinations: tuple[Destination, ...]
    gateways: tuple[str, ...] = ()
    source_namespace: str = ""
    source: tuple[tuple[str, str], ...] = ()
    subnets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class TcpRoute:
    """TCP traffic on `port` (0: any); the rest is as in `SniRoute`."""

    port: int
    destinations: tuple[Destination, ...]
    gateways: tuple[str, ...] = ()
    source_namespace: str = ""
    source: tuple[tuple[str, str], ...] = ()
    subnets: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HttpMatch:
    """What a request must look like; an empty field matches all.

    Patterns are `exact:x`, `prefix:x`, `regex:x` (RE2, the whole text), or `present:`.

    Attributes:
        method: The method itself, or `regex:x`.
        headers: Name and pattern.
        port: Of the service, 0 for all.
        without_headers: Name and pattern of headers that it must not have.
        query: Parameter and pattern.
        ignores_case: Whether the path is compared regardless of case.
        gateways: `mesh` or `<namespace>/<name>` of the gateways that it holds for.
        source: Labels of the client, which may also say where it stands: its cluster or network.
        source_namespace: Of the client, or of the gateway.
    """

    path: str = ""
    method: str = ""
    headers: tuple[tuple[str, str], ...] = ()
    port: int = 0
    scheme: str = ""
    authority: str = ""
    without_headers: tuple[tuple[str, str], ...] = ()
    query: tuple[tuple[str, str], ...] = ()
    ignores_case: bool = False
    gateways: tuple[str, ...] = ()
    source_namespace: str = ""
    source: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Mirror:
    """Where copies of requests go; `share` of them, in millionths."""

    destination: Destination
    share: int = 1_000_000


@dataclass(frozen=True, slots=True)
class HttpRoute:
    """Requests that match any of `matches` (all, if there is none) go to `destinations`.

    Attributes:
        destinations: None, if `treatment` redirects or answers.
        delegate: Namespace and name of the VirtualService that says what becomes of them; None
            wherever that has been found out.
    """

    matches: tuple[HttpMatch, ...]
    destinations: tuple[Destination, ...]
    timeout_s: float = 0.0
    treatment: requests.Treatment = requests.PLAIN
    mirrors: tuple[Mirror, ...] = ()
    delegate: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class VirtualService:
    """One VirtualService object of networking.istio.io, or a route of the Gateway API."""

    namespace: str
    name: str
    hosts: tuple[str, ...]
    gateways: tuple[str, ...] = ("mesh",)
    http: tuple[HttpRoute, ...] = ()
    tls: tuple[SniRoute, ...] = ()
    tcp: tuple[TcpRoute, ...] = ()
    export_to: tuple[str, ...] = ()
    is_kubernetes: bool = False


@dataclass(frozen=True, slots=True)
class Subset:
    """Those endpoints of a service that have `labels`; `policy` says what differs from the rule's."""

    name: str
    labels: tuple[tuple[str, str], ...]
    policy: TrafficPolicy | None = None


@dataclass(frozen=True, slots=True)
class DestinationRule:
    """One DestinationRule object of networking.istio.io; `host` is fully qualified.

    Attributes:
        created: When, as the API server says; of several rules the oldest counts first.
        selector: Labels of the clients that it holds for, which are in its own namespace; None
            for all clients.
    """

    namespace: str
    name: str
    host: str
    policy: TrafficPolicy = field(default_factory=TrafficPolicy)
    subsets: tuple[Subset, ...] = ()
    export_to: tuple[str, ...] = ()
    created: str = ""
    selector: tuple[tuple[str, str], ...] | None = None
