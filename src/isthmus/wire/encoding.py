"""Discovery messages as protobuf: requests are parsed, offers are put together from ready bytes.

Resources come serialized and are shared by all proxies that see the same. Parsing them again to
build a response would cost more than all else on a stream, so that the few fields around them
are written by hand; a test holds this against the protobuf library.

Source: performance rules on shared bytes; protobuf encoding specification.
"""

import functools
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import message as protobuf
from typing_extensions import override

from isthmus.base import varints
from isthmus.mesh.localities import Locality
from isthmus.resources.snapshot import Resource, TypeUrl
from isthmus.wire import nodes
from isthmus.xds import messages
from isthmus.xds.messages import Flavour

MOST_BYTES: Final = 16 * 1024 * 1024
MOST_NAMES: Final = 150_000
"""Of one request. Who comes again says of all that it has in one: of each cluster, or workload."""

MOST_NODE_BYTES: Final = 64 * 1024
MOST_NAME: Final = 1_024
"""Characters of a resource name."""

_LENGTH_DELIMITED: Final = 2


class MessageRefused(Exception):  # noqa: N818  # it is answered with a status, it is no fault of ours
    """A message that no honest client sends.

    Attributes:
        status: Name of the gRPC status that it is answered with.
    """

    def __init__(self, text: str, *, status: str = "INVALID_ARGUMENT") -> None:
        super().__init__(text)
        self.status = status


def request(content: bytes, *, flavour: Flavour) -> tuple[messages.Request, nodes.Claim | None]:
    """Parse a request, and the node in it if there is one.

    Raises:
        MessageRefused: It is malformed or beyond a limit.
    """
    if len(content) > MOST_BYTES:
        text = f"message is larger than {MOST_BYTES} bytes"
        raise MessageRefused(text, status="RESOURCE_EXHAUSTED")
    is_delta = flavour is Flavour.DELTA
    kind = discovery_pb2.DeltaDiscoveryRequest if is_delta else discovery_pb2.DiscoveryRequest
    try:
        parsed = kind.FromString(content)
    except protobuf.DecodeError as error:
        raise MessageRefused("not a discovery request") from error
    # Counted where they take least: empty ones are many in few bytes.
    if (count := _count(parsed, is_delta=is_delta)) > MOST_NAMES:
        raise MessageRefused(f"{count} names in one request; the most is {MOST_NAMES}")
    said = _delta(parsed) if is_delta else _whole(parsed)
    everything = (said.names, said.subscribe, said.unsubscribe, said.initial_versions)
    if max(max(map(len, names), default=0) for names in everything) > MOST_NAME:
        raise MessageRefused(f"a name is longer than {MOST_NAME} characters")
    return said, _claim(parsed.node, is_delta=is_delta) if parsed.HasField("node") else None


def node(content: bytes, *, flavour: Flavour) -> nodes.Claim:
    """Parse the node of a request alone.

    Raises:
        MessageRefused: It is malformed or beyond a limit.
    """
    try:
        parsed = base_pb2.Node.FromString(content)
    except protobuf.DecodeError as error:
        raise MessageRefused("not a discovery request") from error
    return _claim(parsed, is_delta=flavour is Flavour.DELTA)


def response(offer: messages.Offer, *, flavour: Flavour) -> bytes:
    """Put an offer into the message that carries it."""
    if flavour is Flavour.DELTA:
        return b"".join(
            (
                _text(1, offer.version),
                *_resources(offer.resources),
                _text(4, offer.type_url),
                _text(5, offer.nonce),
                *(_text(6, name) for name in offer.removed),
            )
        )
    return b"".join(
        (
            _text(1, offer.version),
            *_bodies(offer.resources),
            _text(4, offer.type_url),
            _text(5, offer.nonce),
        )
    )


def _count(parsed: Any, *, is_delta: bool) -> int:  # noqa: ANN401  # generated messages have no types
    if not is_delta:
        return len(parsed.resource_names)
    changed = len(parsed.resource_names_subscribe), len(parsed.resource_names_unsubscribe)
    return max(*changed, len(parsed.initial_resource_versions))


def _whole(parsed: Any) -> messages.Request:  # noqa: ANN401  # generated messages have no types
    return messages.Request(
        TypeUrl(parsed.type_url),
        names=tuple(map(sys.intern, parsed.resource_names)),
        version=parsed.version_info,
        nonce=parsed.response_nonce,
        error=_error(parsed),
    )


