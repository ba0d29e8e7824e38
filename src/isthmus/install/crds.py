"""The custom resources of Istio's API that this control plane acts on.

A kind is installed only when the control plane obeys it: a policy that is stored but not enforced
would be a lie. Schemas are structural; parts that pass through unchanged stay open.

Source: spec sections 3.5, 4.9, 4.13, 6.4 and 8.2.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from isthmus.install.control_plane import Manifest

Schema = dict[str, object]

TEXT: Schema = {"type": "string"}
WHOLE: Schema = {"type": "integer"}
TRUTH: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "number"}
OPEN: Schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
PORT: Schema = {"type": "integer", "minimum": 0, "maximum": 65535}
DURATION: Schema = {"type": "string", "maxLength": 64}
TEXTS: Schema = {"type": "array", "items": TEXT}


def _object(**fields: Schema) -> Schema:
    return {"type": "object", "properties": fields}


def _needs(schema: Schema, *names: str) -> Schema:
    return {**schema, "required": list(names)}


def _several(schema: Schema) -> Schema:
    return {"type": "array", "items": schema}


def _named(schema: Schema) -> Schema:
    return {"type": "object", "additionalProperties": schema}


def _one_of(*names: str) -> Schema:
    return {"type": "string", "enum": list(names)}


LABELS: Schema = _named(TEXT)
SELECTOR: Schema = _object(matchLabels=LABELS)

GATEWAY: Schema = _object(
    selector=LABELS,
    servers=_several(
        _needs(
            _object(
                port=_needs(
                    _object(
                        number=PORT,
                        name=TEXT,
                        protocol=TEXT,
                        targetPort=PORT,
                    ),
                    "number",
                    "protocol",
                    "name",
                ),
                hosts=TEXTS,
                bind=TEXT,
                defaultEndpoint=TEXT,
                name=TEXT,
                tls=_object(
                    mode=_one_of(
                        "PASSTHROUGH",
                        "SIMPLE",
                        "MUTUAL",
                        "AUTO_PASSTHROUGH",
                        "ISTIO_MUTUAL",
                        "OPTIONAL_MUTUAL",
                    ),
                    httpsRedirect=TRUTH,
                    credentialName=TEXT,
                    credentialNames=TEXTS,
                    serverCertificate=TEXT,
                    privateKey=TEXT,
                    caCertificates=TEXT,
                    caCrl=TEXT,
                    subjectAltNames=TEXTS,
                    minProtocolVersion=TEXT,
                    maxProtocolVersion=TEXT,
                    cipherSuites=TEXTS,
                    verifyCertificateHash=TEXTS,
                    verifyCertificateSpki=TEXTS,
                    tlsCertificates=_several(OPEN),
                ),
            ),
            "port",
            "hosts",
        )
    ),
)

DESTINATION: Schema = _needs(
    _object(host=TEXT, subset=TEXT, port=_object(number=PORT)),
    "host",
)
WEIGHTED: Schema = _needs(
    _object(destination=DESTINATION, weight=WHOLE, headers=OPEN),
    "destination",
)
MATCHER: Schema = _object(exact=TEXT, prefix=TEXT, regex=TEXT)

VIRTUAL_SERVICE: Schema = _object(
    hosts=TEXTS,
    gateways=TEXTS,
    exportTo=TEXTS,
    http=_several(
        _object(
            name=TEXT,
            match=_several(
                _object(
                    name=TEXT,
                    uri=MATCHER,
                    scheme=MATCHER,
                    method=MATCHER,
                    authority=MATCHER,
                    headers=_named(MATCHER),
                    withoutHeaders=_named(MATCHER),
                    queryParams=_named(MATCHER),
                    ignoreUriCase=TRUTH,
                    port=PORT,
                    sourceLabels=LABELS,
                    sourceNamespace=TEXT,
                    gateways=TEXTS,
                    statPrefix=TEXT,
                )
            ),
            route=_several(WEIGHTED),
            redirect=OPEN,
            directResponse=OPEN,
            delegate=OPEN,
            rewrite=OPEN,
            timeout=DURATION,
            retries=OPEN,
            fault=OPEN,
            mirror=OPEN,
            mirrors=_several(OPEN),
            mirrorPercentage=OPEN,
            corsPolicy=OPEN,
            headers=OPEN,
        )
    ),
    tls=_several(
        _needs(
            _object(
                match=_several(
                    _needs(
                        _object(
                            sniHosts=TEXTS,
                            destinationSubnets=TEXTS,
                            port=PORT,
                            sourceLabels=LABELS,
                            sourceNamespace=TEXT,
                            gateways=TEXTS,
                        ),
                        "sniHosts",
                    )
                ),
                route=_several(WEIGHTED),
            ),
            "match",
        )
    ),
    tcp=_several(
        _object(
            match=_several(
                _object(
                    destinationSubnets=TEXTS,
                    port=PORT,
                    sourceSubnet=TEXT,
                    sourceLabels=LABELS,
                    sourceNamespace=TEXT,
                    gateways=TEXTS,
                )
            ),
            route=_several(WEIGHTED),
        )
    ),
)

TRAFFIC_FIELDS: Mapping[str, Schema] = {
    "loadBalancer": _object(
        simple=_one_of(
            "UNSPECIFIED", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ROUND_ROBIN", "LEAST_REQUEST"
        ),
        consistentHash=OPEN,
        localityLbSetting=OPEN,
        warmup=OPEN,
        warmupDurationSecs=DURATION,
    ),
    "connectionPool": _object(tcp=OPEN, http=OPEN),
    "outlierDetection": _object(
        consecutiveErrors={"type": "integer"},
        consecutive5xxErrors={"type": "integer", "nullable": True},
        consecutiveGatewayErrors={"type": "integer", "nullable": True},
        consecutiveLocalOriginFailures={"type": "integer", "nullable": True},
        splitExternalLocalOriginErrors=TRUTH,
        interval=DURATION,
        baseEjectionTime=DURATION,
        maxEjectionPercent=WHOLE,
        minHealthPercent=WHOLE,
    ),
    "tls": _object(
        mode=_one_of("DISABLE", "SIMPLE", "MUTUAL", "ISTIO_MUTUAL"),
        clientCertificate=TEXT,
        privateKey=TEXT,
        caCertificates=TEXT,
        credentialName=TEXT,
        subjectAltNames=TEXTS,
        sni=TEXT,
        insecureSkipVerify={"type": "boolean", "nullable": True},
        caCrl=TEXT,
    ),
    "tunnel": OPEN,
    "proxyProtocol": OPEN,
    "retryBudget": OPEN,
}

TRAFFIC_POLICY: Schema = _object(
    **TRAFFIC_FIELDS,
    portLevelSettings=_several(_object(port=_object(number=PORT), **TRAFFIC_FIELDS)),
)

DESTINATION_RULE: Schema = _needs(
    _object(
        host=TEXT,
        trafficPolicy=TRAFFIC_POLICY,
        subsets=_several(
            _needs(_object(name=TEXT, labels=LABELS, trafficPolicy=TRAFFIC_POLICY), "name")
        ),
        exportTo=TEXTS,
        workloadSelector=SELECTOR,
    ),
    "host",
)

SERVICE_ENTRY: Schema = _needs(
    _object(
        hosts=TEXTS,
        addresses=TEXTS,
        ports=_several(
            _needs(
                _object(number=PORT, protocol=TEXT, name=TEXT, targetPort=PORT), "number", "name"
            )
        ),
        location=_one_of("MESH_EXTERNAL", "MESH_INTERNAL"),
        resolution=_one_of("NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "DYNAMIC_DNS"),
        endpoints=_several(
            _object(
                address=TEXT,
                ports=_named(PORT),
                labels=LABELS,
                network=TEXT,
                locality=TEXT,
                weight=WHOLE,
                serviceAccount=TEXT,
            )
        ),
        workloadSelector=_object(labels=LABELS),
        exportTo=TEXTS,
        subjectAltNames=TEXTS,
    ),
    "hosts",
)

MODE: Schema = _object(mode=_one_of("UNSET", "DISABLE", "PERMISSIVE", "STRICT"))

PEER_AUTHENTICATION: Schema = _object(
    selector=SELECTOR,
    mtls={**MODE, "nullable": True},
    portLevelMtls=_named(MODE),
)


def _kept(**fields: Schema) -> Schema:
    """Keep also what is unknown: a policy without a clause of it would let more in."""
    return {**OPEN, "properties": fields}


AUTHORIZATION_POLICY: Schema = _kept(
    selector=_kept(matchLabels=LABELS),
    action=_one_of("ALLOW", "DENY", "AUDIT", "CUSTOM"),
    rules=_several(
        _kept(
            **{
                "from": _several(
                    _kept(
                        source=_kept(
                            principals=TEXTS,
                            notPrincipals=TEXTS,
                            namespaces=TEXTS,
                            notNamespaces=TEXTS,
                            serviceAccounts=TEXTS,
                            notServiceAccounts=TEXTS,
                            ipBlocks=TEXTS,
                            notIpBlocks=TEXTS,
                        )
                    )
                ),
                "to": _several(
                    _kept(
                        operation=_kept(
                            hosts=TEXTS,
                            notHosts=TEXTS,
                            ports=TEXTS,
                            notPorts=TEXTS,
                            methods=TEXTS,
                            notMethods=TEXTS,
                            paths=TEXTS,
                            notPaths=TEXTS,
                        )
                    )
                ),
                "when": _several(_needs(_kept(key=TEXT, values=TEXTS, notValues=TEXTS), "key")),
            }
        )
    ),
)

REQUEST_AUTHENTICATION: Schema = _kept(
    selector=_kept(matchLabels=LABELS),
    jwtRules=_several(
        _needs(
            _kept(issuer=TEXT, audiences=TEXTS, jwks=TEXT, jwksUri=TEXT, fromParams=TEXTS), "issuer"
        )
    ),
)


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind: its names, versions (the first is stored) and schema."""

    group: str
    kind: str
    plural: str
    short_names: tuple[str, ...]
    versions: tuple[str, ...]
    spec: Schema
    columns: tuple[tuple[str, str], ...] = ()


