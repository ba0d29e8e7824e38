"""Clusters, endpoints, listeners and routes of gateways."""

from collections.abc import Callable, Iterator, Sequence

from isthmus.engine import collections, graph, reader
from isthmus.mesh import policies
from isthmus.mesh.authorization import AuthorizationPolicy
from isthmus.mesh.services import Service, ServiceKey
from isthmus.views import (
    assignments,
    authorization,
    facts,
    gateway,
    horizon_slices,
    names,
    outbound,
    outbound_clusters,
    outbound_slices,
    routing,
    rules,
    spreading,
    view,
)

Slices = collections.Collection[view.SliceKey, view.Slice]
Plans = collections.Collection[view.GatewayScope, gateway.Plan]
Seen = tuple[view.GatewayScope, ServiceKey]
Sliced = Iterator[tuple[view.SliceKey, view.Slice]]
NOT_FOUND = 404
MISDIRECTED = 421


def declare_plans(
    graph_: graph.Graph,
    known: facts.Facts,
    scopes: collections.Collection[view.Scope, int],
) -> Plans:
    """Declare what each kind of gateway does."""
    return graph_.derive("views/plans of gateways", scopes, _planned(known))


def declare(
    graph_: graph.Graph,
    known: facts.Facts,
    plans: Plans,
    *,
    behind: spreading.Standing,
) -> tuple[Slices, ...]:
    """Declare all slices of gateways, but for endpoints that sidecars see as well."""

    def seen(
        read: reader.Reader, key: ServiceKey, service: Service
    ) -> Iterator[tuple[Seen, Service]]:
        for scope, plan in read.items(plans).items():
            if plan.exposes(service, namespace=scope.namespace):
                yield (scope, key), service

    exposed = graph_.derive("views/exposed services", known.model.services, seen)
    by_scope = graph_.index_by_key(
        "views/exposed services by gateway", exposed, lambda key: (key[0],)
    )
    return (
        graph_.derive("views/passed clusters", exposed, _passed_clusters(known)),
        graph_.derive("views/passed endpoints", exposed, _passed_endpoints(known)),
        graph_.derive("views/gateways' own clusters", plans, _target_clusters(known, behind)),
        graph_.derive("views/gateways' listeners", plans, _listeners(known, by_scope)),
    )


def _planned(
    known: facts.Facts,
) -> Callable[[reader.Reader, view.Scope, int], Iterator[tuple[view.GatewayScope, gateway.Plan]]]:
    def planned(
        read: reader.Reader, scope: view.Scope, _: int
    ) -> Iterator[tuple[view.GatewayScope, gateway.Plan]]:
        if isinstance(scope, view.GatewayScope):
            gateways = read.items(known.gateway_objects)
            virtuals = read.items(known.virtual_objects)
            yield (
                scope,
                gateway.plan_of(
                    scope,
                    gateways=[gateways[name] for name in sorted(gateways)],
                    virtuals=[virtuals[name] for name in sorted(virtuals)],
                ),
            )

    return planned


def _passed_clusters(known: facts.Facts) -> Callable[[reader.Reader, Seen, Service], Sliced]:
    def sliced(read: reader.Reader, key: Seen, service: Service) -> Sliced:
        scope, _ = key
        settings = read.value(known.model.settings)
        rule = outbound_slices.rule_for(
            read, known, service, client=scope.namespace, labels=scope.labels
        )
        protocols = {port.number: port.protocol for port in service.ports}
        for port, subset in _passed(service, rule):
            policy = rules.policy_of(rule, port=port, subset=subset, usual=settings.traffic)
            cluster = view.ClusterSlice(
                names.server_name(service.hostname, port=port, subset=subset),
                view.Discovery.EDS,
                service=(service.hostname, service.key.name, service.key.namespace),
            )
            yield view.keyed(
                scope,
                spreading.within_network(
                    gateway.passing(cluster, policy, service=service, settings=settings),
                    policy,
                    spoken=protocols[port],
                ),
            )

    return sliced


