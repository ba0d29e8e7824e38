"""Copies of JSON values, several times faster than the general deep copy."""

from isthmus.lab.apiserver.values import Json, Obj


def copied(value: Obj) -> Obj:
    """Return a copy of `value` that shares no dictionary or list with it."""
    return {key: _copied(item) for key, item in value.items()}


def copied_value(value: Json) -> Json:
    """Return a copy of any JSON value."""
    return _copied(value)


def _copied(value: Json) -> Json:
    kind = type(value)
    if kind is dict:
        return {key: _copied(item) for key, item in value.items()}
    if kind is list:
        return [_copied(item) for item in value]
    return value
