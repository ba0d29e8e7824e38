"""The few shapes that all of Envoy's resources share: addresses, durations, references to ADS.

Protobuf stays untyped behind this room's doors: the functions take and give values that a
message's constructor accepts. What a resource means is decided elsewhere.

Source: spec sections 4.8 and 4.11.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Final

from envoy.config.core.v3 import config_source_pb2
from google.protobuf import any_pb2, duration_pb2, message, struct_pb2

Fields = dict[str, object]
"""What the constructor of a message takes."""

FOREVER: Final = duration_pb2.Duration()
"""Envoy's way to say that a duration has no limit."""

NANOS: Final = 1_000_000_000
MICROS: Final = 1_000_000


@functools.lru_cache(maxsize=1024)
def seconds(amount: float) -> duration_pb2.Duration:
    """Return a duration, to the microsecond; it is shared and must not be changed."""
    micros = round(amount * MICROS)
    whole, rest = divmod(abs(micros), MICROS)
    sign = -1 if micros < 0 else 1
    return duration_pb2.Duration(seconds=sign * whole, nanos=sign * rest * (NANOS // MICROS))


def packed(inner: message.Message) -> any_pb2.Any:
    """Wrap a message with its type; the bytes do not depend on the order of maps."""
    return any_pb2.Any(
        type_url=f"type.googleapis.com/{inner.DESCRIPTOR.full_name}",
        value=inner.SerializeToString(deterministic=True),
    )


def extension(name: str, inner: message.Message) -> Fields:
    """Return a filter, transport socket or logger by its name and configuration."""
    return {"name": name, "typed_config": packed(inner)}


def socket_address(address: str, *, port: int) -> Fields:
    """Return an address to listen at or to connect to."""
    return {"socket_address": {"address": address, "port_value": port}}


@functools.cache
def from_ads() -> message.Message:
    """Return a reference to what comes over the proxy's one discovery stream; it is shared."""
    result: message.Message = config_source_pb2.ConfigSource(
        ads={}, initial_fetch_timeout=FOREVER, resource_api_version=config_source_pb2.V3
    )
    return result


def object_path(kind: str, named: tuple[str, str]) -> str:
    """Return how Istio's metadata names an object of networking.istio.io: by its path."""
    namespace, name = named
    return f"/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}/{name}"


def struct(fields: Mapping[str, object]) -> struct_pb2.Struct:
    """Return a JSON object."""
    return struct_pb2.Struct(fields={name: _value(one) for name, one in fields.items()})


def _value(one: object) -> struct_pb2.Value:
    match one:
        case None:
            return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
        case bool():
            return struct_pb2.Value(bool_value=one)
        case int() | float():
            return struct_pb2.Value(number_value=one)
        case str():
            return struct_pb2.Value(string_value=one)
        case Mapping():
            return struct_pb2.Value(struct_value=struct(one))
        case Sequence():
            listed = struct_pb2.ListValue(values=[_value(each) for each in one])
            return struct_pb2.Value(list_value=listed)
        case _:
            raise TypeError(f"`{type(one).__name__}` has no place in JSON")
