"""What the messages of a control plane say, decoded once for all proxies of this program.

Two thousand real proxies would have two thousand machines for that. A message is cut along its
fields here; a resource in it that was told before, byte for byte, is the object that it was then, and only one
that is new is decoded with Envoy's own definitions. The same holds for whole messages. What is
known is found by its length and its ends, and compared as a whole before it counts as known.
"""

import hashlib
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Final, Generic, TypeVar

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2

from bench.scale import crowds, http2, shapes
from isthmus.resources import snapshot

MANAGER: Final = "envoy.filters.network.http_connection_manager"
MARKERS: Final = re.compile(rb"%d(?<![\d.]%d)\.\d+\.\d+\.\d+" % (shapes.MARKED, shapes.MARKED))
"""Addresses of pods that came with an event."""

COLLECTION: Final = b"xdstp://"
MARKING: Final = frozenset({snapshot.ENDPOINTS, snapshot.MEMBERS, snapshot.ADDRESSES})

LARGE: Final = 1 << 15
"""Of messages from this size on few are remembered."""

KEPT_LARGE, KEPT_SMALL, KEPT = 32, 2048, 250_000
HEAD, TAIL, LONG = 112, 48, 512
"""So much of the ends of something says what it may be, in most cases; what is not long is looked at whole."""

VERSION, RESOURCES, KIND, NONCE, REMOVED = 0x0A, 0x12, 0x22, 0x2A, 0x32
"""Fields of both forms of a response, as they begin: number and type."""

CANARY: Final = 0x18
UNTOLD: Final = frozenset[bytes]()

T = TypeVar("T")
Read = Callable[[str, bytes], tuple[str, str, bytes]]
"""How the name, the version and the body of a resource of a type are read."""


class Held:
    """A resource as some proxies hold it, with what it leads to; each content exists once.

    Attributes:
        text: Its message with its name and version, as it was told.
        markers: The addresses of events in it.
        token: A number that no other member of a collection has, nor the same one with another content.
    """

    __slots__ = ("_begin", "_end", "leads", "markers", "name", "text", "token", "version")

    def __init__(self, kind: str, name: str, version: str, text: bytes, body: bytes) -> None:
        self.name = name
        self.version = version
        self.text = text
        self._begin = text.find(body)
        self._end = self._begin + len(body)
        self.leads = tuple(_leads(kind, body))
        self.markers = frozenset(_markers(kind, body)) if kind in MARKING else UNTOLD
        self.token = 0
        if kind == snapshot.MEMBERS:
            self.token = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())

    @property
    def body(self) -> bytes:
        """Its message."""
        return self.text[self._begin : self._end]

    def holds(self, words: bytes) -> bool:
        """Say whether words stand in its message."""
        return self.text.find(words, self._begin, self._end) >= 0


class Answer:
    """A decoded message.

    Attributes:
        resources: The resources by their names.
        changes: What it says of collections, where it is about their members.
        markers: By name the addresses of events in it, but for sets that are told one by one.
        leads: What its resources name that must be asked for.
        accepted: How it is acknowledged by who hears of differences.
        framed: The same as one frame.
    """

    __slots__ = (
        "accepted",
        "changes",
        "framed",
        "kind",
        "leads",
        "markers",
        "nonce",
        "removed",
        "resources",
        "version",
    )

    def __init__(
        self,
        kind: str,
        version: str,
        nonce: str,
        resources: dict[str, Held],
        removed: tuple[str, ...] = (),
        changes: tuple[crowds.Change, ...] = (),
    ) -> None:
        self.kind, self.version, self.nonce = kind, version, nonce
        self.resources, self.removed, self.changes = resources, removed, changes
        self.leads = dict.fromkeys(
            name for one in resources.values() if one.leads for name in one.leads
        )
        self.markers = dict[str, frozenset[bytes]]()
        if kind in {snapshot.ENDPOINTS, snapshot.ADDRESSES}:
            self.markers = {name: one.markers for name, one in resources.items() if not one.leads}
        request = discovery_pb2.DeltaDiscoveryRequest(type_url=kind, response_nonce=nonce)
        self.accepted: bytes = request.SerializeToString()
        self.framed = http2.message(self.accepted)


