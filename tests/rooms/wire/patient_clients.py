"""Clients of discovery that let others wait, each in its way, and what they must know all the same.

A client reads, answers and widens its windows when its habits say so. As long as it owes something of
this the server may wait for it, with limits; as soon as it owes nothing it must hear what is newest.
"""

import asyncio
from dataclasses import dataclass

import hpack
from envoy.service.discovery.v3 import discovery_pb2

from fakes import pretended_time
from isthmus.resources.snapshot import ENDPOINTS
from isthmus.wire import ads
from isthmus.wire.h2 import calls, frames

FOREVER = float("inf")
STREAM = 1
RETRY_S = 0.2
SHRUNK_S = 0.7
READING, WIDENING, ANSWERING = "reading", "widening", "answering"


@dataclass(frozen=True)
class Habits:
    """How a client lets others wait; who has none of these does not.

    Attributes:
        answers_s: How long it takes to answer; forever if it never does.
        answers_one_in: Of so many messages it answers the last.
        window: Of its stream.
        of_all: The window of its connection.
        widens_s: How long it takes to widen them, once half of one is used.
        deaf: From when until when it reads nothing.
        shrinks_at_s: When it takes back the window of its stream, to give it again soon after.
        leaves_at_s: When it goes away without a word, to come again soon after.
        room_bytes: What has room between the server and it.
        chunk_bytes: How much it reads at a time.
    """

    answers_s: float = 0.0
    answers_one_in: int = 1
    window: int = 1 << 20
    of_all: int = 1 << 28
    widens_s: float = 0.0
    deaf: tuple[float, float] = (0.0, 0.0)
    shrinks_at_s: float = FOREVER
    leaves_at_s: float = FOREVER
    room_bytes: int = 1 << 16
    chunk_bytes: int = 1 << 16


class Debts:
    """What a client owes, and since when it owes nothing of a kind."""

    def __init__(self, loop):
        self._loop = loop
        self._owed = dict.fromkeys((READING, WIDENING, ANSWERING), 0)
        self._free_since = dict.fromkeys(self._owed, loop.time())

    def owe(self, what):
        self._owed[what] += 1

    def pay(self, what, times=1):
        self._owed[what] -= times
        if not self._owed[what]:
            self._free_since[what] = self._loop.time()

    def forgive(self, *kinds):
        for what in kinds:
            self.pay(what, self._owed[what])

    def free_since(self, *kinds):
        """Return since when nothing of these kinds is owed; never, if something is."""
        if any(self._owed[what] for what in kinds):
            return FOREVER
        return max(self._free_since[what] for what in kinds)


