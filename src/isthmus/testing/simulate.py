"""Walks a described call through what real proxies would be told, and says where it lands.

Nothing is sent. Each step follows Envoy's rules over the very bytes that a proxy gets: listener,
filter chain, virtual host, route, cluster, endpoint, transport socket; then the gateway on
the way, if there is one, and the inbound side of the destination. So a test states what should
happen to traffic and not how it is configured.

Source: Envoy's documentation of listeners, routes and clusters.
"""

import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from google.protobuf import any_pb2

from isthmus.resources import snapshot
from isthmus.testing import chains, envoys, rbac, resolving, shapes, shares

if TYPE_CHECKING:
    from isthmus.testing import builders

OUTBOUND: Final = "virtualOutbound"
INBOUND: Final = "virtualInbound"
MANAGER: Final = "envoy.filters.network.http_connection_manager"
TCP_PROXY: Final = "envoy.filters.network.tcp_proxy"
HTTP_INSPECTOR: Final = "envoy.filters.listener.http_inspector"
DEFAULT_PORTS: Final = {"http": 80, "tls": 443}


@dataclass(frozen=True, slots=True)
class Request:
    """What an application sends."""

    scheme: str
    host: str
    port: int
    path: str = "/"
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    server_name: str = ""


@dataclass(frozen=True, slots=True)
class Hop:
    """What is under way, somewhere between client and destination.

    Attributes:
        share: Of all such calls.
        sni: What the mesh's TLS asks for; empty in plain text.
        protocols: What that TLS offers.
        accepted: Identities that the client lets the server have; empty for any.
        via: Gateways passed so far.
        starts_tls: Whether the client's proxy starts TLS that is not the mesh's.
    """

    address: str
    port: int
    share: Fraction
    network: str
    is_encrypted: bool = False
    sni: str = ""
    protocols: tuple[str, ...] = ()
    accepted: tuple[str, ...] = ()
    via: tuple[str, ...] = ()
    starts_tls: bool = False


@dataclass(frozen=True, slots=True)
class Landing:
    """Where a share of the calls ends.

    Attributes:
        address: The pod that answers; empty when it is refused.
        refused: Why nobody answers.
        caller: The identity that the destination sees; empty in plain text.
        is_request: Whether the destination's proxy reads requests.
        starts_tls: Whether the client's proxy started TLS that is not the mesh's.
    """

    share: Fraction
    address: str = ""
    refused: str = ""
    is_encrypted: bool = False
    sni: str = ""
    accepted: tuple[str, ...] = ()
    via: tuple[str, ...] = ()
    caller: str = ""
    cluster: str = ""
    is_request: bool = False
    starts_tls: bool = False


@dataclass(frozen=True, slots=True)
class Call:
    """All that can become of a call."""

    landings: tuple[Landing, ...]

    @property
    def shares(self) -> dict[str, Fraction]:
        """How the calls spread over the pods that answer."""
        found = dict[str, Fraction]()
        for landing in self.landings:
            if landing.address:
                found[landing.address] = found.get(landing.address, Fraction(0)) + landing.share
        return found

    @property
    def shares_by_cluster(self) -> dict[str, Fraction]:
        """How the calls spread over the clusters that answer."""
        found = dict[str, Fraction]()
        for landing in self.landings:
            if landing.address:
                found[landing.cluster] = found.get(landing.cluster, Fraction(0)) + landing.share
        return found

    @property
    def arrives_at(self) -> str:
        """The one pod that answers; empty when none does, or not always, or several do."""
        addresses = {landing.address for landing in self.landings}
        return addresses.pop() if len(addresses) == 1 else ""

    @property
    def via_gateway(self) -> frozenset[str]:
        """The gateways through which some of the calls go."""
        return frozenset(name for landing in self.landings for name in landing.via)

    @property
    def sni(self) -> frozenset[str]:
        """What the mesh's TLS asks for."""
        return frozenset(landing.sni for landing in self.landings if landing.sni)

    @property
    def identities(self) -> frozenset[str]:
        """The identities that destinations see of the caller."""
        return frozenset(landing.caller for landing in self.landings if landing.caller)

    @property
    def is_encrypted(self) -> bool:
        """Whether all calls are encrypted by the mesh from proxy to proxy."""
        return bool(self.landings) and all(landing.is_encrypted for landing in self.landings)

    @property
    def refused(self) -> frozenset[str]:
        """Why some of the calls are answered by nobody."""
        return frozenset(landing.refused for landing in self.landings if landing.refused)


