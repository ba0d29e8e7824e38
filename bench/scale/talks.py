"""What a proxy says and hears on its stream, in either form of the protocol; no sockets.

It asks for clusters and listeners, then for the endpoints and routes that these name, and
acknowledges what it gets. Where endpoints are told one by one it follows the collections that
their assignments name. What it holds outlives its stream: to the next one it tells what it
has, as Envoy does; of members of collections it says nothing, as Envoy does, and goes on with them.
Resources with the same bytes are one object for all proxies of this program, and messages with the
same bytes are decoded once: two thousand real proxies would have two thousand machines for that.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.network.http_connection_manager.v3 import (
    http_connection_manager_pb2,
)
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import struct_pb2

from bench.scale import crowds, shapes
from isthmus.resources import snapshot

METHODS: Final = {
    True: "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
    False: "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
}
"""By whether a client wants the state of the world."""

MANAGER: Final = "envoy.filters.network.http_connection_manager"
LARGE: Final = 1 << 15
"""Of messages from this size on few are remembered."""

KEPT_LARGE, KEPT_SMALL, KEPT = 32, 2048, 250_000

MARKERS: Final = re.compile(rb"(?<![\d.])%d\.\d+\.\d+\.\d+" % shapes.MARKED)
"""Addresses of pods that came with an event."""

COLLECTION: Final = b"xdstp://"

LED_BY: Final = {
    snapshot.CLUSTERS: snapshot.ENDPOINTS,
    snapshot.LISTENERS: snapshot.ROUTES,
}

BEGUN: Final = (
    snapshot.CLUSTERS,
    snapshot.ENDPOINTS,
    snapshot.MEMBERS,
    snapshot.LISTENERS,
    snapshot.ROUTES,
    snapshot.ADDRESSES,
    snapshot.AUTHORIZATIONS,
)
"""The order in which Envoy asks for types on a new stream."""

ENVOY: Final = {
    "user_agent_name": "envoy",
    "user_agent_build_version": {"version": {"major_number": 1, "minor_number": 40}},
}
"""What proxies run; from this release on they can be told of endpoints one by one."""

Message = Any
"""A message of Envoy's: it has no types here."""


