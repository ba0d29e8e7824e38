"""The cluster's DNS server: one address, answered on every node.

What names stand for is in `names`, and how it is written in the ground. Listens inside each node's
network, with UDP and TCP, on the address that pods have in /etc/resolv.conf.
"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import Sequence
from typing import Any, cast

from typing_extensions import override

from isthmus.base import dns, namespaces, netlink
from isthmus.lab.apiserver import mirrors
from isthmus.lab.machine import names, network

Obj = dict[str, Any]

PORT = dns.PORT
_TTL_S = 5


def reply(message: bytes, catalog: names.Catalog, *, longest: int = dns.LONGEST) -> bytes:
    """Answer one message; one that cannot be read gets a refusal with its own number."""
    try:
        question = dns.question_of(message)
    except dns.MalformedError:
        return dns.refusal(message, code=dns.MALFORMED)
    if not question.is_usual:
        return dns.reply(question, code=dns.NOT_IMPLEMENTED)
    found = names.answer(question.name, question.kind, catalog)
    code = dns.NO_ERROR if found.exists else dns.NO_SUCH_NAME
    return dns.reply(
        question, [_record(each) for each in found.records], code=code, longest=longest
    )


def _record(record: names.Record) -> dns.Record:
    if record.kind == names.A:
        return dns.address_record(record.name, record.content, ttl_s=_TTL_S)
    if record.kind == names.CNAME:
        return dns.alias_record(record.name, record.content, ttl_s=_TTL_S)
    priority, weight, port, target = record.content.split(" ")
    place = struct.pack(">HHH", int(priority), int(weight), int(port))
    return dns.Record(record.name, record.kind, place + dns.encoded(target), _TTL_S)


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
        answer = reply(data, self._catalog, longest=dns.LONGEST_DATAGRAM)
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
                    writer.write(dns.framed(answer))
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
