"""The kinds of the Gateway API that this control plane acts on, written from its public reference.

They are brought where a cluster has none, and never replace those that it has: the project that
publishes them, or a cloud, may have put them there, with more fields than we read. What we do not
read stays in an object all the same.

Source: the Gateway API's reference, version v1 of group gateway.networking.k8s.io.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from isthmus.install.control_plane import Manifest

Schema = dict[str, object]

GROUP: Final = "gateway.networking.k8s.io"
BROUGHT: Final = "isthmus.dev/gateway-api"
"""Annotation of the definitions that we brought."""

APPROVAL: Final = "api-approved.kubernetes.io"
"""API servers ask for it in groups of Kubernetes' own; ours are a subset that nobody approved."""

NAME_PATTERN: Final = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
TEXT: Final[Schema] = {"type": "string"}
NAME: Final[Schema] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 253,
    "pattern": NAME_PATTERN,
}
HOST: Final[Schema] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 253,
    "pattern": r"^(\*\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
}
PORT: Final[Schema] = {"type": "integer", "format": "int32", "minimum": 1, "maximum": 65535}
TEXTS: Final[Schema] = {"type": "object", "additionalProperties": TEXT, "maxProperties": 16}
CONDITION: Final[Schema] = {
    "type": "object",
    "required": ["lastTransitionTime", "message", "reason", "status", "type"],
    "properties": {
        "lastTransitionTime": {"type": "string", "format": "date-time"},
        "message": {"type": "string", "maxLength": 32768},
        "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
        "reason": {"type": "string", "minLength": 1, "maxLength": 1024},
        "status": {"type": "string", "enum": ["True", "False", "Unknown"]},
        "type": {"type": "string", "maxLength": 316},
    },
}


def _open(**fields: Schema) -> Schema:
    """Keep also what we do not read."""
    return {
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
        "properties": fields,
    }


def _needs(schema: Schema, *names: str) -> Schema:
    return {**schema, "required": list(names)}


def _several(schema: Schema, *, most: int = 64) -> Schema:
    return {"type": "array", "items": schema, "maxItems": most}


def _by(key: str, schema: Schema, *, most: int = 64) -> Schema:
    return {
        **_several(schema, most=most),
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": [key],
    }


def _one_of(*names: str) -> Schema:
    return {"type": "string", "enum": list(names)}


WAITING: Final = {
    "lastTransitionTime": "1970-01-01T00:00:00Z",
    "message": "Waiting for controller",
    "reason": "Pending",
    "status": "Unknown",
}
"""What is so before any controller has looked."""

CONDITIONS: Final[Schema] = _by("type", CONDITION, most=8)
ADDRESS: Final[Schema] = _open(
    type={"type": "string", "minLength": 1, "maxLength": 253, "default": "IPAddress"},
    value={"type": "string", "maxLength": 253},
)
SELECTOR: Final[Schema] = {
    **_open(matchLabels={"type": "object", "additionalProperties": TEXT}),
    "x-kubernetes-map-type": "atomic",
}

GATEWAY_CLASS: Final[Schema] = _needs(
    _open(
        controllerName={"type": "string", "minLength": 1, "maxLength": 253},
        description={"type": "string", "maxLength": 64},
    ),
    "controllerName",
)
GATEWAY: Final[Schema] = _needs(
    _open(
        gatewayClassName={"type": "string", "minLength": 1, "maxLength": 253},
        addresses=_several(ADDRESS, most=16),
        infrastructure=_open(labels=TEXTS, annotations=TEXTS),
        listeners={
            **_by(
                "name",
                _needs(
                    _open(
                        name=NAME,
                        port=PORT,
                        protocol={"type": "string", "minLength": 1, "maxLength": 255},
                        hostname=HOST,
                        tls=_open(
                            mode={**_one_of("Terminate", "Passthrough"), "default": "Terminate"},
                            certificateRefs=_several(_needs(_open(name=TEXT), "name")),
                            options=TEXTS,
                        ),
                        allowedRoutes={
                            **_open(
                                namespaces={
                                    **_open(
                                        **{
                                            "from": {
                                                **_one_of("All", "Selector", "Same", "None"),
                                                "default": "Same",
                                            }
                                        },
                                        selector=SELECTOR,
                                    ),
                                    "default": {"from": "Same"},
                                },
                                kinds=_several(
                                    _needs(_open(group=TEXT, kind=TEXT), "kind"), most=8
                                ),
                            ),
                            "default": {"namespaces": {"from": "Same"}},
                        },
                    ),
                    "name",
                    "port",
                    "protocol",
                ),
            ),
            "minItems": 1,
        },
    ),
    "gatewayClassName",
    "listeners",
)
GATEWAY_STATUS: Final[Schema] = _open(
    addresses=_several(ADDRESS, most=16),
    conditions=CONDITIONS,
    listeners=_by("name", _needs(_open(name=NAME, conditions=CONDITIONS), "name")),
)

