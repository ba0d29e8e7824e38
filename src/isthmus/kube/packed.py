"""Pods, EndpointSlices and Services as they are kept: there are as many as a mesh has endpoints.

Each holds what is its own, and refers to what it has in common with others: a pod with those of its
owner, a Service and its slices with those of the same name in other clusters. A slice holds its
endpoints as bytes. All are read like what they were made from, which is put together whenever
somebody asks: that is when they change, and hardly ever else.

It decides nothing about what is kept, but that a slice need not say of pods what these say.

Source: performance rule 8; docs/decisions/0049-pods-and-slices-are-packed.md.
"""

import functools
import sys
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from typing_extensions import override

from isthmus.kube import objects

RECENT: Final = 16
"""So many slices are remembered as they were read last: several look at one that changes."""

KEPT: Final = 16384
"""So many different parts are remembered; what is forgotten is kept twice."""

POD: Final = "Pod"
"""What almost all members of slices are."""

Pairs = tuple[tuple[str, str], ...]


class Pod(objects.AnyPod, frozen=True):
    """A pod; `metadata` holds what it shares with others, and reads as what it is."""

    name: str = ""
    node: str = ""
    address: str = ""

    @property  # type: ignore[misc]  # A field that is computed; what it hides is read below.
    @override
    def metadata(self) -> objects.Metadata:
        return msgspec.structs.replace(shared_in(self).metadata, name=self.name)

    @property
    @override
    def spec(self) -> objects.PodSpec:
        return msgspec.structs.replace(shared_in(self).spec, node_name=self.node)

    @property
    @override
    def status(self) -> objects.PodStatus:
        return msgspec.structs.replace(shared_in(self).status, pod_ip=self.address)

    @property
    @override
    def node_name(self) -> str:
        return self.node

    @override
    def whole(self) -> objects.Pod:
        return objects.Pod(self.metadata, spec=self.spec, status=self.status)


shared_in: Callable[[Pod], objects.Pod] = vars(objects.Object)["metadata"].__get__
"""Returns what a pod shares with others: a pod without name, address and node."""


class Service(objects.Service, frozen=True):
    """A Service; its fields hold what it shares with others, `metadata` and so on what it is."""

    name: str = ""
    created: str = ""
    addresses: tuple[str, ...] = ()
    """`spec.clusterIPs`, if `spec.clusterIP` is the first of them."""

    @property  # type: ignore[misc]  # As above.
    @override
    def metadata(self) -> objects.Metadata:
        shared: objects.Metadata = _metadata_in(self)
        return msgspec.structs.replace(shared, name=self.name, creation_timestamp=self.created)

    @property  # type: ignore[misc]  # As above.
    @override
    def spec(self) -> objects.ServiceSpec:
        shared, own = _spec_in(self), self.addresses
        return (
            msgspec.structs.replace(shared, cluster_ip=own[0], cluster_ips=own) if own else shared
        )

    @override
    def whole(self) -> objects.Service:
        return objects.Service(self.metadata, spec=self.spec, status=self.status)


class EndpointSlice(objects.EndpointSlice, frozen=True):
    """An EndpointSlice; `metadata` holds what it shares with others, `packed` are its endpoints."""

    name: str = ""
    packed: bytes = b""

    @property  # type: ignore[misc]  # As above.
    @override
    def metadata(self) -> objects.Metadata:
        return msgspec.structs.replace(_metadata_in(self), name=self.name)

    @property  # type: ignore[misc]  # As above.
    @override
    def endpoints(self) -> tuple[objects.SliceEndpoint, ...]:
        return _unpacked(self.packed)

    @override
    def whole(self) -> objects.EndpointSlice:
        told = msgspec.convert(self.endpoints, _WholeEndpoints, from_attributes=True)
        return objects.EndpointSlice(
            self.metadata, address_type=self.address_type, endpoints=told, ports=self.ports
        )


_metadata_in: Callable[[objects.Object], objects.Metadata] = vars(objects.Object)[
    "metadata"
].__get__
_spec_in: Callable[[Service], objects.ServiceSpec] = vars(objects.Service)["spec"].__get__


class _Conditions(objects.EndpointConditions, frozen=True, array_like=True):
    """Without the fields' names."""


