"""port-forward over WebSockets: SPDY inside (kubectl), or numbered channels (older clients).

It decides how many connections share one WebSocket and how each of them ends. It refuses to know
how a pod's port is reached.
"""

import asyncio
import contextlib
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import TypeAlias

from aiohttp import WSMsgType, web

from isthmus.lab.apiserver import errors, spdy, terminals

Connection: TypeAlias = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Dial: TypeAlias = Callable[[int], Awaitable[Connection]]
"""Connects to a port of the pod."""

_TUNNEL = "SPDY/3.1+portforward.k8s.io"
_CHANNELS = "v4.channel.k8s.io"
_CHUNK = 64 * 1024
_WAITING_PARTS = 64
_HIGHEST_PORT = 65535


async def serve(request: web.Request, dial: Dial, *, pod_name: str) -> web.StreamResponse:
    """Carry connections until the client goes."""
    socket = await terminals.accepted(request, protocols=(_TUNNEL, _CHANNELS))
    if socket.ws_protocol == _TUNNEL:
        await _Tunnel(socket, dial, pod_name).serve()
        return socket
    ports = [_port(text) for each in request.query.getall("ports", []) for text in each.split(",")]
    await _Channels(socket, dial, pod_name, ports).serve()
    return socket


@dataclass(slots=True)
class _Carried:
    """One connection: what the client sends waits in `inbox` until the pod takes it."""

    port: int
    inbox: asyncio.Queue[bytes | None] = field(
        default_factory=lambda: asyncio.Queue(_WAITING_PARTS)
    )
    task: "asyncio.Task[None] | None" = None


class _Tunnel:
    """SPDY streams in pairs: each connection has one for data and one for its error."""

    def __init__(self, socket: web.WebSocketResponse, dial: Dial, pod_name: str) -> None:
        self._socket = socket
        self._dial = dial
        self._pod_name = pod_name
        self._frames = spdy.Connection()
        self._error_streams: dict[str, int] = {}
        self._carried: dict[int, _Carried] = {}

    async def serve(self) -> None:
        """Serve until the client goes or breaks the protocol."""
        async with asyncio.TaskGroup() as group:
            try:
                async for message in self._socket:
                    if message.type is not WSMsgType.BINARY:
                        continue
                    for frame in self._frames.receive(message.data):
                        await self._on(frame, group)
            except spdy.ProtocolError:
                await self._send(spdy.GoAway(0, spdy.PROTOCOL_ERROR))
            finally:
                for each in self._carried.values():
                    if each.task is not None:
                        each.task.cancel()
        await self._socket.close()

    async def _on(self, frame: spdy.Frame, group: asyncio.TaskGroup) -> None:
        match frame:
            case spdy.Opened():
                await self._open(frame, group)
            case spdy.Data(stream, content, is_last):
                carried = self._carried.get(stream)
                if carried is not None and content:
                    await carried.inbox.put(content)
                if carried is not None and is_last:
                    await carried.inbox.put(None)
            case spdy.Reset(stream):
                carried = self._carried.pop(stream, None)
                if carried is not None and carried.task is not None:
                    carried.task.cancel()
            case spdy.Ping():
                await self._send(frame)
            case spdy.Replied() | spdy.GoAway() | spdy.WindowUpdate():
                return

    async def _open(self, frame: spdy.Opened, group: asyncio.TaskGroup) -> None:
        kind, request_id = frame.headers.get("streamtype"), frame.headers.get("requestid", "")
        port = frame.headers.get("port", "")
        if kind not in {"error", "data"} or not port.isdigit():
            await self._send(spdy.Reset(frame.stream, spdy.REFUSED_STREAM))
            return
        await self._send(spdy.Replied(frame.stream, {}))
        if kind == "error":
            self._error_streams[request_id] = frame.stream
            return
        carried = self._carried[frame.stream] = _Carried(int(port))
        error_stream = self._error_streams.pop(request_id, 0)
        carried.task = group.create_task(self._carry(frame.stream, error_stream, carried))

    async def _carry(self, stream: int, error_stream: int, carried: _Carried) -> None:
        async def send(content: bytes) -> None:
            await self._send(spdy.Data(stream, content))

        try:
            await _carry(carried, self._dial, send)
        except (OSError, LookupError) as error:
            said = _failure(carried.port, self._pod_name, error).encode()
            if error_stream:
                await self._send(spdy.Data(error_stream, said))
        self._carried.pop(stream, None)
        if error_stream:
            await self._send(spdy.Data(error_stream, b"", is_last=True))
        await self._send(spdy.Data(stream, b"", is_last=True))

    async def _send(self, frame: spdy.Frame) -> None:
        with contextlib.suppress(ConnectionError):
            # The compressor's order must be the order on the wire: no await between the two.
            await self._socket.send_bytes(self._frames.send(frame))


