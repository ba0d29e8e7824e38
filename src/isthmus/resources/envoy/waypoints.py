"""What is inside of waypoints, for Envoy: requests that came through tunnels are judged and routed.

Who began a tunnel is known from the certificate that he showed there. Inside it is a fact of the
connection, which nobody who calls can write.

Source: spec sections 4.13 and 7.4.
"""

from collections.abc import Iterator
from typing import Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.core.v3 import base_pb2
from envoy.config.listener.v3 import listener_pb2
from google.protobuf import message

from isthmus.mesh.services import Protocol
from isthmus.mesh.traffic import UNLIMITED
from isthmus.resources.envoy import callers, filters, hbone, messages, pools, rbac
from isthmus.views import view

Cluster = cluster_pb2.Cluster
CONNECT_S: Final = 10.0


def listener(port: view.waypoints.ServicePort) -> message.Message:
    """Return the listener inside to which tunnels for one port of a service lead."""
    chains: messages.Fields = {"filter_chains": list(_chains(port))}
    inspected = []
    if port.protocol is Protocol.AUTO:
        chains["default_filter_chain"] = _passing(port)
        inspected = [filters.http_inspector()]
    result: message.Message = listener_pb2.Listener(
        name=port.name,
        internal_listener={},
        traffic_direction=base_pb2.INBOUND,
        listener_filters=[filters.original_destination(), *inspected],
        listener_filters_timeout=messages.FOREVER,
        continue_on_listener_filters_timeout=True,
        **chains,
    )
    return result


def door(leading: view.waypoints.Door) -> message.Message:
    """Return the cluster that leads to a listener inside."""
    inside = {"server_listener_name": leading.name, "endpoint_id": leading.name}
    endpoint = {"endpoint": {"address": {"envoy_internal_address": inside}}}
    result: message.Message = Cluster(
        name=leading.name,
        type=Cluster.STATIC,
        connect_timeout=messages.seconds(CONNECT_S),
        load_assignment={"cluster_name": leading.name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        circuit_breakers=hbone.NO_LIMITS,
        transport_socket=hbone.to_inside(),
    )
    return result


def pod(leading: view.waypoints.PodCluster) -> message.Message:
    """Return the cluster that leads to a pod, at the port that the connection says."""
    more: messages.Fields = {"type": Cluster.ORIGINAL_DST, "lb_policy": Cluster.CLUSTER_PROVIDED}
    if leading.tunnel_end:
        inside = {"server_listener_name": view.waypoints.TUNNEL_START, "endpoint_id": leading.name}
        proof = {hbone.PROOF[0]: messages.struct({hbone.PROOF[1]: leading.tunnel_end})}
        endpoint = {
            "endpoint": {"address": {"envoy_internal_address": inside}},
            "metadata": base_pb2.Metadata(filter_metadata=proof),
        }
        assigned = {"cluster_name": leading.name, "endpoints": [{"lb_endpoints": [endpoint]}]}
        more = {
            "type": Cluster.STATIC,
            "load_assignment": assigned,
            "transport_socket": hbone.to_inside(),
        }
    result: message.Message = Cluster(
        name=leading.name,
        connect_timeout=messages.seconds(CONNECT_S),
        circuit_breakers=hbone.NO_LIMITS,
        typed_extension_protocol_options=pools.http_options(Protocol.AUTO, UNLIMITED),
        **more,
    )
    return result


def _chains(port: view.waypoints.ServicePort) -> Iterator[messages.Fields]:
    if not port.route_name:
        yield _passing(port)
        return
    chain: messages.Fields = {
        "name": f"{port.name};requests",
        "filters": [filters.route_from_tunnel(port)],
    }
    if port.protocol is Protocol.AUTO:
        chain["filter_chain_match"] = {"application_protocols": list(filters.SNIFFED_HTTP)}
    yield chain


def _passing(port: view.waypoints.ServicePort) -> messages.Fields:
    shares = [view.RouteTarget(name, weight) for name, weight in port.shares]
    passed = filters.judge_and_pass_on(
        shares[0].cluster_name,
        log_path=port.access_log_path,
        policies=port.policies,
        shares=shares,
        sight=rbac.Sight(callers.by_state, port.port),
    )
    return {"name": f"{port.name};connections", "filters": passed}
