"""The pod as this room sees it: JSON, of which only some fields are known.

Reads fields of a pod that a stranger wrote; a field of another type than it should have makes
the pod refused, never a failure.

    IsthmusError
    └── InjectionRefused
"""

from collections.abc import Mapping
from typing import Any

from isthmus.base import errors

Obj = dict[str, Any]
"""A part of a Kubernetes object. Everything that is not touched is handed on as it came."""


class InjectionRefused(errors.IsthmusError):
    """A pod cannot be given a proxy."""

    code = "ISM-INJ-001"


def below(parent: Mapping[str, Any], key: str, *, what: str = "pod") -> Obj:
    """Return the object under `key`, empty when it is absent.

    Raises:
        InjectionRefused: There is something else (ISM-INJ-001).
    """
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InjectionRefused(f"`{key}` of the {what} is no object", hint="correct the pod")
    return value


def listed(parent: Mapping[str, Any], key: str, *, what: str = "pod") -> list[Obj]:
    """Return the list of objects under `key`, empty when it is absent.

    Raises:
        InjectionRefused: There is something else (ISM-INJ-001).
    """
    value = parent.get(key)
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
        raise InjectionRefused(f"`{key}` of the {what} is no list of objects", hint="correct it")
    return value


def texts(parent: Mapping[str, Any], key: str, *, what: str = "pod") -> dict[str, str]:
    """Return the object of texts under `key`, such as labels.

    Raises:
        InjectionRefused: There is something else (ISM-INJ-001).
    """
    value = below(parent, key, what=what)
    if not all(isinstance(each, str) for each in value.values()):
        raise InjectionRefused(f"`{key}` of the {what} holds more than texts", hint="quote it")
    return value
