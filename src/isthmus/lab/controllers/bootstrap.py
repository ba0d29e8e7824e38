"""The objects that every cluster is born with: namespaces, roles and the Service `kubernetes`.

It decides what they contain. What a user has changed since is left alone, except the address of
the API server.
"""

from typing import Any

from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver.errors import ApiError
from isthmus.lab.apiserver.values import Obj

_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
_RBAC = "rbac.authorization.k8s.io"
_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_PUBLIC_PATHS = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
_DISCOVERY_PATHS = [
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/healthz",
    "/livez",
    "/openapi",
    "/openapi/*",
    "/readyz",
    "/version",
    "/version/",
]
_WORKLOADS = [
    (
        "",
        [
            "bindings",
            "configmaps",
            "endpoints",
            "events",
            "limitranges",
            "namespaces",
            "persistentvolumeclaims",
            "pods",
            "pods/log",
            "pods/status",
            "replicationcontrollers",
            "resourcequotas",
            "serviceaccounts",
            "services",
            "services/status",
        ],
    ),
    (
        "apps",
        [
            "controllerrevisions",
            "daemonsets",
            "daemonsets/status",
            "deployments",
            "deployments/scale",
            "deployments/status",
            "replicasets",
            "replicasets/scale",
            "replicasets/status",
            "statefulsets",
            "statefulsets/scale",
            "statefulsets/status",
        ],
    ),
    ("batch", ["cronjobs", "cronjobs/status", "jobs", "jobs/status"]),
    ("autoscaling", ["horizontalpodautoscalers", "horizontalpodautoscalers/status"]),
    ("discovery.k8s.io", ["endpointslices"]),
    ("networking.k8s.io", ["ingresses", "ingresses/status", "networkpolicies"]),
    ("policy", ["poddisruptionbudgets", "poddisruptionbudgets/status"]),
]
_EDITED = [
    (
        "",
        [
            "configmaps",
            "events",
            "persistentvolumeclaims",
            "pods",
            "pods/attach",
            "pods/eviction",
            "pods/exec",
            "pods/portforward",
            "pods/proxy",
            "secrets",
            "serviceaccounts",
            "serviceaccounts/token",
            "services",
            "services/proxy",
        ],
    ),
    ("apps", ["daemonsets", "deployments", "deployments/scale", "replicasets", "statefulsets"]),
    ("apps", ["replicasets/scale", "statefulsets/scale"]),
    ("batch", ["cronjobs", "jobs"]),
    ("networking.k8s.io", ["ingresses", "networkpolicies"]),
    ("policy", ["poddisruptionbudgets"]),
]


def _rule(group: str, resources: list[str], verbs: list[str]) -> Obj:
    return {"apiGroups": [group], "resources": resources, "verbs": verbs}


def _paths(paths: list[str]) -> Obj:
    return {"nonResourceURLs": paths, "verbs": ["get"]}


def _reviews(group: str, *resources: str) -> Obj:
    return _rule(group, list(resources), ["create"])


_VIEW = [_rule(group, resources, _READ) for group, resources in _WORKLOADS]
_EDIT = [
    *_VIEW,
    *(_rule(group, resources, [*_READ, *_WRITE]) for group, resources in _EDITED),
]
_ADMIN = [
    *_EDIT,
    _rule(_RBAC, ["rolebindings", "roles"], [*_READ, *_WRITE]),
    _reviews("authorization.k8s.io", "localsubjectaccessreviews"),
]
_EVERYTHING = [
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
    {"nonResourceURLs": ["*"], "verbs": ["*"]},
]
_ROLES: dict[str, list[Obj]] = {
    "cluster-admin": _EVERYTHING,
    "admin": _ADMIN,
    "edit": _EDIT,
    "view": _VIEW,
    "system:discovery": [_paths(_DISCOVERY_PATHS)],
    "system:public-info-viewer": [_paths(_PUBLIC_PATHS)],
    "system:basic-user": [
        _reviews("authorization.k8s.io", "selfsubjectaccessreviews", "selfsubjectrulesreviews"),
        _reviews("authentication.k8s.io", "selfsubjectreviews"),
    ],
    "system:auth-delegator": [
        _reviews("authentication.k8s.io", "tokenreviews"),
        _reviews("authorization.k8s.io", "subjectaccessreviews"),
    ],
    "system:service-account-issuer-discovery": [
        _paths(["/.well-known/openid-configuration", "/openid/v1/jwks"])
    ],
}
_BINDINGS = {
    "cluster-admin": ["system:masters"],
    "system:discovery": ["system:authenticated"],
    "system:basic-user": ["system:authenticated"],
    "system:public-info-viewer": ["system:authenticated", "system:unauthenticated"],
    "system:service-account-issuer-discovery": ["system:serviceaccounts"],
}


async def make_objects(api: apis.Api) -> None:
    """Make the namespaces, roles and bindings that are missing."""
    for name in _NAMESPACES:
        body = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
        await _ensure(api, "namespaces", body)
    for name, rules in _ROLES.items():
        await _ensure(api, f"clusterroles.{_RBAC}", _role(name, rules))
    for name, groups in _BINDINGS.items():
        await _ensure(api, f"clusterrolebindings.{_RBAC}", _binding(name, groups))


async def make_kubernetes_service(
    api: apis.Api, *, cluster_ip: str, address: str, port: int
) -> None:
    """Make the Service `kubernetes` and its endpoints, which name where the API server listens."""
    metadata = {"name": "kubernetes", "namespace": "default"}
    labels = {"component": "apiserver", "provider": "kubernetes"}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {**metadata, "labels": labels},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": cluster_ip,
            "clusterIPs": [cluster_ip],
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}],
        },
    }
    await _ensure(api, "services", service)
    ports = [{"name": "https", "port": port, "protocol": "TCP"}]
    endpoints = {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {
            **metadata,
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{"addresses": [{"ip": address}], "ports": ports}],
    }
    await _ensure(api, "endpoints", endpoints, fields=("subsets",))
    found = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {**metadata, "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": ports,
    }
    await _ensure(api, "endpointslices.discovery.k8s.io", found, fields=("endpoints", "ports"))


async def _ensure(api: apis.Api, resource: str, body: Obj, *, fields: tuple[str, ...] = ()) -> None:
    metadata: dict[str, Any] = body["metadata"]
    try:
        found = await api.get(resource, metadata["name"], metadata.get("namespace", ""))
    except ApiError as error:
        if error.code != 404:
            raise
        await api.create(resource, body)
        return
    if any(found.get(field) != body[field] for field in fields):
        await api.update(resource, {**found, **{field: body[field] for field in fields}})


def _role(name: str, rules: list[Obj]) -> Obj:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
        "rules": rules,
    }


def _binding(name: str, groups: list[str]) -> Obj:
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}},
        "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": name},
        "subjects": [{"kind": "Group", "name": each, "apiGroup": _RBAC} for each in groups],
    }