def request(
    url: str,
    *,
    method: str = "GET",
    headers: Mapping[str, str] | None = None,
    server_name: str = "",
) -> Request:
    """Read `http://host[:port]/path`, `tcp://host:port` or `tls://host:port`."""
    parts = urllib.parse.urlsplit(url)
    port = parts.port or DEFAULT_PORTS.get(parts.scheme, 0)
    host = parts.hostname or ""
    name = server_name or (host if parts.scheme == "tls" else "")
    return Request(parts.scheme, host, port, parts.path or "/", method, headers or {}, name)


class Proxy:
    """What one proxy was told, by type and name."""

    def __init__(self, told: snapshot.Snapshot) -> None:
        self._told = told

    def get(self, kind: snapshot.TypeUrl, name: str) -> envoys.Message | None:
        """Return a resource by name."""
        resource = self._told.of(kind).get(name)
        return None if resource is None else envoys.decoded(resource)

    def listener_for(self, address: str, port: int) -> envoys.Message | None:
        """Return the listener that a captured connection is handed to."""
        for name in (f"{address}_{port}", f"0.0.0.0_{port}", OUTBOUND):
            found = self.get(snapshot.LISTENERS, name)
            if found is not None:
                return found
        return None


class Walk:
    """Walks calls through one mesh."""

    def __init__(self, mesh: "builders.Mesh") -> None:
        self._mesh = mesh

    def call(self, source: shapes.Pod, asked: Request) -> Call:
        """Return where a call lands, by shares."""
        landings = list[Landing]()
        for address, share in resolving.addresses_of(self._mesh, source, host=asked.host):
            landings.extend(self._leaves(source, asked, address=address, share=share))
        return Call(tuple(landings) or (Landing(Fraction(1), refused="unknown host"),))

    # --- the client's side

    def _leaves(
        self, source: shapes.Pod, asked: Request, *, address: str, share: Fraction
    ) -> Iterator[Landing]:
        hop = Hop(address, asked.port, share, source.network)
        if source.proxy is None:
            yield from self._reaches(source, asked, hop)
            return
        proxy = Proxy(self._mesh.snapshot_of(source))
        listener = proxy.listener_for(address, asked.port)
        if listener is None:
            yield Landing(share, refused="nothing listens")
            return
        chain = chains.chosen(listener, _said(asked, hop, listener))
        if chain is None:
            yield Landing(share, refused="no filter chain at the client")
            return
        for cluster_name, part in _clusters(proxy, chain, asked):
            yield from self._through(
                source,
                asked,
                replace(hop, share=share * part),
                proxy=proxy,
                cluster_name=cluster_name,
            )

    def _through(
        self, source: shapes.Pod, asked: Request, hop: Hop, *, proxy: Proxy, cluster_name: str
    ) -> Iterator[Landing]:
        for next_hop in _dialled(proxy, cluster_name, hop):
            if next_hop is None:
                yield Landing(hop.share, refused=f"`{cluster_name}` has no endpoint")
            else:
                yield from self._reaches(source, asked, next_hop)

    # --- the destination's side

    def _reaches(self, source: shapes.Pod, asked: Request, hop: Hop) -> Iterator[Landing]:
        pod = self._mesh.pod_at(hop.address, network=hop.network)
        members = self._behind_vip(source, hop) if pod is None else []
        if members:
            for member in members:
                yield from self._reaches(source, asked, member)
        elif pod is None:
            yield Landing(hop.share, refused=f"nobody has {hop.address} in `{hop.network}`")
        elif pod.proxy is None:
            yield _plain_end(hop, pod)
        elif pod.external or pod.proxy.value == "router":
            yield from self._passes(source, asked, hop, gateway=pod)
        else:
            yield self._enters(source, asked, hop, pod=pod)

    def _behind_vip(self, source: shapes.Pod, hop: Hop) -> list[Hop]:
        """Return what the cluster's own service proxy makes of a service's address."""
        cluster = self._mesh.clusters[source.cluster].id
        for key, service in self._mesh.graph.items(self._mesh.model.services).items():
            if hop.address not in dict(service.vips).get(cluster, ()):
                continue
            names = {port.name for port in service.ports if port.number == hop.port}
            members = [
                one
                for one in self._mesh.graph.get(self._mesh.model.endpoints, key) or ()
                if one.cluster == cluster and one.port_name in names
            ]
            share = hop.share / max(len(members), 1)
            return [
                replace(hop, address=one.address, port=one.port, share=share) for one in members
            ]
        return []

    def _passes(
        self, source: shapes.Pod, asked: Request, hop: Hop, *, gateway: shapes.Pod
    ) -> Iterator[Landing]:
        if len(hop.via) > 3:
            yield Landing(hop.share, refused="a loop of gateways", via=hop.via)
            return
        proxy = Proxy(self._mesh.snapshot_of(gateway))
        listener = proxy.get(snapshot.LISTENERS, f"0.0.0.0_{hop.port}")
        if listener is None:
            yield Landing(hop.share, refused=f"gateway does not listen on {hop.port}")
            return
        chain = chains.chosen(listener, _said(asked, hop, listener))
        if chain is None:
            yield Landing(hop.share, refused="no filter chain at the gateway", sni=hop.sni)
            return
        inside = replace(hop, network=gateway.network, via=(*hop.via, gateway.name))
        for cluster_name, part in _clusters(proxy, chain, asked):
            kept = replace(inside, share=hop.share * part)
            yield from self._through(source, asked, kept, proxy=proxy, cluster_name=cluster_name)

    def _enters(self, source: shapes.Pod, asked: Request, hop: Hop, *, pod: shapes.Pod) -> Landing:
        proxy = Proxy(self._mesh.snapshot_of(pod))
        listener = proxy.get(snapshot.LISTENERS, INBOUND)
        end = Landing(
            hop.share, via=hop.via, sni=hop.sni, accepted=hop.accepted, starts_tls=hop.starts_tls
        )
        chain = None if listener is None else chains.chosen(listener, _said(asked, hop, listener))
        if chain is None:
            return replace(end, refused="no filter chain at the destination")
        ends_tls = chain.HasField("transport_socket")
        if hop.is_encrypted and not ends_tls:
            return replace(end, refused="mutual TLS reaches the application undecrypted")
        if ends_tls and not hop.is_encrypted:
            return replace(end, refused="no certificate of the mesh")
        if hop.accepted and pod.identity not in hop.accepted:
            return replace(end, refused=f"server is {pod.identity}")
        caller = source.identity if hop.is_encrypted else ""
        is_request = any(one.name == MANAGER for one in chain.filters)
        sent = {name.lower(): value for name, value in asked.headers.items()}
        sender = self._last_sender(source, hop)
        known = rbac.Asked(
            caller, sender, hop.port, asked.path, asked.method, asked.host, sent, is_request
        )
        if not rbac.lets_in(chain.filters, known):
            return replace(end, refused=rbac.REFUSED)
        return replace(
            end,
            address=pod.address,
            cluster=pod.cluster,
            is_encrypted=hop.is_encrypted,
            caller=caller,
            is_request=is_request,
        )

    def _last_sender(self, source: shapes.Pod, hop: Hop) -> str:
        """Return the address from which a destination is dialled: a gateway's, behind one."""
        gateways = {pod.name: pod.address for pod in self._mesh.pods}
        return gateways[hop.via[-1]] if hop.via else source.address


