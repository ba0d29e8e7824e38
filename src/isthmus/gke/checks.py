"""What stands in a plan's way, or should be known before it is carried out.

Decides what stops: whatever would not work afterwards, would widen more than was asked for, or
would take something from somebody else. All else is a warning.
"""

from collections.abc import Iterator, Sequence
from itertools import combinations
from typing import Final

from isthmus.base import errors
from isthmus.gke import clusters, firewalls, needs, plans, ranges, wishes
from isthmus.gke import ports as port_sets

MANY_PORTS: Final = 1024
"""From here on a rule is as good as one for all ports."""

_MOST_NETWORKS: Final = 50
_MOST_NETWORKS_PRIVATE: Final = 100
_NEVER_MASQUERADED: Final = tuple(
    ranges.range_of(text)
    for text in (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "100.64.0.0/10",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "240.0.0.0/4",
    )
)
"""Destinations that pods' packets reach with the pod's own address, unless told otherwise."""


def checks(
    plan: plans.Plan, wanted: Sequence[needs.Need], *, may_be_wide: bool
) -> Iterator[plans.Check]:
    """Yield everything that a person should know, what stops first."""
    found = [
        *_networks(plan),
        *_overlaps(plan.world),
        *_hosts(plan),
        *_unknowns(plan),
        *_names(plan),
        *_refusals(plan, wanted),
        *_wide_wishes(plan, may_be_wide=may_be_wide),
        *_limits(plan),
        *_states(plan),
        *_wide_rules(plan, wanted),
        *_api_servers(plan.world),
        *_paths(plan),
        *(
            _warning("ISM-GKE-033", "not read", line, hint="checks that depend on it are left out")
            for line in plan.world.unread
        ),
    ]
    yield from sorted(found, key=lambda check: not check.stops)


def _networks(plan: plans.Plan) -> Iterator[plans.Check]:
    world = plan.world
    if len({cluster.network for cluster in world.clusters}) > 1:
        is_split = not any(needs.neighbours(cluster, world) for cluster in world.clusters)
        places = "; ".join(f"{each.title}: {_named(each.network)}" for each in world.clusters)
        yield plans.Check(
            errors.Finding(
                "ISM-GKE-022",
                "networks",
                f"the clusters are not on one network: {places}",
                hint="pods of different networks reach each other through east-west gateways: "
                "give each network its name and see docs/howto/lab-topologies.md",
            ),
            stops=is_split,
        )


def _overlaps(world: clusters.World) -> Iterator[plans.Check]:
    for one, two in combinations(world.clusters, 2):
        if one.network != two.network:
            continue
        if ranges.overlaps(one.pods, two.pods):
            yield _stop(
                "ISM-GKE-021",
                f"{one.title} and {two.title}",
                f"their pods share addresses: {ranges.text(one.pods)} and {ranges.text(two.pods)}",
                hint="one of them needs another range for its pods; that means a new cluster",
            )
        for here, there in ((one, two), (two, one)):
            if ranges.overlaps(here.services, there.pods):
                yield _warning(
                    "ISM-GKE-021",
                    here.title,
                    f"its services' addresses are those of pods of {there.title}",
                    hint="nodes may take such pods for services of their own",
                )


def _hosts(plan: plans.Plan) -> Iterator[plans.Check]:
    for member, cluster in _pairs(plan):
        host, project = cluster.network.project, cluster.place.project
        if member.network_project and member.network_project != host:
            yield _stop(
                "ISM-GKE-023",
                cluster.title,
                f"its network is in project {host}, not in {member.network_project}",
                hint="correct `networkProject` in the file, or leave it out",
            )
        attached = plan.world.hosts.get(project)
        if host != project and attached is not None and attached != host:
            yield _stop(
                "ISM-GKE-023",
                cluster.title,
                f"its network belongs to project {host}, but {project} is attached to "
                f"{attached or 'no host project'}",
                hint=f"gcloud compute shared-vpc associated-projects add {project} "
                f"--host-project={host}",
            )


