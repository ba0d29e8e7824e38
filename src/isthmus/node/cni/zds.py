"""What the agent says to a node's proxy, and what it hears: ztunnel's own protocol, without a socket.

The proxy greets; then it is told of every pod that takes part, and that these were all; from then
on of each pod that joins or leaves. Everything said is acknowledged, in the order in which it was.
Decides what is due and what an answer is about. Refuses to know descriptors: whoever sends
`Add` lets the pod's network namespace go with it.

Source: the messages in `istio/workload/zds.proto`.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf import message as protobuf

from isthmus.base import errors
from isthmus_proto.istio.workload import zds_pb2

Message = TypeVar("Message", bound=protobuf.Message)

LARGEST_BYTES = 1024
"""Proxies read no more of one message."""
MOST_AT_ONCE = 4
"""So much is said ahead of answers, so that a proxy can take some pods together if it likes.

Not more: a proxy that waits for many pods' listeners at once has no time left to make any.
"""


class ProtocolBroken(errors.IsthmusError):
    """A proxy said what nobody asked for, or what cannot be read."""

    code = "ISM-NODE-010"


@dataclass(frozen=True, slots=True)
class Add:
    """A pod takes part."""

    uid: str
    name: str
    namespace: str
    account: str


@dataclass(frozen=True, slots=True)
class Keep:
    """A pod takes part whose network cannot be handed over now; leave it as it is."""

    uid: str


@dataclass(frozen=True, slots=True)
class Delete:
    """A pod takes part no longer."""

    uid: str


@dataclass(frozen=True, slots=True)
class SnapshotSent:
    """These were all pods: forget any other."""


Order = Add | Keep | Delete | SnapshotSent


@dataclass(frozen=True, slots=True)
class Greeted:
    """The proxy is there, and wants to be told of all pods."""

    version: int


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The proxy has followed an order, or says why it could not."""

    order: Order
    error: str


class Talk:
    """The conversation with one proxy, from its first word on."""

    def __init__(self) -> None:
        self._waiting = deque[Order]()
        self._open = deque[Order]()
        self._is_greeted = False

    @property
    def is_idle(self) -> bool:
        """Whether nothing is left to be said or acknowledged."""
        return not self._open and not self._waiting

    @property
    def is_waiting(self) -> bool:
        """Whether something was said that is not acknowledged."""
        return bool(self._open)

    def begin(self, pods: Iterable[Add | Keep]) -> None:
        """Say first, once the proxy has greeted, which pods there are."""
        self._waiting.extendleft(reversed([*pods, SnapshotSent()]))

    def say(self, order: Add | Delete) -> None:
        """Say this after all that waits already."""
        self._waiting.append(order)

    def due(self) -> Order | None:
        """Return what is to be said now; it then waits for its answer."""
        if not self._is_greeted or len(self._open) >= MOST_AT_ONCE or not self._waiting:
            return None
        self._open.append(self._waiting.popleft())
        return self._open[-1]

    def skip(self) -> None:
        """Leave out what was due: it was not said after all."""
        self._open.pop()

    def heard(self, packet: bytes) -> Greeted | Acknowledged:
        """Take one packet of the proxy.

        Raises:
            ProtocolBroken: It is none, or not its turn (ISM-NODE-010).
        """
        if not self._is_greeted:
            hello = _read(zds_pb2.ZdsHello(), packet)
            if hello.version != zds_pb2.V1:
                raise ProtocolBroken(f"a proxy speaks version {hello.version}, we speak 1")
            self._is_greeted = True
            return Greeted(hello.version)
        answer = _read(zds_pb2.WorkloadResponse(), packet)
        if answer.WhichOneof("payload") != "ack":
            raise ProtocolBroken("a proxy answered something else than an acknowledgement")
        if not self._open:
            raise ProtocolBroken("a proxy acknowledged what nobody has said")
        return Acknowledged(self._open.popleft(), answer.ack.error)


def packet_of(order: Order) -> bytes:
    """Return the packet that says this."""
    # Written this way since one of the fields has the name of a statement.
    return bytes(zds_pb2.WorkloadRequest(**_payload(order)).SerializeToString())


def _payload(order: Order) -> Mapping[str, protobuf.Message]:
    match order:
        case Add(uid, name, namespace, account):
            pod = zds_pb2.WorkloadInfo(name=name, namespace=namespace, service_account=account)
            return {"add": zds_pb2.AddWorkload(uid=uid, workload_info=pod)}
        case Keep(uid):
            return {"keep": zds_pb2.KeepWorkload(uid=uid)}
        case Delete(uid):
            return {"del": zds_pb2.DelWorkload(uid=uid)}
        case SnapshotSent():
            return {"snapshot_sent": zds_pb2.SnapshotSent()}


def _read(message: Message, packet: bytes) -> Message:
    try:
        message.ParseFromString(packet)
    except protobuf.DecodeError as error:
        raise ProtocolBroken("a proxy said what cannot be read") from error
    return message
