"""Which resources the cluster serves, and how to find one by path, by name or by kind.

It knows names, verbs and versions. What the objects look like lies in schemas; custom resources
are added and removed by crds.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from isthmus.lab.apiserver import errors

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
CREATE = ("create",)


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource in one version.

    Attributes:
        stored_as: The key of another resource that holds the same objects in another form.
        generation: Whether a change of the spec raises `metadata.generation`.
        custom: Whether a CustomResourceDefinition made it.
        selectable: Further fields that its objects can be selected by, if it is custom.
        virtual: Whether it only answers posts and stores nothing.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    singular: str = ""
    generation: bool = False
    custom: bool = False
    virtual: bool = False
    list_kind: str = ""
    selectable: tuple[str, ...] = ()
    stored_as: str = ""

    @property
    def key(self) -> str:
        """Where its objects are stored: the plural with its group."""
        return self.stored_as or self.full_name

    @property
    def full_name(self) -> str:
        """The plural with its group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """Such as `apps/v1`, or `v1` for the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def verbs(self) -> tuple[str, ...]:
        """What may be done with it."""
        return CREATE if self.virtual else ALL_VERBS

    @property
    def prefix(self) -> str:
        """The path of its version, without a slash at the end."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


def _table() -> Iterator[Resource]:
    yield from _core()
    yield from _workloads()
    yield from _policies()
    yield from _reviews()


def _core() -> Iterator[Resource]:
    def one(plural: str, kind: str, short: str = "", subs: str = "", **more: object) -> Resource:
        return _made("/v1", plural, kind, short, subs, **more)

    pod_subs = "status log exec attach portforward proxy binding eviction ephemeralcontainers"
    yield one("pods", "Pod", "po", pod_subs, every=True, generation=True)
    yield one("services", "Service", "svc", "status proxy", every=True)
    yield one("configmaps", "ConfigMap", "cm")
    yield one("secrets", "Secret")
    yield one("namespaces", "Namespace", "ns", "status finalize", namespaced=False)
    yield one("nodes", "Node", "no", "status proxy", namespaced=False)
    yield one("serviceaccounts", "ServiceAccount", "sa", "token")
    yield one("events", "Event", "ev")
    yield one("endpoints", "Endpoints", "ep")
    yield one(
        "replicationcontrollers",
        "ReplicationController",
        "rc",
        "status scale",
        every=True,
        generation=True,
    )
    yield one("persistentvolumeclaims", "PersistentVolumeClaim", "pvc", "status")
    yield one("persistentvolumes", "PersistentVolume", "pv", "status", namespaced=False)
    yield one("limitranges", "LimitRange", "limits")
    yield one("resourcequotas", "ResourceQuota", "quota", "status")
    yield one("podtemplates", "PodTemplate")


def _workloads() -> Iterator[Resource]:
    for plural, kind, short, subs in (
        ("deployments", "Deployment", "deploy", "status scale"),
        ("replicasets", "ReplicaSet", "rs", "status scale"),
        ("daemonsets", "DaemonSet", "ds", "status"),
        ("statefulsets", "StatefulSet", "sts", "status scale"),
    ):
        yield _made("apps/v1", plural, kind, short, subs, every=True, generation=True)
    yield _made("apps/v1", "controllerrevisions", "ControllerRevision")
    yield _made("batch/v1", "jobs", "Job", "", "status", every=True, generation=True)
    yield _made("batch/v1", "cronjobs", "CronJob", "cj", "status", every=True, generation=True)
    yield _made(
        "autoscaling/v2",
        "horizontalpodautoscalers",
        "HorizontalPodAutoscaler",
        "hpa",
        "status",
        every=True,
    )
    yield _made("discovery.k8s.io/v1", "endpointslices", "EndpointSlice", generation=True)
    yield _made("coordination.k8s.io/v1", "leases", "Lease")
    yield _made("events.k8s.io/v1", "events", "Event", "ev", stored_as="events")
    yield _made("scheduling.k8s.io/v1", "priorityclasses", "PriorityClass", "pc", namespaced=False)
    yield _made("storage.k8s.io/v1", "storageclasses", "StorageClass", "sc", namespaced=False)


