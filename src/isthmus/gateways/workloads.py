"""A Gateway becomes the objects that run it: an account, a Service and a Deployment of proxies.

All bear the Gateway as their owner, so that Kubernetes removes them with it. The pods are filled in
by the injection webhook, as those of every other gateway. What a Gateway's author may say of them
never replaces what we say: a label by which they are found or injected stays ours.

Source: spec sections 3.3, 6.4, 7.6 and 7.7.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from isthmus.gateways import listeners
from isthmus.kube import gateway_api
from isthmus.mesh import gateway_classes
from isthmus.mesh.gateway_classes import Behaviour

Manifest = dict[str, Any]

NETWORK_LABEL: Final = "topology.istio.io/network"
REVISION_LABEL: Final = "istio.io/rev"
SERVICE_TYPE: Final = "networking.istio.io/service-type"
SERVICE_TYPES: Final = frozenset({"ClusterIP", "LoadBalancer", "NodePort"})
STATUS_PORT: Final = 15021
NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
"""What a Service may be called."""

OF_PODS: Final[Mapping[str, Mapping[str, str]]] = MappingProxyType(
    # It ends tunnels itself, so that no node proxy must be there to do it.
    {gateway_classes.WAYPOINT.controller: {"networking.istio.io/tunnel": "http"}}
)
"""Labels that pods of a controller's gateways bear beside those of all."""

NOT_PASSED_ON: Final = ("kubectl.kubernetes.io/", "gateway.istio.io/", SERVICE_TYPE)
"""Prefixes of annotations that mean the Gateway object itself."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What must run for one Gateway; all of it has one name."""

    name: str
    account: Manifest
    service: Manifest
    deployment: Manifest

    def manifests(self) -> tuple[Manifest, ...]:
        """Return it in the order in which it should come to be."""
        return (self.account, self.service, self.deployment)


def name_of(gateway: gateway_api.Gateway, behaviour: Behaviour) -> str:
    """Return how what runs for a Gateway is called."""
    name = gateway.metadata.name
    return f"{name}-{gateway.spec.gateway_class_name}" if behaviour.adds_class else name


def fault_of(gateway: gateway_api.Gateway, behaviour: Behaviour) -> tuple[str, str]:
    """Return reason and text of why nothing can run for a Gateway; empty if something can."""
    spec = gateway.spec
    if spec.infrastructure is not None and spec.infrastructure.parameters_ref is not None:
        return "InvalidParameters", "`infrastructure.parametersRef` is not supported"
    if NAME.fullmatch(name_of(gateway, behaviour)) is None:
        text = f"`{name_of(gateway, behaviour)[:80]}` cannot be the name of a Service"
        return "Invalid", text
    if not any(one.is_served for one in listeners.judged(gateway, behaviour)):
        return "ListenersNotValid", "no listener can be served"
    return "", ""


def is_manual(gateway: gateway_api.Gateway) -> bool:
    """Say whether its author runs the gateway, and names its addresses."""
    return bool(gateway.spec.addresses)


def wanted(gateway: gateway_api.Gateway, behaviour: Behaviour, *, revision: str) -> Wanted:
    """Return what must run for a Gateway that has no fault."""
    name = name_of(gateway, behaviour)
    served = [one.listener for one in listeners.judged(gateway, behaviour) if one.is_served]
    own = {
        gateway_classes.NAME_LABEL: gateway.metadata.name,
        gateway_classes.MANAGED_LABEL: behaviour.managed,
    }
    labels = _labels(gateway) | own
    metadata = {
        "name": name,
        "namespace": gateway.metadata.namespace,
        "labels": labels,
        "annotations": _annotations(gateway),
        "ownerReferences": [_owner(gateway)],
    }
    return Wanted(
        name,
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        _service(gateway, behaviour, metadata, _ports(served)),
        _deployment(
            gateway,
            metadata,
            _ports(served),
            labels=labels | {REVISION_LABEL: revision},
            behaviour=behaviour,
        ),
    )