def _passed_endpoints(known: facts.Facts) -> Callable[[reader.Reader, Seen, Service], Sliced]:
    def sliced(read: reader.Reader, key: Seen, service: Service) -> Sliced:
        scope, name = key
        for slice_ in assignments.passed_on(
            service,
            known.bunches_of(read, name),
            rule=outbound_slices.rule_for(
                read, known, service, client=scope.namespace, labels=scope.labels
            ),
            horizon=_own_network(scope),
            table=read.value(known.gateways),
            settings=read.value(known.model.settings),
        ):
            yield view.keyed(scope, slice_)

    return sliced


def _own_network(scope: view.GatewayScope) -> view.HorizonScope:
    """Return where a gateway stands, seeing no other network unless it asks for it.

    A gateway that passed traffic on to another network's gateway could get it back.
    """
    own = (scope.network,) if scope.network else ()
    return view.HorizonScope(scope.cluster, scope.network, scope.requested_networks or own)


def _passed(service: Service, rule: policies.DestinationRule | None) -> Iterator[tuple[int, str]]:
    for port in outbound.ports_of(service):
        for subset in rules.subsets_of(rule):
            yield port.number, subset.name


def _target_clusters(
    known: facts.Facts, behind: spreading.Standing
) -> Callable[[reader.Reader, view.GatewayScope, gateway.Plan], Sliced]:
    def sliced(read: reader.Reader, scope: view.GatewayScope, plan: gateway.Plan) -> Sliced:
        settings = read.value(known.model.settings)
        yield view.keyed(scope, outbound.black_hole(settings))
        yield from outbound_slices.starting(scope, settings)
        wanted = {
            _resolver(read, known, scope, port)(destination): destination.host
            for destination, port in plan.destinations()
        }
        for host in sorted(set(wanted.values())):
            service = outbound_slices.service_named(read, known, host)
            if service is None:
                continue
            for cluster in outbound.clusters_of(
                service,
                rule=outbound_slices.rule_for(
                    read, known, service, client=scope.namespace, labels=scope.labels
                ),
                accounts=known.accounts_of(read, service.key),
                settings=settings,
                behind=spreading.seen_from(
                    read, behind, service.key, horizon_slices.horizon_of(scope)
                ),
            ):
                if cluster.name in wanted:
                    told = outbound_clusters.completed(read, known, cluster, service, scope=scope)
                    marks_sockets = scope.marks_sockets
                    yield view.keyed(scope, spreading.marked(told, marks_sockets=marks_sockets))

    return sliced


def _resolver(
    read: reader.Reader, known: facts.Facts, scope: view.GatewayScope, port: int
) -> routing.Resolve:
    return outbound_slices.resolver(
        read, known, client=scope.namespace, port=port, labels=scope.labels
    )


def _listeners(
    known: facts.Facts, by_scope: collections.Index[view.GatewayScope, Seen, Service]
) -> Callable[[reader.Reader, view.GatewayScope, gateway.Plan], Sliced]:
    def sliced(read: reader.Reader, scope: view.GatewayScope, plan: gateway.Plan) -> Sliced:
        log_path = read.value(known.model.settings).access_log_path
        held = _authorizations(read, known, scope)
        for port in plan.ports:
            if port.ends_tunnels:
                continue
            resolve = _resolver(read, known, scope, port.port)
            if port.http is not None:
                key_of = outbound_slices.keys_for(
                    read, known, client=scope.namespace, port=port.port, labels=scope.labels
                )
                routes = _routes(port, scope=scope, resolve=resolve, key_of=key_of)
                yield view.keyed(scope, view.GatewayHttp(port.port, routes.name, log_path, held))
                yield view.keyed(scope, routes)
            elif port.tcp:
                shares = routing.split(port.tcp, resolve=resolve)
                yield view.keyed(
                    scope,
                    view.GatewayTcp(port.port, shares[0].cluster_name, log_path, held, shares),
                )
            else:
                passed = _server_names(read, known, by_scope, scope=scope, port=port)
                clusters = {
                    target: routing.split(target.destinations, resolve=resolve)
                    for target in port.tls
                }
                chains = gateway.chains_of(port, passed=passed, clusters=clusters)
                ended = gateway.ended_of(port)
                if chains or ended:
                    told = view.GatewayTls(
                        port.port, chains, log_path, ended, held if ended else ()
                    )
                    yield view.keyed(scope, told)
                key_of = outbound_slices.keys_for(
                    read, known, client=scope.namespace, port=port.port, labels=scope.labels
                )
                for one in port.ended:
                    yield view.keyed(
                        scope, _ended_routes(one, scope=scope, resolve=resolve, key_of=key_of)
                    )

    return sliced


