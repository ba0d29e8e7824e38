"""The objects of a gateway: proxies that the injector fills in, behind a Service.

The labels of a gateway go to its Service as well: `topology.istio.io/network` there is how other
networks find it. Its account is granted nothing: whoever takes a gateway over, which stands in the
open, reads neither the certificate authority's key nor the remote secrets beside it.

Source: spec sections 6.2 and 6.4; security rule GW-7.
"""

from isthmus.install import labels
from isthmus.install.control_plane import Manifest
from isthmus.install.options import Gateway, Options

COMPONENT = "IngressGateways"
NETWORK_LABEL = "topology.istio.io/network"


def objects(options: Options, gateway: Gateway) -> list[Manifest]:
    """Return the objects of one gateway."""
    account = f"{gateway.name}-service-account"
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": _metadata(options, gateway, account),
        },
        _service(options, gateway),
        _deployment(options, gateway, account),
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": _metadata(options, gateway, gateway.name),
            "spec": {"minAvailable": 1, "selector": {"matchLabels": _selector(gateway)}},
        },
    ]


def _metadata(options: Options, gateway: Gateway, name: str) -> dict[str, object]:
    return labels.metadata(
        options,
        name,
        component=COMPONENT,
        namespace=gateway.namespace,
        extra=gateway.labels,
    )


def _selector(gateway: Gateway) -> dict[str, str]:
    return {key: value for key, value in gateway.labels.items() if key in {"app", "istio"}}


def _service(options: Options, gateway: Gateway) -> Manifest:
    metadata = _metadata(options, gateway, gateway.name)
    if gateway.service_annotations:
        metadata["annotations"] = dict(gateway.service_annotations)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            "type": gateway.service_type,
            "selector": _selector(gateway),
            "ports": [
                {
                    "name": port.name,
                    "port": port.port,
                    "targetPort": port.target_port,
                    "protocol": port.protocol,
                }
                for port in gateway.ports
            ],
        },
    }


def _deployment(options: Options, gateway: Gateway, account: str) -> Manifest:
    canonical = gateway.labels.get("app", gateway.name)
    pod_labels = {
        **gateway.labels,
        "istio.io/rev": options.revision_label,
        "service.istio.io/canonical-name": canonical,
        "service.istio.io/canonical-revision": "latest",
        "sidecar.istio.io/inject": "true",
    }
    container: Manifest = {
        "name": "istio-proxy",
        # The injector replaces it with the proxy's image.
        "image": "auto",
        "env": [{"name": key, "value": value} for key, value in gateway.env.items()],
        "ports": [{"containerPort": port.target_port, "protocol": "TCP"} for port in gateway.ports],
    }
    if gateway.resources:
        container["resources"] = dict(gateway.resources)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": _metadata(options, gateway, gateway.name),
        "spec": {
            "replicas": gateway.replicas,
            "strategy": {"rollingUpdate": {"maxSurge": "100%", "maxUnavailable": "25%"}},
            "selector": {"matchLabels": _selector(gateway)},
            "template": {
                "metadata": {
                    "labels": pod_labels,
                    "annotations": {
                        "inject.istio.io/templates": "gateway",
                        **gateway.pod_annotations,
                    },
                },
                "spec": {"serviceAccountName": account, "containers": [container]},
            },
        },
    }
