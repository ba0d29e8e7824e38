"""Figures about the mesh and the authority, under the names of Istio's metrics.

Counted when somebody reads them, but for events, which are counted as they come.

Source: spec sections 1.8 and 9.4.
"""

import datetime
from collections.abc import Callable, Mapping
from typing import Final

from isthmus.base import clock, metrics, version
from isthmus.ca import authority as authorities
from isthmus.engine import changes, collections
from isthmus.mesh.workloads import Health
from isthmus.runtime import assembly

ADD, UPDATE, DELETE = "add", "update", "delete"
REFUSED: Final = "ISM-REG-"
SECOND: Final = datetime.timedelta(seconds=1)


class Measures:
    """Keeps the figures of one control plane."""

    def __init__(
        self,
        mesh: assembly.Mesh,
        *,
        registered: metrics.Metrics,
        authority: Callable[[], authorities.Authority | None],
        system_clock: clock.Clock,
    ) -> None:
        self._mesh = mesh
        self._authority = authority
        self._clock = system_clock
        self._began = system_clock.monotonic()
        self._declare(registered)
        mesh.graph.listen(self._count)
        registered.before_each(self._refresh)

    def _declare(self, into: metrics.Metrics) -> None:
        info = into.gauge("pilot_info", "Version of this control plane.", "version")
        info.set(1, version.VERSION)
        build = into.gauge("istio_build", "Build of this control plane.", "component", "tag")
        build.set(1, "pilot", version.VERSION)
        self._uptime = into.gauge("istiod_uptime_seconds", "How long this control plane has run.")
        self._services = into.gauge("pilot_services", "Services of the mesh.")
        self._virtuals = into.gauge("pilot_virt_services", "VirtualServices that are obeyed.")
        self._empty = into.gauge("pilot_eds_no_instances", "Services without an endpoint.")
        self._unready = into.gauge(
            "pilot_endpoint_not_ready", "Addresses of services that are not ready."
        )
        self._rejected = into.gauge(
            "pilot_total_rejected_configs", "Objects that are not obeyed as they are."
        )
        self._config_events = into.counter(
            "pilot_k8s_cfg_events", "Changes of Istio's own objects.", "type", "event"
        )
        self._registry_events = into.counter(
            "pilot_k8s_reg_events", "Changes of objects of Kubernetes.", "type", "event"
        )
        self._root_ends = into.gauge(
            "citadel_server_root_cert_expiry_timestamp", "When the first root ends, in Unix time."
        )
        self._root_left = into.gauge(
            "citadel_server_root_cert_expiry_seconds", "How long until the first root ends."
        )
        self._chain_ends = into.gauge(
            "citadel_server_cert_chain_expiry_timestamp",
            "When the first certificate of the signing chain ends, in Unix time.",
        )
        self._chain_left = into.gauge(
            "citadel_server_cert_chain_expiry_seconds",
            "How long until the first certificate of the signing chain ends.",
        )

    def _count(self, batch: changes.Changes) -> None:
        for metric, kinds in (
            (self._config_events, self._config_kinds()),
            (self._registry_events, self._registry_kinds()),
        ):
            for kind, source in kinds.items():
                for change in batch.of(source).values():
                    event = ADD if change.old is None else UPDATE
                    metric.add(1, kind, DELETE if change.new is None else event)

    def _config_kinds(self) -> Mapping[str, collections.Collection[object, object]]:
        sources = self._mesh.sources
        return {
            "AuthorizationPolicy": _any(sources.authorization_policies),
            "DestinationRule": _any(sources.destination_rules),
            "Gateway": _any(sources.gateways),
            "PeerAuthentication": _any(sources.peer_authentications),
            "ServiceEntry": _any(sources.service_entries),
            "VirtualService": _any(sources.virtual_services),
        }

    def _registry_kinds(self) -> Mapping[str, collections.Collection[object, object]]:
        sources = self._mesh.sources
        return {
            "EndpointSlice": _any(sources.endpoint_slices),
            "Namespaces": _any(sources.namespaces),
            "Nodes": _any(sources.nodes),
            "Pods": _any(sources.pods),
            "Services": _any(sources.services),
        }

    def _refresh(self) -> None:
        self._uptime.set(round(self._clock.monotonic() - self._began, 1))
        graph, model = self._mesh.graph, self._mesh.model
        endpoints = graph.items(model.endpoints)
        self._services.set(len(graph.items(model.services)))
        self._virtuals.set(len(graph.items(model.virtual_services)))
        self._empty.set(sum(not found for found in endpoints.values()))
        self._unready.set(
            len(
                {
                    (one.cluster, one.address)
                    for service in tuple(model.shards.buckets)
                    for slice_ in graph.lookup(model.shards, service).values()
                    for one in slice_.endpoints
                    if one.health is not Health.HEALTHY
                }
            )
        )
        found = graph.items(model.findings).values()
        self._rejected.set(len({one.subject for one in found if one.code.startswith(REFUSED)}))
        authority = self._authority()
        if authority is not None:
            roots = [one.not_valid_after_utc for one in authority.roots]
            chain = [one.not_valid_after_utc for one in authority.chain]
            self._ends(min(roots), self._root_ends, self._root_left)
            self._ends(min([*chain, authority.ends]), self._chain_ends, self._chain_left)

    def _ends(self, when: clock.Instant, at: metrics.Metric, left: metrics.Metric) -> None:
        at.set(when.timestamp())
        left.set((when - self._clock.now()) // SECOND)


def _any(source: object) -> collections.Collection[object, object]:
    assert isinstance(source, collections.Collection)
    return source