class _Reference(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The same of a reference, and what differs comes first."""

    name: str = ""
    kind: str = POD
    namespace: str = ""
    uid: str = ""


class _Endpoint(objects.SliceEndpoint, frozen=True, array_like=True):
    """Without the fields' names; what says nothing at its end need not be written."""

    conditions: _Conditions = _Conditions()
    target_ref: _Reference | None = None  # type: ignore[assignment]  # Read like the other.


_Endpoints = tuple[_Endpoint, ...]
_WholeEndpoints = tuple[objects.SliceEndpoint, ...]
_DECODER: Final = msgspec.msgpack.Decoder(_Endpoints)
_ENCODER: Final = msgspec.msgpack.Encoder()


@functools.lru_cache(maxsize=RECENT)
def _unpacked(packed: bytes) -> _Endpoints:
    return _DECODER.decode(packed)


def pod(whole: objects.Pod) -> Pod:
    """Return a pod, packed; what it has in common with others is one object."""
    said, spec, status = whole.metadata, whole.spec, whole.status
    shared = _shared(
        said.namespace,
        said.deletion_timestamp,
        _items(said.labels),
        _items(said.annotations),
        said.owner_references,
        msgspec.structs.replace(spec, node_name="") if spec.node_name else spec,
        msgspec.structs.replace(status, pod_ip="") if status.pod_ip else status,
    )
    # Sound: whatever reads its metadata gets what is computed of it.
    return Pod(shared, name=said.name, node=spec.node_name, address=status.pod_ip)  # type: ignore[arg-type]


def endpoint_slice(whole: objects.EndpointSlice) -> EndpointSlice:
    """Return an EndpointSlice, packed.

    Where a pod is it says itself, so that no slice need: of members that are pods, address,
    conditions and name are kept.
    """
    return EndpointSlice(
        _common(whole.metadata),
        address_type=whole.address_type,
        ports=whole.ports,
        name=whole.metadata.name,
        packed=_ENCODER.encode([_written(one) for one in whole.endpoints or ()]),
    )


def service(whole: objects.Service) -> Service:
    """Return a Service, packed; what it has in common with others is one object."""
    said, spec = whole.metadata, whole.spec
    own = _same_addresses(spec.cluster_ips) if spec.cluster_ips[:1] == (spec.cluster_ip,) else ()
    shared = msgspec.structs.replace(spec, selector=None)
    if own:
        shared = msgspec.structs.replace(shared, cluster_ip="", cluster_ips=())
    return Service(
        _common(said),
        spec=_spec(_items(spec.selector), shared),
        status=_same_status(whole.status),
        name=said.name,
        created=sys.intern(said.creation_timestamp),
        addresses=own,
    )


def _written(member: objects.SliceEndpoint) -> tuple[object, ...]:
    said, reference = member.conditions, member.target_ref
    known = (said.ready, None, True) if said.terminating else (said.ready,)
    if reference is None:
        return member.addresses, known, None, member.node_name, member.zone, member.hostname
    if reference.kind != POD:
        named = (reference.name, reference.kind, reference.namespace)
        return member.addresses, known, named, member.node_name, member.zone, member.hostname
    if member.hostname:
        return member.addresses, known, (reference.name,), "", "", member.hostname
    return member.addresses, known, (reference.name,)


@functools.lru_cache(maxsize=KEPT)
def _shared(  # noqa: PLR0913  # all that pods have in common
    namespace: str,
    deleted: str | None,
    labels: Pairs,
    annotations: Pairs,
    owners: tuple[objects.OwnerReference, ...],
    spec: objects.PodSpec,
    status: objects.PodStatus,
) -> objects.Pod:
    metadata = _metadata(namespace, deleted, labels, annotations, owners)
    return objects.Pod(metadata, spec=spec, status=status)


def _common(said: objects.Metadata) -> objects.Metadata:
    """Return what objects of one owner, or of one name, have in common: it is one object."""
    return _metadata(
        said.namespace,
        said.deletion_timestamp,
        _items(said.labels),
        _items(said.annotations),
        said.owner_references,
    )


@functools.lru_cache(maxsize=KEPT)
def _metadata(
    namespace: str,
    deleted: str | None,
    labels: Pairs,
    annotations: Pairs,
    owners: tuple[objects.OwnerReference, ...],
) -> objects.Metadata:
    return objects.Metadata(
        "",
        namespace=namespace,
        deletion_timestamp=deleted,
        labels=dict(labels) if labels else None,
        annotations=dict(annotations) if annotations else None,
        owner_references=owners,
    )


@functools.lru_cache(maxsize=KEPT)
def _spec(selector: Pairs, spec: objects.ServiceSpec) -> objects.ServiceSpec:
    return msgspec.structs.replace(spec, selector=dict(selector)) if selector else spec


@functools.lru_cache(maxsize=KEPT)
def _same_status(status: objects.ServiceStatus) -> objects.ServiceStatus:
    return status


@functools.lru_cache(maxsize=1024)  # Most clusters give a Service an address of their own.
def _same_addresses(addresses: tuple[str, ...]) -> tuple[str, ...]:
    return addresses


def _items(words: Mapping[str, str] | None) -> Pairs:
    return tuple(sorted(words.items())) if words else ()
