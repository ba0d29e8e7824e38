"""Listens on Unix sockets for the one Envoy beside an agent: secrets and its configuration."""

import contextlib
from collections.abc import AsyncIterator, Callable

import grpc

from isthmus.wire import dialing, nametables, sds, xdsproxy

LAST_WORDS_S = 0.1


@contextlib.asynccontextmanager
async def serving(
    shelf: sds.Shelf,
    *,
    target: Callable[[], dialing.Target],
    secrets_socket: str,
    discovery_socket: str,
    names: nametables.Take | None = None,
) -> AsyncIterator[None]:
    """Serve secrets on one socket and carry discovery streams from the other.

    `names` takes tables of names, which are asked for on the proxy's stream; None asks for none.
    """
    server = grpc.aio.server(
        handlers=(sds.handler(shelf), xdsproxy.handler(target, names=names)),
        options=(("grpc.max_receive_message_length", dialing.LARGEST_MESSAGE_BYTES),),
    )
    for path in (secrets_socket, discovery_socket):
        server.add_insecure_port(f"unix:{path}")
    await server.start()
    try:
        yield
    finally:
        await server.stop(LAST_WORDS_S)