class Known(Generic[T]):
    """What was told before, found by its length and its end."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._by_end = dict[tuple[int, bytes], tuple[bytes, T]]()

    def find(self, text: bytes | bytearray, size: int) -> T | None:
        """Return what was kept for the first bytes of a text, of which each is the same."""
        end = bytes(text[max(0, size - TAIL) : size])
        found = self._by_end.get((size, end))
        return found[1] if found is not None and text.startswith(found[0]) else None

    def keep(self, text: bytes, found: T) -> None:
        """Keep what a text says, in the place of another one that ends alike."""
        if len(self._by_end) >= self._most:
            self._by_end.clear()
        self._by_end[len(text), text[-TAIL:]] = (text, found)

    def forget(self) -> None:
        """Keep nothing."""
        self._by_end.clear()


_large: Final = Known[Answer](KEPT_LARGE)
_small: Final = Known[Answer](KEPT_SMALL)
_by_ends: Final = dict[tuple[str, int, bytes, bytes], Held]()
_known: Final = dict[tuple[str, bytes], Held]()
_owners: Final = crowds.Owners()


def forget() -> None:
    """Forget decoded messages and contents: proxies go on holding theirs."""
    _large.forget()
    _small.forget()
    _by_ends.clear()
    _known.clear()


def answer(message: bytes, *, is_whole: bool) -> Answer:
    """Return what a message says, in the form that was asked for."""
    kept = _large if len(message) >= LARGE else _small
    found = kept.find(message, len(message))
    if found is None:
        found = _whole(message) if is_whole else _delta(message)
        kept.keep(message, found)
    return found


def _delta(message: bytes) -> Answer:
    kind, nonce, spans, removed = "", "", list[tuple[int, int]](), list[str]()
    for tag, at, end in fields(message):
        if tag == RESOURCES:
            spans.append((at, end))
        elif tag == REMOVED:
            removed.append(message[at:end].decode())
        elif tag == KIND:
            kind = sys.intern(message[at:end].decode())
        elif tag == NONCE:
            nonce = message[at:end].decode()
    resources = _resources(kind, message, spans, _of_differences)
    changes = tuple[crowds.Change, ...]()
    if kind == snapshot.MEMBERS:
        changes = _owners.changes(resources.items(), removed)
    elif kind == snapshot.ENDPOINTS:
        for name, one in resources.items():
            if one.leads:
                _owners.note(name, one.leads)
    return Answer(kind, "", nonce, resources, tuple(removed), changes)


def _whole(message: bytes) -> Answer:
    kind, version, nonce, spans = "", "", "", list[tuple[int, int]]()
    for tag, at, end in fields(message):
        if tag == RESOURCES:
            spans.append((at, end))
        elif tag == VERSION:
            version = message[at:end].decode()
        elif tag == KIND:
            kind = sys.intern(message[at:end].decode())
        elif tag == NONCE:
            nonce = message[at:end].decode()
    return Answer(kind, version, nonce, _resources(kind, message, spans, _of_all))


def fields(message: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield how each field begins, and where its content begins and ends.

    Raises:
        ValueError: There is a field that no response has.
    """
    at, known = 0, len(message)
    while at < known:
        tag, size = message[at], message[at + 1]
        at += 2
        if tag == CANARY:
            continue
        if tag & 0x87 != 2:
            raise ValueError(f"byte {at - 2} of a response begins no field that it may have")
        if size & 128:
            size &= 127
            shift = 7
            while True:
                more = message[at]
                at += 1
                size |= (more & 127) << shift
                if more < 128:
                    break
                shift += 7
        end = at + size
        if end > known:
            raise ValueError("a response ends within a field")
        yield tag, at, end
        at = end


def _resources(
    kind: str, message: bytes, spans: Iterable[tuple[int, int]], read: Read
) -> dict[str, Held]:
    """Return the resources of a message; those that were told before are not decoded."""
    resources, find = dict[str, Held](), message.startswith
    for at, end in spans:
        if end - at < LONG:
            one = _resource(kind, message[at:end], read)
        else:
            key = (kind, end - at, message[at : at + HEAD], message[end - TAIL : end])
            found = _by_ends.get(key)
            if found is None or not find(found.text, at):
                if len(_by_ends) >= KEPT:
                    _by_ends.clear()
                found = _by_ends[key] = _resource(kind, message[at:end], read)
            one = found
        resources[one.name] = one
    return resources


def _resource(kind: str, text: bytes, read: Read) -> Held:
    """Return a resource by all that was told of it."""
    known = _known.get((kind, text))
    if known is None:
        if len(_known) >= KEPT:
            _known.clear()  # What proxies hold stays; it may exist twice from now on.
        name, version, body = read(kind, text)
        known = _known[kind, text] = Held(kind, name, version, text, body)
    return known


def _of_differences(kind: str, content: bytes) -> tuple[str, str, bytes]:
    del kind
    said = discovery_pb2.Resource.FromString(content)
    return said.name, said.version, said.resource.value


def _of_all(kind: str, content: bytes) -> tuple[str, str, bytes]:
    body = any_pb2.Any.FromString(content).value
    return _name(kind, body), "", body


def _name(kind: str, body: bytes) -> str:
    """Return the name that a resource says itself: the first field of all kinds but clusters."""
    if kind == snapshot.CLUSTERS:
        return cluster_pb2.Cluster.FromString(body).name  # type: ignore[no-any-return]  # a string
    for _, at, end in fields(body):
        return body[at:end].decode()
    return ""


def _leads(kind: str, body: bytes) -> Iterator[str]:
    if kind == snapshot.CLUSTERS:
        cluster = cluster_pb2.Cluster.FromString(body)
        if cluster.type == cluster_pb2.Cluster.EDS:
            yield cluster.eds_cluster_config.service_name or cluster.name
    elif kind == snapshot.ENDPOINTS and COLLECTION in body:
        for group in endpoint_pb2.ClusterLoadAssignment.FromString(body).endpoints:
            yield group.leds_cluster_locality_config.leds_collection_name
    elif kind == snapshot.LISTENERS:
        yield from _routes(body)


def _routes(body: bytes) -> Iterator[str]:
    for chain in listener_pb2.Listener.FromString(body).filter_chains:
        for one in chain.filters:
            if one.name == MANAGER:
                manager = http_connection_manager_pb2.HttpConnectionManager()
                one.typed_config.Unpack(manager)
                if manager.HasField("rds"):
                    yield manager.rds.route_config_name


def _markers(kind: str, body: bytes) -> Iterator[bytes]:
    """Yield the addresses of events in a resource."""
    if kind in {snapshot.ENDPOINTS, snapshot.MEMBERS}:
        for found in MARKERS.finditer(body):
            yield found[0]
    else:
        at = -1
        while (at := body.find(bytes([4, shapes.MARKED]), at + 1)) >= 0:
            yield ".".join(map(str, body[at + 1 : at + 5])).encode()
