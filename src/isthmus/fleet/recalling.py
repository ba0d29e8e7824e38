"""Reads the snapshots that an earlier control plane left, and does not give up too early.

Whether a cluster that is away may be given up depends on what is there, so an API server that does
not answer just then is asked again. It decides nothing about what is in them, nor whose is used.
"""

import asyncio
from collections.abc import Callable

from isthmus.base import clock, errors, logs
from isthmus.fleet import slots
from isthmus.kube import client, kinds, problems

_LOG = logs.Log("isthmus.fleet")
DEADLINE_S = 10.0
AGAIN_S = 1.0
_SERVER_ERROR = 500


async def read(
    server: client.Client,
    shelf: slots.Shelf,
    *,
    namespace: str,
    is_needed: Callable[[], bool],
    system_clock: clock.Clock,
) -> list[client.Obj]:
    """Return all slots of a shelf; nothing when they are not needed any more, or may not be read."""
    while is_needed():
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await server.list_(
                    kinds.CONFIG_MAP, namespace=namespace, labels=shelf.selector
                )
        except (errors.IsthmusError, TimeoutError) as error:
            _LOG.warning("snapshots of clusters cannot be read", error=str(error))
            if isinstance(error, problems.ApiError) and error.status < _SERVER_ERROR:
                return []
        await system_clock.sleep(AGAIN_S)
    return []