def _policies() -> Iterator[Resource]:
    rbac = "rbac.authorization.k8s.io/v1"
    yield _made(rbac, "roles", "Role")
    yield _made(rbac, "rolebindings", "RoleBinding")
    yield _made(rbac, "clusterroles", "ClusterRole", namespaced=False)
    yield _made(rbac, "clusterrolebindings", "ClusterRoleBinding", namespaced=False)
    admission = "admissionregistration.k8s.io/v1"
    for kind in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        yield _made(admission, kind.lower() + "s", kind, namespaced=False, generation=True)
    yield _made(
        "apiextensions.k8s.io/v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        "crd crds",
        "status",
        namespaced=False,
        generation=True,
    )
    yield _made(
        "apiregistration.k8s.io/v1", "apiservices", "APIService", "", "status", namespaced=False
    )
    net = "networking.k8s.io/v1"
    yield _made(net, "ingresses", "Ingress", "ing", "status", generation=True)
    yield _made(net, "ingressclasses", "IngressClass", namespaced=False, generation=True)
    yield _made(net, "networkpolicies", "NetworkPolicy", "netpol", generation=True)
    yield _made(
        "policy/v1", "poddisruptionbudgets", "PodDisruptionBudget", "pdb", "status", generation=True
    )


def _reviews() -> Iterator[Resource]:
    authn, authz = "authentication.k8s.io/v1", "authorization.k8s.io/v1"
    for gv, kind, namespaced in (
        (authn, "TokenReview", False),
        (authn, "SelfSubjectReview", False),
        (authz, "SubjectAccessReview", False),
        (authz, "SelfSubjectAccessReview", False),
        (authz, "SelfSubjectRulesReview", False),
        (authz, "LocalSubjectAccessReview", True),
    ):
        yield _made(gv, kind.lower() + "s", kind, namespaced=namespaced, virtual=True)


def _made(
    gv: str, plural: str, kind: str, short: str = "", subs: str = "", **more: object
) -> Resource:  # one row of a table
    group, _, version = gv.rpartition("/")
    return Resource(
        group,
        version,
        plural,
        kind,
        namespaced=bool(more.get("namespaced", True)),
        short_names=tuple(short.split()),
        categories=("all",) if more.get("every") else (),
        subresources=tuple(subs.split()),
        singular=kind.lower(),
        generation=bool(more.get("generation", False)),
        virtual=bool(more.get("virtual", False)),
        list_kind=kind + "List",
        stored_as=str(more.get("stored_as", "")),
    )


BUILTIN = tuple(_table())

SCALE_KIND = ("autoscaling", "v1", "Scale")
_OTHER_KINDS = (
    SCALE_KIND,
    ("authentication.k8s.io", "v1", "TokenRequest"),
    ("policy", "v1", "Eviction"),
    ("", "v1", "Binding"),
    ("", "v1", "PodTemplate"),
)


def builtin_kinds() -> set[tuple[str, str, str]]:
    """Return (group, version, kind) of everything that needs a schema."""
    return {(one.group, one.version, one.kind) for one in BUILTIN} | set(_OTHER_KINDS)


class Catalog:
    """The resources served now.

    Attributes:
        edition: Rises whenever the set changes; discovery caches are keyed by it.
    """

    def __init__(self) -> None:
        self.edition = 1
        self._by_path: dict[tuple[str, str, str], Resource] = {}
        self._stored: dict[str, Resource] = {}
        for one in BUILTIN:
            self._add(one, stored=not one.stored_as)

    def __iter__(self) -> Iterator[Resource]:
        return iter(self._by_path.values())

    def find(self, *, group: str, version: str, plural: str) -> Resource | None:
        """Return the resource at a path, if served."""
        return self._by_path.get((group, version, plural))

    def named(self, key: str) -> Resource:
        """Return the storage version of `plural.group`, or raise 404."""
        found = self._stored.get(key)
        if found is None:
            raise errors.no_resource()
        return found

    def stored(self) -> Iterable[Resource]:
        """Return each stored resource once, in its storage version."""
        return tuple(one for one in self._stored.values() if not one.virtual)

    def of_kind(self, *, group: str, kind: str) -> Resource | None:
        """Return the storage version of a kind, if served."""
        for one in self._stored.values():
            if one.group == group and one.kind == kind:
                return one
        return None

    def replace(self, key: str, *, served: Iterable[Resource], stored: Resource | None) -> None:
        """Serve `served` under `key` and nothing else; nothing at all when it is empty."""
        self._by_path = {path: one for path, one in self._by_path.items() if one.key != key}
        self._stored.pop(key, None)
        for one in served:
            self._add(one, stored=False)
        if stored is not None:
            self._stored[key] = stored
        self.edition += 1

    def _add(self, one: Resource, *, stored: bool) -> None:
        self._by_path[(one.group, one.version, one.plural)] = one
        if stored:
            self._stored[one.key] = one