class Held:
    """A resource as some proxies hold it, with what it leads to; each content exists once."""

    __slots__ = ("body", "leads", "markers", "version")

    def __init__(self, kind: str, version: str, body: bytes) -> None:
        self.version = version
        self.body = body
        self.leads = tuple(_leads(kind, body))
        self.markers = frozenset[bytes]()
        if kind in {snapshot.ENDPOINTS, snapshot.MEMBERS, snapshot.ADDRESSES}:
            self.markers = frozenset(_markers(kind, body))


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A decoded message.

    Attributes:
        changes: What it says of collections, where it is about their members.
        accepted: How it is acknowledged by who hears of differences.
    """

    kind: str
    version: str
    nonce: str
    resources: tuple[tuple[str, Held], ...]
    removed: tuple[str, ...]
    changes: tuple[crowds.Change, ...] = ()
    accepted: bytes = b""


Move = tuple[crowds.Change, crowds.Crowds]
"""What was said of a cluster, and what a proxy has of it since then."""


def _unheard(answer: Answer, moves: Sequence[Move]) -> None:
    """Take no notice of members."""
    del answer, moves


_known: dict[tuple[str, str, bytes], Held] = {}
_large: dict[bytes, Answer] = {}
_small: dict[bytes, Answer] = {}
_owners: Final = crowds.Owners()


def forget() -> None:
    """Forget decoded messages and contents: proxies go on holding theirs."""
    _large.clear()
    _small.clear()
    _known.clear()


class Talk:
    """One proxy: what it holds, and its stream's state."""

    def __init__(self, one: shapes.Proxy, network: str) -> None:
        self.proxy = one
        self._network = network
        self.held: dict[str, dict[str, Held]] = {}
        self.asked: dict[str, dict[str, None]] = {}
        self._versions: dict[str, str] = {}
        self._nonces: dict[str, str] = {}
        self.missing: set[str] = set()
        self.crowds: dict[str, crowds.Crowds] = {}
        self.marked: dict[str, frozenset[bytes]] = {}
        """By cluster the addresses of events that it has, however it was told of them."""
        self._incomplete: set[str] = set()

    def begin(self, *, is_new: bool) -> Iterator[bytes]:
        """Yield the first requests of a stream; `is_new` is for a proxy that has just started."""
        if is_new or not self.held:
            self.held = {kind: {} for kind in (*self.proxy.wants, *LED_BY.values())}
            self.asked = {kind: {} for kind in LED_BY.values()}
            self._versions = {}
            self.missing = set(self.proxy.wants)
            self.crowds, self.marked, self._incomplete = {}, {}, set()
        self._nonces = {}
        node = _node(self.proxy, self._network)
        for kind in BEGUN:
            if kind in self.proxy.wants or self._names(kind):
                yield self._first(kind, node)
                node = None

    def _names(self, kind: str) -> Sequence[str]:
        if kind == snapshot.MEMBERS:
            return [name for each in self.crowds.values() for name in each.by_collection]
        return list(self.asked.get(kind, ()))

    def _first(self, kind: str, node: Message) -> bytes:
        names = self._names(kind)
        if self.proxy.is_whole:
            version = self._versions.get(kind, "")
            return _written(
                discovery_pb2.DiscoveryRequest(
                    type_url=kind, node=node, version_info=version, resource_names=names
                )
            )
        versions = {name: one.version for name, one in self.held.get(kind, {}).items()}
        return _written(
            discovery_pb2.DeltaDiscoveryRequest(
                type_url=kind,
                node=node,
                resource_names_subscribe=names,
                initial_resource_versions=versions,
            )
        )

    def hear(
        self,
        message: bytes,
        take: Callable[[str, str, Held | None], None],
        take_members: Callable[[Answer, Sequence[Move]], None] = _unheard,
    ) -> list[bytes]:
        """Take a message in; return what is said to it.

        `take` is told of each resource, and `take_members` of members of collections.
        """
        said = _decoded(message, is_whole=self.proxy.is_whole)
        if said.kind == snapshot.MEMBERS:
            moves = list(self._moved(said))
            take_members(said, moves)
            for change, after in moves:
                known = frozenset[bytes]() if after.is_complete else self._marked(change.cluster)
                self.marked[change.cluster] = after.markers | known
            return [said.accepted]
        held, removed = self.held.setdefault(said.kind, {}), said.removed
        if self.proxy.is_whole and said.kind in self.proxy.wants:
            present = {name for name, _ in said.resources}
            removed = tuple(name for name in held if name not in present)
        gone, fresh = dict[str, None](), dict[str, None]()
        for name in removed:
            old = held.pop(name, None)
            gone.update(dict.fromkeys(old.leads if old else ()))
            take(said.kind, name, None)
        for name, one in said.resources:
            take(said.kind, name, one)
            held[name] = one
            if said.kind == snapshot.ENDPOINTS and not one.leads:
                self.marked[name] = one.markers
            fresh.update(dict.fromkeys(one.leads))
        self.missing.discard(said.kind)
        self._nonces[said.kind], self._versions[said.kind] = said.nonce, said.version
        if said.kind == snapshot.ENDPOINTS:
            return [self._ack(said), *self._gather(said)]
        return [self._ack(said), *self._follow(said.kind, fresh, gone)]

    def _marked(self, cluster: str) -> frozenset[bytes]:
        return self.marked.get(cluster, frozenset())

    def _moved(self, said: Answer) -> Iterator[Move]:
        """Take in what is said of members of collections that are followed."""
        for change in said.changes:
            before = self.crowds.get(change.cluster)
            if before is None:
                continue
            after = self.crowds[change.cluster] = before.after(change)
            if after.is_complete:
                self._incomplete.discard(change.cluster)
            yield change, after

    def _gather(self, said: Answer) -> Iterable[bytes]:
        """Follow the collections that assignments name, and those no longer that none names."""
        more, less = list[str](), list[str]()
        for name, one in said.resources:
            before = self.crowds.get(name, crowds.NONE)
            if before is crowds.NONE and not one.leads:
                continue
            now = before.named(one.leads)
            more += [each for each in one.leads if each not in before.by_collection]
            less += [each for each in before.by_collection if each not in now.by_collection]
            self._keep(name, now)
        for name in said.removed:
            less += self._left(name)
        return self._asked_for(snapshot.MEMBERS, more, less)

    def _keep(self, cluster: str, now: crowds.Crowds) -> None:
        self.crowds[cluster] = now
        if not now.by_collection:
            del self.crowds[cluster]
        if now.is_complete:
            self._incomplete.discard(cluster)
        else:
            self._incomplete.add(cluster)

    def _left(self, cluster: str) -> Iterable[str]:
        """Let go of a cluster's collections; return their names."""
        self._incomplete.discard(cluster)
        return self.crowds.pop(cluster, crowds.NONE).by_collection

    def _ack(self, said: Answer) -> bytes:
        return self._whole(said.kind) if self.proxy.is_whole else said.accepted

    def _whole(self, kind: str) -> bytes:
        return _written(
            discovery_pb2.DiscoveryRequest(
                type_url=kind,
                version_info=self._versions.get(kind, ""),
                response_nonce=self._nonces.get(kind, ""),
                resource_names=self.asked.get(kind, ()),
            )
        )

    def _follow(
        self, kind: str, fresh: Mapping[str, None], gone: Mapping[str, None]
    ) -> Iterable[bytes]:
        """Ask for what is named for the first time, and no longer for what is named no more."""
        wanted = LED_BY.get(snapshot.TypeUrl(kind))
        if wanted is None:
            return []
        asked = self.asked[wanted]
        more = [name for name in fresh if name not in asked]
        less = [name for name in gone if name in asked and name not in fresh]
        if not more and not less:
            return []
        asked.update(dict.fromkeys(more))
        unheeded = list[str]()
        for name in less:
            del asked[name]
            self.held[wanted].pop(name, None)
            unheeded += self._left(name)
        if self.proxy.is_whole:
            return [self._whole(wanted)]
        return [
            *self._asked_for(wanted, more, less),
            *self._asked_for(snapshot.MEMBERS, (), unheeded),
        ]

    @staticmethod
    def _asked_for(kind: str, more: Sequence[str], less: Sequence[str]) -> Iterable[bytes]:
        if not more and not less:
            return []
        return [
            _written(
                discovery_pb2.DeltaDiscoveryRequest(
                    type_url=kind, resource_names_subscribe=more, resource_names_unsubscribe=less
                )
            )
        ]

    @property
    def is_synced(self) -> bool:
        """Whether it has an answer to all that it has asked for."""
        return not (self.missing or self._incomplete) and all(
            len(asked) <= len(self.held[kind]) and asked.keys() <= self.held[kind].keys()
            for kind, asked in self.asked.items()
        )


