"""The names by which Envoy's clusters, routes and server names refer to services.

Those that there are many of are one object wherever they stand: views, resources and what clients
ask for.

Source: spec sections 3.5 and 4.7.
"""

import sys
from typing import Final

BLACK_HOLE: Final = "BlackHoleCluster"
PASSTHROUGH: Final = "PassthroughCluster"
INBOUND_PASSTHROUGH: Final = "InboundPassthroughCluster"

ANY_ADDRESS: Final = "0.0.0.0"
INBOUND_SOURCE: Final = "127.0.0.6"
"""Where a proxy's own connections to its workload come from: never captured again."""


def outbound(host: str, *, port: int, subset: str = "") -> str:
    """Return the name of the cluster by which clients reach a service."""
    return sys.intern(f"outbound|{port}|{subset}|{host}")


def server_name(host: str, *, port: int, subset: str = "") -> str:
    """Return what mutual TLS asks for; also the cluster of a gateway that passes it on."""
    return sys.intern(f"outbound_.{port}_.{subset}_.{host}")


def inbound(port: int) -> str:
    """Return the name of the cluster of a port that a workload serves."""
    return f"inbound|{port}||"


def behind_tunnels(host: str, *, port: int) -> str:
    """Return the name of the cluster to which a gateway passes inner tunnels on."""
    return f"inbound-vip|{port}|tcp|{host}"


def at_waypoint(host: str, *, port: int) -> str:
    """Return the name of a listener inside a waypoint, for one port of a service, and its like."""
    return f"inbound-vip|{port}|http|{host}"


def onward(host: str, *, port: int) -> str:
    """Return the name of what leads a waypoint's calls of a port of a service to other networks."""
    return f"inner|{port}||{host}"


def pod_at_waypoint(address: str) -> str:
    """Return the name of a listener inside a waypoint, for all ports of a pod, and its like."""
    return f"inbound-pod|||{address}"


def pod(address: str) -> str:
    """Return the name of the cluster by which a waypoint calls a pod."""
    return f"pod|||{address}"


def tunnel_routes(port: int) -> str:
    """Return the name of the table of a gateway's port for tunnels."""
    return f"tunnels.{port}"


def route(port: int) -> str:
    """Return the name of the routes of all services that speak HTTP on a port."""
    return sys.intern(str(port))


def sniffed_route(host: str, *, port: int) -> str:
    """Return the name of the routes of one service whose protocol is found out."""
    return sys.intern(f"{host}:{port}")


def gateway_route(port: int) -> str:
    """Return the name of the routes of a gateway's port."""
    return f"http.{port}"


def ended_route(port: int, *, port_name: str, gateway: str) -> str:
    """Return the name of the routes of TLS that ends at a gateway, for `<namespace>/<name>`."""
    namespace, _, name = gateway.partition("/")
    return f"https.{port}.{port_name}.{name}.{namespace}"
