"""From what is asked for and what there is to a plan.

Decides which firewall rules, authorized networks and switches are missing, and never takes away:
a network that may call an API server today may do so afterwards. What stands in the way is
judged in `checks`. Refuses to know how anything is read or changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from isthmus.gke import checks, clusters, firewalls, needs, plans, ranges, wishes


def plan(
    asked: wishes.Wishes,
    world: clusters.World,
    served: Mapping[str, plans.Served],
    *,
    may_be_wide: bool = False,
    always_own: bool = False,
) -> plans.Plan:
    """Return what is to be changed so that the clusters can be one mesh.

    Args:
        asked: What the file asks for.
        world: What there is.
        served: Which ports the pods of each cluster serve, by its title.
        may_be_wide: Whether all ports, or networks as large as half the world, are meant.
        always_own: Whether to make rules of our own where others' already let the traffic in.
    """
    wanted = tuple(needs.needs(asked, world, served))
    steps: list[plans.Step] = []
    kept: list[plans.Kept] = []
    ours = frozenset(need.rule.name for need in wanted)
    for need in wanted:
        _sort(_rule_step(need, world, ours, always_own=always_own), steps, kept)
    for cluster in world.clusters:
        _sort(_networks_step(cluster, asked, world), steps, kept)
        _sort(_access_step(cluster, asked, world), steps, kept)
    drawn = plans.Plan(asked, world, served, tuple(steps), tuple(kept), ())
    return replace(drawn, checks=tuple(checks.checks(drawn, wanted, may_be_wide=may_be_wide)))


def _sort(
    outcome: plans.Step | plans.Kept | None, steps: list[plans.Step], kept: list[plans.Kept]
) -> None:
    if isinstance(outcome, plans.Kept):
        kept.append(outcome)
    elif outcome is not None:
        steps.append(outcome)


def _rule_step(
    need: needs.Need, world: clusters.World, ours: frozenset[str], *, always_own: bool
) -> plans.Step | plans.Kept:
    rules = world.rules.get(need.rule.network, ())
    own = next((rule for rule in rules if rule.name == need.rule.name), None)
    if own is not None:
        if is_same(own, need.rule):
            return plans.Kept(f"firewall rule {own.name}", need.why)
        return plans.ChangeRule(own, need.rule, need.sources, need.why)
    # What this plan is about to narrow must not stand in for what it leaves out.
    found = firewalls.verdict(need.flow, [rule for rule in rules if rule.name not in ours])
    if found.is_whole and not always_own:
        names = ", ".join(rule.name for rule in found.allowed_by)
        return plans.Kept(f"firewall rule {need.rule.name}: {names} permits it already", need.why)
    return plans.CreateRule(need.rule, need.sources, need.why)


def is_same(some: clusters.Rule, other: clusters.Rule) -> bool:
    """Tell whether two rules let the same through; who described it how does not matter."""
    return _substance(some) == _substance(other)


def _substance(rule: clusters.Rule) -> clusters.Rule:
    return replace(
        rule,
        traffic=tuple(sorted(rule.traffic, key=lambda each: each.protocol)),
        sources=ranges.in_order(rule.sources),
        destinations=ranges.in_order(rule.destinations),
        target_tags=tuple(sorted(rule.target_tags)),
        description="",
    )


def callers(
    cluster: clusters.Cluster, asked: wishes.Wishes, world: clusters.World
) -> list[clusters.Cluster]:
    """Return the clusters on the same network whose control planes watch this one."""
    members = {member.title: member for member in asked.members}
    return [
        each for each in needs.neighbours(cluster, world) if members[each.title].has_control_plane
    ]


def is_called_privately(
    cluster: clusters.Cluster, asked: wishes.Wishes, world: clusters.World
) -> bool:
    """Tell whether others reach a cluster's API server at its private address, or have to."""
    return bool(cluster.private_endpoint) and (
        not cluster.public_endpoint
        or cluster.has_private_nodes
        or cluster.authorized.enabled
        or any(each.has_private_nodes for each in callers(cluster, asked, world))
    )


def _networks_step(
    cluster: clusters.Cluster, asked: wishes.Wishes, world: clusters.World
) -> plans.Step | plans.Kept | None:
    if not cluster.authorized.enabled:
        return None
    wanted = tuple(_wanted_blocks(cluster, asked, world))
    have = cluster.authorized.cidrs
    added: list[clusters.Block] = []
    for block in wanted:
        if not ranges.covers((*have, *(each.cidr for each in added)), block.cidr):
            added.append(block)
    watching = ", ".join(each.title for each in callers(cluster, asked, world))
    why = f"control planes in {watching} watch {cluster.title}" if watching else "the file asks"
    if added:
        return plans.AddNetworks(cluster, tuple(added), why)
    return plans.Kept(f"authorized networks of {cluster.title}", why) if wanted else None


def _wanted_blocks(
    cluster: clusters.Cluster, asked: wishes.Wishes, world: clusters.World
) -> Iterator[clusters.Block]:
    if is_called_privately(cluster, asked, world):
        for caller in callers(cluster, asked, world):
            for pods in ranges.in_order(caller.pods):
                yield clusters.Block(pods, f"pods-of-{caller.title}")
    yield from asked.callers


def _access_step(
    cluster: clusters.Cluster, asked: wishes.Wishes, world: clusters.World
) -> plans.Step | plans.Kept | None:
    if not is_called_privately(cluster, asked, world):
        return None
    afar = _in_other_regions(cluster, callers(cluster, asked, world))
    if not afar:
        return None
    why = f"control planes in other regions ({', '.join(afar)}) watch {cluster.title}"
    if cluster.has_global_access:
        return plans.Kept(f"global access to {cluster.title}", why)
    return plans.GlobalAccess(cluster, why)


def _in_other_regions(cluster: clusters.Cluster, others: Sequence[clusters.Cluster]) -> list[str]:
    return [
        f"{each.title}: {each.place.region}"
        for each in others
        if each.place.region != cluster.place.region
    ]
