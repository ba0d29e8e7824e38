"""What is wrong with single objects where only all of the mesh shows it.

Each finding names an object and says what goes on working; none stops anything.

    VIEW-001  a VirtualService leads to a host or subset that is not there
    VIEW-002  a server of a Gateway wants what gateways cannot do
    VIEW-003  a DestinationRule wants TLS with a Secret that proxies do not read
    VIEW-004  a Service speaks HTTP on a port where sidecars listen themselves
    VIEW-006  a DestinationRule says where to fail over, but nothing notices failures
    VIEW-008  an AuthorizationPolicy names a service that no waypoint stands before
    VIEW-030  a ServiceEntry names an address that another service was given
"""

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Final

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.mesh import policies
from isthmus.mesh.authorization import AuthorizationPolicy, TargetKind
from isthmus.mesh.services import Service, ServiceKey
from isthmus.mesh.traffic import TrafficPolicy
from isthmus.views import facts, gateway, names, outbound, outbound_slices, rules, waypoint_uses

NOWHERE: Final = "ISM-VIEW-001"
IMPASSABLE: Final = "ISM-VIEW-002"
FOREIGN_TLS: Final = "ISM-VIEW-003"
PORT_TAKEN: Final = "ISM-VIEW-004"
UNNOTICED: Final = "ISM-VIEW-006"
HELD_NOWHERE: Final = "ISM-VIEW-008"
ADDRESS_TAKEN: Final = "ISM-VIEW-030"

Findings = collections.Collection[Hashable, errors.Finding]
Found = Iterator[tuple[Hashable, errors.Finding]]


def declare(graph_: graph.Graph, known: facts.Facts) -> Findings:
    """Declare the findings of the views."""
    return graph_.join(
        "views/findings",
        graph_.derive("views/routes to nowhere", known.virtual_objects, _nowhere(known)),
        graph_.derive("views/impassable servers", known.gateway_objects, _impassable),
        graph_.derive("views/foreign TLS", known.rules, _foreign),
        graph_.derive("views/taken ports", known.model.services, _taken),
        graph_.derive("views/unnoticed failures", known.rules, _unnoticed(known)),
        graph_.derive(
            "views/policies held nowhere", known.model.authorization_policies, _unheld(known)
        ),
        graph_.derive("views/taken addresses", known.refused, _refused(known)),
    )


def _nowhere(
    known: facts.Facts,
) -> Callable[[reader.Reader, facts.Named, policies.VirtualService], Found]:
    def found(read: reader.Reader, name: facts.Named, virtual: policies.VirtualService) -> Found:
        for destination in _destinations(virtual):
            service = outbound_slices.service_named(read, known, destination.host)
            # Without a port of its own a destination means the route's: any will do here.
            port = (
                destination.port or next((one.number for one in service.ports), 0) if service else 0
            )
            resolve = outbound_slices.resolver(read, known, client=virtual.namespace, port=port)
            is_any_port = service is not None and not destination.port and not destination.subset
            if is_any_port or resolve(destination) != names.BLACK_HOLE:
                continue
            where = f"{destination.host}:{destination.port}/{destination.subset}".rstrip("/")
            yield (
                (NOWHERE, *name, where),
                errors.Finding(
                    NOWHERE,
                    subject=f"VirtualService {virtual.namespace}/{virtual.name}",
                    happened=f"leads to `{where}`, which is not there",
                    still_working="its other routes; these requests are answered with 503",
                    hint="check host and port, and that a DestinationRule names the subset",
                ),
            )

    return found


def _unheld(
    known: facts.Facts,
) -> Callable[[reader.Reader, Hashable, AuthorizationPolicy], Found]:
    def found(read: reader.Reader, _: Hashable, policy: AuthorizationPolicy) -> Found:
        for target in policy.targets:
            if target.kind is TargetKind.SERVICE:
                key = ServiceKey(policy.namespace, target.name)
                service = read.get(known.model.services, key)
                if service is not None and _has_waypoint(read, known, service):
                    continue
            elif target.kind is not TargetKind.ENTRY:
                continue
            yield (
                (HELD_NOWHERE, policy.namespace, policy.name, target.kind.value, target.name),
                errors.Finding(
                    HELD_NOWHERE,
                    subject=f"AuthorizationPolicy {policy.namespace}/{policy.name}",
                    happened=f"names {target.kind.value} `{target.name}`, before which no waypoint "
                    "stands: nobody obeys it there",
                    still_working="where it names something else; all other policies",
                    hint="give the service a waypoint (label istio.io/use-waypoint), or select the "
                    "pods by labels instead",
                ),
            )

    return found


def _has_waypoint(read: reader.Reader, known: facts.Facts, service: Service) -> bool:
    clusters = (cluster for cluster, _ in service.vips)
    return any(
        waypoint_uses.of_service(read, known, service, cluster=one) is not None for one in clusters
    )


