"""`virtualInbound`: which connections to a workload are let in, and how.

Envoy matches filter chains by destination port first, then by transport protocol, then by
application protocol, and never goes back: once any chain names a port, only chains that name
it are tried for it. So each declared port has a complete set of chains, and those without
a port are only for ports that nobody declared. A connection that finds no chain is closed:
that is how plain text is refused.

Source: spec sections 4.9, 4.11 and 4.12.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2
from google.protobuf import message

from isthmus.mesh.policies import MtlsMode
from isthmus.mesh.services import Protocol
from isthmus.resources.envoy import (
    access_logs,
    callers,
    filters,
    listeners,
    messages,
    rbac,
    routes,
    tls,
)
from isthmus.views import view

INBOUND_PORT: Final = 15006
PASSTHROUGH: Final = "InboundPassthroughCluster"


@dataclass(frozen=True, slots=True)
class Chain:
    """One filter chain: what it matches, whether it ends TLS, whether it reads requests."""

    transport: str
    protocols: tuple[str, ...] = ()
    ends_tls: bool = False
    reads_http: bool = False


TLS_HTTP: Final = Chain(filters.TLS, ends_tls=True, reads_http=True)
TLS_TCP: Final = Chain(filters.TLS, ends_tls=True)
PLAIN_HTTP: Final = Chain(filters.PLAIN, reads_http=True)
PLAIN_TCP: Final = Chain(filters.PLAIN)
FOREIGN_TLS: Final = Chain(filters.TLS)
MESH_HTTP: Final = Chain(filters.TLS, tls.MESH_ALPN, ends_tls=True, reads_http=True)
MESH_ANY_TCP: Final = Chain(filters.TLS, tls.MESH_ALPN, ends_tls=True)
SAID_HTTP: Final = Chain(filters.TLS, tls.MESH_HTTP, ends_tls=True, reads_http=True)
SAID_TCP: Final = Chain(filters.TLS, tls.MESH_TCP, ends_tls=True)
SNIFFED_HTTP: Final = Chain(filters.PLAIN, filters.SNIFFED_HTTP, reads_http=True)

HTTP_CHAINS: Final = {
    MtlsMode.STRICT: (TLS_HTTP,),
    MtlsMode.PERMISSIVE: (MESH_HTTP, PLAIN_HTTP),
    MtlsMode.DISABLE: (PLAIN_HTTP,),
}
TCP_CHAINS: Final = {
    MtlsMode.STRICT: (TLS_TCP,),
    MtlsMode.PERMISSIVE: (MESH_ANY_TCP, FOREIGN_TLS, PLAIN_TCP),
    MtlsMode.DISABLE: (PLAIN_TCP,),
}
AUTO_CHAINS: Final = {
    MtlsMode.STRICT: (SAID_HTTP, TLS_TCP),
    MtlsMode.PERMISSIVE: (SAID_HTTP, SNIFFED_HTTP, SAID_TCP, PLAIN_TCP, FOREIGN_TLS),
    MtlsMode.DISABLE: (SNIFFED_HTTP, FOREIGN_TLS, PLAIN_TCP),
}


def listener(inbound: view.Inbound) -> message.Message:
    """Return `virtualInbound` with the chains of all ports."""
    # Nothing waits for a client's first bytes where they decide nothing: a server may speak first.
    known_ports = [port.port for port in inbound.ports if port.protocol is not Protocol.AUTO]
    plain_ports = [port.port for port in inbound.ports if port.mode is MtlsMode.DISABLE]
    place: messages.Fields = {"internal_listener": {}}
    if not inbound.is_in_tunnels:
        place = {"address": messages.socket_address(listeners.ANY_ADDRESS, port=INBOUND_PORT)}
    result: message.Message = listener_pb2.Listener(
        name=view.listener_name(inbound),
        **place,
        traffic_direction=base_pb2.INBOUND,
        listener_filters=[
            filters.original_destination(),
            filters.tls_inspector(except_ports=plain_ports),
            filters.http_inspector(except_ports=known_ports),
        ],
        listener_filters_timeout=messages.FOREVER,
        continue_on_listener_filters_timeout=True,
        access_log=access_logs.of_refused(inbound.access_log_path),
        filter_chains=[_black_hole(inbound), *_undeclared(inbound), *_declared(inbound)],
    )
    return result


def chains_of(protocol: Protocol, *, mode: MtlsMode) -> Sequence[Chain]:
    """Return what is let in on a port where `protocol` is spoken."""
    if protocol.is_http:
        return HTTP_CHAINS[mode]
    if protocol is Protocol.AUTO:
        return AUTO_CHAINS[mode]
    return TCP_CHAINS[mode]


def _black_hole(inbound: view.Inbound) -> messages.Fields:
    """Return the chain for connections made to the listener's own port: they would loop."""
    passed = filters.pass_on(listeners.BLACK_HOLE, log_path=inbound.access_log_path)
    return {
        "name": "virtualInbound-blackhole",
        "filter_chain_match": {"destination_port": {"value": INBOUND_PORT}},
        "filters": [passed],
    }


def _undeclared(inbound: view.Inbound) -> Iterator[messages.Fields]:
    port = view.InboundPort(
        port=0, protocol=Protocol.AUTO, mode=inbound.mode, cluster_name=PASSTHROUGH
    )
    for chain in chains_of(port.protocol, mode=port.mode):
        name = "virtualInbound-catchall-http" if chain.reads_http else "virtualInbound"
        yield _chain(chain, name=name, port=port, inbound=inbound)


def _declared(inbound: view.Inbound) -> Iterator[messages.Fields]:
    for port in inbound.ports:
        name = f"{listeners.ANY_ADDRESS}_{port.port}"
        for chain in chains_of(port.protocol, mode=port.mode):
            yield _chain(chain, name=name, port=port, inbound=inbound)


def _chain(
    chain: Chain, *, name: str, port: view.InboundPort, inbound: view.Inbound
) -> messages.Fields:
    match: messages.Fields = {
        "transport_protocol": chain.transport,
        "application_protocols": list(chain.protocols),
    }
    if port.port:
        match["destination_port"] = {"value": port.port}
    result: messages.Fields = {"name": name, "filter_chain_match": match}
    result["filters"] = _filters(chain, port=port, inbound=inbound)
    if chain.ends_tls:
        result["transport_socket"] = tls.server_socket(
            inbound.trust_domains, by_domain=inbound.by_domain
        )
    return result


def _filters(
    chain: Chain, *, port: view.InboundPort, inbound: view.Inbound
) -> list[messages.Fields]:
    sight = rbac.Sight(callers.by_state) if inbound.is_in_tunnels else rbac.AT_WORKLOADS
    if not chain.reads_http:
        return filters.judge_and_pass_on(
            port.cluster_name,
            log_path=inbound.access_log_path,
            policies=inbound.policies,
            sight=sight,
        )
    routed = filters.route_inline(
        routes.inbound(port, names_caller=inbound.is_in_tunnels),
        side=filters.Side.INBOUND,
        stat_prefix=f"inbound_{listeners.ANY_ADDRESS}_{port.port};",
        log_path=inbound.access_log_path,
        policies=inbound.policies,
        sight=sight,
        believed=inbound.tokens,
    )
    return [routed]