def _unknowns(plan: plans.Plan) -> Iterator[plans.Check]:
    for member, cluster in _pairs(plan):
        if not needs.neighbours(cluster, plan.world):
            continue
        rules = plan.world.rules.get(cluster.network, ())
        served = plan.served.get(cluster.title, plans.Served(missing="nobody asked"))
        if not served.ports:
            yield _stop(
                "ISM-GKE-026",
                cluster.title,
                f"nobody knows which ports its pods serve: {served.missing}",
                hint="give `ports` in the file, or a `context` of the kubeconfig to look at",
            )
        if not needs.node_tag(cluster, rules):
            yield _stop(
                "ISM-GKE-027",
                cluster.title,
                "no network tag is known that all of its nodes bear, and they alone",
                hint="without one, a rule would be for every machine of the network",
            )
        if (
            member.has_control_plane
            and cluster.has_private_nodes
            and not needs.control_plane_ranges(cluster, rules)
        ):
            yield _warning(
                "ISM-GKE-037",
                cluster.title,
                "nobody knows where its API server calls webhooks from",
                hint="if pods get no proxy, permit TCP 15017 from there to the nodes",
            )


def _names(plan: plans.Plan) -> Iterator[plans.Check]:
    for step in plan.steps:
        if not isinstance(step, plans.ChangeRule):
            continue
        if not step.before.description.startswith(needs.OURS):
            yield _stop(
                "ISM-GKE-031",
                step.rule.name,
                "somebody else made a firewall rule of that name, which says something else",
                hint="choose another `mesh` in the file: it begins the names of our rules",
            )
        elif not step.before.allows or not step.before.is_ingress:
            yield _stop(
                "ISM-GKE-031",
                step.rule.name,
                "this firewall rule has been replaced by one that refuses, or is for what goes out",
                hint=f"gcloud compute firewall-rules delete {step.rule.name} "
                f"--project={step.rule.network.project}",
            )
        elif not step.before.is_enabled:
            yield _stop(
                "ISM-GKE-031",
                step.rule.name,
                "somebody has disabled this firewall rule",
                hint=f"gcloud compute firewall-rules update {step.rule.name} --no-disabled "
                f"--project={step.rule.network.project}",
            )


def _refusals(plan: plans.Plan, wanted: Sequence[needs.Need]) -> Iterator[plans.Check]:
    for need in wanted:
        others = (
            rule
            for rule in plan.world.rules.get(need.rule.network, ())
            if rule.name != need.rule.name
        )
        found = firewalls.verdict(need.flow, (*others, need.rule))
        for rule in found.refused_by:
            yield _stop(
                "ISM-GKE-024",
                need.rule.name,
                f"rule {rule.name} with priority {rule.priority} refuses some of it first",
                hint="narrow that rule, or give a smaller `priority` in the file",
            )
    for network, policies in sorted(plan.world.policies.items()):
        yield _warning(
            "ISM-GKE-024",
            _named(network),
            f"firewall policies above it deny something inbound: {', '.join(policies)}",
            hint="they come before all rules; this plan does not look into them",
        )


def _wide_wishes(plan: plans.Plan, *, may_be_wide: bool) -> Iterator[plans.Check]:
    for block in plan.wishes.callers:
        if wishes.is_wide(block):
            yield plans.Check(
                errors.Finding(
                    "ISM-GKE-030",
                    "authorizedNetworks",
                    f"{block.cidr} is very large",
                    hint="--allow-wide says that it is meant",
                ),
                stops=not may_be_wide,
            )
    for title, served in plan.served.items():
        if port_sets.count(served.ports) >= MANY_PORTS:
            yield plans.Check(
                errors.Finding(
                    "ISM-GKE-030",
                    title,
                    f"{port_sets.count(served.ports)} ports would be open to other clusters' pods",
                    hint="--allow-wide says that it is meant",
                ),
                stops=not may_be_wide,
            )


def _limits(plan: plans.Plan) -> Iterator[plans.Check]:
    for step in plan.steps:
        if isinstance(step, plans.AddNetworks):
            is_private = step.cluster.has_private_nodes or not step.cluster.public_endpoint
            most = _MOST_NETWORKS_PRIVATE if is_private else _MOST_NETWORKS
            if len(step.after) > most:
                yield _stop(
                    "ISM-GKE-029",
                    step.cluster.title,
                    f"it would have {len(step.after)} authorized networks; {most} are the most",
                    hint="remove or merge some that nobody needs any more",
                )
    for project, quota in sorted(plan.world.quotas.items()):
        new = sum(
            isinstance(step, plans.CreateRule) and step.rule.network.project == project
            for step in plan.steps
        )
        if new and quota.used + new > quota.limit:
            yield _stop(
                "ISM-GKE-029",
                f"project {project}",
                f"{new} firewall rules more would be {quota.used + new}; "
                f"{quota.limit} are its quota",
                hint="remove rules that nobody needs, or ask for a larger quota",
            )


