"""How far each cluster's own Service reaches: by its label, its namespace's, or the settings.

    solo.io/service-scope: global       a service of its own, <name>.<namespace>.mesh.internal
    solo.io/service-scope: global-only  that, and the Service takes in what other clusters share
    istio.io/global: "true"             the Service takes in what other clusters share

What a Service says of `solo.io/service-scope` counts before its namespace. A value that nobody
knows shares nothing, whatever the namespace says: what is shared by mistake is worse.

Source: spec sections 7.3 and 7.7.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh.ambient import Scope
from isthmus.mesh.services import ServiceKey, key_of
from isthmus.registry import checked, naming, settings

GLOBAL_LABEL: Final = "istio.io/global"
SCOPE_LABEL: Final = "solo.io/service-scope"
LOCAL: Final = Scope()
SCOPES: Final[Mapping[str, Scope]] = MappingProxyType(
    {
        "": LOCAL,
        "cluster": LOCAL,
        "global": Scope(derives=True),
        "global-only": Scope(derives=True, takes_over=True),
    }
)
SCOPE_UNKNOWN: Final = "ISM-REG-020"


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares.

    Attributes:
        of_services: Of every Service.
        by_name: The same, by the name that Services of several clusters have in common.
    """

    of_services: collections.Collection[sources.ObjectKey, Scope]
    by_name: collections.Index[ServiceKey, sources.ObjectKey, Scope]
    findings: checked.Findings


def declare(
    graph_: graph.Graph,
    sources_: sources.Sources,
    *,
    seat: settings.Seat,
    settings_: settings.Nodes,
) -> Nodes:
    """Declare in `graph_` how far Services reach."""

    def is_local(read: reader.Reader, key: sources.ObjectKey) -> bool:
        local, mesh_wide = read.value(settings_.locality_rules)
        host = naming.service_host(key.name, key.namespace, seat.domain)
        return settings.is_cluster_local(host, local=local, mesh_wide=mesh_wide)

    def reach(
        read: reader.Reader, key: sources.ObjectKey, service: objects.Service
    ) -> Iterable[tuple[sources.ObjectKey, Scope]]:
        if is_local(read, key):
            yield key, LOCAL
            return
        place = sources.ObjectKey(key.cluster, "", key.namespace)
        namespace = read.get(sources_.namespaces, place)
        around = namespace.metadata.labels or {} if namespace is not None else {}
        own = service.metadata.labels or {}
        said = scope_of(own, around=around)
        rules = read.value(settings_.shared)
        is_shared = own.get(GLOBAL_LABEL, "").lower() == "true" or any(
            rule.namespaces.selects(around) and rule.services.selects(own) for rule in rules
        )
        yield key, _same(Scope(said.derives, said.takes_over or is_shared))

    def of_namespace(
        _: reader.Reader, key: sources.ObjectKey, namespace: objects.Namespace
    ) -> Iterable[tuple[sources.ObjectKey, checked.Checked[None]]]:
        findings = _unknown(namespace.metadata.labels or {}, f"Namespace {key.name}", key)
        if findings:
            yield key, checked.Checked(None, findings)

    # Services of one namespace read the same: it, and settings.
    ways: graph.Ways[sources.ObjectKey, objects.Service] = graph.Ways(
        alike=lambda key, _: (key.cluster, key.namespace)
    )
    of_services = graph_.derive("scopes", sources_.services, reach, ways=ways)
    around = graph_.derive("scopes.of_namespaces", sources_.namespaces, of_namespace)
    return Nodes(
        of_services,
        graph_.index(
            "scopes.by_name", of_services, lambda key, _: (key_of(key.namespace, key.name),)
        ),
        graph_.join(
            "scopes.findings",
            _doubtful(graph_, sources_, is_local),
            checked.findings_of(graph_, "scopes.namespaces", around),
        ),
    )


def _doubtful(
    graph_: graph.Graph,
    sources_: sources.Sources,
    is_local: Callable[[reader.Reader, sources.ObjectKey], bool],
) -> checked.Findings:
    """Declare what is wrong with what Services say; of those that no other cluster sees nothing."""

    def found(
        read: reader.Reader, key: sources.ObjectKey, service: objects.Service
    ) -> Iterable[tuple[checked.FindingKey, errors.Finding]]:
        labels = service.metadata.labels or {}
        for one in _unknown(labels, f"Service {key.namespace}/{key.name}", key):
            if not is_local(read, key):
                yield checked.FindingKey("scopes.services", key, 0), one

    return graph_.derive("scopes.services.findings", sources_.services, found)


@functools.lru_cache(maxsize=16)
def _same(scope: Scope) -> Scope:
    return scope


def scope_of(own: Mapping[str, str], *, around: Mapping[str, str]) -> Scope:
    """Return what the labels of a Service, or else of its namespace, say of its scope."""
    said = own[SCOPE_LABEL] if SCOPE_LABEL in own else around.get(SCOPE_LABEL, "")
    return SCOPES.get(said, LOCAL)


def _unknown(
    labels: Mapping[str, str], subject: str, key: sources.ObjectKey
) -> tuple[errors.Finding, ...]:
    said = labels.get(SCOPE_LABEL, "")
    if said in SCOPES:
        return ()
    return (
        errors.Finding(
            code=SCOPE_UNKNOWN,
            subject=f"{subject} in cluster `{key.cluster}`",
            happened=f"has an unknown scope, `{SCOPE_LABEL}: {said[:63]}`",
            still_working="it is served in its own cluster, and other clusters do not see it",
            hint="set the label to `global` or `global-only`, or remove it",
        ),
    )
