"""`python -m bench.scale.clients SHAPE HOST:PORT`: the proxies of a whole fleet, in one process.

Each has a connection with TLS and a stream of its own. On standard input they are told what to
wait for; they answer when each of them had decoded a response with it, on the machine's one
monotonic clock.
"""

import array
import collections
import gc
import hashlib
import json
import select
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2

from bench.scale import crowds, decoded, http2, looking, proxies, shapes, talks, tls
from isthmus.resources import snapshot

SYNC_S: Final = 300.0
SYNC_EACH_S: Final = 0.3
RETRY_S: Final = 0.2
TURN_S: Final = 0.05
AT_ONCE: Final = 50
"""So many connections are being opened at once."""

BATCH: Final = 64
"""Of so many connections what has come is read before the first of them answers, if that is quick."""

ANSWER_S: Final = 0.002
"""So long an answer waits for others to be read."""

LOOK_S: Final = 0.05
"""How often it is looked whether all have everything that was waited for."""

RARELY: Final = (200_000, 20, 100)
"""How seldom garbage is looked for: what is held goes by itself."""

BOTH: Final = select.EPOLLIN | select.EPOLLOUT


class Fleet:
    """All clients, driven by one loop."""

    def __init__(self, shape: shapes.Shape, host: str, port: int) -> None:
        self._place = (host, port)
        self._epoll = select.epoll()
        self._by_number: dict[int, proxies.Client] = {}
        self._retry_at = 0.0
        self._wanted = 0
        self._away: dict[int, proxies.Client] = {}
        self._coming = set[int]()
        self._shape = shape
        self.looked = looking.Looked()
        self._buffers = tls.Buffers()
        self.clients = proxies.clients(shape, self.looked, self._buffers)

    # --- what they are told to do

    def sync(self, count: int | None = None) -> list[float]:
        """Connect `count` or all, until all have what they ask for; return when, sorted.

        Raises:
            TimeoutError: Some have not.
        """
        wanted = self._want(count)
        until = time.monotonic() + SYNC_S + SYNC_EACH_S * len(wanted)
        while time.monotonic() < until:
            self._turn()
            if all(one.synced_ns for one in wanted):
                decoded.forget()
                gc.collect()
                gc.freeze()
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
            self.rest(LOOK_S)
            with_it = dict[int, bool]()
            left = [one for one in left if self._has(one, name, words, with_it)]
        return len(left)

    @staticmethod
    def _has(one: proxies.Client, name: str, words: bytes, known: dict[int, bool]) -> bool:
        held = one.talk.held.get(snapshot.ENDPOINTS, {}).get(name)
        crowd = one.talk.crowds.get(name)
        if held is None:
            return False
        key = id(held if crowd is None else crowd)
        if key not in known:
            # Who does not know all of a set yet goes on with what it had.
            known[key] = (
                held.holds(words) if crowd is None else not crowd.is_complete or crowd.holds(words)
            )
        return known[key]

    def rest(self, seconds: float) -> None:
        """Let clients answer whatever comes."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._turn()

    def track(self) -> None:
        """Note from now on when addresses arrive that came with events."""
        self.looked.track()

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
            if one.line is not None and one.is_deaf is not is_deaf:
                if is_deaf:
                    self._leave(one.line)
                else:
                    self._watch(one, one.line, BOTH)
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
            self.rest(LOOK_S)
            arrived = self.looked.arrived or {}
            left = [one for one in left if len(arrived.get(one, ())) < expected]

    def sets(self) -> dict[str, list[int]]:
        """Return which clients hold the same endpoints, by a digest of them."""
        texts, found = dict[int, str](), collections.defaultdict[str, list[int]](list)
        for one in self.clients:
            held = one.talk.held.get(snapshot.ENDPOINTS)
            if one.number >= self._shape.proxies or held is None:
                continue
            shown: dict[str, decoded.Held | crowds.Crowds] = {
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

    def _want(self, count: int | None) -> Sequence[proxies.Client]:
        """Let so many connect from now on, and return them."""
        self._wanted = len(self.clients[:count])
        for one in self.clients[:count]:
            if one.line is None:
                self._away[one.number] = one
        return self.clients[:count]

    def _connect_some(self) -> None:
        """Begin to connect those who have waited longest, so many at once as may."""
        now = time.monotonic()
        while self._away and len(self._coming) < AT_ONCE and now >= self._retry_at:
            one = next(iter(self._away.values()))
            if now < one.retry_at:
                return
            del self._away[one.number]
            self._coming.add(one.number)
            one.line = tls.Connection(self._buffers, self._place)
            self._watch(one, one.line, select.EPOLLOUT)

    def _watch(self, one: proxies.Client, line: tls.Connection, events: int) -> None:
        """Be told of these events of a connection from now on, and of no others."""
        number = line.socket.fileno()
        if line.watched:
            self._epoll.modify(number, events)
        else:
            self._epoll.register(number, events)
            self._by_number[number] = one
        line.watched = events

    def _leave(self, line: tls.Connection) -> None:
        """Be told nothing more of a connection."""
        number = line.socket.fileno()
        self._epoll.unregister(number)
        del self._by_number[number]
        line.watched = 0

    def _lose(self, one: proxies.Client, *, retry_s: float = RETRY_S) -> None:
        if one.line is not None:
            if not one.is_deaf:
                self._leave(one.line)
            one.line.close()
        one.is_deaf = False
        one.line = None
        one.retry_at = time.monotonic() + retry_s
        self._coming.discard(one.number)
        if one.number < self._wanted:
            self._away[one.number] = one
        one.begin(is_new=one.synced_ns == 0 and bool(one.talk.missing))

    def _turn(self) -> None:
        """Read what has come for some, and then let them answer, without letting it wait for long."""
        if self._away:
            self._connect_some()
        heard, answer_at = list[tuple[proxies.Client, tls.Connection]](), 0.0
        for number, events in self._epoll.poll(TURN_S, BATCH):
            one = self._by_number[number]
            line = one.line
            assert line is not None
            if not line.is_open:
                self._begin(one, line)
            elif events == select.EPOLLOUT or self._read(one, line):
                now = time.monotonic()
                answer_at = answer_at if heard else now + ANSWER_S
                heard.append((one, line))
                if now > answer_at:
                    self._answer(heard)
        self._answer(heard)

    def _answer(self, heard: list[tuple[proxies.Client, tls.Connection]]) -> None:
        """Let those answer who have heard something."""
        for one, line in heard:
            self._write(one, line)
        heard.clear()

    def _begin(self, one: proxies.Client, line: tls.Connection) -> None:
        """Begin TLS on a connection that is open, or try again later if nobody listens."""
        try:
            line.begin()
        except OSError:
            self._retry_at = time.monotonic() + RETRY_S
            self._lose(one)
        else:
            self._watch(one, line, select.EPOLLIN)

    def _read(self, one: proxies.Client, line: tls.Connection) -> bool:
        """Say whether it is connected still."""
        try:
            one.read(line)
        except (OSError, http2.Ended):
            self._lose(one)
            return False
        if self._coming and line.is_shaken:
            self._coming.discard(one.number)
        return True

    def _write(self, one: proxies.Client, line: tls.Connection) -> None:
        try:
            one.write(line)
        except OSError:
            self._lose(one)
            return
        wanted = BOTH if line.unsent else select.EPOLLIN
        if line.watched != wanted:
            self._watch(one, line, wanted)


def said(address: str) -> bytes:
    """Return how an endpoint's message says an address: with its length, so that none is part of one."""
    return bytes([0x12, len(address)]) + address.encode()


def endpoints_in(held: decoded.Held | crowds.Crowds) -> list[str]:
    """Return the addresses in an endpoint set as a proxy holds it, each with its weight."""
    if isinstance(held, decoded.Held):
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
    gc.set_threshold(*RARELY)
    host, _, port = sys.argv[2].rpartition(":")
    fleet = Fleet(shapes.read(sys.argv[1]), host, int(port))
    for line in sys.stdin:
        print(json.dumps(answer(fleet, json.loads(line))), flush=True)


if __name__ == "__main__":
    main()