def _states(plan: plans.Plan) -> Iterator[plans.Check]:
    touched = {
        step.cluster.title
        for step in plan.steps
        if isinstance(step, plans.AddNetworks | plans.GlobalAccess)
    }
    for cluster in plan.world.clusters:
        if cluster.status != "RUNNING":
            yield plans.Check(
                errors.Finding(
                    "ISM-GKE-032",
                    cluster.title,
                    f"its state is {cluster.status}; GKE takes no changes then",
                    hint="wait until it is RUNNING, and run this again",
                ),
                stops=cluster.title in touched,
            )


def _wide_rules(plan: plans.Plan, wanted: Sequence[needs.Need]) -> Iterator[plans.Check]:
    found = {}
    for need in wanted:
        rules = plan.world.rules.get(need.rule.network, ())
        others = [rule for rule in rules if rule.name != need.rule.name]
        for rule in firewalls.verdict(need.flow, others).allowed_by:
            is_ours = rule.description.startswith(needs.OURS)
            if not is_ours and firewalls.is_wider(rule, need.flow):
                found[rule.name] = rule
    for name, rule in sorted(found.items()):
        yield _warning(
            "ISM-GKE-025",
            name,
            "this firewall rule permits more than the mesh needs",
            hint="--own-rules plans narrow ones beside it; afterwards: gcloud compute "
            f"firewall-rules delete {name} --project={rule.network.project}",
        )


def _api_servers(world: clusters.World) -> Iterator[plans.Check]:
    for cluster in world.clusters:
        if not cluster.authorized.enabled and cluster.public_endpoint:
            yield _warning(
                "ISM-GKE-028",
                cluster.title,
                "every address of the internet may knock at its API server",
                hint="authorized networks are off; this command does not switch them on, "
                "since that can lock you out",
            )
        elif any(block.cidr in ranges.EVERYWHERE for block in cluster.authorized.blocks):
            yield _warning(
                "ISM-GKE-028", cluster.title, "its authorized networks name every address there is"
            )
        elif cluster.authorized.enabled and not cluster.private_endpoint:
            yield _warning(
                "ISM-GKE-035",
                cluster.title,
                "its API server has no private address, and the public one sees other clusters "
                "by their nodes' or NAT's addresses",
                hint="give those under `authorizedNetworks` in the file",
            )


def _paths(plan: plans.Plan) -> Iterator[plans.Check]:
    for cluster in plan.world.clusters:
        if not needs.neighbours(cluster, plan.world):
            continue
        outside = ranges.uncovered(cluster.pods, by=_NEVER_MASQUERADED)
        if outside:
            yield _warning(
                "ISM-GKE-034",
                cluster.title,
                f"calls to its pods at {ranges.text(outside)} may bear a node's address",
                hint="add the range to `nonMasqueradeCIDRs` of the ip-masq-agent in the others",
            )
        if not cluster.is_vpc_native:
            yield _warning(
                "ISM-GKE-034",
                cluster.title,
                "it is not VPC-native: its pods cannot call private API servers of others",
                hint="only a new cluster can be VPC-native",
            )


def _pairs(plan: plans.Plan) -> Iterator[tuple[wishes.Member, clusters.Cluster]]:
    members = {member.title: member for member in plan.wishes.members}
    for cluster in plan.world.clusters:
        yield members[cluster.title], cluster


def _named(network: clusters.Network) -> str:
    return f"{network.project}/{network.name}"


def _stop(code: str, subject: str, happened: str, *, hint: str) -> plans.Check:
    return plans.Check(errors.Finding(code, subject, happened, hint=hint), stops=True)


def _warning(code: str, subject: str, happened: str, *, hint: str = "") -> plans.Check:
    return plans.Check(errors.Finding(code, subject, happened, hint=hint), stops=False)
