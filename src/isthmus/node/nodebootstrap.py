"""What the one Envoy of a node starts with.

Source: spec section 7.2; Envoy's changelog for the guards.
"""

from typing import Final

from isthmus.node import bootstrap, overload

GUARDS: Final = {
    # An orderly end of a tunnel is followed by a reset of its stream without an error. This Envoy
    # takes that for a broken connection and breaks the caller's, which loses what was on its way.
    "envoy.reloadable_features.propagate_upstream_rst_through_tunneled_tcp_proxy": False,
    "envoy.reloadable_features.map_http_stream_reset_to_tcp_rst": False,
}


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
        "layered_runtime": {"layers": [{"name": "static", "static_layer": GUARDS}]},
        "overload_manager": {"resource_monitors": [overload.UNLIMITED]},
        "bootstrap_extensions": [bootstrap.INTERNAL_LISTENERS],
    }