REFERENCE: Final[Schema] = _needs(
    _open(group=TEXT, kind=TEXT, namespace=NAME, name=NAME, sectionName=NAME, port=PORT), "name"
)
HTTP_ROUTE: Final[Schema] = _open(
    parentRefs=_several(REFERENCE, most=32),
    hostnames=_several(HOST, most=16),
    # Rules are judged where they are read, and what is wrong with one is said in the status.
    rules=_several(_open(), most=16),
)
HTTP_ROUTE_STATUS: Final[Schema] = _open(
    parents=_several(
        _needs(
            _open(parentRef=REFERENCE, controllerName=TEXT, conditions=CONDITIONS),
            "parentRef",
            "controllerName",
        ),
        most=32,
    )
)


def _first_conditions(*types: str) -> list[Mapping[str, str]]:
    return [{**WAITING, "type": type_} for type_ in types]


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind: its names, schemas and what `kubectl get` shows of it."""

    kind: str
    plural: str
    short_names: tuple[str, ...]
    spec: Schema
    status: Schema
    columns: tuple[tuple[str, str], ...]
    conditions: tuple[str, ...]
    scope: str = "Namespaced"
    versions: tuple[str, ...] = ("v1", "v1beta1")


RESOURCES: Final = (
    Resource(
        "GatewayClass",
        "gatewayclasses",
        ("gc",),
        GATEWAY_CLASS,
        _open(conditions=CONDITIONS),
        (
            ("Controller", ".spec.controllerName"),
            ("Accepted", '.status.conditions[?(@.type=="Accepted")].status'),
        ),
        ("Accepted",),
        scope="Cluster",
    ),
    Resource(
        "Gateway",
        "gateways",
        ("gtw",),
        GATEWAY,
        GATEWAY_STATUS,
        (
            ("Class", ".spec.gatewayClassName"),
            ("Address", ".status.addresses[*].value"),
            ("Programmed", '.status.conditions[?(@.type=="Programmed")].status'),
        ),
        ("Accepted", "Programmed"),
    ),
    Resource(
        "HTTPRoute",
        "httproutes",
        (),
        HTTP_ROUTE,
        HTTP_ROUTE_STATUS,
        (("Hostnames", ".spec.hostnames"),),
        (),
    ),
)


def manifests() -> list[Manifest]:
    """Return the custom resource definitions."""
    return [_manifest(resource) for resource in RESOURCES]


def name_of(resource: Resource) -> str:
    """Return the name of the definition of a kind."""
    return f"{resource.plural}.{GROUP}"


def _manifest(resource: Resource) -> Manifest:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": name_of(resource),
            "annotations": {
                APPROVAL: "unapproved, a subset of the published definitions",
                BROUGHT: "true",
                # Removing the definition would remove users' own objects.
                "helm.sh/resource-policy": "keep",
            },
        },
        "spec": {
            "group": GROUP,
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": list(resource.short_names),
                "categories": ["gateway-api"],
            },
            "scope": resource.scope,
            "versions": [
                _version(resource, version, is_stored=number == 0)
                for number, version in enumerate(resource.versions)
            ],
        },
    }


def _version(resource: Resource, version: str, *, is_stored: bool) -> Manifest:
    columns = [
        {"name": title, "type": "string", "jsonPath": path} for title, path in resource.columns
    ]
    first = {"default": {"conditions": _first_conditions(*resource.conditions)}}
    return {
        "name": version,
        "served": True,
        "storage": is_stored,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [
            *columns,
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ],
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "required": ["spec"],
                "properties": {
                    "spec": resource.spec,
                    "status": {**resource.status, **(first if resource.conditions else {})},
                },
            }
        },
    }