class Client:
    """One client; `connect` gives the server its end of a connection.

    Attributes:
        known: By name the number of the change that it knows, and the version.
        sent_away: When the server ended its stream.
        came_at: When it came last.
    """

    def __init__(self, number, habits, connect, *, names):
        self.number, self.habits = number, habits
        self.known, self.sent_away = {}, []
        self._connect, self._names = connect, names
        self._loop = asyncio.get_running_loop()
        self.debts = Debts(self._loop)
        self._is_deaf = False
        begins, ends = habits.deaf
        for at, act in (
            (begins if ends else FOREVER, self._be_deaf),
            (habits.shrinks_at_s, self._shrink),
            (habits.leaves_at_s, self._leave),
        ):
            if at < FOREVER:
                self._loop.call_later(at, act)
        self._begin()

    # Its connection.

    def _begin(self):
        # What it owed it owed to a connection that is no more.
        self.debts.forgive(WIDENING, ANSWERING)
        self.came_at = self._loop.time()
        self._end, far = pretended_time.pair(self.habits.room_bytes)
        self._out, self._in, self._content = bytearray(), bytearray(), bytearray()
        self._used = {0: 0, STREAM: 0}
        self._windows = {0: self.habits.of_all, STREAM: self.habits.window}
        self._unanswered = 0
        self._connect(far)
        window = ((frames.INITIAL_WINDOW_SIZE, self.habits.window),)
        more = self.habits.of_all - frames.USUAL_WINDOW
        self._write(
            frames.PREFACE
            + frames.settings(window)
            + (frames.window_update(0, more=more) if more else b"")
            + self._headers()
        )
        self._write(framed(self._first()))
        self._read_on()

    def _headers(self):
        block = hpack.Encoder().encode(
            [
                (":method", "POST"),
                (":scheme", "https"),
                (":path", f"/{ads.SERVICE}/DeltaAggregatedResources"),
                (":authority", "istiod"),
                ("te", "trailers"),
                ("content-type", "application/grpc"),
                ("authorization", f"Bearer {self.number}"),
                ("clusterid", "c1"),
            ]
        )
        head = frames.head(frames.HEADERS, size=len(block), flags=frames.END_HEADERS, stream=STREAM)
        return head + block

    def _first(self):
        request = discovery_pb2.DeltaDiscoveryRequest(
            type_url=ENDPOINTS,
            resource_names_subscribe=self._names,
            initial_resource_versions={name: version for name, (_, version) in self.known.items()},
        )
        request.node.id = f"sidecar~10.0.0.1~p{self.number}.default~default.svc.cluster.local"
        return request

    def _write(self, content=b""):
        if self._end is None:
            return
        self._loop.remove_writer(self._end.fileno())
        self._out += content
        try:
            del self._out[: self._end.send(self._out)]
        except BlockingIOError:
            pass
        except OSError:
            return  # That it has ended is read.
        if self._out:
            self._loop.add_writer(self._end.fileno(), self._write)

    def _read_on(self):
        if self._end is not None and not self._is_deaf:
            self._loop.add_reader(self._end.fileno(), self._read)

    def close(self):
        """Go away without a word."""
        if self._end is not None:
            self._loop.remove_reader(self._end.fileno())
            self._loop.remove_writer(self._end.fileno())
            self._end.close()
            self._end = None

    def _leave(self):
        if self._end is not None:
            self.close()
            self._loop.call_later(RETRY_S, self._begin)

    def _be_deaf(self):
        begins, ends = self.habits.deaf
        self._is_deaf = True
        self.debts.owe(READING)
        if self._end is not None:
            self._loop.remove_reader(self._end.fileno())
        self._loop.call_later(ends - begins, self._hear_again)

    def _hear_again(self):
        self._is_deaf = False
        self.debts.pay(READING)
        self._read_on()

    def _shrink(self):
        for window, after_s in ((1, 0.0), (self.habits.window, SHRUNK_S)):
            self._later(after_s, WIDENING, frames.settings(((frames.INITIAL_WINDOW_SIZE, window),)))

    def _later(self, seconds, what, content):
        """Write something after a time; until then it is owed."""
        if not seconds:
            self._write(content)
            return
        self.debts.owe(what)
        end = self._end

        def due():
            if end is self._end:
                self._write(content)
                self.debts.pay(what)

        if seconds < FOREVER:
            self._loop.call_later(seconds, due)

    # What it hears.

    def _read(self):
        try:
            content = self._end.recv(self.habits.chunk_bytes)
        except BlockingIOError:
            return
        except OSError:
            content = b""
        if not content:
            self._end_of_stream()
            return
        self._in += content
        while self._end is not None and len(self._in) >= frames.HEAD_BYTES:
            size, kind, flags, stream = frames.head_at(self._in, 0)
            whole = frames.HEAD_BYTES + size
            if len(self._in) < whole:
                return
            payload = bytes(self._in[frames.HEAD_BYTES : whole])
            del self._in[:whole]
            self._take(kind, flags, stream, payload)

    def _take(self, kind, flags, stream, payload):
        match kind:
            case frames.DATA:
                self._data(payload)
            case frames.SETTINGS if not flags & frames.ACK:
                self._write(frames.SETTINGS_ACK)
            case frames.PING if not flags & frames.ACK:
                self._write(frames.pong(payload))
            case frames.GOAWAY | frames.RST_STREAM:
                self._end_of_stream()
            case frames.HEADERS if flags & frames.END_STREAM:
                assert stream == STREAM
                self._end_of_stream()

    def _end_of_stream(self):
        self.sent_away.append(self._loop.time())
        self._leave()

    def _data(self, payload):
        for stream, used in self._used.items():
            self._used[stream] = more = used + len(payload)
            if more >= self._windows[stream] // 2:
                self._used[stream] = 0
                widened = frames.window_update(stream, more=more)
                self._later(self.habits.widens_s, WIDENING, widened)
        self._content += payload
        while len(self._content) >= calls.PREFIX_BYTES:
            whole = calls.PREFIX_BYTES + int.from_bytes(
                self._content[1 : calls.PREFIX_BYTES], "big"
            )
            if len(self._content) < whole:
                return
            said = bytes(self._content[calls.PREFIX_BYTES : whole])
            del self._content[:whole]
            self._hear(discovery_pb2.DeltaDiscoveryResponse.FromString(said))

    def _hear(self, message):
        for one in message.resources:
            self.known[one.name] = (int(one.resource.value.split()[0]), one.version)
        self._unanswered += 1
        if self._unanswered < self.habits.answers_one_in:
            self.debts.owe(ANSWERING)
            return
        self.debts.pay(ANSWERING, self._unanswered - 1)
        self._unanswered = 0
        answer = discovery_pb2.DeltaDiscoveryRequest(
            type_url=message.type_url, response_nonce=message.nonce
        )
        self._later(self.habits.answers_s, ANSWERING, framed(answer))


def framed(request):
    """Return a request as what is written."""
    content = request.SerializeToString()
    body = b"\0" + len(content).to_bytes(4, "big") + content
    return frames.head(frames.DATA, size=len(body), stream=STREAM) + body
