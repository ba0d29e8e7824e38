"""The webhook that has pods filled in with a proxy: which pods it is asked about.

`istio-injection` on a namespace wins over `istio.io/rev`; a pod's own label decides within what
its namespace allows.

Source: spec section 5.1.
"""

from collections.abc import Mapping

from isthmus.install import labels
from isthmus.install.options import SYSTEM_NAMESPACE, Options

Manifest = dict[str, object]

INJECT, INJECTION, REVISION = "sidecar.istio.io/inject", "istio-injection", "istio.io/rev"
SUFFIX = "sidecar-injector.istio.io"
TIMEOUT_S = 10


def name(options: Options) -> str:
    """Return the name of the MutatingWebhookConfiguration, which all namespaces share."""
    own = "" if options.namespace == SYSTEM_NAMESPACE else f"-{options.namespace}"
    return f"istio-sidecar-injector{options.suffix}{own}"


def manifest(options: Options) -> Manifest:
    """Return the MutatingWebhookConfiguration; without a `caBundle`, unless one was given.

    The control plane fills it in when it is ready to be called.
    """
    metadata = labels.metadata(
        options,
        name(options),
        component="Pilot",
        namespace="",
        app="sidecar-injector",
    )
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": metadata,
        "webhooks": [_webhook(options, *selectors) for selectors in _selectors(options)],
    }


def _selectors(options: Options) -> list[tuple[str, list[Manifest], list[Manifest]]]:
    """Return name prefix, namespace and pod requirements of each webhook."""
    revision = options.revision_label
    listed = [
        (
            "rev.namespace.",
            [_is(REVISION, revision), _absent(INJECTION)],
            [_is_not(INJECT, "false")],
        ),
        (
            "rev.object.",
            [_absent(REVISION), _absent(INJECTION)],
            [_is_not(INJECT, "false"), _is(REVISION, revision)],
        ),
    ]
    if not options.suffix:
        listed += [
            ("namespace.", [_is(INJECTION, "enabled")], [_is_not(INJECT, "false")]),
            (
                "object.",
                [_absent(INJECTION), _absent(REVISION)],
                [_is(INJECT, "true"), _absent(REVISION)],
            ),
        ]
    return listed


def _is(key: str, value: str) -> Manifest:
    return {"key": key, "operator": "In", "values": [value]}


def _is_not(key: str, value: str) -> Manifest:
    return {"key": key, "operator": "NotIn", "values": [value]}


def _absent(key: str) -> Manifest:
    return {"key": key, "operator": "DoesNotExist"}


def _client(options: Options) -> Mapping[str, object]:
    bundle = {"caBundle": options.injection_ca_bundle} if options.injection_ca_bundle else {}
    if options.injection_url:
        return {"url": options.injection_url, **bundle}
    service = {
        "name": f"istiod{options.suffix}",
        "namespace": options.namespace,
        "path": options.injection_path,
        "port": 443,
    }
    return {"service": service, **bundle}


def _webhook(
    options: Options, prefix: str, namespaces: list[Manifest], pods: list[Manifest]
) -> Manifest:
    return {
        "name": prefix + SUFFIX,
        "clientConfig": _client(options),
        "namespaceSelector": {"matchExpressions": namespaces},
        "objectSelector": {"matchExpressions": pods},
        "rules": [
            {
                "apiGroups": [""],
                "apiVersions": ["v1"],
                "operations": ["CREATE"],
                "resources": ["pods"],
            }
        ],
        "sideEffects": "None",
        "failurePolicy": "Fail",
        "reinvocationPolicy": "Never",
        "admissionReviewVersions": ["v1"],
        "timeoutSeconds": TIMEOUT_S,
    }
