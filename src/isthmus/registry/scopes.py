"""How far each cluster's own Service reaches: by its label, its namespace's, or the settings.

    solo.io/service-scope: global       a service of its own, <name>.<namespace>.mesh.internal
    solo.io/service-scope: global-only  that, and the Service takes in what other clusters share
    istio.io/global: "true"             the Service takes in what other clusters share

What a Service says of `solo.io/service-scope` counts before its namespace. A value that nobody
knows shares nothing, whatever the namespace says: what is shared by mistake is worse.

Source: spec sections 7.3 and 7.7.
"""

import functools
from collections.abc import Iterable, Mapping
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

    def check(
        read: reader.Reader, key: sources.ObjectKey, service: objects.Service
    ) -> Iterable[tuple[sources.ObjectKey, checked.Checked[Scope]]]:
        local, mesh_wide = read.value(settings_.locality_rules)
        host = naming.service_host(key.name, key.namespace, seat.domain)
        if settings.is_cluster_local(host, local=local, mesh_wide=mesh_wide):
            yield key, _checked(LOCAL)
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
        scope = Scope(said.derives, said.takes_over or is_shared)
        unknown = _unknown(own, f"Service {key.namespace}/{key.name}", key)
        yield key, checked.Checked(scope, unknown) if unknown else _checked(scope)

    def of_namespace(
        _: reader.Reader, key: sources.ObjectKey, namespace: objects.Namespace
    ) -> Iterable[tuple[sources.ObjectKey, checked.Checked[None]]]:
        findings = _unknown(namespace.metadata.labels or {}, f"Namespace {key.name}", key)
        if findings:
            yield key, checked.Checked(None, findings)

    both = graph_.derive("scopes.checked", sources_.services, check)
    around = graph_.derive("scopes.of_namespaces", sources_.namespaces, of_namespace)
    of_services = checked.values_of(graph_, "scopes", both)
    return Nodes(
        of_services,
        graph_.index(
            "scopes.by_name", of_services, lambda key, _: (key_of(key.namespace, key.name),)
        ),
        graph_.join(
            "scopes.findings",
            checked.findings_of(graph_, "scopes.services", both),
            checked.findings_of(graph_, "scopes.namespaces", around),
        ),
    )


@functools.lru_cache(maxsize=16)
def _checked(scope: Scope) -> checked.Checked[Scope]:
    """Return the answer where nothing is wrong: of all Services that are alike it is one object."""
    return checked.Checked(scope)


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
