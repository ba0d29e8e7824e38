"""What is mounted beside a proxy: its token, the mesh's roots, its own pod's labels, its sockets.

Source: spec section 5.3.
"""

from typing import Final

from isthmus.inject.shapes import Obj

TOKEN_SECONDS: Final = 43_200
TOKEN_AUDIENCE: Final = "istio-ca"
ROOTS: Final = "istio-ca-root-cert"

MOUNTS: Final = (
    ("workload-socket", "/var/run/secrets/workload-spiffe-uds"),
    ("credential-socket", "/var/run/secrets/credential-uds"),
    ("workload-certs", "/var/run/secrets/workload-spiffe-credentials"),
    ("istiod-ca-cert", "/var/run/secrets/istio"),
    ("istio-data", "/var/lib/istio/data"),
    ("istio-envoy", "/etc/istio/proxy"),
    ("istio-token", "/var/run/secrets/tokens"),
    ("istio-podinfo", "/etc/istio/pod"),
)


def mounts() -> list[Obj]:
    """Return where the proxy's container finds the volumes."""
    return [{"name": name, "mountPath": path} for name, path in MOUNTS]


def all_() -> list[Obj]:
    """Return the volumes that a proxy needs."""
    items = [
        {"path": name, "fieldRef": {"fieldPath": f"metadata.{name}"}}
        for name in ("labels", "annotations")
    ]
    token = {
        "path": "istio-token",
        "expirationSeconds": TOKEN_SECONDS,
        "audience": TOKEN_AUDIENCE,
    }
    return [
        {"name": "workload-socket", "emptyDir": {}},
        {"name": "credential-socket", "emptyDir": {}},
        {"name": "workload-certs", "emptyDir": {}},
        {"name": "istio-envoy", "emptyDir": {"medium": "Memory"}},
        {"name": "istio-data", "emptyDir": {}},
        {"name": "istio-podinfo", "downwardAPI": {"items": items}},
        {"name": "istio-token", "projected": {"sources": [{"serviceAccountToken": token}]}},
        {"name": "istiod-ca-cert", "configMap": {"name": ROOTS}},
    ]
