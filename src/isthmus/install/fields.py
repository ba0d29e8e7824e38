"""Which fields an IstioOperator document has, of what kind, and which of them are obeyed.

One tree, read by three: the check of a document, the warnings before an installation, and the
reference page. Decides nothing about what a field causes.

Source: spec section 6.1.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias


class Kind(enum.Enum):
    """What a field may hold; the value is how a message says it."""

    TEXT = "a text"
    WHOLE = "a whole number"
    TRUTH = "true or false"
    LIST = "a list"
    FIELDS = "fields"
    ANY = "anything"


@dataclass(frozen=True, slots=True)
class Field:
    """One field.

    Attributes:
        is_obeyed: Whether it has an effect; what has none is accepted, and said so.
        why: Why it has none, where there is more to say.
    """

    kind: Kind
    is_obeyed: bool = True
    why: str = ""


@dataclass(frozen=True, slots=True)
class Each:
    """A list whose entries all have the same fields."""

    fields: Mapping[str, "Shape"]


Shape: TypeAlias = Field | Each | Mapping[str, "Shape"]

OTHER = "*"
"""Stands for every name that is not listed."""


def _ignored(kind: Kind, why: str = "") -> Field:
    return Field(kind, is_obeyed=False, why=why)


TEXT, WHOLE, TRUTH, LIST, FIELDS = (
    Field(kind) for kind in (Kind.TEXT, Kind.WHOLE, Kind.TRUTH, Kind.LIST, Kind.FIELDS)
)
NO_TEXT, NO_LIST, NO_FIELDS, NOTHING = (
    _ignored(kind) for kind in (Kind.TEXT, Kind.LIST, Kind.FIELDS, Kind.ANY)
)
_AMBIENT = _ignored(Kind.FIELDS, "ambient mode is not part of this version")
_CNI = _ignored(Kind.FIELDS, "capture is set up by the init container in this version")
_READS = "a control plane reads its ConfigMaps by itself; nothing needs to be mounted"
_VALIDATION = "there is no validating webhook: what is wrong with an object is a finding"

_ENV = Each({"name": TEXT, "value": Field(Kind.ANY), "valueFrom": NO_FIELDS})

_K8S: Mapping[str, Shape] = {
    "nodeSelector": NO_FIELDS,
    "tolerations": NO_LIST,
    "affinity": NO_FIELDS,
    "hpaSpec": NO_FIELDS,
    "strategy": NO_FIELDS,
    "overlays": _ignored(Kind.LIST, _READS),
    "imagePullPolicy": NO_TEXT,
    "priorityClassName": NO_TEXT,
    "readinessProbe": NO_FIELDS,
    "securityContext": NO_FIELDS,
}

_GATEWAY: Mapping[str, Shape] = {
    "enabled": TRUTH,
    "name": TEXT,
    "namespace": TEXT,
    "label": FIELDS,
    "hub": NO_TEXT,
    "tag": NO_TEXT,
    "k8s": {
        **_K8S,
        "env": _ENV,
        "resources": FIELDS,
        "replicaCount": WHOLE,
        "serviceAnnotations": FIELDS,
        "podAnnotations": FIELDS,
        "service": {
            "type": TEXT,
            "ports": Each(
                {
                    "name": TEXT,
                    "port": WHOLE,
                    "targetPort": WHOLE,
                    "protocol": TEXT,
                    "nodePort": NOTHING,
                }
            ),
            OTHER: NOTHING,
        },
    },
}

_COMPONENTS: Mapping[str, Shape] = {
    "base": {"enabled": TRUTH, "k8s": NO_FIELDS},
    "pilot": {
        "enabled": TRUTH,
        "namespace": NO_TEXT,
        "hub": NO_TEXT,
        "tag": NO_TEXT,
        "k8s": {
            **_K8S,
            "env": _ENV,
            "resources": NO_FIELDS,
            "replicaCount": NOTHING,
            "service": NO_FIELDS,
            "serviceAnnotations": NO_FIELDS,
            "podAnnotations": NO_FIELDS,
        },
    },
    "cni": {"enabled": TRUTH, "namespace": NO_TEXT, OTHER: NOTHING},
    "ztunnel": {"enabled": TRUTH, "namespace": NO_TEXT, OTHER: NOTHING},
    "istiodRemote": NO_FIELDS,
    "ingressGateways": Each(_GATEWAY),
    "egressGateways": Each(_GATEWAY),
}

_GLOBAL: Mapping[str, Shape] = {
    "meshID": TEXT,
    "network": TEXT,
    "hub": TEXT,
    "tag": TEXT,
    "multiCluster": {"clusterName": TEXT, "enabled": NOTHING},
    "meshNetworks": FIELDS,
    "meshExpansion": {"enabled": TRUTH, "useILB": NOTHING},
    "mtls": {"enabled": TRUTH, "auto": NOTHING},
    "remotePilotAddress": TEXT,
    "controlPlaneSecurityEnabled": _ignored(Kind.TRUTH, "discovery always takes TLS and a token"),
    "createRemoteSvcEndpoints": _ignored(Kind.TRUTH, "`remotePilotAddress` says it"),
    "remotePilotCreateSvcEndpoint": _ignored(Kind.TRUTH, "`remotePilotAddress` says it"),
    "remotePolicyAddress": _ignored(Kind.TEXT, "proxies decide on policy by themselves"),
    "remoteTelemetryAddress": _ignored(Kind.TEXT, "proxies are asked, they report to nobody"),
    "externalIstiod": TRUTH,
    "istioNamespace": TEXT,
    "caAddress": TEXT,
    "imagePullPolicy": TEXT,
    "imagePullSecrets": LIST,
    "logging": {"level": TEXT},
    "proxy": {
        "image": TEXT,
        "resources": FIELDS,
        "clusterDomain": TEXT,
        "logLevel": TEXT,
        "componentLogLevel": TEXT,
        "statusPort": WHOLE,
        "includeIPRanges": TEXT,
        "excludeIPRanges": TEXT,
        "includeInboundPorts": TEXT,
        "excludeInboundPorts": TEXT,
        "includeOutboundPorts": TEXT,
        "excludeOutboundPorts": TEXT,
        OTHER: NOTHING,
    },
    "proxy_init": {"resources": FIELDS, OTHER: NOTHING},
    "configCluster": TRUTH,
    "configValidation": _ignored(Kind.TRUTH, _VALIDATION),
    "pilotCertProvider": NO_TEXT,
    "logAsJson": NOTHING,
    "sds": NO_FIELDS,
    "sts": NO_FIELDS,
    "platform": NO_TEXT,
    "priorityClassName": NO_TEXT,
    "defaultPodDisruptionBudget": NO_FIELDS,
    "defaultNodeSelector": NO_FIELDS,
    "defaultResources": NO_FIELDS,
    "defaultTolerations": NO_LIST,
    "mountMtlsCerts": NOTHING,
    "omitSidecarInjectorConfigMap": NOTHING,
    "operatorManageWebhooks": TRUTH,
    "autoscalingv2API": NOTHING,
    "networkPolicy": NO_FIELDS,
    "waypoint": _AMBIENT,
    "variant": NO_TEXT,
    "trustBundleName": NO_TEXT,
    "certSigners": NO_LIST,
    "ipFamilies": NO_LIST,
    "ipFamilyPolicy": NO_TEXT,
    "nativeNftables": NOTHING,
    "resourceScope": NO_TEXT,
}

_PILOT: Mapping[str, Shape] = {
    "env": FIELDS,
    "resources": FIELDS,
    "image": TEXT,
    "hub": TEXT,
    "tag": TEXT,
    "replicaCount": WHOLE,
    "autoscaleEnabled": TRUTH,
    "autoscaleMin": NOTHING,
    "autoscaleMax": NOTHING,
    "configMap": TRUTH,
    "jwksResolverExtraRootCA": TEXT,
    "traceSampling": NOTHING,
    "nodeSelector": NO_FIELDS,
    "tolerations": NO_LIST,
    "affinity": NO_FIELDS,
    "podAnnotations": NO_FIELDS,
    "podLabels": NO_FIELDS,
    "deploymentLabels": NO_FIELDS,
    "serviceAnnotations": NO_FIELDS,
    "cni": _CNI,
    "enabled": NOTHING,
}

_NODE_CHART: Mapping[str, Shape] = {"hub": TEXT, "tag": TEXT, "image": TEXT}

VALUES: Mapping[str, Shape] = {
    "profile": TEXT,
    "revision": TEXT,
    "meshConfig": FIELDS,
    "global": _GLOBAL,
    "pilot": _PILOT,
    "istiodRemote": {
        "enabled": TRUTH,
        "injectionPath": TEXT,
        "injectionURL": TEXT,
        "injectionCABundle": TEXT,
        "enabledLocalInjectorIstiod": TRUTH,
    },
    "sidecarInjectorWebhook": {"rewriteAppHTTPProbe": TRUTH, OTHER: NOTHING},
    # Gateways always have the template that this names.
    "gateways": {
        "enabled": TRUTH,
        OTHER: {"enabled": TRUTH, "env": FIELDS, "injectionTemplate": TEXT, OTHER: NOTHING},
    },
    "security": {
        "selfSigned": _ignored(Kind.TRUTH, "the authority always comes from Secret `cacerts`"),
        OTHER: NOTHING,
    },
    "hub": NO_TEXT,
    "tag": NO_TEXT,
    "defaultRevision": NO_TEXT,
    "ownerName": NO_TEXT,
    "compatibilityVersion": NO_TEXT,
    "base": {"validationURL": _ignored(Kind.TEXT, _VALIDATION), OTHER: NOTHING},
    "cni": {
        **_NODE_CHART,
        "ambient": {"enabled": NOTHING, "dnsCapture": TRUTH, OTHER: NOTHING},
        OTHER: NOTHING,
    },
    "istio_cni": _CNI,
    "ztunnel": {**_NODE_CHART, "env": FIELDS, "network": NOTHING, OTHER: NOTHING},
    "platforms": {"peering": {"enabled": TRUTH}, OTHER: NOTHING},
    "experimental": NO_FIELDS,
    "telemetry": _ignored(Kind.FIELDS, "proxies export Envoy's own statistics only"),
}
"""All that may stand below `spec.values`."""

SPEC: Mapping[str, Shape] = {
    "profile": TEXT,
    "revision": TEXT,
    "hub": TEXT,
    "tag": TEXT,
    "namespace": TEXT,
    "meshConfig": FIELDS,
    "components": _COMPONENTS,
    "values": VALUES,
    "unvalidatedValues": FIELDS,
    "installPackagePath": NO_TEXT,
    "compatibilityVersion": NO_TEXT,
}
"""All that may stand below `spec`; what is none of these is a typing mistake."""


def listed(shape: Shape = SPEC, path: str = "spec") -> list[tuple[str, Field]]:
    """Return every field with its path, in the order of the tree."""
    if isinstance(shape, Field):
        return [(path, shape)]
    inside = shape.fields if isinstance(shape, Each) else shape
    own = f"{path}[]" if isinstance(shape, Each) else path
    return [pair for key, below in inside.items() for pair in listed(below, f"{own}.{key}")]
