"""What the one Envoy of a node starts with.

Source: spec section 7.2; Envoy's changelog for the guards.
"""

from isthmus.node import bootstrap, overload


def document(name: str, *, socket: str, admin_socket: str) -> dict[str, object]:
    """Build the bootstrap.

    Args:
        name: Of the node.
        socket: Where the agent serves configuration and secrets.
        admin_socket: Where Envoy answers the agent; pods of the node must not reach it.
    """
    here = {"pipe": {"path": socket}}
    clusters = [bootstrap.cluster(one, here, http2=True) for one in ("xds-grpc", "sds-grpc")]
    return {
        "node": {"id": f"node-proxy~{name}", "cluster": "node-proxy"},
        "admin": {"address": {"pipe": {"path": admin_socket, "mode": 0o600}}},
        "dynamic_resources": bootstrap.DYNAMIC,
        "static_resources": {"clusters": clusters},
        "layered_runtime": {"layers": [{"name": "static", "static_layer": bootstrap.GUARDS}]},
        "overload_manager": {"resource_monitors": [overload.UNLIMITED]},
        "bootstrap_extensions": [bootstrap.INTERNAL_LISTENERS],
    }