def _labels(gateway: gateway_api.Gateway) -> dict[str, str]:
    """Return what its author wants everything to bear; its network always."""
    metadata, infrastructure = gateway.metadata, gateway.spec.infrastructure
    said = metadata.labels if infrastructure is None else infrastructure.labels
    network = metadata.label(NETWORK_LABEL)
    return dict(said or {}) | ({NETWORK_LABEL: network} if network else {})


def _annotations(gateway: gateway_api.Gateway) -> dict[str, str]:
    metadata, infrastructure = gateway.metadata, gateway.spec.infrastructure
    said = metadata.annotations if infrastructure is None else infrastructure.annotations
    return {key: value for key, value in (said or {}).items() if not key.startswith(NOT_PASSED_ON)}


def _owner(gateway: gateway_api.Gateway) -> Manifest:
    return {
        "apiVersion": f"{gateway_classes.GROUP}/v1",
        "kind": "Gateway",
        "name": gateway.metadata.name,
        "uid": gateway.metadata.uid,
    }


def _ports(served: Sequence[gateway_api.Listener]) -> list[Manifest]:
    """Return a port of a Service for each port of the listeners, each once."""
    numbers = [one.port for one in served]
    ports = dict[int, Manifest]()
    names = {"status-port"}
    for one in served:
        if one.port in ports:
            continue
        # Names of listeners may be longer than those of ports, and have dots.
        name = one.name if NAME.fullmatch(one.name) and one.name not in names else ""
        name = name or f"port-{one.port}"
        names.add(name)
        ports[one.port] = {
            "name": name,
            "port": one.port,
            "targetPort": listeners.target_port(one.port, ports=numbers),
            "protocol": "TCP",
            "appProtocol": one.protocol.lower(),
        }
    return list(ports.values())


def _service(
    gateway: gateway_api.Gateway, behaviour: Behaviour, metadata: Manifest, ports: list[Manifest]
) -> Manifest:
    asked = gateway.metadata.annotation(SERVICE_TYPE)
    status = {
        "name": "status-port",
        "port": STATUS_PORT,
        "targetPort": STATUS_PORT,
        "protocol": "TCP",
    }
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": asked if asked in SERVICE_TYPES else behaviour.service_type,
            "selector": {gateway_classes.NAME_LABEL: gateway.metadata.name},
            "ports": [status, *ports],
        },
    }


def _deployment(
    gateway: gateway_api.Gateway,
    metadata: Manifest,
    ports: Sequence[Mapping[str, Any]],
    *,
    labels: Mapping[str, str],
    behaviour: Behaviour,
) -> Manifest:
    leads_in = behaviour is gateway_classes.EAST_WEST
    network = gateway.metadata.label(NETWORK_LABEL) if leads_in else ""
    # It passes on what is for its own network only, so that no request goes in circles.
    env = [{"name": "ISTIO_META_REQUESTED_NETWORK_VIEW", "value": network}] if network else []
    container = {
        "name": "istio-proxy",
        # The injector replaces it with the proxy's image.
        "image": "auto",
        "env": env,
        "ports": [{"containerPort": port["targetPort"], "protocol": "TCP"} for port in ports],
    }
    name = metadata["name"]
    pod_labels = {
        **labels,
        "service.istio.io/canonical-name": name,
        "service.istio.io/canonical-revision": "latest",
        "sidecar.istio.io/inject": "true",
        "istio.io/dataplane-mode": "none",
        **OF_PODS.get(behaviour.controller, {}),
    }
    template = "waypoint" if behaviour is gateway_classes.WAYPOINT else "gateway"
    annotations = {**metadata["annotations"], "inject.istio.io/templates": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}},
            "selector": {"matchLabels": {gateway_classes.NAME_LABEL: gateway.metadata.name}},
            "template": {
                "metadata": {"labels": pod_labels, "annotations": annotations},
                "spec": {"serviceAccountName": name, "containers": [container]},
            },
        },
    }
