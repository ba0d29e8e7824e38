"""What a mesh on one network needs of the firewalls, and of whom.

Decides which traffic crosses between clusters: proxies call pods at the pods' own ports (the
packets bear those, whatever port the proxy beside the pod redirects them to), pods of a cluster
without a control plane call another cluster's at 15012, and a private cluster's API server calls
the injector at 15017, which the cloud's own rules do not permit. Nothing else does: gateways and
health checks come in through load balancers, which have rules of their own.

Source: spec section 4.1; cloud.google.com/kubernetes-engine/docs/concepts/firewall-rules.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from isthmus.gke import clusters, firewalls, plans, ranges, wishes
from isthmus.gke import ports as port_sets

DISCOVERY: Final[port_sets.Ports] = ((15012, 15012),)
"""Where control planes serve configuration and certificates, over mutual TLS."""

INJECTION: Final[port_sets.Ports] = ((15017, 15017),)
"""Where control planes serve webhooks."""

OURS: Final = "isthmus gke: "
"""How the description of every rule that we made begins."""

_LONGEST_NAME: Final = 63
_NODE_TAG: Final = re.compile(r"gke-.+-[0-9a-f]{8}-node")
_AUTOMATIC: Final = re.compile(r"gke-(?P<cluster>.+)-[0-9a-f]{8}-(?P<purpose>all|master)")


@dataclass(frozen=True, slots=True)
class Need:
    """One firewall rule that would be enough.

    Attributes:
        title: Title of the cluster whose nodes it is about.
        sources: Whose addresses its sources are.
    """

    title: str
    rule: clusters.Rule
    sources: str
    why: str

    @property
    def flow(self) -> firewalls.Flow:
        """The traffic that it is for."""
        return firewalls.Flow(
            self.rule.sources, self.rule.destinations, self.rule.target_tags[0], self.rule.tcp
        )


def needs(
    asked: wishes.Wishes, world: clusters.World, served: Mapping[str, plans.Served]
) -> Iterator[Need]:
    """Yield the rules that each cluster's nodes need; none where something is not known."""
    members = {member.title: member for member in asked.members}
    for cluster in world.clusters:
        rules = world.rules.get(cluster.network, ())
        tag = node_tag(cluster, rules)
        others = [each for each in neighbours(cluster, world) if each.pods]
        if not tag or not cluster.pods or not others:
            continue
        base = _Base(asked, cluster, tag)
        known = served.get(cluster.title, plans.Served())
        if known.ports:
            yield base.need(
                "pods",
                others,
                known.ports,
                why=f"proxies call pods of {cluster.title} at the pods' own ports",
            )
        led = [each for each in others if members[each.title].control_plane == cluster.title]
        if led:
            yield base.need(
                "discovery",
                led,
                DISCOVERY,
                why=f"proxies get configuration and certificates from {cluster.title}",
            )
        if members[cluster.title].has_control_plane and cluster.has_private_nodes:
            yield from base.webhooks(control_plane_ranges(cluster, rules))


def neighbours(cluster: clusters.Cluster, world: clusters.World) -> list[clusters.Cluster]:
    """Return the other clusters on a cluster's network."""
    return [
        each
        for each in world.clusters
        if each.network == cluster.network and each.title != cluster.title
    ]


def node_tag(cluster: clusters.Cluster, rules: Sequence[clusters.Rule]) -> str:
    """Return the network tag that GKE gave all nodes of a cluster and no other machine.

    A node's first tag, which Google's guide takes, may be one that other machines bear, too.
    """
    about = frozenset().union(*cluster.nodes)
    for rule in _automatic(cluster, rules, "all"):
        is_ours = ranges.overlaps(rule.sources, cluster.pods)
        if rule.target_tags and (is_ours or not about.isdisjoint(rule.target_tags)):
            return rule.target_tags[0]
    common = frozenset.intersection(*cluster.nodes) if cluster.nodes else frozenset()
    return min((tag for tag in common if _NODE_TAG.fullmatch(tag)), default="")


def control_plane_ranges(
    cluster: clusters.Cluster, rules: Sequence[clusters.Rule]
) -> tuple[ranges.Range, ...]:
    """Return where a private cluster's API server calls from, as its own rule has it."""
    tag = node_tag(cluster, rules)
    own = (
        source
        for rule in _automatic(cluster, rules, "master")
        if tag in rule.target_tags
        for source in rule.sources
    )
    return ranges.in_order(own) or cluster.control_planes


def _automatic(
    cluster: clusters.Cluster, rules: Sequence[clusters.Rule], purpose: str
) -> Iterator[clusters.Rule]:
    """Yield rules of one purpose that GKE made for a cluster of that name."""
    for rule in rules:
        matched = _AUTOMATIC.fullmatch(rule.name)
        if (
            matched is not None
            and rule.allows
            and (matched["cluster"], matched["purpose"]) == (cluster.place.name, purpose)
        ):
            yield rule


@dataclass(frozen=True, slots=True)
class _Base:
    """What all rules for one cluster's nodes have in common."""

    asked: wishes.Wishes
    cluster: clusters.Cluster
    tag: str

    def need(
        self,
        purpose: str,
        callers: Sequence[clusters.Cluster],
        ports: port_sets.Ports,
        *,
        why: str,
    ) -> Need:
        sources = ranges.in_order(pod for caller in callers for pod in caller.pods)
        named = f"pods of {', '.join(caller.title for caller in callers)}"
        return Need(self.cluster.title, self._rule(purpose, sources, ports), named, why)

    def webhooks(self, sources: tuple[ranges.Range, ...]) -> Iterator[Need]:
        if sources:
            yield Need(
                self.cluster.title,
                self._rule("webhooks", sources, INJECTION),
                f"API server of {self.cluster.title}",
                "the API server asks the injector; GKE's own rule has 443 and 10250 only",
            )

    def _rule(
        self, purpose: str, sources: tuple[ranges.Range, ...], ports: port_sets.Ports
    ) -> clusters.Rule:
        return clusters.Rule(
            rule_name(self.asked.mesh, self.cluster.title, purpose),
            self.cluster.network,
            priority=self.asked.priority,
            traffic=(clusters.Traffic("tcp", ports),),
            sources=sources,
            destinations=ranges.in_order(self.cluster.pods),
            target_tags=(self.tag,),
            description=f"{OURS}{purpose} of {self.cluster.title}",
        )


def rule_name(mesh: str, title: str, purpose: str) -> str:
    """Return a rule's name; one that would be too long is cut and told apart by a hash."""
    name = f"{mesh}-{title}-{purpose}"
    if len(name) <= _LONGEST_NAME:
        return name
    mark = hashlib.sha256(f"{mesh}/{title}".encode()).hexdigest()[:8]
    room = _LONGEST_NAME - len(f"-{mark}-{purpose}")
    return f"{name[:room].rstrip('-')}-{mark}-{purpose}"
