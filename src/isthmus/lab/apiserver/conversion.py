"""The same object in another version: custom resources, and the two forms of events.

Custom resources change only their `apiVersion` (conversion strategy None).
"""

from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.values import Obj

_EVENTS = (
    ("note", "message"),
    ("regarding", "involvedObject"),
    ("deprecatedSource", "source"),
    ("deprecatedFirstTimestamp", "firstTimestamp"),
    ("deprecatedLastTimestamp", "lastTimestamp"),
    ("deprecatedCount", "count"),
    ("reportingController", "reportingComponent"),
)


def is_stored_form(resource: Resource, obj: Obj) -> bool:
    """Say whether the stored object is already in the form of `resource`."""
    return bool(obj.get("apiVersion") == resource.api_version)


def to_wire(resource: Resource, obj: Obj) -> Obj:
    """Return a stored object in the form of `resource`."""
    if is_stored_form(resource, obj):
        return obj
    if resource.stored_as:
        obj = _renamed(obj, {old: new for new, old in _EVENTS})
    return {**obj, "apiVersion": resource.api_version}


def to_storage(resource: Resource, obj: Obj, *, stored: Resource) -> Obj:
    """Return an object that came in the form of `resource` in that of `stored`."""
    if resource.api_version == stored.api_version:
        return obj
    if resource.stored_as:
        obj = _renamed(obj, dict(_EVENTS))
    return {**obj, "apiVersion": stored.api_version}


def _renamed(obj: Obj, names: dict[str, str]) -> Obj:
    return {names.get(key, key): value for key, value in obj.items()}
