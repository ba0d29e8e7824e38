"""Hears from the agent that enrols pods which pods of this node take part.

One packet is one message; a descriptor of the pod's network namespace comes with each new
pod, and what a former proxy left to who takes the pod next. Each message is answered when it is done, in the order of the messages; of new pods many may come
before the first is done. A connection that ends takes nothing away: who takes part is decided anew
by the next snapshot.

Source: the public definition of the protocol between istio-cni and ztunnel.
"""

import array
import asyncio
import contextlib
import os
import pathlib
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, assert_never

from google.protobuf import message as protobuf

from isthmus.base import clock, logs
from isthmus_proto.istio.workload import zds_pb2

LARGEST_BYTES = 4096
MOST_DESCRIPTORS = 4
"""The network of a pod, and what a former proxy left."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.02, 1.0

_LOG = logs.Log("isthmus.zds")


class BrokenError(Exception):
    """The other side does not keep to the protocol."""


@dataclass(frozen=True, slots=True)
class Added:
    """A pod that shall take part.

    Attributes:
        network: A descriptor of its network namespace, ours to close.
        left: Descriptors that a former proxy left to us, ours to close.
    """

    uid: str
    name: str
    namespace: str
    account: str
    network: int
    left: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Kept:
    """A pod that takes part as it did."""

    uid: str


@dataclass(frozen=True, slots=True)
class Removed:
    """A pod that takes part no longer."""

    uid: str


@dataclass(frozen=True, slots=True)
class Complete:
    """All pods that take part were told since the connection began."""


Said = Added | Kept | Removed | Complete

Heard: TypeAlias = "asyncio.Queue[tuple[Said, asyncio.Task[str]]]"
"""What was said and is being done, in its order."""


class Pods(Protocol):
    """Does what is told of pods. What goes wrong is returned, in words for who enrols pods."""

    async def add(self, pod: Added) -> str:
        """Let a pod take part; return when its traffic is taken."""

    async def remove(self, uid: str) -> str:
        """Let a pod take part no longer."""

    def leaves(self, uid: str) -> Sequence[int]:
        """Return descriptors that who tells of pods keeps for who takes this one next."""

    async def keep(self, uids: frozenset[str]) -> str:
        """Let all others take part no longer: these are all that there are."""


def hello() -> bytes:
    """Return the first packet of a connection."""
    content: bytes = zds_pb2.ZdsHello(version=zds_pb2.V1).SerializeToString()
    return content


def answer(error: str) -> bytes:
    """Return the packet that answers one; `error` is empty if it went well."""
    said = zds_pb2.WorkloadResponse(ack=zds_pb2.Ack(error=error))
    content: bytes = said.SerializeToString()
    return content


def read(content: bytes, descriptors: list[int]) -> Said:
    """Read a packet with its descriptors, which are closed unless they are returned.

    Raises:
        BrokenError: It is malformed.
    """
    with _closing(descriptors):
        try:
            said = zds_pb2.WorkloadRequest.FromString(content)
        except protobuf.DecodeError as error:
            raise BrokenError("a packet is no message") from error
        kind = said.WhichOneof("payload")
        if bool(descriptors) != (kind == "add"):
            raise BrokenError(f"`{kind}` came with {len(descriptors)} descriptors")
        match kind:
            case "add":
                told = said.add.workload_info
                if not (said.add.uid and told.name and told.namespace):
                    raise BrokenError("`add` names no pod")
                account = told.service_account or "default"
                network, *left = descriptors
                descriptors.clear()
                return Added(said.add.uid, told.name, told.namespace, account, network, tuple(left))
            case "keep":
                return Kept(said.keep.uid)
            case "del":
                # The name of the field is a word of Python's.
                return Removed(getattr(said, "del").uid)
            case "snapshot_sent":
                return Complete()
            case _:
                raise BrokenError("a packet says nothing that is known")


@dataclass(slots=True)
class Talk:
    """One connection.

    Attributes:
        told: Who has been told of so far; None as soon as all have.
    """

    pods: Pods
    told: set[str] | None = field(default_factory=set)

    async def hear(self, said: Said) -> str:
        """Do what is said; return what went wrong, or nothing."""
        match said:
            case Added():
                self._note(said.uid)
                return await self.pods.add(said)
            case Kept():
                self._note(said.uid)
                return ""
            case Removed():
                if self.told is not None:
                    self.told.discard(said.uid)
                return await self.pods.remove(said.uid)
            case Complete():
                told, self.told = self.told, None
                return await self.pods.keep(frozenset(told)) if told is not None else ""
            case _:
                assert_never(said)

    def _note(self, uid: str) -> None:
        if self.told is not None:
            self.told.add(uid)


async def follow(path: pathlib.Path, *, pods: Pods, system_clock: clock.Clock) -> None:
    """Hear of pods for ever; a connection that ends is made again, later and later."""
    delay_s = FIRST_DELAY_S
    while True:
        try:
            async with _connected(path) as connection:
                _LOG.info("told of pods", socket=str(path))
                delay_s = FIRST_DELAY_S
                await _talked(connection, pods)
            _LOG.info("who tells of pods has gone; those who take part stay")
        except (OSError, BrokenError) as error:
            _LOG.warning(
                "nobody tells of pods; those who take part stay",
                socket=str(path),
                reason=str(error) or type(error).__name__,
                delay_s=round(delay_s, 2),
            )
        await system_clock.sleep(delay_s)
        delay_s = min(delay_s * 2, LONGEST_DELAY_S)


@contextlib.asynccontextmanager
async def _connected(path: pathlib.Path) -> AsyncIterator[socket.socket]:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as made:
        await loop.sock_connect(made, str(path))
        yield made


async def _talked(connection: socket.socket, pods: Pods) -> None:
    """Hear until the connection ends: new pods together, all else when it is its turn."""
    talk = Talk(pods)
    await asyncio.get_running_loop().sock_sendall(connection, hello())
    heard: Heard = asyncio.Queue()
    try:
        async with asyncio.TaskGroup() as group:
            answering = group.create_task(_answered(connection, heard, pods))
            while (said := await _said(connection, heard)) is not None:
                heard.put_nowait((said, group.create_task(talk.hear(said))))
                if not isinstance(said, Added):
                    await heard.join()
            answering.cancel()
    except BaseExceptionGroup as failures:
        raise failures.exceptions[0] from None


async def _said(connection: socket.socket, heard: Heard) -> Said | None:
    """Return what is said next, once it is its turn; None at the end."""
    packet = await _received(connection)
    if packet is None:
        return None
    try:
        said = read(*packet)
    except BrokenError as broken:
        await heard.join()
        await asyncio.get_running_loop().sock_sendall(connection, answer(str(broken)))
        raise
    if not isinstance(said, Added):
        await heard.join()
    return said


async def _answered(connection: socket.socket, heard: Heard, pods: Pods) -> None:
    """Answer what was heard, in its order, when it is done."""
    while True:
        said, doing = await heard.get()
        done = answer(await doing)
        left = pods.leaves(said.uid) if isinstance(said, Added) else ()
        # Who tells may be gone; what was told is done all the same.
        with contextlib.suppress(OSError):
            await _sent(connection, done, left)
        heard.task_done()


async def _sent(connection: socket.socket, packet: bytes, left: Sequence[int]) -> None:
    """Send a packet, with descriptors if there is room for them: they are a convenience."""
    with contextlib.suppress(BlockingIOError):
        _ = socket.send_fds(connection, [packet], left)
        return
    await asyncio.get_running_loop().sock_sendall(connection, packet)


async def _received(connection: socket.socket) -> tuple[bytes, list[int]] | None:
    """Return the next packet with its descriptors; None at the end."""
    while (packet := _packet(connection)) is None:
        await _readable(connection)
    return packet if packet[0] else None


def _packet(connection: socket.socket) -> tuple[bytes, list[int]] | None:
    """Return what is there; None if nothing is."""
    size = array.array("i").itemsize * MOST_DESCRIPTORS
    try:
        content, ancillary, flags, _ = connection.recvmsg(
            LARGEST_BYTES, socket.CMSG_SPACE(size), socket.MSG_CMSG_CLOEXEC
        )
    except BlockingIOError:
        return None
    descriptors = _descriptors(ancillary)
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        with _closing(descriptors):
            raise BrokenError("a packet is too large")
    return content, descriptors


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = loop.create_future()

    def is_ready() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(connection, is_ready)
    try:
        await ready
    finally:
        loop.remove_reader(connection)


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    found = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(content[: len(content) - len(content) % found.itemsize])
    return list(found)


@contextlib.contextmanager
def _closing(descriptors: list[int]) -> Iterator[None]:
    """Close what is left in a list in the end."""
    try:
        yield
    finally:
        for one in descriptors:
            os.close(one)
