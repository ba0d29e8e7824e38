"""Tells the proxies of this node of the pods that take part, over the socket at which they ask.

Each proxy is told of all pods first. Later ones are told to the newest alone: while a proxy is
replaced, its successor takes new pods, and the old one ends with those that it has. Who leaves is
told to everybody. A proxy that does not answer in time is let go, and asks again.

With its answer a proxy may leave descriptors of what it has open for a pod: they are kept, so that
this goes on to be open when the proxy is killed, and handed to who takes the pod next.

Decides who is told what. Refuses to know which pods take part and how they are captured.
"""

import asyncio
import contextlib
import os
import pathlib
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

from isthmus.base import logs
from isthmus.node.cni import zds

ANSWER_S = 10.0
BACKLOG = 8
MOST_LEFT = 2
"""Descriptors that a proxy leaves with a pod: there are two sockets for questions for names."""
MOST_PROXIES = 8
"""There are two while one is replaced; whoever connects beyond that is mistaken."""

_LOG = logs.Log("isthmus.cni.proxies")


@dataclass(slots=True)
class _Pod:
    """A pod that takes part.

    Attributes:
        network: A descriptor of its network namespace, ours to close; None if it is not at hand.
        left: What a proxy that served it has left to the next.
        answer: Nothing said yet: None. Served: empty. Otherwise the proxy's reason against it.
    """

    told: zds.Add
    network: int | None
    left: tuple[int, ...] = ()
    answer: str | None = None


class Proxies:
    """The proxies of this node, and the pods that they are told of. Lives in one event loop.

    `on_answer` is called with the UID of each pod of which a proxy has said something.
    """

    def __init__(
        self, *, on_answer: Callable[[str], None] = lambda uid: None, answer_s: float = ANSWER_S
    ) -> None:
        self._pods: dict[str, _Pod] = {}
        self._links: list[_Link] = []
        self._on_answer = on_answer
        self._answer_s = answer_s

    @property
    def count(self) -> int:
        """How many proxies are connected."""
        return len(self._links)

    @contextlib.contextmanager
    def listening(self, path: pathlib.Path) -> Iterator[None]:
        """Take proxies at the socket `path`; what a former agent left there is replaced."""
        loop = asyncio.get_running_loop()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK) as door:
            door.bind(str(path))
            path.chmod(stat.S_IRUSR | stat.S_IWUSR)
            door.listen(BACKLOG)
            loop.add_reader(door, self._accept, door)
            try:
                yield
            finally:
                loop.remove_reader(door)
                for link in tuple(self._links):
                    link.close("the agent ends")
                for uid in tuple(self._pods):
                    self._forget(uid)

    def offer(self, pod: zds.Add, network: int) -> None:
        """Have a pod served, now or as soon as a proxy comes.

        Args:
            pod: The pod; one that is known is offered again.
            network: Its network namespace; closed when the pod leaves.
        """
        self._forget(pod.uid)
        self._pods[pod.uid] = _Pod(pod, network)
        if self._links:
            self._links[-1].say(pod)

    def keep(self, pod: zds.Add) -> None:
        """Have a pod left as it is by proxies that come; nobody is told that it is gone."""
        self._pods.setdefault(pod.uid, _Pod(pod, None))

    def remove(self, uid: str) -> None:
        """Have a pod served no longer, by anybody; it need not have been."""
        if uid in self._pods:
            self._forget(uid)
            for link in tuple(self._links):
                link.say(zds.Delete(uid))

    def answer_of(self, uid: str) -> str | None:
        """Return what was last said of a pod: served if empty, None if nothing yet."""
        pod = self._pods.get(uid)
        return pod.answer if pod is not None else None

    def _forget(self, uid: str) -> None:
        pod = self._pods.pop(uid, None)
        if pod is not None:
            _close(pod.left if pod.network is None else (pod.network, *pod.left))

    # What proxies do.

    def _accept(self, door: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError):
            made, _ = door.accept()
            made.setblocking(False)
            if len(self._links) >= MOST_PROXIES:
                _LOG.warning("proxy turned away: there are too many", connected=self.count)
                made.close()
                return
            self._links.append(_Link(made, self, self._answer_s))
            _LOG.info("proxy connected", connected=self.count)

    def snapshot(self) -> Iterator[zds.Add | zds.Keep]:
        """Yield what a proxy that has just come is told."""
        for uid, pod in self._pods.items():
            yield pod.told if pod.network is not None else zds.Keep(uid)

    def descriptors_of(self, uid: str) -> tuple[int, ...]:
        """Return the descriptor of a pod's network, while the pod takes part, and what was left."""
        pod = self._pods.get(uid)
        return () if pod is None or pod.network is None else (pod.network, *pod.left)

    def answered(self, answer: zds.Acknowledged, left: Sequence[int] = ()) -> None:
        """Take note of what a proxy made of an order, and of what it leaves to the next."""
        order = answer.order
        pod = self._pods.get(order.uid) if isinstance(order, zds.Add) else None
        if pod is None or not left:
            _close(left)
        else:
            _close(pod.left)
            pod.left = tuple(left)
        if answer.error:
            _LOG.warning("proxy refused", order=type(order).__name__, reason=answer.error)
        if isinstance(order, zds.Add) and (pod := self._pods.get(order.uid)) is not None:
            pod.answer = answer.error
            self._on_answer(order.uid)

    def left(self, link: "_Link", why: str) -> None:
        """Take note that a proxy is gone; what it has not answered goes to the newest left."""
        if link not in self._links:
            return
        self._links.remove(link)
        _LOG.info("proxy gone", reason=why, connected=self.count)
        for pod in tuple(self._pods.values()) if self._links else ():
            if pod.network is not None and pod.answer is None:
                self._links[-1].say(pod.told)


