"""Who asks, and what they may do: the API server's security as one object.

What the assembly of a cluster needs::

    security = security.ClusterSecurity(api, authority=authority, clock=clock, nursery=nursery,
                                        connect=connect)
    app = http.application(api, security, streams)

`connect(host, port) -> (StreamReader, StreamWriter)` opens a connection from the API server into
the cluster's network (to a pod address of a webhook); by default the server's own network is used.
`security.signer` signs tokens. Constructing it sets `api`'s admission hook.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from isthmus.base import clock as clocks
from isthmus.base import tasks
from isthmus.lab.apiserver import pki, tokens

Connect = Callable[[str, int], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]
"""Opens a connection to an address of the cluster's network."""


class ClusterSecurity:
    """Authenticates, authorizes and admits requests to one cluster."""

    def __init__(
        self,
        api: Any,
        *,
        authority: pki.Authority,
        nursery: tasks.Nursery,
        clock: clocks.Clock | None = None,
        connect: Connect | None = None,
    ) -> None:
        self.signer = tokens.Signer(authority.token_key_pem)