def _authorizations(
    read: reader.Reader, known: facts.Facts, scope: view.GatewayScope
) -> tuple[AuthorizationPolicy, ...]:
    settings = read.value(known.model.settings)
    return authorization.policies_of(
        facts.authorizations_for(
            read, known, namespace=scope.namespace, root=settings.root_namespace
        ),
        namespace=scope.namespace,
        labels=dict(scope.labels),
        settings=settings,
    )


def _routes(
    port: gateway.PortPlan,
    *,
    scope: view.GatewayScope,
    resolve: routing.Resolve,
    key_of: routing.Keys,
) -> view.RouteSlice:
    hosts = _hosts(port.http or (), port=port.port, scope=scope, resolve=resolve, key_of=key_of)
    return view.RouteSlice(
        names.gateway_route(port.port), hosts, fallback_cluster="", fallback_status=NOT_FOUND
    )


def _ended_routes(
    ended: gateway.EndedTls,
    *,
    scope: view.GatewayScope,
    resolve: routing.Resolve,
    key_of: routing.Keys,
) -> view.RouteSlice:
    routed = {host.host for host in ended.hosts}
    idle = [
        gateway.HttpHost(name, None, ended.gateway)
        for name in ended.server_names
        if name not in routed
    ]
    found = (*ended.hosts, *idle)
    hosts = _hosts(found, port=ended.port, scope=scope, resolve=resolve, key_of=key_of)
    # Whoever asks for a host of another certificate is told to ask on a connection of its own.
    status = MISDIRECTED if ended.server_names else NOT_FOUND
    return view.RouteSlice(ended.route_name, hosts, fallback_cluster="", fallback_status=status)


def _hosts(
    found: Sequence[gateway.HttpHost],
    *,
    port: int,
    scope: view.GatewayScope,
    resolve: routing.Resolve,
    key_of: routing.Keys,
) -> tuple[view.VirtualHost, ...]:
    hosts = [
        view.VirtualHost(
            f"{host.host}:{port}",
            (host.host,),
            routing.routes_of(
                host.virtual,
                place=routing.Place(
                    host.gateway,
                    scope.namespace,
                    scope.cluster,
                    scope.network,
                    port,
                    scope.labels,
                ),
                resolve=resolve,
                key_of=key_of,
            )
            if host.virtual is not None
            else (),
            needs_tls=host.redirects,
        )
        for host in found
    ]
    return tuple(sorted(hosts, key=lambda host: host.name))


def _server_names(
    read: reader.Reader,
    known: facts.Facts,
    by_scope: collections.Index[view.GatewayScope, Seen, Service],
    *,
    scope: view.GatewayScope,
    port: gateway.PortPlan,
) -> list[str]:
    """Return what may be asked for on a port that passes mutual TLS on, in order."""
    if not port.exposed:
        return []
    found = read.lookup(by_scope, scope)
    asked = [
        names.server_name(service.hostname, port=number, subset=subset)
        for (_, _), service in found.items()
        if any(host.covers(service) for host in port.exposed)
        for number, subset in _passed(
            service,
            outbound_slices.rule_for(
                read, known, service, client=scope.namespace, labels=scope.labels
            ),
        )
    ]
    return sorted(asked)
