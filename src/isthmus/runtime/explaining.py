"""Everything that decides one call of one proxy, as a document.

Puts together what the pure rooms say: the way of the call, each endpoint's share or the reason why
it has none, the policies at the other end, and the names in the certificates.

Source: docs/howto/debug-a-call.md.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from cryptography.hazmat.primitives import hashes

from isthmus.ca import authority as authorities
from isthmus.ca import pem
from isthmus.engine import reader
from isthmus.mesh.identities import SpiffeId
from isthmus.mesh.policies import PeerAuthentication, Subset
from isthmus.mesh.proxies import Proxy
from isthmus.mesh.services import Service
from isthmus.mesh.workloads import Endpoint, Health
from isthmus.runtime import assembly
from isthmus.views import (
    authorization,
    compiler,
    explanation,
    facts,
    horizon_slices,
    judgements,
    modes,
    outbound,
    outbound_slices,
    rules,
    view,
    walks,
)

Document = dict[str, Any]
ANY_RANK: Final = 2**31
NAME_PARTS: Final = 4


class Explainer:
    """Explains calls from the state of this moment."""

    def __init__(
        self, mesh: assembly.Mesh, *, authority: Callable[[], authorities.Authority | None]
    ) -> None:
        self._mesh = mesh
        self._known: facts.Facts = mesh.views.facts
        self._authority = authority

    def explained(self, proxy: Proxy, scopes: Iterable[view.Scope], *, call: str) -> Document:
        """Return the story of a call.

        Raises:
            CallNotUnderstood: No proxy could make such a call (ISM-VIEW-020).
        """
        # What it records is thrown away: nothing is computed again because of a question.
        read = reader.Reader(owner=self._mesh.graph, rank=ANY_RANK)
        seen = tuple(scopes)
        told = compiler.told(self._mesh.graph, self._mesh.views, seen)
        asked = walks.understood(call)
        scope = _outbound(seen)
        story = _Story(read, self._known, proxy, scope, told)
        found = walks.walk(read, self._known, scope, asked=asked, told=told)
        return {
            "caller": story.caller(),
            "call": {"host": found.asked.host, "port": found.asked.port},
            "service": story.service(found),
            "listener": _listener(found),
            "route": {"name": found.route_name, "virtualHost": found.virtual_host},
            "legs": [story.leg(leg, found) for leg in found.legs],
            "certificates": self._certificates(story.identity),
        }

    def _certificates(self, identity: SpiffeId) -> Document:
        authority = self._authority()
        if authority is None:
            return {"identity": str(identity), "issuer": None, "roots": []}
        issuer = authority.issuer.certificate
        return {
            "identity": str(identity),
            "issuer": {
                "subject": pem.subject(issuer),
                "notAfter": issuer.not_valid_after_utc.isoformat(),
            },
            "roots": [
                {
                    "subject": pem.subject(root),
                    "sha256": root.fingerprint(hashes.SHA256()).hex(),
                    "notAfter": root.not_valid_after_utc.isoformat(),
                }
                for root in authority.roots
            ],
        }


@dataclasses.dataclass(frozen=True, slots=True)
class _Story:
    read: reader.Reader
    known: facts.Facts
    proxy: Proxy
    scope: view.OutboundScope
    told: Mapping[view.SliceKey, view.Slice]

    @property
    def identity(self) -> SpiffeId:
        """Return who the caller is for the other end."""
        cluster = self.proxy.cluster
        said = self.read.get(self.known.model.trust.domains, cluster)
        domain = said or self.read.value(self.known.model.settings).trust_domain
        return SpiffeId(domain, self.proxy.namespace, self.proxy.service_account)

    def caller(self) -> Document:
        """Return who calls, and from where."""
        return {
            "proxy": self.proxy.id,
            "cluster": self.proxy.cluster,
            "network": self.scope.network,
            "namespace": self.proxy.namespace,
            "identity": str(self.identity),
        }

    def service(self, walk: walks.Walk) -> Document | None:
        """Return the service that is called."""
        service = walk.service
        if service is None:
            return None
        return {
            "hostname": service.hostname,
            "name": service.key.name,
            "namespace": service.key.namespace,
            "resolution": service.resolution.value,
            "isClusterLocal": service.is_cluster_local,
            "addresses": {cluster: list(vips) for cluster, vips in service.vips},
            "used": list(walk.addresses),
        }

    def leg(self, leg: walks.Leg, walk: walks.Walk) -> Document:
        """Return one route with its cluster and all endpoints."""
        document: Document = {
            "match": _match(leg.route),
            "virtualService": _named(leg.route.virtual if leg.route else None),
            "share": leg.share,
            "here": _done_here(leg.route),
            "hasFault": bool(leg.route and leg.route.treatment.fault),
            "cluster": leg.cluster_name,
            "endpoints": [],
        }
        cluster = leg.cluster
        if cluster is None:
            return document
        document |= {
            "type": cluster.discovery.value,
            "loadBalancer": cluster.balancer.value,
            "destinationRule": self._rule(cluster),
            "tls": cluster.tls.value,
            "sni": cluster.sni,
            "expectedIdentities": list(cluster.sans),
            "trusts": _trusted(cluster.foreign),
        }
        parts = cluster.name.split("|")
        service = outbound_slices.service_named(self.read, self.known, parts[-1])
        if service is not None and len(parts) == NAME_PARTS:
            found = self._verdicts(cluster, service, port=int(parts[1]), subset=parts[2])
            document["endpoints"] = [self._endpoint(one, cluster, service) for one in found]
        return document

    def _rule(self, cluster: view.ClusterSlice) -> Document | None:
        if cluster.rule is None:
            return None
        namespace, name = cluster.rule
        root = self.read.value(self.known.model.settings).root_namespace
        own = cluster.service[2] if cluster.service else ""
        places = {root: "root namespace", own: "service's namespace"}
        place = {**places, self.proxy.namespace: "client's namespace"}.get(namespace, "")
        return {"name": f"{name}.{namespace}", "place": place}

    def _verdicts(
        self, cluster: view.ClusterSlice, service: Service, *, port: int, subset: str
    ) -> tuple[explanation.Verdict, ...]:
        read, known = self.read, self.known
        rule = outbound_slices.rule_for(
            read, known, service, client=self.scope.namespace, labels=self.scope.labels
        )
        settings = read.value(known.model.settings)
        horizon = horizon_slices.horizon_of(self.scope)
        candidates = known.candidates_of(read, service.key)
        dials = cluster.discovery is view.Discovery.ORIGINAL_DST
        reached = outbound.reachable(candidates, service=service, horizon=horizon) if dials else ()
        question = explanation.Question(
            service=service,
            port_name=next((one.name for one in service.ports if one.number == port), ""),
            subset=next(
                (one for one in rules.subsets_of(rule) if one.name == subset), Subset(subset, ())
            ),
            policy=rules.policy_of(rule, port=port, subset=subset, usual=settings.traffic),
            horizon=horizon,
            table=read.value(known.gateways),
            slice=None if dials else self._slice(cluster.name),
            weighs_places=cluster.weighs_places,
            dialled=frozenset((one.address, one.port) for one in reached),
        )
        shards = read.lookup(known.model.shards, service.key).values()
        unready = [
            endpoint
            for shard in shards
            for endpoint in shard.endpoints
            if endpoint.health is not Health.HEALTHY
        ]
        return explanation.verdicts(question, candidates, unready)

    def _slice(self, name: str) -> view.EndpointsSlice:
        """Return what the proxy was told of a cluster's endpoints: the last scope's word."""
        found = view.EndpointsSlice(name, ())
        for key, slice_ in self.told.items():
            if key.name == name and isinstance(slice_, view.EndpointsSlice):
                found = slice_
        return found

    def _endpoint(
        self, one: explanation.Verdict, cluster: view.ClusterSlice, service: Service
    ) -> Document:
        endpoint = one.endpoint
        is_mutual = cluster.tls is view.UpstreamTls.MUTUAL or (
            cluster.tls is view.UpstreamTls.AUTO and one.speaks_mtls
        )
        addresses = (*one.told, *one.via)
        return {
            "address": endpoint.address,
            "port": endpoint.port,
            "cluster": endpoint.cluster,
            "network": endpoint.network,
            "locality": str(endpoint.locality),
            "workload": endpoint.workload,
            "verdict": _verdict(one),
            "reason": one.reason.value if one.reason else "",
            "via": [f"{each.address}:{each.port}" for each in one.via],
            "priority": min((each.priority for each in addresses), default=None),
            "weight": sum(each.weight for each in addresses),
            "share": one.share,
            "mutualTls": is_mutual,
            "peerAuthentication": self._accepted(endpoint, service),
            "authorization": self._judged(endpoint, service, is_mutual=is_mutual),
        }

    def _accepted(self, endpoint: Endpoint, service: Service) -> Document:
        root = self.read.value(self.known.model.settings).root_namespace
        namespace = service.key.namespace
        found: list[PeerAuthentication] = facts.policies_for(
            self.read, self.known.policies_by_namespace, namespace=namespace, root=root
        )
        labels = dict(endpoint.labels)
        deciding = modes.deciding(
            found, namespace=namespace, labels=labels, root=root, port=endpoint.port
        )
        mode = modes.modes_of(found, namespace=namespace, labels=labels, root=root)
        named = None if deciding is None else (deciding.namespace, deciding.name)
        has_proxy = endpoint.accepts_mtls or endpoint.accepts_tunnels
        return {
            "mode": mode.of(endpoint.port).value if has_proxy else "no proxy",
            "policy": _named(named),
        }

    def _judged(self, endpoint: Endpoint, service: Service, *, is_mutual: bool) -> Document:
        settings = self.read.value(self.known.model.settings)
        namespace = service.key.namespace
        held = authorization.policies_of(
            facts.authorizations_for(
                self.read, self.known, namespace=namespace, root=settings.root_namespace
            ),
            namespace=namespace,
            labels=dict(endpoint.labels),
            settings=settings,
        )
        identity = str(self.identity) if is_mutual else ""
        found = judgements.judged(held, judgements.Call(identity, endpoint.port))
        return {
            "outcome": found.outcome.value
            if endpoint.accepts_mtls or endpoint.accepts_tunnels
            else "no proxy",
            "policies": [
                {
                    "name": f"{policy.name}.{policy.namespace}",
                    "action": policy.action.value,
                    "fit": fit.value,
                }
                for policy, fit in found.policies
            ],
        }


def _outbound(scopes: Iterable[view.Scope]) -> view.OutboundScope:
    for scope in scopes:
        if isinstance(scope, view.OutboundScope):
            return scope
    raise walks.CallNotUnderstood(
        "this proxy makes no calls of its own: it is a gateway",
        hint="name the pod that calls; what a gateway has: isthmus proxy-config all POD",
    )


def _listener(found: walks.Walk) -> Document | None:
    if found.listener is None:
        return None
    kinds = {view.OutboundHttp: "HTTP", view.OutboundTcp: "TCP"}
    return {
        "name": view.listener_name(found.listener),
        "protocol": kinds.get(type(found.listener), "any"),
    }


def _match(route: view.Route | None) -> str:
    if route is None:
        return ""
    words = [route.method, route.scheme, route.authority, _path(route.path)]
    words += [f"{name}={_value(value)}" for name, value in (*route.headers, *route.query)]
    words += [f"without {name}={_value(value)}" for name, value in route.without_headers]
    return " ".join(word for word in words if word)


def _path(pattern: str) -> str:
    kind, _, text = pattern.partition(":")
    return f"{text or '/'}*" if kind in {"", "prefix"} else _value(pattern)


def _value(pattern: str) -> str:
    kind, has_kind, text = pattern.partition(":")
    shown = {"exact": text, "prefix": f"{text}*", "regex": f"~{text}", "present": "*"}
    return shown.get(kind, pattern) if has_kind else pattern


def _done_here(route: view.Route | None) -> str:
    """Say what a proxy does with requests that it passes on to nobody."""
    if route is None or route.targets:
        return ""
    if route.treatment.redirect is not None:
        return "redirected by the proxy"
    answer = route.treatment.answer
    return f"answered by the proxy with {answer.status}" if answer is not None else "not passed on"


def _named(named: tuple[str, str] | None) -> str:
    return f"{named[1]}.{named[0]}" if named is not None else ""


def _verdict(one: explanation.Verdict) -> str:
    if one.reason is not None:
        return "excluded"
    if one.via:
        return "hidden"
    return "preferred" if all(each.priority == 0 for each in one.told) else "failover"


def _trusted(foreign: view.ForeignTls | None) -> str:
    """Return whom a client of TLS that is not the mesh's believes; nothing where there is none."""
    if foreign is None:
        return ""
    if not foreign.verifies:
        return "anybody: the rule skips verifying"
    return foreign.authorities or "the operating system's authorities"
