"""From the mesh model to what node proxies are told: what depends on what.

Only wiring: what is said is decided in `addresses` and `connections`. A pod, a service and a policy
become one resource each for each cluster and network in which there are node proxies; without
these nothing is computed. A changed pod computes that pod's resource again, and no other.

Source: spec sections 7.1 to 7.3.
"""

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from typing import Final

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.mesh.ambient import PlacedAddress, Sharing
from isthmus.mesh.authorization import Action, AuthorizationPolicy
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.policies import PeerAuthentication
from isthmus.mesh.services import Resolution, Service, ServiceKey
from isthmus.mesh.workloads import Health, Workload, WorkloadKey
from isthmus.registry import model
from isthmus.views import (
    addresses,
    addressing,
    ambient_entries,
    ambient_loose,
    ambient_networks,
    connections,
    facts,
    view,
    waypoint_uses,
)

Slices = collections.Collection[view.SliceKey, view.Slice]
Sliced = Iterator[tuple[view.SliceKey, view.Slice]]
Places = collections.Collection[view.NodesScope, None]

Selecting = collections.Index[str, facts.Named, AuthorizationPolicy]
Found = Iterator[tuple[Hashable, errors.Finding]]

UNREAD: Final = "ISM-VIEW-007"


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares."""

    slices: tuple[Slices, ...]
    findings: collections.Collection[Hashable, errors.Finding]


NOBODY = Sharing(frozenset())


def declare(
    graph_: graph.Graph,
    known: facts.Facts,
    scopes: collections.Collection[view.Scope, int],
    *,
    pods: model.Pods,
) -> Nodes:
    """Declare what node proxies are told in `graph_`."""
    places = graph_.derive("views/node proxies", scopes, _nodes_only)
    authorizations = known.model.authorization_policies
    selecting = graph_.index(
        "views/authorizations that select by namespace",
        graph_.derive("views/authorizations that select", authorizations, _selecting),
        lambda _, policy: (policy.namespace,),
    )
    loose = ambient_loose.declare(graph_, known, places=places, pods=pods)
    workloads = _workloads(known, pods, places, selecting, loose)
    slices = (
        graph_.derive("views/workloads", known.model.workloads, workloads, while_any=places),
        loose.slices,
        graph_.derive(
            "views/addresses of services",
            known.model.services,
            _services(known, places),
            while_any=places,
        ),
        *ambient_networks.declare(graph_, known, places=places),
        graph_.derive("views/strictness", places, _strictness(known)),
        graph_.derive("views/authorizations", authorizations, _authorizations(known, places)),
        graph_.derive(
            "views/authentications",
            known.model.peer_authentications,
            _authentications(known, places),
        ),
        ambient_entries.declare(graph_, known, places=places),
    )
    return Nodes(
        slices, graph_.derive("views/unread by node proxies", authorizations, _unread(places))
    )


def _nodes_only(
    _: reader.Reader, scope: view.Scope, __: int
) -> Iterator[tuple[view.NodesScope, None]]:
    if isinstance(scope, view.NodesScope):
        yield scope, None


# --- workloads


def _workloads(
    known: facts.Facts,
    pods: model.Pods,
    places: Places,
    selecting: Selecting,
    loose: ambient_loose.Nodes,
) -> Callable[[reader.Reader, WorkloadKey, Workload], Sliced]:
    def sliced(read: reader.Reader, key: WorkloadKey, workload: Workload) -> Sliced:
        scopes = read.items(places)
        traits = read.get(pods.traits, key)
        if traits is None or not workload.addresses:
            return
        answers = [
            (service, one)
            for _, one in sorted(read.lookup(pods.memberships, key).items())
            if not set(workload.addresses).isdisjoint(one.addresses)
            for service in ambient_loose.services_of(read, known, one.service, key.cluster)
        ]
        policies = _policies_of(read, known, selecting, workload)
        place = (key.cluster, key.namespace)
        waypoint = _told_of(
            read,
            known,
            known.model.for_nodes.waypoints.before(
                read, traits.waypoint, place, is_for_services=False
            ),
        )
        entries = ambient_entries.answered_by(
            read, known, cluster=key.cluster, at=workload.addresses
        )
        for scope in scopes:
            if not ambient_loose.is_near(workload.network, scope.network):
                continue
            shown = [
                one
                for one in answers
                if ambient_loose.reaches(read, known, one[0].key, scope, key.cluster)
            ]
            more = {
                **entries,
                **ambient_loose.services_at(read, known, loose, workload, scope),
            }
            if shown or more or key.cluster == scope.cluster:
                slice_ = addresses.workload_of(
                    workload, traits, answers=shown, policies=policies, waypoint=waypoint
                )
                slice_ = addresses.with_services(slice_, more)
                yield view.keyed(scope, slice_)

    return sliced


def _told_of(
    read: reader.Reader, known: facts.Facts, waypoint: ServiceKey | None
) -> view.wds.GatewayAddress | None:
    """Return where a waypoint is found."""
    service = read.get(known.model.services, waypoint) if waypoint is not None else None
    return addresses.waypoint_of(service) if service is not None else None


def _policies_of(
    read: reader.Reader, known: facts.Facts, selecting: Selecting, workload: Workload
) -> tuple[str, ...]:
    root = read.value(known.model.settings).root_namespace
    namespace = workload.key.namespace
    return connections.names_for(
        namespace=namespace,
        labels=dict(workload.labels),
        authorizations=[
            policy for one in (namespace, root) for policy in read.lookup(selecting, one).values()
        ],
        authentications=facts.policies_for(
            read, known.policies_by_namespace, namespace=namespace, root=root
        ),
        root=root,
    )


# --- services


def _services(
    known: facts.Facts, places: Places
) -> Callable[[reader.Reader, ServiceKey, Service], Sliced]:
    def sliced(read: reader.Reader, key: ServiceKey, service: Service) -> Sliced:
        for scope in read.items(places):
            sharing = read.get(known.model.for_nodes.sharing, key) or NOBODY
            if not any(sharing.reaches(scope.cluster, owner=one) for one in sharing.owners):
                continue
            vips = [
                one
                for one in known.model.for_nodes.addresses_of(read, service)
                if sharing.reaches(scope.cluster, owner=one.cluster)
                and not _is_taken(read, known, scope, one.cluster, one.address, one.network)
            ]
            if scope.cluster not in sharing.owners or service.derived is not None:
                vips.extend(_given(read, known, scope, service))
            # Whoever is behind a gateway is known to it alone, but must prove who it is all the
            # same: by any of the identities of the service.
            others = sharing.owners - {scope.cluster}
            is_shared = any(sharing.reaches(scope.cluster, owner=one) for one in others)
            sans = known.accounts_of(read, key) if is_shared else ()
            if is_shared:
                sans += waypoint_uses.identities_of(read, known, service, others)
            waypoint = waypoint_uses.of_service(read, known, service, cluster=scope.cluster)
            if waypoint and is_shared and not _answers_here(read, known, service, scope):
                # Who goes to another network finds the waypoint there.
                waypoint = None
            slice_ = addresses.service_of(
                service,
                addresses=vips,
                sans=tuple(sorted(set(sans))),
                waypoint=_told_of(read, known, waypoint),
            )
            if slice_ is not None:
                yield view.keyed(scope, slice_)

    return sliced


def _answers_here(
    read: reader.Reader, known: facts.Facts, service: Service, scope: view.NodesScope
) -> bool:
    """Say whether any pod answers for a service that a waypoint beside it can call."""
    sharing = read.get(known.model.for_nodes.sharing, service.key) or NOBODY
    return any(
        one.health is Health.HEALTHY
        and ambient_loose.is_near(one.network, scope.network)
        and sharing.reaches(scope.cluster, owner=one.cluster)
        for one in read.get(known.model.endpoints, service.key) or ()
    )


def _given(
    read: reader.Reader, known: facts.Facts, scope: view.NodesScope, service: Service
) -> Iterator[PlacedAddress]:
    """Yield the address of our making, for a service that the cluster of a scope has none of."""
    if service.resolution is Resolution.VIP:
        given = addressing.addresses_of(
            read, known, service, cluster=scope.cluster, naming=view.Naming.ALLOCATED
        )
        for one in addressing.with_twins(read, known, service, given):
            yield PlacedAddress(scope.network, one, scope.cluster)


def _is_taken(
    read: reader.Reader,
    known: facts.Facts,
    scope: view.NodesScope,
    owner: ClusterId,
    address: str,
    network: NetworkId,
) -> bool:
    """Say whether another cluster's address means something else where the clients are."""
    if owner == scope.cluster or not ambient_loose.is_near(network, scope.network):
        return False
    return bool(read.lookup(known.services_by_address, (scope.cluster, address)))


