"""Gateways' slices as Envoy's Listeners: what is let in from outside, and where it goes.

TLS is passed on by server name, or ended with a certificate of the gateway's own and routed by
request; what asks for no known name is closed. Requests can only ask for hosts of the server whose
certificate was shown: no connection for one host can be used for another that asks for more.

Source: spec sections 3.5 and 4.11; security rule GW-6.
"""

import datetime
from collections.abc import Iterator
from typing import Final

from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2
from google.protobuf import message

from isthmus.resources.envoy import access_logs, filters, listeners, messages, tls
from isthmus.views import view

MOST_BUFFERED_BYTES: Final = 32 * 1024
HELLO_WITHIN: Final = datetime.timedelta(seconds=15)


def by_server_name(gateway: view.GatewayTls) -> message.Message:
    """Return a listener that passes TLS on by the server name that it asks for."""
    return _bound(
        gateway,
        {
            "filter_chains": [*_chains(gateway), *_ended(gateway)],
            "listener_filters": [filters.tls_inspector()],
            # Clients speak first here, so whoever says nothing for long only takes up room.
            "listener_filters_timeout": HELLO_WITHIN,
            "access_log": access_logs.of_refused(gateway.access_log_path),
        },
    )


def tcp(gateway: view.GatewayTcp) -> message.Message:
    """Return a listener that passes every connection to one cluster, or splits them."""
    judged = filters.judge_and_pass_on(
        gateway.cluster_name,
        log_path=gateway.access_log_path,
        policies=gateway.policies,
        shares=gateway.shares,
    )
    name = view.listener_name(gateway)
    return _bound(gateway, {"filter_chains": [{"name": name, "filters": judged}]})


def http(gateway: view.GatewayHttp) -> message.Message:
    """Return a listener that routes requests in plain text."""
    name = view.listener_name(gateway)
    routed = filters.route_by_discovery(
        gateway.route_name,
        stat_prefix=f"outbound_{name};",
        log_path=gateway.access_log_path,
        policies=gateway.policies,
    )
    return _bound(gateway, {"filter_chains": [{"name": name, "filters": [routed]}]})


def _chains(gateway: view.GatewayTls) -> Iterator[messages.Fields]:
    for chain in gateway.chains:
        match: messages.Fields = {
            "transport_protocol": filters.TLS,
            "server_names": list(chain.server_names),
            "application_protocols": list(tls.MESH_ALPN) if chain.needs_mesh_alpn else [],
        }
        passed = filters.pass_on(
            chain.cluster_name, log_path=gateway.access_log_path, shares=chain.shares
        )
        yield {"name": chain.cluster_name, "filter_chain_match": match, "filters": [passed]}


def _ended(gateway: view.GatewayTls) -> Iterator[messages.Fields]:
    for chain in gateway.ended:
        yield {
            "name": chain.route_name,
            "filter_chain_match": {
                "transport_protocol": filters.TLS,
                "server_names": list(chain.server_names),
            },
            "filters": [
                filters.route_of_strangers(
                    chain.route_name,
                    stat_prefix=f"outbound_{view.listener_name(gateway)};",
                    log_path=gateway.access_log_path,
                    policies=gateway.policies,
                )
            ],
            "transport_socket": tls.gateway_socket(chain),
            "transport_socket_connect_timeout": HELLO_WITHIN,
        }


def _bound(
    gateway: view.GatewayTls | view.GatewayTcp | view.GatewayHttp, chains: messages.Fields
) -> message.Message:
    result: message.Message = listener_pb2.Listener(
        name=view.listener_name(gateway),
        address=messages.socket_address(listeners.ANY_ADDRESS, port=gateway.port),
        traffic_direction=base_pb2.OUTBOUND,
        per_connection_buffer_limit_bytes={"value": MOST_BUFFERED_BYTES},
        **chains,
    )
    return result
