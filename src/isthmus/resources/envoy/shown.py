"""An encoded resource as a document that people can read; it never has a private key in it.

Endpoints that are told one by one are shown where they stand, as Envoy's own page shows them.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from google.protobuf import any_pb2, json_format

from isthmus.resources import snapshot
from isthmus.resources.envoy import build, secrets  # noqa: F401  # brings the types that are shown
from isthmus.resources.snapshot import Resource

LEDS: Final = "leds_cluster_locality_config"


def as_document(resource: Resource) -> Any:  # noqa: ANN401  # plain values of JSON
    """Return the message of a resource in protobuf's JSON form, with its type."""
    is_secret = resource.type_url == snapshot.SECRETS
    body = secrets.without_key(resource.body) if is_secret else resource.body
    packed = any_pb2.Any(type_url=resource.type_url, value=body)
    document = json.loads(json_format.MessageToJson(packed, preserving_proto_field_name=True))
    if resource.collections:
        _fill(document.get("endpoints", ()), {one.name: one for one in resource.collections})
    return document


def _fill(groups: Iterable[dict[str, Any]], collections: Mapping[str, Resource]) -> None:
    """Put members into groups that name their collections."""
    for group in groups:
        name = group.pop(LEDS, {}).get("leds_collection_name", "")
        found = collections.get(name)
        if found is not None and isinstance(found.version, snapshot.Contents):
            shown = map(as_document, found.version.members().values())
            group["lb_endpoints"] = [
                {key: value for key, value in one.items() if key != "@type"} for one in shown
            ]
