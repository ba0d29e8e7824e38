"""How clients talk to a service: which endpoint they pick, how many calls at once, whom they avoid.

Each field that is None leaves it to what stands above: the rule, the mesh, the proxy's default.

Source: spec sections 4.8, 4.11, 8.1 and 8.2.
"""

import dataclasses
from dataclasses import dataclass
from typing import Final

from isthmus.base import hashing
from isthmus.mesh.localities import Locality


class ClientTls(hashing.Word):
    """What a DestinationRule makes clients speak; AUTO leaves it to the mesh."""

    AUTO = ""
    DISABLE = "DISABLE"
    ISTIO_MUTUAL = "ISTIO_MUTUAL"
    SIMPLE = "SIMPLE"
    MUTUAL = "MUTUAL"


class LoadBalancer(hashing.Word):
    """How a client picks among endpoints; PASSTHROUGH leaves it to the application."""

    LEAST_REQUEST = "LEAST_REQUEST"
    ROUND_ROBIN = "ROUND_ROBIN"
    RANDOM = "RANDOM"
    PASSTHROUGH = "PASSTHROUGH"
    RING_HASH = "RING_HASH"
    MAGLEV = "MAGLEV"


class HashOf(hashing.Word):
    """What of a request decides which endpoint it goes to."""

    HEADER = "header"
    COOKIE = "cookie"
    SOURCE_IP = "source"
    QUERY_PARAMETER = "query"


@dataclass(frozen=True, slots=True)
class HashKey:
    """Requests with an equal value of this go to the same endpoint while it is there.

    Attributes:
        name: Of the header, cookie or parameter.
        ttl_s: Of a cookie that the proxy makes where there is none; None makes none.
        path: Of that cookie.
    """

    of: HashOf
    name: str = ""
    ttl_s: float | None = None
    path: str = ""


@dataclass(frozen=True, slots=True)
class Warmup:
    """A new endpoint gets its share little by little.

    Attributes:
        least_percent: Of its share, from the beginning.
        aggression: 1 grows evenly; more grows faster at first.
    """

    duration_s: float
    least_percent: float = 10.0
    aggression: float = 1.0


@dataclass(frozen=True, slots=True)
class Distribution:
    """Clients in `origin` send so many percent to each pattern of places, and nothing elsewhere."""

    origin: str
    to: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class LocalityPreference:
    """Which places are nearer than others.

    Attributes:
        is_enabled: False makes all places equal.
        distribute: The first that fits the client counts.
        failover: Region, and the region that stands in before all others.
        labels: Endpoints that have more of the leading ones in common with the client are
            nearer; a value that is not None stands for the client's own.
        is_forced: Whether it holds also where nobody notices endpoints that fail.
        is_strict: Whether only what has all labels in common with the client is called.
    """

    is_enabled: bool = True
    distribute: tuple[Distribution, ...] = ()
    failover: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str | None], ...] = ()
    is_forced: bool = False
    is_strict: bool = False


@dataclass(frozen=True, slots=True)
class Balancing:
    """How a client picks.

    Attributes:
        balancer: None leaves it to the mesh.
        key: For RING_HASH and MAGLEV.
        ring_size: Of RING_HASH at least; of MAGLEV exactly; 0 for the usual.
        locality: None leaves it to the service and the mesh.
    """

    balancer: LoadBalancer | None = None
    key: HashKey | None = None
    ring_size: int = 0
    warmup: Warmup | None = None
    locality: LocalityPreference | None = None


@dataclass(frozen=True, slots=True)
class OutlierDetection:
    """When a client stops using an endpoint; None leaves a limit unset.

    Attributes:
        splits_local: Whether failures to connect are counted apart from bad answers.
        least_healthy_percent: With fewer healthy endpoints than this all are used again.
    """

    consecutive_5xx: int | None = None
    consecutive_gateway_errors: int | None = None
    interval_s: float = 10.0
    base_ejection_s: float = 30.0
    max_ejection_percent: int = 10
    splits_local: bool = False
    consecutive_local_failures: int | None = None
    least_healthy_percent: int = 0


