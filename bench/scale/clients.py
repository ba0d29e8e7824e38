"""`python -m bench.scale.clients SHAPE HOST:PORT`: the proxies of a whole fleet, in one process.

Each has a connection with TLS and a stream of its own. On standard input they are told what to
wait for; they answer when each of them had decoded a response with it, on the machine's one
monotonic clock.
"""

import array
import collections
import hashlib
import json
import selectors
import socket
import ssl
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from bench.scale import crowds, http2, looking, shapes, talks
from isthmus.resources import snapshot

READ: Final = 1 << 18
SYNC_S: Final = 300.0
SYNC_EACH_S: Final = 0.3
RETRY_S: Final = 0.2
TURN_S: Final = 0.05
AT_ONCE: Final = 50
"""So many connections are being opened at once."""

BOTH: Final = selectors.EVENT_READ | selectors.EVENT_WRITE


class Client:
    """One proxy with its connection."""

    def __init__(
        self, number: int, talk: talks.Talk, looked: looking.Looked, *, token: str
    ) -> None:
        self.number = number
        self.talk = talk
        self._token = token or talk.proxy.token
        self.socket: socket.socket | None = None
        self.is_shaken = False
        self.is_deaf = False
        self.retry_at = 0.0
        self.synced_ns = 0
        self.bytes = self.messages = 0
        self._looked = looked
        self._left: set[str] = set()
        self._out = b""
        self.begin(is_new=True)

    def begin(self, *, is_new: bool) -> None:
        """Begin a stream; a proxy that is not new goes on with what it has."""
        headers = (
            ("authorization", f"Bearer {self._token}"),
            ("clusterid", self.talk.proxy.cluster),
        )
        self.stream = http2.Stream(talks.METHODS[self.talk.proxy.is_whole], headers)
        self.is_shaken = False
        self._out = b""
        self._is_new = is_new
        self._has_begun = False

    def take(self) -> bytes:
        """Return what is to be written now."""
        if not self._has_begun:
            self._has_begun = True
            for request in self.talk.begin(is_new=self._is_new):
                self.stream.send(request)
        out, self._out = self._out + self.stream.take(), b""
        return out

    def keep(self, rest: bytes) -> None:
        """Write this later."""
        self._out = rest

    def hear(self, heard: bytes) -> None:
        """Take in what was read."""
        self.bytes += len(heard)
        for message in self.stream.hear(heard):
            self.messages += 1
            for said in self.talk.hear(message, self._resource, self._members):
                self.stream.send(said)
        if not self.synced_ns and self.talk.is_synced:
            self.synced_ns = time.monotonic_ns()

    def _resource(self, kind: str, name: str, one: talks.Held | None) -> None:
        looked = self._looked
        if one is None:
            if name == looked.name:
                self._saw()
            return
        if looked.needle and looked.needle in one.body:
            self._saw()
        is_set = name in looked.leaving and kind == snapshot.ENDPOINTS and not one.leads
        if is_set and not any(address in one.body for address in looked.leaving[name]):
            self._leave(name)
        if one.markers and looked.arrived is not None:
            self._arrive(one.markers, self._marked(kind, name))

    def _members(self, answer: talks.Answer, moves: Sequence[talks.Move]) -> None:
        """Look at what is told of endpoints one by one."""
        looked = self._looked
        if looked.needle and looked.is_in(answer):
            self._saw()
        for change, after in moves:
            is_left = change.cluster in looked.leaving and looked.has_left(change.cluster, after)
            if is_left:
                self._leave(change.cluster)
            if looked.arrived is not None and after.markers:
                self._arrive(after.markers, self._marked(snapshot.ENDPOINTS, change.cluster))

    def _marked(self, kind: str, name: str) -> frozenset[bytes]:
        """Return the addresses of events that it has already, of a cluster or in a resource."""
        if kind == snapshot.ENDPOINTS:
            return self.talk.marked.get(name, frozenset())
        old = self.talk.held[kind].get(name)
        return frozenset() if old is None else old.markers

    def _arrive(self, markers: frozenset[bytes], known: frozenset[bytes]) -> None:
        """Note that addresses are there that were not there before."""
        arrived, now = self._looked.arrived, time.monotonic_ns()
        assert arrived is not None
        for marker in markers - known:
            arrived.setdefault(marker, array.array("q")).append(now)

    def _leave(self, name: str) -> None:
        """Note that addresses are gone from a set; all sets without theirs is what is looked for."""
        self._left.add(name)
        if len(self._left) == len(self._looked.leaving):
            self._saw()
            self._left.clear()

    def _saw(self) -> None:
        self._looked.seen.setdefault(self.number, time.monotonic_ns())


