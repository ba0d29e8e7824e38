"""The few shapes that all of Envoy's resources share: addresses, durations, references to ADS.

Protobuf stays untyped behind this room's doors: the functions take and give values that a
message's constructor accepts. What a resource means is decided elsewhere.

Source: spec sections 4.8 and 4.11.
"""

import datetime
from collections.abc import Mapping
from typing import Final

from envoy.config.core.v3 import config_source_pb2
from google.protobuf import any_pb2, json_format, message, struct_pb2

Fields = dict[str, object]
"""What the constructor of a message takes."""

FOREVER: Final = datetime.timedelta(0)
"""Envoy's way to say that a duration has no limit."""


def seconds(amount: float) -> datetime.timedelta:
    """Return a duration."""
    return datetime.timedelta(seconds=amount)


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


def from_ads() -> Fields:
    """Return a reference to what comes over the proxy's one discovery stream."""
    return {
        "ads": {},
        "initial_fetch_timeout": FOREVER,
        "resource_api_version": config_source_pb2.V3,
    }


def object_path(kind: str, named: tuple[str, str]) -> str:
    """Return how Istio's metadata names an object of networking.istio.io: by its path."""
    namespace, name = named
    return f"/apis/networking.istio.io/v1/namespaces/{namespace}/{kind}/{name}"


def struct(fields: Mapping[str, object]) -> struct_pb2.Struct:
    """Return a JSON object."""
    return json_format.ParseDict(dict(fields), struct_pb2.Struct())
