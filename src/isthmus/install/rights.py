"""What a control plane may do in a cluster, as rules of roles: what it does, and nothing more.

Tests compare these rules with what the control plane asked of the lab's API servers: nothing that
was asked may be missing here, and nothing here may go unasked.

Source: security rules RS-4 and section 4.11.
"""

from collections.abc import Sequence

Rule = dict[str, object]

ROOTS = "istio-ca-root-cert"
"""The ConfigMap with the mesh's roots, in every namespace."""

LOCK = "istio-namespace-controller-election"
"""The ConfigMap by which replicas agree on who writes those."""

SNAPSHOTS = tuple(f"istio-remote-snapshot-{number}" for number in range(64))
"""The ConfigMaps with what is known of remote clusters."""

LINK_SNAPSHOTS = tuple(f"istio-link-snapshot-{number}" for number in range(64))
"""The ConfigMaps with what linked clusters told."""

API = "gateway.networking.k8s.io"
"""The group of the Gateway API."""

_FOLLOW = ("list", "watch")


def followed() -> list[Rule]:
    """Return what is needed in every cluster: where workloads are, and whether tokens are real."""
    return [
        _rule("", ("namespaces", "nodes", "pods", "services"), _FOLLOW),
        _rule("discovery.k8s.io", ("endpointslices",), _FOLLOW),
        _rule("authentication.k8s.io", ("tokenreviews",), ("create",)),
    ]


def configured() -> list[Rule]:
    """Return what is needed in the cluster that configuration comes from."""
    return [
        _rule(
            "networking.istio.io",
            ("destinationrules", "gateways", "serviceentries", "virtualservices"),
            _FOLLOW,
        ),
        _rule(
            "security.istio.io",
            ("authorizationpolicies", "peerauthentications", "requestauthentications"),
            _FOLLOW,
        ),
    ]


def kept() -> list[Rule]:
    """Return what is needed where roots and webhooks' bundles are kept current.

    Other ConfigMaps than our own cannot be read. Whether one may be made cannot depend on its name.
    """
    return [
        _rule("", ("configmaps",), ("create",)),
        _rule("", ("configmaps",), ("get", *_FOLLOW, "update"), names=(ROOTS, LOCK)),
        _rule(
            "admissionregistration.k8s.io",
            ("mutatingwebhookconfigurations",),
            ("get", *_FOLLOW, "update"),
        ),
    ]


def run() -> list[Rule]:
    """Return what is needed to run Gateways of the Gateway API in any namespace."""
    written = ("get", *_FOLLOW, "create", "patch", "delete")
    return [
        _rule(API, ("gateways", "httproutes"), _FOLLOW),
        _rule(API, ("gatewayclasses",), (*_FOLLOW, "create")),
        _rule(API, ("gatewayclasses/status", "gateways/status", "httproutes/status"), ("patch",)),
        _rule("apps", ("deployments",), written),
        _rule("", ("serviceaccounts", "services"), written),
    ]


def given() -> list[Rule]:
    """Return what is needed to write addresses of our making into users' ServiceEntries."""
    return [_rule("networking.istio.io", ("serviceentries/status",), ("patch",))]


def shared() -> list[Rule]:
    """Return what is needed in the own namespace to write down what clusters share."""
    return [_rule("networking.istio.io", ("serviceentries",), ("create", "patch", "delete"))]


def linked() -> list[Rule]:
    """Return what following links needs: they are Gateways, and it says what became of them."""
    return [
        _rule(API, ("gateways", "gatewayclasses"), _FOLLOW),
        _rule(API, ("gatewayclasses",), ("create",)),
        _rule(API, ("gatewayclasses/status", "gateways/status"), ("patch",)),
    ]


def own() -> list[Rule]:
    """Return what is needed in the control plane's own namespace only."""
    return [_rule("", ("configmaps", "secrets"), _FOLLOW)]


def recalled(*, is_linked: bool = False) -> list[Rule]:
    """Return what is needed beside that to leave behind what is known of other clusters."""
    names = (*SNAPSHOTS, *(LINK_SNAPSHOTS if is_linked else ()))
    return [_rule("", ("configmaps",), ("update",), names=names)]


def _rule(
    group: str, resources: Sequence[str], verbs: Sequence[str], *, names: Sequence[str] = ()
) -> Rule:
    rule: Rule = {"apiGroups": [group], "resources": list(resources), "verbs": list(verbs)}
    return {**rule, "resourceNames": list(names)} if names else rule
