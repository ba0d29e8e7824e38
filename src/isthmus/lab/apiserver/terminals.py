"""exec and attach over WebSockets: `v5.channel.k8s.io` and `v4.channel.k8s.io`.

It decides what each channel carries: 0 is standard input, 1 output, 2 errors, 3 the outcome, 4 the
size of the terminal, 255 (v5) the end of a channel. It refuses to know what runs.
"""

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from typing import Protocol

from aiohttp import WSMsgType, web

from isthmus.lab.apiserver import errors
from isthmus.lab.apiserver.values import Obj

_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDIN, _STDOUT, _STDERR, _OUTCOME, _SIZE, _CLOSE = 0, 1, 2, 3, 4, 255
_LARGEST_MESSAGE = 4 << 20
_HEARTBEAT_S = 30.0


class ExecStream(Protocol):
    """A program that runs in a container."""

    async def read_stdout(self) -> bytes:
        """Return the next bytes of standard output, or nothing at its end."""

    async def read_stderr(self) -> bytes:
        """Return the next bytes of standard error, or nothing at its end."""

    async def write_stdin(self, data: bytes) -> None:
        """Send `data` to standard input."""

    async def close_stdin(self) -> None:
        """End standard input."""

    async def wait(self) -> int:
        """Return the exit status once the program has ended."""

    def resize(self, *, rows: int, columns: int) -> None:
        """Tell the program's terminal its size, if it has one."""


class JoinedStream(ExecStream, Protocol):
    """A program that runs with or without whoever joined it."""

    def leave(self) -> None:
        """Listen no longer."""


async def opened(request: web.Request) -> web.WebSocketResponse:
    """Accept a WebSocket, or refuse what speaks none of the protocols."""
    return await accepted(request, protocols=_PROTOCOLS)


async def accepted(request: web.Request, *, protocols: tuple[str, ...]) -> web.WebSocketResponse:
    """Accept a WebSocket with one of `protocols`."""
    socket = web.WebSocketResponse(
        protocols=protocols,
        max_msg_size=_LARGEST_MESSAGE,
        compress=False,
        heartbeat=_HEARTBEAT_S,
    )
    possible = socket.can_prepare(request)
    if not possible.ok:
        raise errors.bad_request("Upgrade request required")
    if possible.protocol is None:
        raise errors.bad_request(
            f"unable to upgrade: subprotocol not supported; supported: {', '.join(protocols)}"
        )
    await socket.prepare(request)
    return socket


async def join(socket: web.WebSocketResponse, program: ExecStream, *, stdin: bool) -> None:
    """Connect a client and a program until one of them ends."""
    if not stdin:
        await program.close_stdin()
    async with asyncio.TaskGroup() as group:
        heard = group.create_task(_hear(socket, program, stdin=stdin))
        said = group.create_task(_say(socket, program))
        await asyncio.wait({heard, said}, return_when=asyncio.FIRST_COMPLETED)
        said.cancel()
        heard.cancel()
    await socket.close()


async def refuse(socket: web.WebSocketResponse, why: str) -> None:
    """Say that nothing could be run, and why."""
    outcome = {
        "metadata": {},
        "status": "Failure",
        "reason": "InternalError",
        "message": f"Internal error occurred: error executing command in container: {why}",
        "code": 500,
    }
    with contextlib.suppress(ConnectionError):
        await _send(socket, _OUTCOME, json.dumps(outcome).encode())
    await socket.close()


def outcome_of(status: int) -> Obj:
    """Return the Status object that tells an exit status."""
    if status == 0:
        return {"metadata": {}, "status": "Success"}
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: exit status {status}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(status)}]},
    }


async def _hear(socket: web.WebSocketResponse, program: ExecStream, *, stdin: bool) -> None:
    open_ = stdin
    async for message in socket:
        if message.type is not WSMsgType.BINARY or not message.data:
            continue
        channel, content = message.data[0], message.data[1:]
        if channel == _SIZE:
            _resize(program, content)
        if not open_:
            continue
        with contextlib.suppress(OSError):
            if channel == _STDIN:
                await program.write_stdin(content)
            elif channel == _CLOSE and content[:1] == bytes([_STDIN]):
                open_ = False
                await program.close_stdin()
    if open_:
        with contextlib.suppress(OSError):
            await program.close_stdin()


def _resize(program: ExecStream, content: bytes) -> None:
    try:
        size = json.loads(content)
        program.resize(rows=int(size["Height"]) & 0xFFFF, columns=int(size["Width"]) & 0xFFFF)
    except (ValueError, KeyError, TypeError):
        return  # a size that cannot be read changes nothing


async def _say(socket: web.WebSocketResponse, program: ExecStream) -> None:
    with contextlib.suppress(ConnectionError):
        async with asyncio.TaskGroup() as group:
            group.create_task(_pump(socket, _STDOUT, program.read_stdout))
            group.create_task(_pump(socket, _STDERR, program.read_stderr))
        outcome = outcome_of(await program.wait())
        await _send(socket, _OUTCOME, json.dumps(outcome).encode())


async def _pump(
    socket: web.WebSocketResponse, channel: int, read: Callable[[], Awaitable[bytes]]
) -> None:
    with contextlib.suppress(ConnectionError):
        while content := await read():
            await _send(socket, channel, content)


async def _send(socket: web.WebSocketResponse, channel: int, content: bytes) -> None:
    await socket.send_bytes(bytes([channel]) + content)
