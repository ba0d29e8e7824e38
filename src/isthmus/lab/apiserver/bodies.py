"""Request bodies: JSON, YAML and the protobuf that kubectl insists on, made into JSON values."""

from collections.abc import Mapping

import msgspec
import yaml

from isthmus.lab.apiserver import errors, protobuf
from isthmus.lab.apiserver.values import Json, Obj

PATCHES: Mapping[str, str] = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}

_MOST_NODES = 200_000
_DEEPEST = 128
_JSON = ("", "application/json", "application/merge-patch+json", "*/*")
_YAML = ("application/yaml", "application/x-yaml", "text/yaml", "application/apply-patch+yaml")
_PROTOBUF = "application/vnd.kubernetes.protobuf"


class _Loader(yaml.SafeLoader):
    """Reads YAML as JSON would be: dates stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, match) for tag, match in found if tag != "tag:yaml.org,2002:timestamp"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def parsed(raw: bytes, media: str) -> Json:
    """Return the value in a body; raises 400 or 415."""
    if media == _PROTOBUF:
        return protobuf.decoded(raw)
    if media in _YAML and raw.lstrip()[:1] not in (b"{", b"["):
        return _yaml(raw)
    if media in _JSON or media in _YAML or media in PATCHES:
        value = _json(raw)
        # Only what has this many brackets can be too deep, which is next to nothing.
        if raw.count(b"{") + raw.count(b"[") > _DEEPEST:
            _size(value, len(raw), _DEEPEST)
        return value
    raise errors.unsupported(media, known=["application/json", "application/yaml", _PROTOBUF])


def parsed_object(raw: bytes, media: str) -> Obj:
    """Return the object in a body; raises 400 or 415."""
    value = parsed(raw, media)
    if not isinstance(value, dict):
        raise errors.bad_request("the body of the request must be an object")
    return value


def _json(raw: bytes) -> Json:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise errors.bad_request(
            f"the object provided is unrecognized (must be of type JSON): {error}"
        ) from error


def _yaml(raw: bytes) -> Json:
    try:
        value = yaml.load(raw, Loader=_Loader)  # a safe loader
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise errors.bad_request(f"error converting YAML to JSON: {error}") from error
    if _size(value, _MOST_NODES, _DEEPEST) <= 0:
        raise errors.bad_request("error converting YAML to JSON: too many values")
    return value


def _size(value: Json, left: int, depth: int) -> int:
    """Count down by the values in `value`: aliases can make few bytes stand for very many.

    What nests so deeply that no later step could walk through it is refused.
    """
    if depth <= 0:
        raise errors.bad_request(f"the body of the request nests deeper than {_DEEPEST} levels")
    left -= 1
    parts = value.items() if isinstance(value, dict) else ()
    for key, part in parts:
        if not isinstance(key, str):
            raise errors.bad_request(f"error converting YAML to JSON: the key {key!r} is no text")
        left = _size(part, left, depth - 1)
        if left <= 0:
            break
    if isinstance(value, list):
        for part in value:
            left = _size(part, left, depth - 1)
            if left <= 0:
                break
    return left
