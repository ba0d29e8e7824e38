"""Outbound slices as Envoy's Listeners: what happens to what an application sends.

Only `virtualOutbound` has a socket. It hands each captured connection to the listener of the
connection's own destination: first one of exactly that address and port, then one of any address
and that port, and keeps what has neither.

Source: spec sections 4.7, 4.8 and 4.11.
"""

from collections.abc import Iterable, Iterator
from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2
from google.protobuf import message

from isthmus.resources.envoy import filters, messages
from isthmus.views import view

ANY_ADDRESS: Final = "0.0.0.0"
OUTBOUND_PORT: Final = 15001
BLACK_HOLE: Final = "BlackHoleCluster"


def catch_all(outbound: view.CatchAllOutbound) -> message.Message:
    """Return `virtualOutbound`.

    A connection to its own port was not captured but made on purpose, and would be passed to
    itself for ever: it is closed.
    """
    log_path = outbound.access_log_path
    result: message.Message = listener_pb2.Listener(
        name=view.listener_name(outbound),
        address=messages.socket_address(ANY_ADDRESS, port=OUTBOUND_PORT),
        use_original_dst={"value": True},
        traffic_direction=base_pb2.OUTBOUND,
        filter_chains=[
            {
                "name": "virtualOutbound-blackhole",
                "filter_chain_match": {"destination_port": {"value": OUTBOUND_PORT}},
                "filters": [filters.pass_on(BLACK_HOLE, log_path=log_path)],
            },
            {
                "name": "virtualOutbound-catchall-tcp",
                "filters": [filters.pass_on(outbound.fallback_cluster, log_path=log_path)],
            },
        ],
    )
    return result


def http(outbound: view.OutboundHttp) -> message.Message:
    """Return a listener that routes requests, and where it sniffs passes other traffic on."""
    name = view.listener_name(outbound)
    prefix = f"outbound_{name};"
    routed = filters.route_by_discovery(
        outbound.route_name, stat_prefix=prefix, log_path=outbound.access_log_path
    )
    chain: messages.Fields = {"name": name, "filters": [routed]}
    if not outbound.sniffs:
        return _unbound(outbound, name=name, chains={"filter_chains": [chain]})
    chain["filter_chain_match"] = {
        "transport_protocol": filters.PLAIN,
        "application_protocols": list(filters.SNIFFED_HTTP),
    }
    passed = filters.pass_on(
        outbound.tcp_cluster, log_path=outbound.access_log_path, shares=outbound.tcp_shares
    )
    chains = {
        "filter_chains": [chain, *_by_name(outbound.by_name, outbound)],
        "default_filter_chain": {"name": f"{name}-tcp", "filters": [passed]},
        "listener_filters": [filters.tls_inspector(), filters.http_inspector()],
        "listener_filters_timeout": messages.FOREVER,
        "continue_on_listener_filters_timeout": True,
    }
    return _unbound(outbound, name=name, chains=chains)


def tcp(outbound: view.OutboundTcp) -> message.Message:
    """Return a listener that passes connections on, TLS by the name that it asks for."""
    name = view.listener_name(outbound)
    chains = list(_by_name(outbound.by_name, outbound))
    chains.append({"name": name, "filters": [filters.pass_on_ruled(outbound)]})
    inspected: messages.Fields = {}
    if outbound.by_name:
        inspected = {
            "listener_filters": [filters.tls_inspector()],
            "listener_filters_timeout": messages.FOREVER,
            "continue_on_listener_filters_timeout": True,
        }
    return _unbound(outbound, name=name, chains={"filter_chains": chains, **inspected})


def _by_name(
    named: Iterable[view.NamedShares], outbound: view.OutboundHttp | view.OutboundTcp
) -> Iterator[messages.Fields]:
    """Yield a chain for each group of names that TLS may ask for."""
    for one in named:
        passed = filters.pass_on(
            one.shares[0].cluster_name, log_path=outbound.access_log_path, shares=one.shares
        )
        yield {
            "name": "|".join(one.server_names),
            "filter_chain_match": {
                "transport_protocol": filters.TLS,
                "server_names": list(one.server_names),
            },
            "filters": [passed],
        }


def _unbound(
    outbound: view.OutboundHttp | view.OutboundTcp, *, name: str, chains: messages.Fields
) -> message.Message:
    result: message.Message = listener_pb2.Listener(
        name=name,
        address=messages.socket_address(outbound.address, port=outbound.port),
        bind_to_port={"value": False},
        traffic_direction=base_pb2.OUTBOUND,
        **chains,
    )
    return result