def _close(descriptors: Iterable[int]) -> None:
    for each in descriptors:
        os.close(each)


class _Link:
    """One connected proxy."""

    def __init__(self, end: socket.socket, owner: Proxies, answer_s: float) -> None:
        self._end = end
        self._owner = owner
        self._answer_s = answer_s
        self._talk = zds.Talk()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(end, self._hear)
        self._limit = self._loop.call_later(answer_s, self.close, "it said nothing in time")

    def say(self, order: zds.Add | zds.Delete) -> None:
        self._talk.say(order)
        self._advance()

    def close(self, why: str) -> None:
        if self._end.fileno() >= 0:
            self._limit.cancel()
            self._loop.remove_reader(self._end)
            self._end.close()
            self._owner.left(self, why)

    def _hear(self) -> None:
        try:
            packet, left, _, _ = socket.recv_fds(
                self._end, 1 << 16, MOST_LEFT, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError as error:
            self.close(str(error))
            return
        if not packet:
            self.close("it left")
            return
        try:
            heard = self._talk.heard(packet)
        except zds.ProtocolBroken as error:
            _close(left)
            self.close(error.happened)
            return
        if isinstance(heard, zds.Greeted):
            _close(left)
            self._talk.begin(self._owner.snapshot())
        else:
            self._owner.answered(heard, left)
        self._advance()
        self._limit.cancel()
        if self._end.fileno() >= 0 and self._talk.is_waiting:
            self._expect()

    def _advance(self) -> None:
        while self._end.fileno() >= 0 and (order := self._talk.due()) is not None:
            shown = self._owner.descriptors_of(order.uid) if isinstance(order, zds.Add) else ()
            if isinstance(order, zds.Add) and not shown:
                self._talk.skip()  # the pod has left meanwhile
                continue
            self._send(order, shown)

    def _send(self, order: zds.Order, descriptors: Sequence[int]) -> None:
        try:
            socket.send_fds(self._end, [zds.packet_of(order)], descriptors)
        except OSError as error:
            self.close(str(error))
        else:
            if self._limit.cancelled():
                self._expect()

    def _expect(self) -> None:
        self._limit = self._loop.call_later(self._answer_s, self.close, "it did not answer in time")
