"""What the webhook's path says, and whether a pod gets a proxy at all.

Source: spec section 5.2.
"""

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from isthmus.inject import shapes
from isthmus.inject.settings import InjectionSettings
from isthmus.inject.shapes import Obj

INJECT: Final = "sidecar.istio.io/inject"
STATUS: Final = "sidecar.istio.io/status"
NETWORK: Final = "ISTIO_META_NETWORK"
CLUSTER: Final = "ISTIO_META_CLUSTER_ID"
KNOWN_KEYS: Final = {"cluster": CLUSTER, "net": NETWORK}
IGNORED_NAMESPACES: Final = frozenset(
    {"kube-system", "kube-public", "kube-node-lease", "local-path-storage"}
)
SLASH: Final = "--slash--"
YES: Final = frozenset({"true", "y", "yes", "on"})


class Decision(enum.Enum):
    """Whether a pod gets a proxy, and which rule says so."""

    ASKED = "the pod asks for it"
    SELECTED = "the pod is selected to be always injected"
    POLICY = "the policy is to inject"
    REFUSED = "the pod asks not to be injected"
    HOST_NETWORK = "the pod uses the network of its node"
    NAMESPACE = "the namespace is never injected"
    NEVER = "the pod is selected to be never injected"
    NO_POLICY = "the policy is not to inject"
    ALREADY = "the pod has its proxy"

    @property
    def is_injected(self) -> bool:
        """Whether the pod gets a proxy."""
        return self in (Decision.ASKED, Decision.SELECTED, Decision.POLICY)


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the webhook's path says about the cluster that calls."""

    env: tuple[tuple[str, str], ...] = ()

    @property
    def network(self) -> str:
        """The network of the calling cluster, or empty."""
        return dict(self.env).get(NETWORK, "")

    @property
    def cluster(self) -> str:
        """The calling cluster, or empty."""
        return dict(self.env).get(CLUSTER, "")


@dataclass(frozen=True, slots=True)
class Injection:
    """What becomes of one pod.

    Attributes:
        patch: A JSON patch; empty when nothing changes.
    """

    decision: Decision
    patch: tuple[Obj, ...] = ()


class Injector(Protocol):
    """Decides about pods with the settings of the moment."""

    def __call__(self, pod: Obj, *, namespace: str, path: str) -> Injection | None:
        """Return what becomes of a pod; None while there are no settings.

        Args:
            pod: As its API server sent it.
            namespace: Where it will be.
            path: The webhook's path, which names the calling cluster.

        Raises:
            InjectionRefused: It cannot be given a proxy (ISM-INJ-001).
        """


def parameters(path: str) -> Parameters:
    """Read `/inject/cluster/<name>/net/<network>/...` or `/inject/:ENV:K=V:ENV:K2=V2`."""
    rest = path.removeprefix("/inject").strip("/")
    if rest.startswith(":ENV:"):
        pairs = (part.partition("=") for part in rest.split(":ENV:") if "=" in part)
        return Parameters(tuple((key, value.replace(SLASH, "/")) for key, _, value in pairs if key))
    parts = rest.split("/") if rest else []
    return Parameters(
        tuple(
            (KNOWN_KEYS.get(key, key.upper()), value.replace(SLASH, "/"))
            for key, value in zip(parts[::2], parts[1::2], strict=False)
        )
    )


def decide(pod: Obj, *, namespace: str, settings: InjectionSettings) -> Decision:
    """Decide whether a pod gets a proxy.

    Raises:
        InjectionRefused: The pod is malformed (ISM-INJ-001).
    """
    metadata = shapes.below(pod, "metadata")
    labels = shapes.texts(metadata, "labels")
    annotations = shapes.texts(metadata, "annotations")
    return _forbidden(
        shapes.below(pod, "spec"), namespace=namespace, annotations=annotations
    ) or _chosen(labels.get(INJECT) or annotations.get(INJECT, ""), labels, settings)


def _forbidden(spec: Obj, *, namespace: str, annotations: Mapping[str, str]) -> Decision | None:
    if spec.get("hostNetwork") is True:
        return Decision.HOST_NETWORK
    if namespace in IGNORED_NAMESPACES:
        return Decision.NAMESPACE
    return Decision.ALREADY if STATUS in annotations and has_proxy(spec) else None


def _chosen(said: str, labels: Mapping[str, str], settings: InjectionSettings) -> Decision:
    if said:
        return Decision.ASKED if said.lower() in YES else Decision.REFUSED
    if any(selects(selector, labels) for selector in settings.never):
        return Decision.NEVER
    if any(selects(selector, labels) for selector in settings.always):
        return Decision.SELECTED
    return Decision.POLICY if settings.policy_enabled else Decision.NO_POLICY


def has_proxy(spec: Obj) -> bool:
    """Tell whether a pod has a container that is a proxy."""
    containers = (*shapes.listed(spec, "containers"), *shapes.listed(spec, "initContainers"))
    return any(each.get("name") == "istio-proxy" for each in containers)


def selects(selector: Obj, labels: Mapping[str, str]) -> bool:
    """Tell whether a label selector matches; an empty one matches nothing."""
    wanted = shapes.texts(selector, "matchLabels", what="selector")
    expressions = shapes.listed(selector, "matchExpressions", what="selector")
    if not wanted and not expressions:
        return False
    return all(labels.get(key) == value for key, value in wanted.items()) and all(
        _holds(expression, labels) for expression in expressions
    )


def _holds(expression: Obj, labels: Mapping[str, str]) -> bool:
    key, values = str(expression.get("key", "")), expression.get("values")
    if not isinstance(values, list):
        values = []
    match expression.get("operator"):
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False
