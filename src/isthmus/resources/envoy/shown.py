"""An encoded resource as a document that people can read; it never has a private key in it."""

import json
from typing import Any

from google.protobuf import any_pb2, json_format

from isthmus.resources import snapshot
from isthmus.resources.envoy import build, secrets  # noqa: F401  # brings the types that are shown
from isthmus.resources.snapshot import Resource


def as_document(resource: Resource) -> Any:  # noqa: ANN401  # plain values of JSON
    """Return the message of a resource in protobuf's JSON form, with its type."""
    is_secret = resource.type_url == snapshot.SECRETS
    body = secrets.without_key(resource.body) if is_secret else resource.body
    packed = any_pb2.Any(type_url=resource.type_url, value=body)
    return json.loads(json_format.MessageToJson(packed, preserving_proto_field_name=True))