class Fleet:
    """All clients, driven by one loop."""

    def __init__(self, shape: shapes.Shape, host: str, port: int) -> None:
        self._place = (host, port)
        self._selector = selectors.DefaultSelector()
        self._tls = ssl.create_default_context()
        self._tls.check_hostname = False
        self._tls.verify_mode = ssl.CERT_NONE
        self._tls.set_alpn_protocols(["h2"])
        self._retry_at = 0.0
        self._wanted: Sequence[Client] = ()
        self._shape = shape
        self.looked = looking.Looked()
        proxies = [shapes.proxy(shape, number) for number in range(shape.clients)]
        self.clients = [
            Client(
                number,
                talks.Talk(one, shape.network(one.cluster)),
                self.looked,
                token=shape.token,
            )
            for number, one in enumerate(proxies)
        ]

    # --- what they are told to do

    def sync(self, count: int | None = None) -> list[float]:
        """Connect `count` or all, until all have what they ask for; return when, sorted.

        Raises:
            TimeoutError: Some have not.
        """
        wanted = self._wanted = self.clients[:count]
        until = time.monotonic() + SYNC_S + SYNC_EACH_S * len(wanted)
        while time.monotonic() < until:
            self._turn()
            if all(one.synced_ns for one in wanted):
                talks.forget()
                return sorted(one.synced_ns / 1e9 for one in wanted)
        late = [one.talk.proxy.name for one in wanted if not one.synced_ns]
        raise TimeoutError(f"{len(late)} of {len(wanted)} have no configuration: {late[:3]}")

    def wait(self, asked: Mapping[str, Any]) -> list[int]:
        """Return when each of `count` clients held a response with what is asked for."""
        looked, until = self.looked, time.monotonic() + asked["timeout_s"]
        while len(looked.seen) < asked["count"] and time.monotonic() < until:
            self._turn()
        return looked.take_seen()

    def look(self, asked: Mapping[str, Any]) -> None:
        """Look for an address, for any words, for a name that goes, or for addresses that go."""
        self.looked.take_seen()
        if "marker" in asked:
            self.looked.needle = said(asked["marker"])
        self.looked.needle = asked.get("words", "").encode() or self.looked.needle
        self.looked.name = asked.get("gone", "")
        self.looked.leaving = {
            name: tuple(map(said, some)) for name, some in asked.get("leaving", {}).items()
        }

    def lack(self, marker: str, *, name: str, timeout_s: float) -> int:
        """Wait until no client has the endpoints `name` with `marker`; return how many have."""
        words, left = said(marker), [one for one in self.clients if not one.is_deaf]
        until = time.monotonic() + timeout_s
        while left and time.monotonic() < until:
            self._turn()
            with_it = dict[int, bool]()
            left = [one for one in left if self._has(one, name, words, with_it)]
        return len(left)

    @staticmethod
    def _has(one: Client, name: str, words: bytes, known: dict[int, bool]) -> bool:
        held = one.talk.held.get(snapshot.ENDPOINTS, {}).get(name)
        crowd = one.talk.crowds.get(name)
        if held is None:
            return False
        key = id(held if crowd is None else crowd)
        if key not in known:
            # Who does not know all of a set yet goes on with what it had.
            known[key] = (
                words in held.body if crowd is None else not crowd.is_complete or crowd.holds(words)
            )
        return known[key]

    def rest(self, seconds: float) -> None:
        """Let clients answer whatever comes."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._turn()

    def track(self) -> None:
        """Note from now on when addresses arrive that came with events."""
        self.looked.arrived = {}

    def renew(self, *, is_new: bool) -> None:
        """Break all connections; proxies that are new have forgotten everything."""
        for one in self.clients:
            self._lose(one, retry_s=0.0)
            one.begin(is_new=is_new)
            one.synced_ns = 0

    def stop_reading(self, numbers: Iterable[int], *, is_deaf: bool) -> None:
        """Let some read no more, or again."""
        for number in numbers:
            one = self.clients[number]
            if one.socket is not None and one.is_deaf is not is_deaf:
                if is_deaf:
                    self._selector.unregister(one.socket)
                else:
                    self._selector.register(one.socket, BOTH, one)
            one.is_deaf = is_deaf

    def arrivals(self, written: Mapping[str, int], *, expected: int) -> dict[str, Any]:
        """Return how late events arrived that were `written`, of which each client gets each."""
        arrived = self.looked.arrived or {}
        delays = array.array("d")
        missing = 0
        for marker, moment in written.items():
            some = arrived.get(marker.encode(), ())
            missing += max(0, expected - len(some))
            delays.extend((one - moment) / 1e6 for one in some)
        ordered = sorted(delays)
        return {"missing": missing, **quantiles(ordered)}

    def until_arrived(self, markers: Iterable[str], *, expected: int, timeout_s: float) -> None:
        """Wait until every client has each marker."""
        until = time.monotonic() + timeout_s
        left = [marker.encode() for marker in markers]
        while left and time.monotonic() < until:
            self._turn()
            arrived = self.looked.arrived or {}
            left = [one for one in left if len(arrived.get(one, ())) < expected]

    def sets(self) -> dict[str, list[int]]:
        """Return which clients hold the same endpoints, by a digest of them."""
        texts, found = dict[int, str](), collections.defaultdict[str, list[int]](list)
        for one in self.clients:
            held = one.talk.held.get(snapshot.ENDPOINTS)
            if one.number >= self._shape.proxies or held is None:
                continue
            shown: dict[str, talks.Held | crowds.Crowds] = {
                name: one.talk.crowds.get(name, each)
                for name, each in held.items()
                if name.endswith(shapes.DOMAIN)
            }
            for name, each in shown.items():
                if id(each) not in texts:
                    texts[id(each)] = f"{name}={','.join(endpoints_in(each))}"
            found[digest(texts[id(each)] for each in shown.values())].append(one.number)
        return found

    # --- connections

    def _connect_all(self, wanted: Sequence[Client]) -> None:
        now = time.monotonic()
        if now < self._retry_at:
            return
        coming = sum(one.socket is not None and not one.is_shaken for one in wanted)
        for one in wanted:
            if coming >= AT_ONCE or now < self._retry_at:
                return
            if one.socket is None and now >= one.retry_at:
                self._connect(one)
                coming += 1

    def _connect(self, one: Client) -> None:
        """Begin to open a connection."""
        one.socket = socket.socket()
        one.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.socket.setblocking(False)
        one.socket.connect_ex(self._place)
        self._selector.register(one.socket, selectors.EVENT_WRITE, one)

    def _connected(self, one: Client, plain: socket.socket) -> None:
        """Begin TLS on a connection that is open, or try again later if nobody listens."""
        if plain.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            self._retry_at = time.monotonic() + RETRY_S
            self._lose(one)
            return
        self._selector.unregister(plain)
        one.socket = self._tls.wrap_socket(plain, do_handshake_on_connect=False)
        self._selector.register(one.socket, selectors.EVENT_READ, one)
        self._shake(one)

    def _shake(self, one: Client) -> None:
        assert isinstance(one.socket, ssl.SSLSocket)
        try:
            one.socket.do_handshake()
        except ssl.SSLWantReadError:
            return
        except OSError:
            self._lose(one)
            return
        one.is_shaken = True
        self._write(one)

    def _lose(self, one: Client, *, retry_s: float = RETRY_S) -> None:
        if one.socket is not None:
            if not one.is_deaf:
                self._selector.unregister(one.socket)
            one.socket.close()
        one.is_deaf = False
        one.socket = None
        one.retry_at = time.monotonic() + retry_s
        one.begin(is_new=one.synced_ns == 0 and bool(one.talk.missing))

    def _turn(self) -> None:
        self._connect_all(self._wanted)
        for key, events in self._selector.select(TURN_S):
            one: Client = key.data
            if one.socket is None:
                continue
            if not isinstance(one.socket, ssl.SSLSocket):
                self._connected(one, one.socket)
            elif not one.is_shaken:
                self._shake(one)
            elif events & selectors.EVENT_READ:
                self._read(one)
            else:
                self._write(one)

    def _read(self, one: Client) -> None:
        assert one.socket is not None
        try:
            while data := one.socket.recv(READ):
                one.hear(data)
            self._lose(one)
        except ssl.SSLWantReadError:
            self._write(one)
        except (OSError, http2.Ended):
            self._lose(one)

    def _write(self, one: Client) -> None:
        assert one.socket is not None
        out = one.take()
        try:
            while out:
                out = out[one.socket.send(out) :]
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            one.keep(out)
        except OSError:
            self._lose(one)
            return
        wanted = BOTH if out else selectors.EVENT_READ
        if self._selector.get_key(one.socket).events != wanted:
            self._selector.modify(one.socket, wanted, one)


def said(address: str) -> bytes:
    """Return how an endpoint's message says an address: with its length, so that none is part of one."""
    return bytes([0x12, len(address)]) + address.encode()


