"""What a proxy says and hears on its stream, in either form of the protocol; no sockets.

It asks for clusters and listeners, then for the endpoints and routes that these name, and
acknowledges what it gets. Where endpoints are told one by one it follows the collections that
their assignments name. What it holds outlives its stream: to the next one it tells what it
has, as Envoy does; of members of collections it says nothing, as Envoy does, and goes on with them.
What it holds are references: each content exists once for all proxies of this program, see `decoded`.
"""

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import struct_pb2

from bench.scale import crowds, decoded, looking, shapes
from isthmus.resources import snapshot

METHODS: Final = {
    True: "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources",
    False: "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources",
}
"""By whether a client wants the state of the world."""

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

NOTHING: Final[Mapping[str, None]] = {}
Message = Any
"""A message of Envoy's: it has no types here."""


class Talk:
    """One proxy: what it holds, and its stream's state."""

    __slots__ = (
        "_incomplete",
        "_marked",
        "_network",
        "_nonces",
        "_versions",
        "asked",
        "crowds",
        "held",
        "missing",
        "proxy",
    )

    def __init__(self, one: shapes.Proxy, network: str) -> None:
        self.proxy = one
        self._network = network
        self.held: dict[str, dict[str, decoded.Held]] = {}
        self.asked: dict[str, dict[str, None]] = {}
        self._versions: dict[str, str] = {}
        self._nonces: dict[str, str] = {}
        self.missing: set[str] = set()
        self.crowds: dict[str, crowds.Crowds] = {}
        self._marked: dict[str, frozenset[bytes]] = {}
        """By cluster the addresses of events that it has, where it is told of them one by one."""

        self._incomplete: set[str] = set()

    def begin(self, *, is_new: bool) -> Iterator[bytes]:
        """Yield the first requests of a stream; `is_new` is for a proxy that has just started."""
        if is_new or not self.held:
            self.held = {kind: {} for kind in (*self.proxy.wants, *LED_BY.values())}
            self.asked = {kind: {} for kind in LED_BY.values()}
            self._versions = {}
            self.missing = set(self.proxy.wants)
            self.crowds, self._marked, self._incomplete = {}, {}, set()
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
        who = _written(discovery_pb2.DeltaDiscoveryRequest(node=node)) if node else b""
        held = self.held.get(kind, {})
        versions = tuple(one.version for one in held.values())
        return who + _beginning(kind, tuple(names), tuple(held), versions)

    def hear(
        self, said: decoded.Answer, looked: looking.Looked | None = None, moment: int = 0
    ) -> list[bytes]:
        """Take a message in; return what is said to it.

        Where `looked` is given it takes note of addresses that arrive at this moment.
        """
        kind, is_whole = said.kind, self.proxy.is_whole
        if kind == snapshot.MEMBERS:
            self._moved(said, looked, moment)
            return [said.accepted]
        held = self.held.setdefault(kind, {})
        if looked is not None:
            self._note(said, held, looked, moment)
        if kind == snapshot.ENDPOINTS and (said.leads or self._marked):
            self._mark(said, held)
        gone = self._without(said, held) if said.removed or is_whole else NOTHING
        held.update(said.resources)
        if self.missing:
            self.missing.discard(kind)
        if is_whole:
            self._nonces[kind], self._versions[kind] = said.nonce, said.version
        said_first = self._whole(kind) if is_whole else said.accepted
        if kind != snapshot.ENDPOINTS:
            return [said_first, *self._follow(kind, said.leads, gone)]
        if said.leads or self.crowds:
            return [said_first, *self._gather(said)]
        return [said_first]

    def _known(self, name: str, held: Mapping[str, decoded.Held]) -> frozenset[bytes]:
        """Return the addresses of events that it has of a set of endpoints, or in a resource."""
        found = self._marked.get(name)
        if found is None:
            return held[name].markers if name in held else decoded.UNTOLD
        return found

    def _note(
        self,
        said: decoded.Answer,
        held: Mapping[str, decoded.Held],
        looked: looking.Looked,
        moment: int,
    ) -> None:
        """Let somebody take note of addresses that were not there before."""
        for name, now in said.markers.items():
            for note in looked.notes(self._known(name, held), now):
                note(moment)

    def _mark(self, said: decoded.Answer, held: Mapping[str, decoded.Held]) -> None:
        """Keep what it has of sets that will be told one by one, until it is told, or told whole."""
        for name, one in said.resources.items():
            if one.leads:
                self._marked[name] = self._known(name, held)
            else:
                self._marked.pop(name, None)

    def _without(self, said: decoded.Answer, held: dict[str, decoded.Held]) -> Mapping[str, None]:
        """Let go of what is no longer there; return what that led to."""
        removed: Iterable[str] = said.removed
        if self.proxy.is_whole and said.kind in self.proxy.wants:
            removed = self.without(said)
        gone = dict[str, None]()
        for name in removed:
            old = held.pop(name, None)
            gone.update(dict.fromkeys(old.leads if old else ()))
        return gone

    def without(self, said: decoded.Answer) -> Iterable[str]:
        """Return the names that a message takes away that tells all there is."""
        return tuple(name for name in self.held.get(said.kind, ()) if name not in said.resources)

    def _moved(self, said: decoded.Answer, looked: looking.Looked | None, moment: int) -> None:
        """Take in what is said of members of collections that are followed."""
        for change in said.changes:
            name = change.cluster
            before = self.crowds.get(name)
            if before is None:
                continue
            after = self.crowds[name] = before.after(change)
            known, now = self._marked.get(name, decoded.UNTOLD), after.markers
            if looked is not None:
                for note in looked.notes(known, now):
                    note(moment)
            if after.is_complete:
                self._incomplete.discard(name)
            self._marked[name] = now if after.is_complete else now | known

    def _gather(self, said: decoded.Answer) -> Iterable[bytes]:
        """Follow the collections that assignments name, and those no longer that none names."""
        more, less = list[str](), list[str]()
        for name, one in said.resources.items():
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

    def _whole(self, kind: str) -> bytes:
        names, nonce = tuple(self.asked.get(kind, ())), self._nonces.get(kind, "")
        return _request(kind, self._versions.get(kind, ""), nonce, names)

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


@functools.lru_cache(maxsize=64)
def _beginning(
    kind: str, names: tuple[str, ...], held: tuple[str, ...], versions: tuple[str, ...]
) -> bytes:
    """Return what is asked for, the same for all that have and want the same; who asks stands before it."""
    return _written(
        discovery_pb2.DeltaDiscoveryRequest(
            type_url=kind,
            resource_names_subscribe=names,
            initial_resource_versions=dict(zip(held, versions, strict=True)),
        )
    )


@functools.lru_cache(maxsize=64)
def _request(kind: str, version: str, nonce: str, names: tuple[str, ...]) -> bytes:
    """Return the request of who names all that it wants, the same for all that want the same."""
    return _written(
        discovery_pb2.DiscoveryRequest(
            type_url=kind, version_info=version, response_nonce=nonce, resource_names=names
        )
    )


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
