"""Which fields the objects of a resource can be selected by.

It knows the names only; `selectors` knows what a selector means.
"""

from isthmus.lab.apiserver.resources import Resource

_ALWAYS = ("metadata.name", "metadata.namespace")
_ABOUT = ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
_EVENT = (
    *(f"{which}.{field}" for which in ("involvedObject", "regarding") for field in _ABOUT),
    *("reason", "reportingComponent", "reportingController", "source", "type"),
)
_MORE = {
    "pods": (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ),
    "events": _EVENT,
    "secrets": ("type",),
    "namespaces": ("status.phase",),
    "nodes": ("spec.unschedulable",),
    "services": ("spec.clusterIP", "spec.type"),
    "replicationcontrollers": ("status.replicas",),
    "replicasets.apps": ("status.replicas",),
    "jobs.batch": ("status.successful",),
}


def fields_of(resource: Resource) -> frozenset[str]:
    """Return the fields that a field selector may name."""
    more = resource.selectable if resource.custom else _MORE.get(resource.key, ())
    return frozenset((*_ALWAYS, *more))