def endpoints_in(held: talks.Held | crowds.Crowds) -> list[str]:
    """Return the addresses in an endpoint set as a proxy holds it, each with its weight."""
    if isinstance(held, talks.Held):
        return endpoints_of(held.body)
    return sorted(map(_place, map(endpoint_components_pb2.LbEndpoint.FromString, held.bodies())))


def endpoints_of(body: bytes) -> list[str]:
    """Return the addresses in an endpoint set, each with its weight."""
    assignment = endpoint_pb2.ClusterLoadAssignment.FromString(body)
    return sorted(_place(one) for group in assignment.endpoints for one in group.lb_endpoints)


def _place(one: talks.Message) -> str:
    weight = one.load_balancing_weight.value or 1
    return f"{one.endpoint.address.socket_address.address} {weight}"


def digest(lines: Iterable[str]) -> str:
    """Return what says in short which endpoints somebody has."""
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def quantiles(ordered: Sequence[float]) -> dict[str, float]:
    """Return what is told of delays."""
    if not ordered:
        return {"count": 0, "p50_ms": -1.0, "p99_ms": -1.0, "max_ms": -1.0}
    return {
        "count": len(ordered),
        "p50_ms": ordered[len(ordered) // 2],
        "p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))],
        "max_ms": ordered[-1],
    }


Asked = dict[str, Any]


def _arrivals(fleet: Fleet, asked: Asked) -> Asked:
    written, expected = asked["written"], asked["expected"]
    fleet.until_arrived(written, expected=expected, timeout_s=asked["timeout_s"])
    found = fleet.arrivals(written, expected=expected)
    fleet.looked.arrived = None
    return found


def _lack(fleet: Fleet, asked: Asked) -> Asked:
    left = fleet.lack(asked["marker"], name=asked["name"], timeout_s=asked["timeout_s"])
    return {"left": left}


ACTS: Final[Mapping[str, Callable[[Fleet, Asked], Asked | None]]] = {
    "sync": lambda fleet, asked: {"synced_at": fleet.sync(asked.get("count"))},
    "renew": lambda fleet, asked: fleet.renew(is_new=asked["is_new"]),
    "look": lambda fleet, asked: fleet.look(asked),
    "wait": lambda fleet, asked: {"seen_ns": fleet.wait(asked)},
    "lack": _lack,
    "rest": lambda fleet, asked: fleet.rest(asked["seconds"]),
    "deaf": lambda fleet, asked: fleet.stop_reading(asked["numbers"], is_deaf=asked["is_deaf"]),
    "track": lambda fleet, _: fleet.track(),
    "arrivals": _arrivals,
    "counted": lambda fleet, _: dict(_counted(fleet)),
    "sets": lambda fleet, _: {"sets": fleet.sets()},
}


def answer(fleet: Fleet, asked: Asked) -> Asked:
    """Obey one command."""
    return ACTS[asked["act"]](fleet, asked) or {}


def _counted(fleet: Fleet) -> Iterator[tuple[str, int]]:
    yield "bytes", sum(one.bytes for one in fleet.clients)
    yield "messages", sum(one.messages for one in fleet.clients)
    yield "connected", sum(one.is_shaken for one in fleet.clients)


def main() -> None:
    """Obey standard input until it ends."""
    host, _, port = sys.argv[2].rpartition(":")
    fleet = Fleet(shapes.read(sys.argv[1]), host, int(port))
    for line in sys.stdin:
        print(json.dumps(answer(fleet, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
