"""The cluster's DNS server: one address, answered on every node.

Decides the wire format alone; what names stand for is in `names`. Listens inside each node's
network, with UDP and TCP, on the address that pods have in /etc/resolv.conf.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Sequence
from typing import Any, cast

from typing_extensions import override

from isthmus.base import namespaces, netlink
from isthmus.lab.apiserver import mirrors
from isthmus.lab.machine import names, network

Obj = dict[str, Any]

PORT = 53
_TTL_S = 5
_ANSWER, _AUTHORITATIVE, _TRUNCATED, _RECURSION = 0x8000, 0x0400, 0x0200, 0x0100
_AVAILABLE = 0x0080
_NO_SUCH_NAME, _NOT_IMPLEMENTED, _MALFORMED = 3, 4, 1
_LONGEST_DATAGRAM = 1232
_HEADER = struct.Struct(">HHHHHH")


class MalformedError(Exception):
    """A message that is no question."""


def reply(message: bytes, catalog: names.Catalog, *, longest: int = 65535) -> bytes:
    """Answer one message; one that cannot be read gets a refusal with its own number."""
    try:
        number, flags, questions, *_ = _HEADER.unpack_from(message)
    except struct.error:
        return b""
    base = _ANSWER | _AUTHORITATIVE | _AVAILABLE | (flags & _RECURSION)
    try:
        if questions != 1:
            raise MalformedError
        name, kind, end = _question(message)
    except (MalformedError, IndexError, struct.error, UnicodeDecodeError):
        return _HEADER.pack(number, base | _MALFORMED, 0, 0, 0, 0)
    question = message[_HEADER.size : end]
    if flags & 0x7800:
        return _HEADER.pack(number, base | _NOT_IMPLEMENTED, 1, 0, 0, 0) + question
    found = names.answer(name, kind, catalog)
    code = 0 if found.exists else _NO_SUCH_NAME
    body = b"".join(_record(each) for each in found.records)
    if len(question) + len(body) + _HEADER.size > longest:
        return _HEADER.pack(number, base | _TRUNCATED, 1, 0, 0, 0) + question
    return _HEADER.pack(number, base | code, 1, len(found.records), 0, 0) + question + body


def _question(message: bytes) -> tuple[str, int, int]:
    offset, labels = _HEADER.size, []
    while (size := message[offset]) != 0:
        if size > 63:  # compression cannot occur in the first name
            raise MalformedError
        labels.append(message[offset + 1 : offset + 1 + size].decode("ascii"))
        offset += 1 + size
    (kind,) = struct.unpack_from(">H", message, offset + 1)
    return ".".join(labels), kind, offset + 5


def _encoded(name: str) -> bytes:
    labels = [label.encode("ascii") for label in name.split(".") if label]
    return b"".join(bytes([len(label)]) + label for label in labels) + b"\0"


def _record(record: names.Record) -> bytes:
    if record.kind == names.A:
        content = socket.inet_aton(record.content)
    elif record.kind == names.CNAME:
        content = _encoded(record.content)
    else:
        priority, weight, port, target = record.content.split(" ")
        content = struct.pack(">HHH", int(priority), int(weight), int(port)) + _encoded(target)
    head = struct.pack(">HHIH", record.kind, 1, _TTL_S, len(content))
    return _encoded(record.name) + head + content


class Objects:
    """The catalog of one cluster, from copies that follow its API."""

    def __init__(self, follow: mirrors.Mirrors) -> None:
        self._services = follow.of("services")
        self._slices = follow.of("endpointslices.discovery.k8s.io")
        self._by_service: dict[tuple[str, str], dict[str, Obj]] = {}
        self._slices.listen(self._on_slice)

    def service(self, namespace: str, name: str) -> Obj | None:
        """Return a Service."""
        return self._services.get(name, namespace)

    def slices(self, namespace: str, name: str) -> Sequence[Obj]:
        """Return the EndpointSlices of a Service."""
        return list(self._by_service.get((namespace, name), {}).values())

    def _on_slice(self, old: Obj | None, new: Obj | None) -> None:
        for found, keep in ((old, False), (new, True)):
            if found is None:
                continue
            metadata = found["metadata"]
            service = (metadata.get("labels") or {}).get("kubernetes.io/service-name", "")
            known = self._by_service.setdefault((metadata["namespace"], service), {})
            if keep:
                known[metadata["name"]] = found
            else:
                known.pop(metadata["name"], None)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, catalog: names.Catalog) -> None:
        self._catalog = catalog
        self._transport: asyncio.DatagramTransport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The selector loop's own class does not derive from the one that it documents.
        self._transport = cast("asyncio.DatagramTransport", transport)

    @override
    def datagram_received(self, data: bytes, addr: tuple[str | Any, int]) -> None:
        answer = reply(data, self._catalog, longest=_LONGEST_DATAGRAM)
        if answer and self._transport is not None:
            self._transport.sendto(answer, addr)


async def serve(wires: network.ClusterNetwork, address: str, catalog: names.Catalog) -> None:
    """Listen at `address` inside every node's network, for ever."""

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            async with asyncio.timeout(30):
                while True:
                    (size,) = struct.unpack(">H", await reader.readexactly(2))
                    answer = reply(await reader.readexactly(size), catalog)
                    writer.write(struct.pack(">H", len(answer)) + answer)
                    await writer.drain()
        writer.close()

    loop = asyncio.get_running_loop()
    for _, place in wires.stations():
        datagrams, stream = _listen(place, address)
        await loop.create_datagram_endpoint(lambda: _Datagrams(catalog), sock=datagrams)
        await asyncio.start_server(converse, sock=stream)


def _listen(place: int, address: str) -> tuple[socket.socket, socket.socket]:
    with namespaces.entered(place):
        netlink.send([netlink.address(1, address, prefix=32)])
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        datagrams.bind((address, PORT))
        return datagrams, network.listener(place, address, PORT)