def _written(message: Message) -> bytes:
    written: bytes = message.SerializeToString()
    return written


def _decoded(message: bytes, *, is_whole: bool) -> Answer:
    kept, most = (_large, KEPT_LARGE) if len(message) >= LARGE else (_small, KEPT_SMALL)
    known = kept.get(message)
    if known is None:
        known = _whole_answer(message) if is_whole else _delta_answer(message)
        if len(kept) >= most:
            kept.clear()
        kept[message] = known
    return known


def _delta_answer(message: bytes) -> Answer:
    said = discovery_pb2.DeltaDiscoveryResponse.FromString(message)
    resources = tuple(
        (one.name, _shared(said.type_url, one.version, one.resource.value))
        for one in said.resources
    )
    removed, changes = tuple(said.removed_resources), tuple[crowds.Change, ...]()
    if said.type_url == snapshot.MEMBERS:
        changes = _owners.changes(resources, removed)
    elif said.type_url == snapshot.ENDPOINTS:
        for name, one in resources:
            _owners.note(name, one.leads)
    accepted = discovery_pb2.DeltaDiscoveryRequest(
        type_url=said.type_url, response_nonce=said.nonce
    )
    return Answer(said.type_url, "", said.nonce, resources, removed, changes, _written(accepted))


def _whole_answer(message: bytes) -> Answer:
    said = discovery_pb2.DiscoveryResponse.FromString(message)
    kind, version = said.type_url, said.version_info
    resources = tuple(
        (_name(kind, one.value), _shared(kind, "", one.value)) for one in said.resources
    )
    return Answer(kind, version, said.nonce, resources, ())


def _name(kind: str, body: bytes) -> str:
    """Return the name that a resource says itself: the first field of all kinds but secrets."""
    if kind == snapshot.CLUSTERS:
        return cluster_pb2.Cluster.FromString(body).name  # type: ignore[no-any-return]  # a string
    size, at = body[1], 2
    if size & 128:
        size, at = size & 127 | body[2] << 7, 3
    return body[at : at + size].decode()


def _shared(kind: str, version: str, body: bytes) -> Held:
    key = (kind, version, body)
    known = _known.get(key)
    if known is None:
        if len(_known) >= KEPT:
            _known.clear()  # What proxies hold stays; it may exist twice from now on.
        known = _known[key] = Held(kind, version, body)
    return known


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


def node(one: shapes.Proxy, network: str) -> dict[str, Any]:
    """Return what a proxy says of itself, as JSON would have it."""
    domain = f"{one.namespace}.svc.cluster.local"
    return {
        "id": f"{one.kind}~{one.address}~{one.name}.{one.namespace}~{domain}",
        "metadata": {
            "CLUSTER_ID": one.cluster,
            "NETWORK": network,
            "NAMESPACE": one.namespace,
            "SERVICE_ACCOUNT": one.account,
            "NODE_NAME": f"{one.cluster}-node0",
            "LABELS": {"app": one.account},
            "INSTANCE_IPS": one.address,
        },
    }


def _node(one: shapes.Proxy, network: str) -> Message:
    said = node(one, network)
    metadata = struct_pb2.Struct()
    metadata.update(said["metadata"])
    return {**said, **ENVOY, "metadata": metadata}
