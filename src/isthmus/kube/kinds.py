"""The kinds of objects that we read and write, and where an API server keeps them.

It knows names only. Kinds that are not listed here are found by asking the API server.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from isthmus.kube import problems


@dataclass(frozen=True, slots=True, order=True)
class Kind:
    """One kind in one version.

    Attributes:
        plural: The name in addresses, such as `pods`.
        kind: The name in objects, such as `Pod`.
        namespaced: Whether its objects live in a namespace.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """What objects say in `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def root(self) -> str:
        """The address below which the version lives."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    @property
    def title(self) -> str:
        """The kind for people, such as `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, name: str = "", *, namespace: str = "", subresource: str = "") -> str:
        """Return the address of one object, or of all in `namespace`, or of all."""
        parts = [self.root]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


def _cluster(group: str, version: str, plural: str, kind: str) -> Kind:
    return Kind(group, version, plural, kind, namespaced=False)


NAMESPACE = _cluster("", "v1", "namespaces", "Namespace")
NODE = _cluster("", "v1", "nodes", "Node")
POD = Kind("", "v1", "pods", "Pod")
SERVICE = Kind("", "v1", "services", "Service")
ENDPOINTS = Kind("", "v1", "endpoints", "Endpoints")
CONFIG_MAP = Kind("", "v1", "configmaps", "ConfigMap")
SECRET = Kind("", "v1", "secrets", "Secret")
SERVICE_ACCOUNT = Kind("", "v1", "serviceaccounts", "ServiceAccount")
EVENT = Kind("", "v1", "events", "Event")
PERSISTENT_VOLUME_CLAIM = Kind("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
RESOURCE_QUOTA = Kind("", "v1", "resourcequotas", "ResourceQuota")
LIMIT_RANGE = Kind("", "v1", "limitranges", "LimitRange")
DEPLOYMENT = Kind("apps", "v1", "deployments", "Deployment")
REPLICA_SET = Kind("apps", "v1", "replicasets", "ReplicaSet")
DAEMON_SET = Kind("apps", "v1", "daemonsets", "DaemonSet")
STATEFUL_SET = Kind("apps", "v1", "statefulsets", "StatefulSet")
JOB = Kind("batch", "v1", "jobs", "Job")
CRON_JOB = Kind("batch", "v1", "cronjobs", "CronJob")
HORIZONTAL_POD_AUTOSCALER = Kind(
    "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"
)
POD_DISRUPTION_BUDGET = Kind("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
NETWORK_POLICY = Kind("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
ENDPOINT_SLICE = Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
LEASE = Kind("coordination.k8s.io", "v1", "leases", "Lease")
ROLE = Kind("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDING = Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
CLUSTER_ROLE = _cluster("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole")
CLUSTER_ROLE_BINDING = _cluster(
    "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding"
)
CUSTOM_RESOURCE_DEFINITION = _cluster(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition"
)
MUTATING_WEBHOOK = _cluster(
    "admissionregistration.k8s.io",
    "v1",
    "mutatingwebhookconfigurations",
    "MutatingWebhookConfiguration",
)
VALIDATING_WEBHOOK = _cluster(
    "admissionregistration.k8s.io",
    "v1",
    "validatingwebhookconfigurations",
    "ValidatingWebhookConfiguration",
)
PRIORITY_CLASS = _cluster("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass")
GATEWAY = Kind("networking.istio.io", "v1", "gateways", "Gateway")
VIRTUAL_SERVICE = Kind("networking.istio.io", "v1", "virtualservices", "VirtualService")
DESTINATION_RULE = Kind("networking.istio.io", "v1", "destinationrules", "DestinationRule")
SERVICE_ENTRY = Kind("networking.istio.io", "v1", "serviceentries", "ServiceEntry")
AUTHORIZATION_POLICY = Kind(
    "security.istio.io", "v1", "authorizationpolicies", "AuthorizationPolicy"
)
PEER_AUTHENTICATION = Kind("security.istio.io", "v1", "peerauthentications", "PeerAuthentication")
REQUEST_AUTHENTICATION = Kind(
    "security.istio.io", "v1", "requestauthentications", "RequestAuthentication"
)
KUBERNETES_GATEWAY = Kind("gateway.networking.k8s.io", "v1", "gateways", "Gateway")
GATEWAY_CLASS = _cluster("gateway.networking.k8s.io", "v1", "gatewayclasses", "GatewayClass")
HTTP_ROUTE = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")

KNOWN: tuple[Kind, ...] = tuple(value for value in globals().values() if isinstance(value, Kind))
"""Every kind above."""

_BY_NAME = {(kind.api_version, kind.kind): kind for kind in KNOWN}


def of_manifest(manifest: Mapping[str, object]) -> Kind:
    """Return the kind of an object.

    Istio's own kinds are recognised in every version that the object may name.

    Raises:
        KindUnknown: It is none of ours; the API server may know it (ISM-KUBE-006).
    """
    version, kind = str(manifest.get("apiVersion", "")), str(manifest.get("kind", ""))
    found = _BY_NAME.get((version, kind))
    if found is not None:
        return found
    group, _, other = version.rpartition("/")
    if group.endswith(".istio.io"):
        for known in KNOWN:
            if (known.group, known.kind) == (group, kind):
                return Kind(group, other, known.plural, kind, namespaced=known.namespaced)
    raise problems.KindUnknown(
        f"unknown kind of object: `{kind}` of `{version}`",
        hint="check `apiVersion` and `kind`; is its CustomResourceDefinition installed?",
    )
