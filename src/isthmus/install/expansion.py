"""The objects that let proxies outside a cluster reach its control plane.

With mesh expansion the ingress gateway passes port 15012 on to the control plane. It does not
decrypt: proxies check the control plane's own certificate.

Source: spec section 6.3.
"""

from isthmus.install import labels
from isthmus.install.control_plane import Manifest
from isthmus.install.options import Options

GATEWAY = "meshexpansion-gateway"
VIRTUAL_SERVICE = "meshexpansion-vs-istiod"
PORT = 15012
_API = "networking.istio.io/v1"


def objects(options: Options) -> list[Manifest]:
    """Return the objects that expose the control plane at the ingress gateway."""
    host = f"istiod{options.suffix}.{options.namespace}.svc.cluster.local"
    return [
        {
            "apiVersion": _API,
            "kind": "Gateway",
            "metadata": labels.metadata(options, GATEWAY + options.suffix, component="Pilot"),
            "spec": {
                "selector": {"istio": "ingressgateway"},
                "servers": [
                    {
                        "port": {"number": PORT, "name": "tcp-istiod", "protocol": "TCP"},
                        "hosts": ["*"],
                    }
                ],
            },
        },
        {
            "apiVersion": _API,
            "kind": "VirtualService",
            "metadata": labels.metadata(
                options, VIRTUAL_SERVICE + options.suffix, component="Pilot"
            ),
            "spec": {
                "hosts": [host],
                "gateways": [GATEWAY + options.suffix],
                "tcp": [
                    {
                        "match": [{"port": PORT}],
                        "route": [{"destination": {"host": host, "port": {"number": PORT}}}],
                    }
                ],
            },
        },
    ]
