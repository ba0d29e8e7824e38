"""Pods and EndpointSlices as they are kept: there are as many as a mesh has endpoints.

A pod holds what is its own, and refers to what it has in common with the others of its owner; a
slice holds its endpoints as bytes. Both are read like what they were made from, which is put
together whenever somebody asks: that is when they change, and hardly ever else.

It decides nothing about what is kept.

Source: performance rule 8; docs/decisions/0049-pods-and-slices-are-packed.md.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Final

import msgspec
from typing_extensions import override

from isthmus.kube import objects

RECENT: Final = 16
"""So many slices are remembered as they were read last: several look at one that changes."""

KEPT: Final = 16384
"""So many different parts are remembered; what is forgotten is kept twice."""


Pairs = tuple[tuple[str, str], ...]


class Pod(objects.Pod, frozen=True):
    """A pod; its fields hold what it shares with others, `metadata` and so on what it is."""

    name: str = ""
    node: str = ""
    address: str = ""

    @property  # type: ignore[misc]  # A field that is computed; what it hides is read below.
    @override
    def metadata(self) -> objects.Metadata:
        return msgspec.structs.replace(_metadata_in(self), name=self.name)

    @property  # type: ignore[misc]  # As above.
    @override
    def spec(self) -> objects.PodSpec:
        return msgspec.structs.replace(_spec_in(self), node_name=self.node)

    @property  # type: ignore[misc]  # As above.
    @override
    def status(self) -> objects.PodStatus:
        return msgspec.structs.replace(_status_in(self), pod_ip=self.address)

    @override
    def whole(self) -> objects.Pod:
        return objects.Pod(self.metadata, spec=self.spec, status=self.status)


_metadata_in: Callable[[Pod], objects.Metadata] = vars(objects.Object)["metadata"].__get__
_spec_in: Callable[[Pod], objects.PodSpec] = vars(objects.Pod)["spec"].__get__
_status_in: Callable[[Pod], objects.PodStatus] = vars(objects.Pod)["status"].__get__


class EndpointSlice(objects.EndpointSlice, frozen=True):
    """An EndpointSlice; `packed` are its endpoints."""

    packed: bytes = b""

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


class _Conditions(objects.EndpointConditions, frozen=True, array_like=True):
    """Without the fields' names."""


class _Reference(objects.ObjectReference, frozen=True, array_like=True):
    """Without the fields' names."""


class _Endpoint(objects.SliceEndpoint, frozen=True, array_like=True):
    """Without the fields' names."""

    conditions: _Conditions = _Conditions()
    target_ref: _Reference | None = None


_Endpoints = tuple[_Endpoint, ...]
_WholeEndpoints = tuple[objects.SliceEndpoint, ...]
_DECODER: Final = msgspec.msgpack.Decoder(_Endpoints)
_ENCODER: Final = msgspec.msgpack.Encoder()


@functools.lru_cache(maxsize=RECENT)
def _unpacked(packed: bytes) -> _Endpoints:
    return _DECODER.decode(packed)


def pod(whole: objects.Pod) -> Pod:
    """Return a pod, packed; what it has in common with others is one object."""
    said = whole.metadata
    metadata = _metadata(
        said.namespace,
        said.deletion_timestamp,
        _items(said.labels),
        _items(said.annotations),
        said.owner_references,
    )
    return Pod(
        metadata,
        spec=_same_spec(msgspec.structs.replace(whole.spec, node_name="")),
        status=_same_status(msgspec.structs.replace(whole.status, pod_ip="")),
        name=said.name,
        node=whole.spec.node_name,
        address=whole.status.pod_ip,
    )


def endpoint_slice(whole: objects.EndpointSlice) -> EndpointSlice:
    """Return an EndpointSlice, packed."""
    members = msgspec.convert(whole.endpoints or (), _Endpoints, from_attributes=True)
    return EndpointSlice(
        whole.metadata,
        address_type=whole.address_type,
        ports=whole.ports,
        packed=_ENCODER.encode(members),
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


def _items(words: Mapping[str, str] | None) -> Pairs:
    return tuple(sorted(words.items())) if words else ()


@functools.lru_cache(maxsize=KEPT)
def _same_spec(spec: objects.PodSpec) -> objects.PodSpec:
    return spec


@functools.lru_cache(maxsize=KEPT)
def _same_status(status: objects.PodStatus) -> objects.PodStatus:
    return status
