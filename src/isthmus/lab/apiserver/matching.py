"""Which webhook hears of which write.

It decides by rules and selectors alone, without a call. Conditions in CEL are not evaluated: a
webhook that has some hears of every write that its rules select.
"""

from collections.abc import Iterable, Mapping

from isthmus.lab.apiserver import labels
from isthmus.lab.apiserver.values import AdmissionRequest, Obj

_OWN_GROUP = "admissionregistration.k8s.io"


def hears(webhook: Obj, request: AdmissionRequest, namespace_labels: Mapping[str, str]) -> bool:
    """Whether `webhook` is to be called for `request`.

    Args:
        webhook: One webhook of a configuration.
        request: What is to be written.
        namespace_labels: The labels of the request's namespace.
    """
    if request.group == _OWN_GROUP and request.resource.endswith("webhookconfigurations"):
        return False
    return (
        any(covers(rule, request) for rule in webhook.get("rules") or ())
        and _namespace_matches(webhook.get("namespaceSelector"), request, namespace_labels)
        and _object_matches(webhook.get("objectSelector"), request)
    )


def covers(rule: Obj, request: AdmissionRequest) -> bool:
    """Whether one rule selects `request`."""
    return (
        _has(rule.get("operations"), request.operation)
        and _has(rule.get("apiGroups"), request.group)
        and _has(rule.get("apiVersions"), request.version)
        and _scope_matches(rule.get("scope") or "*", request)
        and any(_is_resource(each, request) for each in rule.get("resources") or ())
    )


def _has(values: Iterable[str] | None, wanted: str) -> bool:
    found = values or ()
    return "*" in found or wanted in found


def _scope_matches(scope: str, request: AdmissionRequest) -> bool:
    if scope == "*":
        return True
    cluster_wide = not request.namespace or _is_namespace(request)
    return (scope == "Cluster") == cluster_wide


def _is_resource(pattern: str, request: AdmissionRequest) -> bool:
    resource, _, sub = pattern.partition("/")
    if resource not in {"*", request.resource}:
        return False
    return sub in {"*", request.subresource} if "/" in pattern else not request.subresource


def _is_namespace(request: AdmissionRequest) -> bool:
    return not request.group and request.resource == "namespaces"


def _namespace_matches(
    selector: Obj | None, request: AdmissionRequest, namespace_labels: Mapping[str, str]
) -> bool:
    if not selector:
        return True
    if _is_namespace(request):
        return labels.matches(selector, labels.labels_of(request.obj or request.old))
    if not request.namespace:
        return True
    return labels.matches(selector, namespace_labels)


def _object_matches(selector: Obj | None, request: AdmissionRequest) -> bool:
    if not selector:
        return True
    objects = [each for each in (request.obj, request.old) if each]
    return any(labels.matches(selector, labels.labels_of(each)) for each in objects)