# --- policies


def _selecting(
    _: reader.Reader, __: object, policy: AuthorizationPolicy
) -> Iterator[tuple[facts.Named, AuthorizationPolicy]]:
    # Others hold without being named by workloads: these need not look at them.
    if policy.selector and not policy.targets:
        yield (policy.namespace, policy.name), policy


def _unread(places: Places) -> Callable[[reader.Reader, object, AuthorizationPolicy], Found]:
    """Return what finds policies that node proxies cannot hold to as they are written."""

    def found(read: reader.Reader, _: object, policy: AuthorizationPolicy) -> Found:
        if policy.targets or not connections.is_changed(policy) or not read.items(places):
            return
        outcome = "deny more than they say" if policy.action is Action.DENY else "allow nothing"
        yield (
            (UNREAD, policy.namespace, policy.name),
            errors.Finding(
                UNREAD,
                subject=f"AuthorizationPolicy {policy.namespace}/{policy.name}",
                happened=f"looks at requests, which node proxies do not read: there such rules "
                f"{outcome}",
                still_working="the policy as it is written, where sidecars hold to it",
                hint="for pods without sidecars, say it by identities and ports alone",
            ),
        )

    return found


def _strictness(known: facts.Facts) -> Callable[[reader.Reader, view.NodesScope, None], Sliced]:
    def sliced(read: reader.Reader, scope: view.NodesScope, _: None) -> Sliced:
        root = read.value(known.model.settings).root_namespace
        yield view.keyed(scope, connections.static_strict(root))

    return sliced


def _authorizations(
    known: facts.Facts, places: Places
) -> Callable[[reader.Reader, object, AuthorizationPolicy], Sliced]:
    def sliced(read: reader.Reader, _: object, policy: AuthorizationPolicy) -> Sliced:
        settings = read.value(known.model.settings)
        for scope in read.items(places) if not policy.targets else ():
            yield view.keyed(scope, connections.slice_of(policy, settings=settings))

    return sliced


def _authentications(
    known: facts.Facts, places: Places
) -> Callable[[reader.Reader, object, PeerAuthentication], Sliced]:
    def sliced(read: reader.Reader, _: object, policy: PeerAuthentication) -> Sliced:
        scopes = read.items(places)
        root = read.value(known.model.settings).root_namespace
        others = facts.policies_for(
            read, known.policies_by_namespace, namespace=policy.namespace, root=root
        )
        slice_ = connections.converted(policy, others, root=root)
        if slice_ is not None:
            for scope in scopes:
                yield view.keyed(scope, slice_)

    return sliced
