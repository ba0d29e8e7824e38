"""Lets objects share what is equal in them: pods of one owner differ in little but name and address.

What is decoded is made anew for each object. Equal parts are put in the place of each other, as
long as nobody else has seen the object: afterwards it is frozen.

Source: performance rule 8.
"""

import functools
import sys
from collections.abc import Hashable, Mapping
from typing import Final, TypeVar

import msgspec

from isthmus.kube import objects, packed

V = TypeVar("V", bound=objects.Object)
H = TypeVar("H", bound=Hashable)
KEPT: Final = 16384
"""So many different parts are remembered; what is forgotten is kept twice."""

_put = msgspec.structs.force_setattr


def shared(fresh: V) -> V:
    """Return an object that was just decoded, with its parts shared with others."""
    _metadata(fresh.metadata)
    if isinstance(fresh, objects.Pod):
        _pod(fresh)
    elif isinstance(fresh, objects.EndpointSlice):
        _put(fresh, "ports", _same(fresh.ports))
        for member in fresh.endpoints or ():
            _member(member)
    elif isinstance(fresh, objects.Service) and fresh.spec.selector:
        _put(fresh.spec, "selector", _labels(fresh.spec.selector))
        _put(fresh.spec, "ports", _same(fresh.spec.ports))
    return fresh


def lean(fresh: objects.Object) -> objects.Object:
    """Return the same without what no mesh is made of, packed where there are many of a kind."""
    if isinstance(fresh, MANY):
        _bare(fresh.metadata)
    # What these have in common with others is one object once they are packed, whatever it is now.
    if isinstance(fresh, objects.Pod):
        _put(fresh.metadata, "namespace", sys.intern(fresh.metadata.namespace))
        _put(fresh.spec, "node_name", sys.intern(fresh.spec.node_name))
        _put(fresh.spec, "containers", _same(fresh.spec.containers))
        _put(fresh.status, "host_ip", "")
        _once(fresh.status)
        return packed.pod(fresh)
    if isinstance(fresh, objects.EndpointSlice):
        _put(fresh.metadata, "namespace", sys.intern(fresh.metadata.namespace))
        _put(fresh, "ports", _same(fresh.ports))
        _put(fresh, "address_type", sys.intern(fresh.address_type))
        return packed.endpoint_slice(fresh)
    if isinstance(fresh, objects.Service):
        _named(fresh.metadata)
        return packed.service(fresh)
    if isinstance(fresh, objects.Node):
        _named(fresh.metadata)
    return shared(fresh)


def _named(metadata: objects.Metadata) -> None:
    """Let a name be one text: Services of other clusters have the same, and pods name nodes."""
    _put(metadata, "namespace", sys.intern(metadata.namespace))
    _put(metadata, "name", sys.intern(metadata.name))


MANY: Final = (objects.Pod, objects.EndpointSlice, objects.Service, objects.Node)
OURS: Final = ("istio.io/", "isthmus.dev/")
"""What is in the names of annotations that mean something to us."""


def _bare(metadata: objects.Metadata) -> None:
    _put(metadata, "uid", "")
    for owner in metadata.owner_references:
        # Which only tells it from those of its name in other clusters.
        _put(owner, "uid", "")
    annotations = metadata.annotations
    if annotations:
        kept = {key: text for key, text in annotations.items() if any(one in key for one in OURS)}
        _put(metadata, "annotations", _labels(kept) if kept else None)


def _metadata(metadata: objects.Metadata) -> None:
    _put(metadata, "namespace", sys.intern(metadata.namespace))
    _put(metadata, "creation_timestamp", sys.intern(metadata.creation_timestamp))
    if metadata.labels:
        _put(metadata, "labels", _labels(metadata.labels))
    if metadata.owner_references:
        _put(metadata, "owner_references", _same(metadata.owner_references))


def _pod(pod: objects.Pod) -> None:
    spec, status = pod.spec, pod.status
    _put(spec, "node_name", sys.intern(spec.node_name))
    _put(spec, "service_account_name", sys.intern(spec.service_account_name))
    _put(spec, "containers", _same(spec.containers))
    _put(status, "phase", sys.intern(status.phase))
    _put(status, "conditions", _same(status.conditions))
    _once(status)


def _once(status: objects.PodStatus) -> None:
    if len(status.pod_ips) == 1 and status.pod_ips[0].ip == status.pod_ip:
        _put(status, "pod_ips", ())  # Which says the same.


def _member(member: objects.SliceEndpoint) -> None:
    _put(member, "node_name", sys.intern(member.node_name))
    _put(member, "zone", sys.intern(member.zone))
    _put(member, "conditions", _same(member.conditions))
    reference = member.target_ref
    if reference is not None:
        _put(reference, "kind", sys.intern(reference.kind))
        _put(reference, "namespace", sys.intern(reference.namespace))


def _labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    return _read_only(tuple(sorted(labels.items())))


@functools.lru_cache(maxsize=KEPT)
def _read_only(labels: tuple[tuple[str, str], ...]) -> Mapping[str, str]:
    return dict(labels)


@functools.lru_cache(maxsize=KEPT)
def _same(part: H) -> H:
    return part
