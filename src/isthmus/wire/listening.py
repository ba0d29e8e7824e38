"""Listens for gRPC over TLS, by a server of our own or by gRPC's.

Ours is many times cheaper for discovery; gRPC's is the reference that it is held against, and
can require a certificate of whoever connects.

Source: performance rule 1; security rule XA-5.
"""

import socket
from typing import Final

import grpc

from isthmus.wire import congestion, encoding, tls
from isthmus.wire.h2 import server

OPTIONS: Final = (
    ("grpc.max_receive_message_length", encoding.MOST_BYTES),
    ("grpc.max_metadata_size", 32 * 1024),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 15_000),
    ("grpc.so_reuseport", 0),
)
"""How gRPC's server treats connections."""

Server = server.Server

LIMITS: Final = server.Limits(message_bytes=encoding.MOST_BYTES)
"""How ours does."""


def opened(handlers: tuple[grpc.GenericRpcHandler, ...]) -> server.Server:
    """Return our own gRPC server, which listens nowhere yet."""
    return server.Server(handlers, limits=LIMITS)


def listen(
    handlers: tuple[grpc.GenericRpcHandler, ...],
    *,
    address: str,
    serving: tls.Serving,
    sends_by: str = "",
) -> tuple[server.Server, int]:
    """Start our own gRPC server over TLS; return it and the port that it listens on.

    Args:
        handlers: What it serves.
        address: As `<host>:<port>`; port 0 is any that is free.
        serving: With which certificate.
        sends_by: A congestion control; empty is the host's own.

    Raises:
        OSError: The address cannot be had.
    """
    started = opened(handlers)
    port = started.listen(
        address,
        tls=serving.discovery_context,
        prepare=lambda door: congestion.choose(door, sends_by),
    )
    return started, port


async def listen_by_grpc(
    handlers: tuple[grpc.GenericRpcHandler, ...],
    *,
    address: str,
    credentials: grpc.ServerCredentials,
) -> tuple[grpc.aio.Server, int]:
    """Start gRPC's own server over TLS; return it and the port that it listens on."""
    started = grpc.aio.server(options=OPTIONS)
    started.add_generic_rpc_handlers(handlers)
    port = started.add_secure_port(address, credentials)
    await started.start()
    return started, int(port)


def bound(host: str, port: int, *, sends_by: str = "") -> socket.socket:
    """Return a socket that has a port, but refuses calls until somebody listens on it.

    What it accepts is sent to by the congestion control `sends_by`; empty is the host's own.

    Raises:
        OSError: The port cannot be had.
    """
    found = socket.socket()
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
    except OSError:
        found.close()
        raise
    congestion.choose(found, sends_by)
    return found