def _refused(
    known: facts.Facts,
) -> Callable[[reader.Reader, tuple[ServiceKey, str], ServiceKey], Found]:
    def found(read: reader.Reader, key: tuple[ServiceKey, str], owner: ServiceKey) -> Found:
        named, address = key
        service = read.get(known.model.services, named)
        entry = service.entry if service is not None else None
        if entry is not None:
            yield (
                (ADDRESS_TAKEN, *key),
                errors.Finding(
                    ADDRESS_TAKEN,
                    subject=f"ServiceEntry {named.namespace}/{entry.name}",
                    happened=f"names address `{address}`, which `{owner.name}` of namespace "
                    f"`{owner.namespace}` was given",
                    still_working="who has it keeps it; the entry is known by its hosts and by its "
                    "other addresses",
                    hint="choose an address outside of the range that addresses are given from",
                ),
            )

    return found


def _destinations(virtual: policies.VirtualService) -> Iterable[policies.Destination]:
    """Return where a VirtualService leads, each destination once."""
    found = [
        *(one for http in virtual.http for one in http.destinations),
        *(one.destination for http in virtual.http for one in http.mirrors),
        *(one for tls in virtual.tls for one in tls.destinations),
        *(one for tcp in virtual.tcp for one in tcp.destinations),
    ]
    return dict.fromkeys(found)


def _impassable(_: reader.Reader, name: facts.Named, object_: policies.Gateway) -> Found:
    for server in object_.servers:
        if gateway.is_passable(server):
            continue
        wanted = f"{server.protocol} {server.tls.value}".strip()
        yield (
            (IMPASSABLE, *name, str(server.port)),
            errors.Finding(
                IMPASSABLE,
                subject=f"Gateway {object_.namespace}/{object_.name}",
                happened=f"port {server.port} wants `{wanted}`, which gateways cannot do yet",
                still_working="its other ports; on this one nothing listens",
                hint="use PASSTHROUGH or AUTO_PASSTHROUGH, plain HTTP or TCP, or HTTPS with SIMPLE, "
                "MUTUAL or OPTIONAL_MUTUAL",
            ),
        )


def _foreign(
    _: reader.Reader, __: ServiceKey, found: tuple[policies.DestinationRule, ...]
) -> Found:
    for rule in found:
        said = [rule.policy, *(one.policy for one in rule.subsets if one.policy)]
        wanted = {
            part.tls.credential
            for one in said
            for part in (one, *dict(one.ports).values())
            if part.tls is not None and part.tls.credential
        }
        if not wanted:
            continue
        yield (
            (FOREIGN_TLS, rule.namespace, rule.name),
            errors.Finding(
                FOREIGN_TLS,
                subject=f"DestinationRule {rule.namespace}/{rule.name}",
                happened=f"wants Secret `{min(wanted)}` for TLS to `{rule.host}`, which proxies "
                "do not read yet",
                still_working="proxies start TLS, trust the operating system's authorities, and "
                "show no certificate",
                hint="mount the Secret into the proxy, and name its files in `caCertificates`, "
                "`clientCertificate` and `privateKey`",
            ),
        )


def _unnoticed(
    known: facts.Facts,
) -> Callable[[reader.Reader, ServiceKey, tuple[policies.DestinationRule, ...]], Found]:
    def found(
        read: reader.Reader, name: ServiceKey, ruling: tuple[policies.DestinationRule, ...]
    ) -> Found:
        service = read.get(known.model.services, name)
        settings = read.value(known.model.settings)
        for rule in ruling:
            where = "" if service is None else _idle_failover(rule, service, usual=settings.traffic)
            if not where:
                continue
            yield (
                (UNNOTICED, rule.namespace, rule.name, name),
                errors.Finding(
                    UNNOTICED,
                    subject=f"DestinationRule {rule.namespace}/{rule.name}",
                    happened=f"says where to fail over, but has no outlier detection for {where}",
                    still_working="calls go to all endpoints alike, near or far",
                    hint="add `outlierDetection` beside it, such as `consecutive5xxErrors: 5`",
                ),
            )

    return found


def _idle_failover(
    rule: policies.DestinationRule, service: Service, *, usual: TrafficPolicy
) -> str:
    """Return a port of a service where a rule's failover has no effect, or nothing."""
    for port in outbound.ports_of(service):
        for subset in rules.subsets_of(rule):
            policy = rules.policy_of(rule, port=port.number, subset=subset.name, usual=usual)
            said = policy.balancing.locality if policy.balancing is not None else None
            if said is None or policy.outlier is not None or not said.is_enabled:
                continue
            if said.failover or said.labels:
                return f"port {port.number} of `{service.hostname}`"
    return ""


def _taken(_: reader.Reader, name: ServiceKey, service: Service) -> Found:
    taken = [
        port.number
        for port in outbound.ports_of(service)
        if port.protocol.is_http and port.number in outbound.RESERVED
    ]
    if taken:
        yield (
            (PORT_TAKEN, name),
            errors.Finding(
                PORT_TAKEN,
                subject=f"Service {name.namespace}/{name.name}",
                happened=f"speaks HTTP on port {taken[0]}, where sidecars listen themselves",
                still_working="connections to it are passed on as they are, without mutual TLS",
                hint="give it another port",
            ),
        )
