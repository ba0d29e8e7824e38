"""What is spoken on a port, as far as its Service declares it.

Source: spec section 4.8.
"""

from typing import Final

from isthmus.mesh.services import Protocol

BY_NAME: Final = {
    "http": Protocol.HTTP,
    "http2": Protocol.HTTP2,
    "grpc": Protocol.GRPC,
    "grpc-web": Protocol.GRPC,
    "tcp": Protocol.TCP,
    "tls": Protocol.TLS,
    "https": Protocol.TLS,
    "mongo": Protocol.TCP,
    "mysql": Protocol.TCP,
    "redis": Protocol.TCP,
    "udp": Protocol.UDP,
    "kubernetes.io/h2c": Protocol.HTTP2,
    "kubernetes.io/ws": Protocol.HTTP,
    "kubernetes.io/wss": Protocol.TLS,
}
SERVER_FIRST: Final = frozenset({25, 587, 3306})
"""Ports on which the server speaks first, so that waiting to see what the client says is in vain."""


def protocol_of(*, transport: str, app_protocol: str | None, port_name: str, port: int) -> Protocol:
    """Return what is spoken: by `appProtocol`, else by the port name up to its first dash.

    Of the transports all but TCP count as UDP, which the mesh does not carry.
    """
    if transport not in {"", "TCP"}:
        return Protocol.UDP
    declared = (app_protocol or port_name).lower()
    if declared in BY_NAME or declared.startswith("grpc-web-"):
        return BY_NAME.get(declared, Protocol.GRPC)
    prefix = declared.split("-", 1)[0]
    if prefix in BY_NAME:
        return BY_NAME[prefix]
    return Protocol.TCP if port in SERVER_FIRST else Protocol.AUTO
