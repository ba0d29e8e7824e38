"""One proxy of a fleet: its connection, its stream, and what it has of what is looked for.

What it hears is decrypted by its own connection, and acknowledged on it. A piece that other proxies have
heard before it, byte for byte, is not cut into messages again.
"""

import time
from typing import Final

from bench.scale import decoded, http2, looking, shapes, talks, tls

PIECE: Final = 1 << 16
PIECES: Final = 512
"""So many pieces of at most that size are remembered."""

Pieces = decoded.Known[tuple[int, tuple[decoded.Answer, ...]]]
"""What pieces hold: how many bytes of messages, and what these say."""


class Client:
    """One proxy with its connection.

    Attributes:
        line: Its connection, if it has one.
        is_deaf: Whether it does not read.
        retry_at: When it connects again.
        synced_ns: When it had all that it asks for; 0 until then.
    """

    __slots__ = (
        "_buffers",
        "_has_begun",
        "_is_new",
        "_left",
        "_looked",
        "_pieces",
        "_stream",
        "_token",
        "bytes",
        "is_deaf",
        "line",
        "messages",
        "number",
        "retry_at",
        "synced_ns",
        "talk",
    )

    def __init__(
        self,
        number: int,
        talk: talks.Talk,
        *,
        looked: looking.Looked,
        buffers: tls.Buffers,
        pieces: Pieces,
        token: str,
    ) -> None:
        self.number = number
        self.talk = talk
        self.line: tls.Connection | None = None
        self.is_deaf = False
        self.retry_at = 0.0
        self.synced_ns = 0
        self.bytes = self.messages = 0
        self._token = token or talk.proxy.token
        self._looked, self._buffers, self._pieces = looked, buffers, pieces
        self._left: set[str] = set()
        self.begin(is_new=True)

    @property
    def is_shaken(self) -> bool:
        """Whether it is connected."""
        return self.line is not None and self.line.is_shaken

    def begin(self, *, is_new: bool) -> None:
        """Begin a stream; a proxy that is not new goes on with what it has."""
        headers = (
            ("authorization", f"Bearer {self._token}"),
            ("clusterid", self.talk.proxy.cluster),
        )
        self._stream = http2.Stream(talks.METHODS[self.talk.proxy.is_whole], headers)
        self._is_new = is_new
        self._has_begun = False

    def read(self, line: tls.Connection) -> None:
        """Take in what there is to read.

        Raises:
            OSError: The connection has ended, or is broken.
            http2.Ended: The server has ended the stream.
        """
        if size := line.read():
            self._hear(size)

    def write(self, line: tls.Connection) -> None:
        """Write what is to be said.

        Raises:
            OSError: The connection has ended, or is broken.
        """
        if line.is_shaken and not self._has_begun:
            self._has_begun = True
            for request in self.talk.begin(is_new=self._is_new):
                self._stream.send(request)
        out = self._stream.take() if line.is_shaken else b""
        if out:
            line.write(out)
        elif line.unsent:
            line.flush()

    def _hear(self, size: int) -> None:
        self.bytes += size
        stream = self._stream
        known = self._pieces.find(self._buffers.plain, size) if stream.is_between else None
        if known is None:
            self._cut(size)
        else:
            content, answers = known
            stream.skip(content)
            for answer in answers:
                self._answer(answer)
        if not self.synced_ns and self.talk.is_synced:
            self.synced_ns = time.monotonic_ns()

    def _cut(self, size: int) -> None:
        """Hear a piece that nobody has heard, and remember it if it is whole messages."""
        stream, answers, heard = self._stream, list[decoded.Answer](), self._buffers.view[:size]
        is_begin, orders, content = stream.is_between, stream.orders, stream.content
        for message in stream.hear(heard):
            answers.append(decoded.answer(message, is_whole=self.talk.proxy.is_whole))
            self._answer(answers[-1])
        if size <= PIECE and is_begin and stream.is_between and stream.orders == orders:
            self._pieces.keep(bytes(heard), (stream.content - content, tuple(answers)))

    def _answer(self, said: decoded.Answer) -> None:
        """Take in a message, look whether it is what is looked for, and say what is said to it."""
        self.messages += 1
        looked, moment = self._looked, time.monotonic_ns()
        if looked.is_on:
            self._look(said, moment)
        tracked = looked if looked.arrived is not None else None
        for one in self.talk.hear(said, tracked, moment):
            if one is said.accepted:
                self._stream.share(one, said.framed)
            else:
                self._stream.send(one)
        if said.changes and looked.leaving:
            self._look_at_members(said, moment)

    def _look(self, said: decoded.Answer, moment: int) -> None:
        looked = self._looked
        verdict = looked.verdict(said)
        is_gone = (
            bool(looked.name)
            and self.talk.proxy.is_whole
            and said.kind in self.talk.proxy.wants
            and looked.name in self.talk.without(said)
        )
        if verdict.is_it or is_gone:
            looked.seen.setdefault(self.number, moment)
        for name in verdict.left:
            self._leave(name, moment)

    def _look_at_members(self, said: decoded.Answer, moment: int) -> None:
        for change in said.changes:
            name, looked = change.cluster, self._looked
            after = self.talk.crowds.get(name)
            if after is not None and name in looked.leaving and looked.has_left(name, after):
                self._leave(name, moment)

    def _leave(self, name: str, moment: int) -> None:
        """Note that addresses are gone from a set; all sets without theirs is what is looked for."""
        self._left.add(name)
        if len(self._left) == len(self._looked.leaving):
            self._looked.seen.setdefault(self.number, moment)
            self._left.clear()


def clients(shape: shapes.Shape, looked: looking.Looked, buffers: tls.Buffers) -> list[Client]:
    """Return all proxies of a fleet."""
    pieces = {is_whole: Pieces(PIECES) for is_whole in (False, True)}
    found = list[Client]()
    for number in range(shape.clients):
        one = shapes.proxy(shape, number)
        talk = talks.Talk(one, shape.network(one.cluster))
        known = pieces[one.is_whole]
        found.append(
            Client(number, talk, looked=looked, buffers=buffers, pieces=known, token=shape.token)
        )
    return found
