"""How a message becomes a resource: deterministic bytes, and a version that follows from them."""

import hashlib
from typing import Final

from google.protobuf import message

from isthmus.resources import snapshot

VERSION_BYTES: Final = 6


def resource(
    type_url: snapshot.TypeUrl,
    body: message.Message,
    *,
    name: str,
    aliases: tuple[str, ...] = (),
    parts_of: tuple[str, ...] = (),
) -> snapshot.Resource:
    """Return a message with its name and version; the names are as in `snapshot.Resource`."""
    told = body.SerializeToString(deterministic=True)
    return encoded(type_url, told, name=name, aliases=aliases, parts_of=parts_of)


def encoded(
    type_url: snapshot.TypeUrl,
    body: bytes,
    *,
    name: str,
    aliases: tuple[str, ...] = (),
    parts_of: tuple[str, ...] = (),
) -> snapshot.Resource:
    """Return a serialized message with its name and version."""
    return snapshot.Resource(type_url, name, of(body), body, aliases, parts_of)


def of(body: bytes) -> str:
    """Return the version of a serialized message."""
    return hashlib.blake2b(body, digest_size=VERSION_BYTES).hexdigest()