def _plain_end(hop: Hop, pod: shapes.Pod) -> Landing:
    if hop.is_encrypted:
        return Landing(hop.share, refused="mutual TLS reaches an application", via=hop.via)
    end = Landing(hop.share, address=pod.address, cluster=pod.cluster, via=hop.via)
    return replace(end, sni=hop.sni, starts_tls=hop.starts_tls)


def _said(asked: Request, hop: Hop, listener: envoys.Message) -> chains.Connection:
    """Return what a listener sees: the mesh's TLS, or what the application sends."""
    if hop.is_encrypted or hop.starts_tls:
        return chains.Connection(hop.address, hop.port, "tls", hop.sni, hop.protocols)
    if asked.scheme == "tls":
        return chains.Connection(hop.address, hop.port, "tls", asked.server_name, ("http/1.1",))
    inspects = any(
        one.name == HTTP_INSPECTOR and not _is_off(one, hop.port)
        for one in listener.listener_filters
    )
    found = ("http/1.1",) if inspects and asked.scheme == "http" else ()
    return chains.Connection(hop.address, hop.port, protocols=found)


def _is_off(listener_filter: envoys.Message, port: int) -> bool:
    """Say whether a listener filter is turned off at a destination port."""
    off = listener_filter.filter_disabled
    ranges = [off, *off.or_match.rules]
    return any(
        one.HasField("destination_port_range")
        and one.destination_port_range.start <= port < one.destination_port_range.end
        for one in ranges
    )


