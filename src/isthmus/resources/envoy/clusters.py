"""A slice's cluster as Envoy's Cluster: discovery, balancing, limits and encryption.

Source: spec sections 4.8, 4.9, 4.11 and 8.1.
"""

import functools
from typing import assert_never

from envoy.config.cluster.v3 import cluster_pb2
from google.protobuf import message

from isthmus.resources.envoy import balancing, endpoints, hbone, messages, pools, tls
from isthmus.views import view

Cluster = cluster_pb2.Cluster


def cluster_of(cluster: view.ClusterSlice) -> message.Message:
    """Return the message that says how a cluster is reached."""
    result: message.Message = Cluster(
        name=cluster.name,
        alt_stat_name=f"{cluster.name};",
        connect_timeout=messages.seconds(cluster.connect_timeout_s),
        circuit_breakers=pools.limits(cluster.pool, budget=cluster.budget),
        metadata=_metadata(cluster),
        typed_extension_protocol_options=pools.http_options(
            cluster.protocol, cluster.pool, asks_as_requested=_asks_as_requested(cluster)
        ),
        **_discovery(cluster),
        **_encryption(cluster),
        **balancing.outliers(cluster.outlier),
        **_sockets(cluster),
    )
    return result


def _discovery(cluster: view.ClusterSlice) -> messages.Fields:
    balanced = balancing.of(cluster)
    match cluster.discovery:
        case view.Discovery.EDS:
            source = {"service_name": cluster.name, "eds_config": messages.from_ads()}
            return balanced | {"type": Cluster.EDS, "eds_cluster_config": source}
        case view.Discovery.ORIGINAL_DST:
            return {"type": Cluster.ORIGINAL_DST, "lb_policy": Cluster.CLUSTER_PROVIDED}
        case view.Discovery.STATIC_EMPTY:
            return {"type": Cluster.STATIC}
        case view.Discovery.STRICT_DNS:
            return balanced | {
                "type": Cluster.STRICT_DNS,
                "dns_lookup_family": Cluster.V4_PREFERRED,
                "load_assignment": _by_name(cluster),
            }
        case view.Discovery.LOGICAL_DNS:
            return balanced | {
                "type": Cluster.LOGICAL_DNS,
                "dns_lookup_family": Cluster.V4_PREFERRED,
                "load_assignment": _by_name(cluster),
            }
    assert_never(cluster.discovery)


def _by_name(cluster: view.ClusterSlice) -> message.Message | messages.Fields:
    if not cluster.dns_name:
        return endpoints.assignment_of(view.EndpointsSlice(cluster.name, cluster.looked_up))
    address = messages.socket_address(cluster.dns_name, port=cluster.dns_port)
    return {
        "cluster_name": cluster.name,
        "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
    }


def _metadata(cluster: view.ClusterSlice) -> messages.Fields | None:
    if cluster.service is None:
        return None
    host, name, namespace = cluster.service
    said: messages.Fields = {
        "services": [{"host": host, "name": name, "namespace": namespace}],
    }
    if cluster.rule is not None:
        said["config"] = messages.object_path("destination-rule", cluster.rule)
    return {"filter_metadata": {"istio": messages.struct(said)}}


def _asks_as_requested(cluster: view.ClusterSlice) -> bool:
    return cluster.foreign is not None and cluster.foreign.asks_as_requested


def _encryption(cluster: view.ClusterSlice) -> messages.Fields:
    usual = _usual_encryption(cluster)
    if not cluster.begins_tunnels:
        return usual
    whole = usual.get("transport_socket", tls.raw_socket())
    assert isinstance(whole, dict)
    # In a tunnel nothing is encrypted a second time, unless the server itself wants it.
    spoken = whole if cluster.foreign is not None else None
    others = usual.get("transport_socket_matches") or [
        {"name": "otherwise", "match": messages.struct({}), "transport_socket": whole}
    ]
    assert isinstance(others, list)
    tunnel = {
        "name": "hbone",
        "match": messages.struct(hbone.MATCH),
        "transport_socket": hbone.to_inside(spoken),
    }
    return {"transport_socket_matches": [tunnel, *others]}


def _usual_encryption(cluster: view.ClusterSlice) -> messages.Fields:
    if cluster.tls is view.UpstreamTls.NONE:
        return {}
    if cluster.foreign is not None:
        return {
            "transport_socket": tls.foreign_socket(
                cluster.foreign, server_name=cluster.sni, names=cluster.sans
            )
        }
    socket = tls.client_socket(
        cluster.sni,
        identities=cluster.sans,
        speaks_http2=cluster.protocol.is_http2,
        by_domain=cluster.by_domain,
    )
    if cluster.tls is view.UpstreamTls.MUTUAL:
        return {"transport_socket": socket}
    plain, encrypted = _matches()
    return {"transport_socket_matches": [plain, encrypted | {"transport_socket": socket}]}


@functools.cache
def _matches() -> tuple[message.Message, messages.Fields]:
    """Return how endpoints are told that do not speak the mesh's TLS, and, but for it, all others.

    Those that speak it are many and are told of often, so theirs is the one that needs no word.
    """
    plain: message.Message = Cluster.TransportSocketMatch(
        name="tlsMode-disabled",
        match=messages.struct(endpoints.PLAIN),
        transport_socket=tls.raw_socket(),
    )
    return plain, {"name": "tlsMode-istio", "match": messages.struct({})}


def _sockets(cluster: view.ClusterSlice) -> messages.Fields:
    if cluster.bind_address:
        # The redirect rules let this source address through, so that no mark is needed.
        source = {"address": cluster.bind_address, "port_value": 0}
        return {"upstream_bind_config": {"source_address": source}}
    if cluster.discovery is view.Discovery.STATIC_EMPTY:
        return {}
    options = pools.keepalive(cluster.pool)
    if cluster.leads_through_gateways and cluster.protocol.is_http:
        # Not for TCP: a server there may well take nothing for a while.
        options |= pools.impatience(cluster.pool, marks_sockets=cluster.marks_sockets)
    return options
