"""What a control plane of another cluster may do in this one, as objects.

Shared by the installer and by `create-remote-secret`, so that both grant the same. It grants
less than Istio's own role: nothing is read from Secrets, and ConfigMaps and webhooks are open
only where this cluster asked to be managed.

Source: spec section 2.2; security rule RS-4.
"""

from isthmus.install import rights
from isthmus.install.control_plane import Manifest

SERVICE_ACCOUNT = "istio-reader-service-account"
_RBAC = "rbac.authorization.k8s.io"


def objects(*, namespace: str, suffix: str = "", manages_cluster: bool = False) -> list[Manifest]:
    """Return the service account, its role and the binding of both.

    Args:
        namespace: The system namespace.
        suffix: `-<revision>`, or empty.
        manages_cluster: Whether the other control plane also writes root certificates into
            namespaces here and keeps webhooks' bundles current.
    """
    name = f"istio-reader-clusterrole{suffix}-{namespace}"
    labels = {"app": "istio-reader", "release": "istio"}
    return [
        {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": SERVICE_ACCOUNT, "namespace": namespace, "labels": dict(labels)},
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRole",
            "metadata": {"name": name, "labels": dict(labels)},
            "rules": rules(manages_cluster=manages_cluster),
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": name, "labels": dict(labels)},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": name},
            "subjects": [
                {"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": namespace}
            ],
        },
    ]


def rules(*, manages_cluster: bool) -> list[rights.Rule]:
    """Return the rules of the reader's role."""
    return [*rights.followed(), *(rights.kept() if manages_cluster else [])]