def _delta(parsed: Any) -> messages.Request:  # noqa: ANN401  # generated messages have no types
    versions = parsed.initial_resource_versions
    return messages.Request(
        TypeUrl(parsed.type_url),
        # Proxies ask for the same names: each is kept once.
        subscribe=tuple(map(sys.intern, parsed.resource_names_subscribe)),
        unsubscribe=tuple(parsed.resource_names_unsubscribe),
        # This is how the library gives thousands soonest.
        initial_versions=messages.Versions({name: versions[name] for name in versions}),
        nonce=parsed.response_nonce,
        error=_error(parsed),
    )


def _error(parsed: Any) -> str | None:  # noqa: ANN401  # generated messages have no types
    return str(parsed.error_detail.message) if parsed.HasField("error_detail") else None


def _claim(node: Any, *, is_delta: bool) -> nodes.Claim:  # noqa: ANN401  # generated messages have no types
    # The list of an Envoy's extensions is long, the same for all, and not the client's choice.
    extensions = frozenset(each.name for each in node.extensions)
    build = node.user_agent_build_version.version
    version = f"{build.major_number}.{build.minor_number}.{build.patch}"
    del node.extensions[:]
    size = node.ByteSize()
    if size > MOST_NODE_BYTES:
        raise MessageRefused(f"node of {size} bytes; the most is {MOST_NODE_BYTES}")
    place = node.locality
    return nodes.Claim(
        id=str(node.id),
        metadata=_Fields(node.metadata.fields),
        locality=Locality(place.region, place.zone, place.sub_zone),
        envoy_version="" if version == "0.0.0" else version,
        extensions=extensions,
        speaks_delta=is_delta,
    )


class _Fields(Mapping[str, nodes.Json]):
    """The fields of a JSON object, each taken apart when somebody asks: few are asked for."""

    __slots__ = ("_fields",)

    def __init__(self, fields: Any) -> None:  # noqa: ANN401  # as above
        self._fields = fields

    @override
    def __getitem__(self, name: str) -> nodes.Json:
        found = self._fields.get(name)
        if found is None:
            raise KeyError(name)
        return _plain(found)

    @override
    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    @override
    def __len__(self) -> int:
        return len(self._fields)


def _plain(value: Any) -> nodes.Json:  # noqa: ANN401  # as above
    match value.WhichOneof("kind"):
        case "struct_value":
            return _Fields(value.struct_value.fields)
        case "list_value":
            return [_plain(one) for one in value.list_value.values]
        case None | "null_value":
            return None
        case kind:
            plain: nodes.Json = getattr(value, kind)
            return plain


def _bodies(resources: Iterable[Resource]) -> Iterable[bytes]:
    for resource in resources:
        size = len(resource.body)
        around, length = _around(resource.type_url), varints.written(size)
        yield b"\x12%b%b%b" % (varints.written(len(around) + len(length) + size), around, length)
        yield resource.body


def _resources(resources: Iterable[Resource]) -> Iterable[bytes]:
    # A proxy that comes is told of thousands, each in a handful of bytes around the shared ones.
    for resource in resources:
        size, name, version = len(resource.body), resource.name.encode(), resource.version.encode()
        around, length = _around(resource.type_url), varints.written(size)
        any_size = len(around) + len(length) + size
        aliases = b"".join(_text(4, one) for one in resource.aliases) if resource.aliases else b""
        head = b"\x1a%b%b%b\x0a%b%b\x12%b%b%b" % (
            varints.written(len(name)),
            name,
            aliases,
            varints.written(len(version)),
            version,
            varints.written(any_size),
            around,
            length,
        )
        yield b"\x12%b%b" % (varints.written(len(head) + size), head)
        yield resource.body


@functools.lru_cache(maxsize=64)
def _around(type_url: str) -> bytes:
    """Return what stands in an `Any` before the length of its body."""
    return _text(1, type_url) + b"\x12"


def _text(field: int, text: str) -> bytes:
    content = text.encode()
    return _header(field, len(content)) + content if content or field == _REPEATED else b""


_REPEATED: Final = 6
"""The one repeated text, of which an empty one counts."""


def _header(field: int, size: int) -> bytes:
    return bytes(((field << 3) | _LENGTH_DELIMITED,)) + varints.written(size)