def _clusters(
    proxy: Proxy,
    chain: envoys.Message,
    asked: Request,
) -> Iterator[tuple[str, Fraction]]:
    """Yield the clusters that a chain's filters lead to, and their shares."""
    last = _unpacked(chain.filters[-1].typed_config)
    if chain.filters[-1].name == TCP_PROXY:
        parts = [(one.name, one.weight) for one in last.weighted_clusters.clusters]
        total = sum(weight for _, weight in parts)
        yield from ((name, Fraction(weight, total)) for name, weight in parts)
        if last.cluster:
            yield last.cluster, Fraction(1)
        return
    routes = last.route_config
    if last.HasField("rds"):
        routes = proxy.get(snapshot.ROUTES, last.rds.route_config_name)
    yield from _routed(routes, asked)


def _routed(routes: envoys.Message, asked: Request) -> Iterator[tuple[str, Fraction]]:
    host = _virtual_host(routes.virtual_hosts, asked.host)
    for route in host.routes if host is not None else ():
        if not _fits(route.match, asked):
            continue
        shares = [(one.name, one.weight.value) for one in route.route.weighted_clusters.clusters]
        if route.route.cluster:
            shares = [(route.route.cluster, 1)]
        total = sum(weight for _, weight in shares)
        yield from ((name, Fraction(weight, total)) for name, weight in shares)
        return


def _virtual_host(hosts: Sequence[envoys.Message], name: str) -> envoys.Message | None:
    """Return the host for a name: exact, then the longest suffix, then any."""
    best, length = None, -1
    for host in hosts:
        for domain in host.domains:
            if domain == name:
                return host
            suffix = domain.removeprefix("*")
            is_suffix = domain.startswith("*") and name.endswith(suffix)
            if is_suffix and len(suffix) > length:
                best, length = host, len(suffix)
    return best


def _fits(match: envoys.Message, asked: Request) -> bool:
    by_path = asked.path == match.path if match.path else asked.path.startswith(match.prefix)
    sent = {**asked.headers, ":method": asked.method}
    return by_path and all(_header_fits(header, sent) for header in match.headers)


def _header_fits(header: envoys.Message, sent: Mapping[str, str]) -> bool:
    value = sent.get(header.name)
    if value is None:
        return False
    wanted = header.string_match
    return value.startswith(wanted.prefix) if wanted.prefix else value == wanted.exact


def _dialled(proxy: Proxy, cluster_name: str, hop: Hop) -> Iterator[Hop | None]:
    """Yield where a cluster's connections go, and how; None where it has no endpoint."""
    cluster = proxy.get(snapshot.CLUSTERS, cluster_name)
    if cluster is None:
        yield None
        return
    if cluster.type == cluster.ORIGINAL_DST:
        yield _spoken(cluster, hop, {})
        return
    assignment = proxy.get(snapshot.ENDPOINTS, cluster_name)
    if cluster.HasField("load_assignment"):
        assignment = cluster.load_assignment
    by_place = cluster.common_lb_config.HasField("locality_weighted_lb_config")
    endpoints = [] if assignment is None else shares.of(assignment, by_place=by_place)
    if not endpoints:
        yield None
        return
    for one, part in endpoints:
        place = one.endpoint.address.socket_address
        share = hop.share * part
        moved = replace(hop, address=place.address, port=place.port_value, share=share)
        metadata = one.metadata.filter_metadata
        wanted = metadata["envoy.transport_socket_match"] if metadata else {}
        yield _spoken(cluster, moved, dict(wanted))


def _spoken(cluster: envoys.Message, hop: Hop, metadata: Mapping[str, object]) -> Hop:
    """Return the hop with the transport socket that the cluster uses for it."""
    if hop.is_encrypted:
        # A proxy that passes TLS on adds none of its own: that would be a mistake to see.
        return hop
    socket = cluster.transport_socket if cluster.HasField("transport_socket") else None
    for match in cluster.transport_socket_matches:
        if all(metadata.get(key) == value for key, value in dict(match.match).items()):
            socket = match.transport_socket
            break
    if socket is None or socket.name != "envoy.transport_sockets.tls":
        return hop
    context = _unpacked(socket.typed_config)
    common = context.common_tls_context
    if not common.alpn_protocols:
        return replace(hop, sni=context.sni, starts_tls=True)
    names = common.combined_validation_context.default_validation_context
    return replace(
        hop,
        is_encrypted=True,
        sni=context.sni,
        protocols=tuple(common.alpn_protocols),
        accepted=tuple(one.matcher.exact for one in names.match_typed_subject_alt_names),
    )


def _unpacked(wrapped: any_pb2.Any) -> envoys.Message:
    return envoys.unpacked(wrapped)