class _Channels:
    """Two numbered channels per port: one for data and one for its error."""

    def __init__(
        self, socket: web.WebSocketResponse, dial: Dial, pod_name: str, ports: list[int]
    ) -> None:
        self._socket = socket
        self._dial = dial
        self._pod_name = pod_name
        self._carried = [_Carried(port) for port in ports]

    async def serve(self) -> None:
        """Serve until the client goes or every connection has ended."""
        for channel in range(2 * len(self._carried)):
            await self._send(channel, struct.pack("<H", self._carried[channel // 2].port))
        async with asyncio.TaskGroup() as group:
            heard = group.create_task(self._hear())
            carried = group.create_task(self._carry_all())
            await asyncio.wait({heard, carried}, return_when=asyncio.FIRST_COMPLETED)
            heard.cancel()
            carried.cancel()
        await self._socket.close()

    async def _hear(self) -> None:
        async for message in self._socket:
            if message.type is not WSMsgType.BINARY or not message.data:
                continue
            index, is_error = divmod(message.data[0], 2)
            if index < len(self._carried) and not is_error:
                await self._carried[index].inbox.put(message.data[1:])

    async def _carry_all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for index in range(len(self._carried)):
                group.create_task(self._carry(index))

    async def _carry(self, index: int) -> None:
        carried = self._carried[index]

        async def send(content: bytes) -> None:
            await self._send(2 * index, content)

        try:
            await _carry(carried, self._dial, send)
        except (OSError, LookupError) as error:
            said = _failure(carried.port, self._pod_name, error)
            await self._send(2 * index + 1, said.encode())

    async def _send(self, channel: int, content: bytes) -> None:
        with contextlib.suppress(ConnectionError):
            await self._socket.send_bytes(bytes([channel]) + content)


async def _carry(carried: _Carried, dial: Dial, send: Callable[[bytes], Awaitable[None]]) -> None:
    """Copy in both directions until the pod's side ends."""
    reader, writer = await dial(carried.port)
    async with asyncio.TaskGroup() as group:
        inward = group.create_task(_inward(carried.inbox, writer))
        try:
            while content := await reader.read(_CHUNK):
                await send(content)
        except ConnectionError:
            # The pod broke off; what it sent before has been passed on.
            return
        finally:
            inward.cancel()
            writer.close()


async def _inward(inbox: "asyncio.Queue[bytes | None]", writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError, RuntimeError):
        while (content := await inbox.get()) is not None:
            writer.write(content)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
    # What a client still sends to a pod that takes no more is dropped, not kept.
    while await inbox.get() is not None:
        continue


def _failure(port: int, pod_name: str, error: Exception) -> str:
    why = "connect: connection refused" if isinstance(error, ConnectionRefusedError) else str(error)
    return f"error forwarding port {port} to pod {pod_name}: dial tcp4 127.0.0.1:{port}: {why}"


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) <= _HIGHEST_PORT:
        raise errors.bad_request(f'unable to parse "{text}" as a port')
    return int(text)
