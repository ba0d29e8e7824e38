"""A server for names, and a client that asks: both on loopback."""

import asyncio
import contextlib
import socket
import struct

from isthmus.base import dns, metrics, tasks
from isthmus.node import answering, listening, names, resolvers, settings
from isthmus.testing import pace
from isthmus_proto.istio.networking.nds.v1 import nds_pb2

SEARCH = ("default.svc.cluster.local", "svc.cluster.local", "cluster.local")
FORMS = names.Forms("default", "cluster.local", SEARCH)


def table(**hosts):
    """Return a table; `__` stands for a dot in the names of hosts."""
    made = nds_pb2.NameTable()
    for name, ips in hosts.items():
        host = name.replace("__", ".")
        made.table[host].CopyFrom(nds_pb2.NameTable.NameInfo(ips=ips, registry="Kubernetes"))
    return made.SerializeToString()


def service(name, namespace, *ips):
    return {f"{name}__{namespace}__svc__cluster__local": ips}


class Elsewhere(resolvers.Upstream):
    """Answers every name with 192.0.2.1 but those that it is told not to."""

    def __init__(self, *, absent=(), failing=()):
        self.absent, self.failing, self.asked = absent, failing, []
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def ask(self, message, question, *, by_stream):
        self.asked.append((question.name, question.kind, by_stream))
        await self.may_answer.wait()
        if question.name in self.failing:
            raise OSError("nobody")
        if question.name in self.absent:
            return dns.reply(question, code=dns.NO_SUCH_NAME)
        record = dns.address_record(question.name, "192.0.2.1", ttl_s=5)
        return dns.reply(question, [record] if question.kind == dns.A else [])


def answers(upstream, body=None, registered=None):
    made = answering.Answering(FORMS, upstream, answering.Counters(registered or metrics.Metrics()))
    if body is not None:
        assert made.take(body) == ""
    return made


@contextlib.asynccontextmanager
async def served(made, *, host="127.0.0.1", port=0):
    """Yield the port at which questions are taken."""
    async with tasks.Nursery() as nursery:
        sockets = listening.alone(settings.Address(host, port))
        async with listening.serving(made, sockets=sockets, nursery=nursery) as (_, taken):
            yield taken


async def datagram(port, message):
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as asking:
        asking.connect(("127.0.0.1", port))
        await loop.sock_sendall(asking, message)
        async with asyncio.timeout(pace.patience(5)):
            return await loop.sock_recv(asking, 65535)


async def stream(port, *messages):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        replies = []
        async with asyncio.timeout(pace.patience(5)):
            for message in messages:
                writer.write(dns.framed(message))
                size = int.from_bytes(await reader.readexactly(2), "big")
                replies.append(await reader.readexactly(size))
        return replies
    finally:
        writer.close()
        await writer.wait_closed()


def read(reply):
    """Return how it went, and the records: name, kind, content in words, life."""
    number, flags, questions, count, *_ = struct.unpack_from(">HHHHHH", reply)
    _, offset = _name(reply, 12)
    offset += 4
    found = []
    for _ in range(count):
        name, offset = _name(reply, offset)
        kind, _, ttl, size = struct.unpack_from(">HHIH", reply, offset)
        offset += 10
        content = reply[offset : offset + size]
        shown = _name(reply, offset)[0] if kind == dns.CNAME else _address(content)
        found.append((name, kind, shown, ttl))
        offset += size
    assert questions == 1
    assert number is not None
    return flags & 0xF, found


def _address(content):
    family = socket.AF_INET if len(content) == 4 else socket.AF_INET6
    return socket.inet_ntop(family, content)


def _name(message, offset):
    parts, end = [], None
    while (size := message[offset]) != 0:
        if size >= 0xC0:
            end = end or offset + 2
            offset = struct.unpack_from(">H", message, offset)[0] & 0x3FFF
            continue
        parts.append(message[offset + 1 : offset + 1 + size].decode())
        offset += 1 + size
    return ".".join(parts), end or offset + 1
