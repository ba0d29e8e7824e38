"""Services as the whole mesh sees them: merged across clusters by namespace sameness.

Source: spec sections 2.4 and 4.8.
"""

import functools
from dataclasses import dataclass

import msgspec

from isthmus.base import hashing
from isthmus.mesh.identities import ClusterId, Hostname


class Protocol(hashing.Word):
    """What is spoken on a port, as far as it was declared."""

    HTTP = "http"
    HTTP2 = "http2"
    GRPC = "grpc"
    TCP = "tcp"
    TLS = "tls"
    UDP = "udp"
    AUTO = "auto"

    @property
    def is_http(self) -> bool:
        """Whether requests can be routed one by one."""
        return self is Protocol.HTTP or self is Protocol.HTTP2 or self is Protocol.GRPC

    @property
    def is_http2(self) -> bool:
        """Whether the server speaks HTTP/2 from the first byte."""
        return self is Protocol.HTTP2 or self is Protocol.GRPC


class ServiceKey(msgspec.Struct, frozen=True, order=True, gc=False):
    """Names a service within the mesh: the same in every cluster."""

    namespace: str
    name: str


@functools.lru_cache(maxsize=16384)
def key_of(namespace: str, name: str) -> ServiceKey:
    """Return the key of a service: one object, which whoever has many clusters keeps many times."""
    return ServiceKey(namespace, name)


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a service, by the number that clients use."""

    name: str
    number: int
    protocol: Protocol


class Resolution(hashing.Word):
    """How a client finds the endpoints of a service.

    Those of NONE are where the client goes anyway; those of DNS are looked up by proxies, of
    ONE_BY_DNS whenever a connection is made.
    """

    VIP = "vip"
    HEADLESS = "headless"
    ALIAS = "alias"
    NONE = "none"
    DNS = "dns"
    ONE_BY_DNS = "one by dns"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a ServiceEntry says of a service beyond what Services say.

    Attributes:
        name: Of the ServiceEntry, which is in the service's namespace.
        is_external: Whether it is no part of the mesh, so that nobody there speaks its TLS.
        addresses: Where clients of all clusters find it.
        identities: SPIFFE identities that may answer for it beside those of its endpoints.
        wants_address: Whether it gets an address of our making where it has none.
    """

    name: str
    is_external: bool = True
    addresses: tuple[str, ...] = ()
    identities: tuple[str, ...] = ()
    wants_address: bool = False


DERIVED_DOMAIN = "mesh.internal"
"""Below this domain are the services that clusters share under a name of their own."""


@dataclass(frozen=True, slots=True)
class Derived:
    """That a service is made of the services of one name in those clusters that share theirs.

    Attributes:
        origin: The Services.
        host: Theirs.
        exporters: The clusters whose own object says that it is shared.
    """

    origin: ServiceKey
    host: Hostname
    exporters: frozenset[ClusterId]


@dataclass(frozen=True, slots=True)
class Service:
    """A service, merged from all clusters that have one of this name.

    Attributes:
        hostname: `<name>.<namespace>.svc.<cluster domain>`.
        ports: As the first cluster declares them.
        vips: The cluster IPs of each cluster, sorted by cluster.
        alias_of: The external name, for `Resolution.ALIAS`; else empty.
        labels: Of the first cluster's object, sorted by key.
        export_to: `*`, `.`, `~` or namespace names; empty means the mesh's default.
        is_cluster_local: Whether each cluster keeps to its own endpoints.
        publishes_not_ready: Whether endpoints count before they are ready.
        nearness: Labels; endpoints that share more of the leading ones with the client are nearer.
        keeps_to_node: Whether clients call endpoints on their own node only.
        created: When the first of its objects was made, as its API server wrote it.
        entry: What a ServiceEntry says, if it is one that made the service.
        derived: Whose service it is a second name for, if it is one.
    """

    key: ServiceKey
    hostname: Hostname
    ports: tuple[ServicePort, ...]
    resolution: Resolution = Resolution.VIP
    vips: tuple[tuple[ClusterId, tuple[str, ...]], ...] = ()
    alias_of: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    export_to: tuple[str, ...] = ()
    is_cluster_local: bool = False
    publishes_not_ready: bool = False
    nearness: tuple[str, ...] = ()
    keeps_to_node: bool = False
    created: str = ""
    entry: Entry | None = None
    derived: Derived | None = None

    @property
    def has_full_name_only(self) -> bool:
        """Whether its host is asked for as it is, since it is no Service of Kubernetes."""
        return self.entry is not None or self.derived is not None

    @property
    def hosts(self) -> tuple[Hostname, ...]:
        """Its host, and after it that of the Services that it is derived from."""
        return (self.hostname, *((self.derived.host,) if self.derived is not None else ()))

    @property
    def is_told_of(self) -> bool:
        """Whether proxies are told of its endpoints, rather than find them by themselves."""
        return self.resolution is Resolution.VIP or self.resolution is Resolution.HEADLESS

    @property
    def is_external(self) -> bool:
        """Whether it is no part of the mesh."""
        return self.entry is not None and self.entry.is_external

    def vips_in(self, cluster: ClusterId) -> tuple[str, ...]:
        """Return the addresses that a client in `cluster` uses: its own, else the first's."""
        for owner, addresses in self.vips:
            if owner == cluster and addresses:
                return addresses
        return next((addresses for _, addresses in self.vips if addresses), ())


def derived_host(origin: ServiceKey) -> Hostname:
    """Return the host under which clusters share a service: `<name>.<namespace>.mesh.internal`."""
    return Hostname(f"{origin.name}.{origin.namespace}.{DERIVED_DOMAIN}")


def derived_key(origin: ServiceKey) -> ServiceKey:
    """Return the key of the service that is derived from another; no Service has a dot in it."""
    return ServiceKey(origin.namespace, derived_host(origin))