RESOURCES = (
    Resource(
        "networking.istio.io",
        "Gateway",
        "gateways",
        ("gw",),
        ("v1", "v1beta1", "v1alpha3"),
        GATEWAY,
    ),
    Resource(
        "networking.istio.io",
        "VirtualService",
        "virtualservices",
        ("vs",),
        ("v1", "v1beta1", "v1alpha3"),
        VIRTUAL_SERVICE,
        (("Gateways", ".spec.gateways"), ("Hosts", ".spec.hosts")),
    ),
    Resource(
        "networking.istio.io",
        "DestinationRule",
        "destinationrules",
        ("dr",),
        ("v1", "v1beta1", "v1alpha3"),
        DESTINATION_RULE,
        (("Host", ".spec.host"),),
    ),
    Resource(
        "networking.istio.io",
        "ServiceEntry",
        "serviceentries",
        ("se",),
        ("v1", "v1beta1", "v1alpha3"),
        SERVICE_ENTRY,
        (
            ("Hosts", ".spec.hosts"),
            ("Location", ".spec.location"),
            ("Resolution", ".spec.resolution"),
        ),
    ),
    Resource(
        "security.istio.io",
        "PeerAuthentication",
        "peerauthentications",
        ("pa",),
        ("v1", "v1beta1"),
        PEER_AUTHENTICATION,
        (("Mode", ".spec.mtls.mode"),),
    ),
    Resource(
        "security.istio.io",
        "AuthorizationPolicy",
        "authorizationpolicies",
        ("ap",),
        ("v1", "v1beta1"),
        AUTHORIZATION_POLICY,
        (("Action", ".spec.action"),),
    ),
    Resource(
        "security.istio.io",
        "RequestAuthentication",
        "requestauthentications",
        ("ra",),
        ("v1", "v1beta1"),
        REQUEST_AUTHENTICATION,
    ),
)


def manifests() -> list[Manifest]:
    """Return the custom resource definitions."""
    return [_manifest(resource) for resource in RESOURCES]


def _manifest(resource: Resource) -> Manifest:
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{resource.plural}.{resource.group}",
            "labels": {"app": "istio-pilot", "release": "istio"},
            # Removing the definition would remove users' own objects.
            "annotations": {"helm.sh/resource-policy": "keep"},
        },
        "spec": {
            "group": resource.group,
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": list(resource.short_names),
                "categories": ["istio-io", resource.group.replace(".", "-")],
            },
            "scope": "Namespaced",
            "versions": [
                _version(resource, name, is_stored=name == resource.versions[0])
                for name in resource.versions
            ],
        },
    }


def _version(resource: Resource, name: str, *, is_stored: bool) -> Manifest:
    columns = [
        {"name": title, "type": "string", "jsonPath": path} for title, path in resource.columns
    ]
    age = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
    return {
        "name": name,
        "served": True,
        "storage": is_stored,
        "subresources": {"status": {}},
        "additionalPrinterColumns": [*columns, age],
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": resource.spec, "status": OPEN},
            }
        },
    }