@dataclass(frozen=True, slots=True)
class Keepalive:
    """When a silent connection is probed; None leaves it to the mesh."""

    probes: int | None = None
    time_s: int | None = None
    interval_s: int | None = None


class Http2(hashing.Word):
    """Which version of HTTP is spoken to endpoints."""

    AS_DECLARED = "as the port declares"
    UPGRADED = "HTTP/2"
    AS_CLIENT = "as the client speaks"


@dataclass(frozen=True, slots=True)
class ConnectionPool:
    """How many connections and requests at once, and for how long; None sets no limit.

    Attributes:
        max_requests_per_connection: None leaves it to the mesh, and 0 sets no limit.
        max_streams: Likewise, of requests that share a connection of HTTP/2 at a time.
    """

    max_connections: int | None = None
    connect_timeout_s: float | None = None
    keepalive: Keepalive | None = None
    max_duration_s: float | None = None
    tcp_idle_s: float | None = None
    max_pending: int | None = None
    max_requests: int | None = None
    max_requests_per_connection: int | None = None
    max_retries: int | None = None
    http_idle_s: float | None = None
    max_streams: int | None = None
    http2: Http2 = Http2.AS_DECLARED


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """How many requests may be repeated at a time.

    Attributes:
        percent: Of the requests that are under way.
        least: How many may always be repeated, however few are under way.
    """

    percent: float = 20.0
    least: int = 3


@dataclass(frozen=True, slots=True)
class Encryption:
    """What clients speak, and to whom.

    Attributes:
        sni: The server name to ask for, instead of the mesh's own.
        names: Identities that the server may have, instead of those that the mesh knows.
        authorities: Path on the proxy's disk of who may sign for the server; empty for the
            operating system's.
        certificate: Path of the client's certificate, beside it of its `key`; empty for none.
        credential: Name of a Secret that holds these instead.
        verifies: Whether it matters who signed for the server, and for which names.
    """

    mode: ClientTls = ClientTls.AUTO
    sni: str = ""
    names: tuple[str, ...] = ()
    authorities: str = ""
    certificate: str = ""
    key: str = ""
    credential: str = ""
    verifies: bool = True

    @property
    def is_foreign(self) -> bool:
        """Whether keys and roots are others than the mesh's."""
        return self.mode in {ClientTls.SIMPLE, ClientTls.MUTUAL}


@dataclass(frozen=True, slots=True)
class TrafficPolicy:
    """How clients talk to a service or subset.

    Attributes:
        ports: What holds for single ports instead, and inherits nothing from here.
    """

    tls: Encryption | None = None
    balancing: Balancing | None = None
    outlier: OutlierDetection | None = None
    pool: ConnectionPool | None = None
    ports: tuple[tuple[int, "TrafficPolicy"], ...] = ()
    budget: RetryBudget | None = None

    @property
    def mode(self) -> ClientTls:
        """What clients speak."""
        return ClientTls.AUTO if self.tls is None else self.tls.mode

    def on(self, port: int) -> "TrafficPolicy":
        """Return what holds for a port."""
        if not self.ports:
            return self
        own = dict(self.ports).get(port)
        return dataclasses.replace(self if own is None else own, ports=())

    def over(self, base: "TrafficPolicy") -> "TrafficPolicy":
        """Return this, and `base` where this says nothing."""
        if self is UNSAID and not base.ports:
            return base
        return TrafficPolicy(
            tls=self.tls or base.tls,
            balancing=self.balancing or base.balancing,
            outlier=self.outlier or base.outlier,
            pool=self.pool or base.pool,
            budget=self.budget or base.budget,
        )


UNLIMITED: Final = ConnectionPool()
EVEN: Final = Balancing()
USUAL_PLACES: Final = LocalityPreference()
UNSAID: Final = TrafficPolicy()


def matches(pattern: str, place: Locality) -> bool:
    """Say whether a place is one of `pattern`: `region/zone/subzone`, the latter parts optional.

    A `*` at the end of a part stands for any rest of it.
    """
    found = (place.region, place.zone, place.subzone)
    return all(_fits(part, one) for part, one in zip(pattern.split("/"), found, strict=False))


def _fits(part: str, found: str) -> bool:
    return found.startswith(part[:-1]) if part.endswith("*") else part == found
