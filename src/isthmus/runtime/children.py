"""Processes of the control plane's own: how one is started, and how its end is waited for.

Decides nothing about what they do: the modules that start one say that.
"""

import asyncio
import socket
import sys
from typing import Final

END_S: Final = 2.0
"""So long one has to see that nobody talks to it any more."""


async def started(name: str, *sockets: socket.socket, log_level: str) -> asyncio.subprocess.Process:
    """Start `python -m isthmus.runtime <name>` with sockets that it alone inherits."""
    numbers = [each.fileno() for each in sockets]
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "isthmus.runtime", name),
        *(*map(str, numbers), log_level),
        stdin=asyncio.subprocess.DEVNULL,
        pass_fds=numbers,
    )


async def ended(process: asyncio.subprocess.Process) -> None:
    """Wait until it has seen that nobody talks to it any more; end it if it does not."""
    try:
        # `asyncio.timeout` ends nothing in a task that is cancelled already, in Python 3.11.
        await asyncio.wait_for(process.wait(), END_S)
    except TimeoutError:
        process.kill()
        await process.wait()
