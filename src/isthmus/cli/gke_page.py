"""A plan for Google's cloud as people and programs read it."""

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from isthmus.base import errors
from isthmus.gke import clusters, commands, needs, planning, plans, ranges
from isthmus.gke import ports as port_sets

WIDTH: Final = 80
_INDENT: Final = 4
_LABEL: Final = 8

Words = tuple[str, str]
"""A label and what stands beside it."""


def lines(plan: plans.Plan) -> Iterator[str]:
    """Yield the lines of a plan, at most 80 columns wide where words allow it."""
    for cluster in plan.world.clusters:
        yield f"{cluster.title}: {cluster.place.project}, {cluster.place.location}"
        yield from _block(_cluster(plan, cluster))
    yield ""
    if plan.kept:
        yield "as it should be:"
        for kept in plan.kept:
            yield f"  = {kept.title}"
            yield from _block([("why", kept.why)])
        yield ""
    if not plan.steps:
        yield "nothing is to be changed"
        return
    yield "to be changed:"
    for step in plan.steps:
        yield from _step(step)


def next_steps(plan: plans.Plan) -> Iterator[str]:
    """Yield the commands that join the clusters afterwards."""
    members = {member.title: member for member in plan.wishes.members}
    for cluster in plan.world.clusters:
        watching = [each.title for each in planning.callers(cluster, plan.wishes, plan.world)]
        for title in watching:
            is_private = planning.is_called_privately(cluster, plan.wishes, plan.world)
            secret = commands.remote_secret(plan, cluster, is_private=is_private)
            yield f"{secret} |\n  kubectl apply -f - --context={members[title].context}"


def document(plan: plans.Plan) -> dict[str, object]:
    """Return a plan for a program."""
    return {
        "clusters": [_cluster_document(plan, cluster) for cluster in plan.world.clusters],
        "steps": [_step_document(step) for step in plan.steps],
        "kept": [{"title": each.title, "why": each.why} for each in plan.kept],
        "problems": [_finding(each.finding) for each in plan.checks if each.stops],
        "warnings": [_finding(each.finding) for each in plan.checks if not each.stops],
        "commands": list(commands.commands(plan)),
    }


def _cluster(plan: plans.Plan, cluster: clusters.Cluster) -> Iterator[Words]:
    network = f"{cluster.network.project}/{cluster.network.name}"
    yield "network", network + (f", subnetwork {cluster.subnetwork}" * bool(cluster.subnetwork))
    yield "pods", ranges.text(cluster.pods) or "unknown"
    tag = needs.node_tag(cluster, plan.world.rules.get(cluster.network, ()))
    yield "nodes", f"tag {tag or 'unknown'}" + (", private" * cluster.has_private_nodes)
    yield "API", ", ".join(_api_server(cluster))
    served = plan.served.get(cluster.title)
    if served is not None and served.ports:
        behind = "; ".join(f"{port} {names}" for port, names in served.names)
        yield "serves", f"TCP {behind or ', '.join(port_sets.texts(served.ports))}"


def _api_server(cluster: clusters.Cluster) -> Iterator[str]:
    if cluster.private_endpoint:
        yield cluster.private_endpoint
        yield f"global access {'on' if cluster.has_global_access else 'off'}"
    if cluster.public_endpoint:
        yield f"public {cluster.public_endpoint}"
    if cluster.authorized.enabled:
        yield f"open to {ranges.text(cluster.authorized.cidrs) or 'no network'}"
    else:
        yield "authorized networks off"


def _step(step: plans.Step) -> Iterator[str]:
    match step:
        case plans.CreateRule(rule=rule):
            yield f"  + firewall rule {rule.name} in project {rule.network.project}"
            yield from _block([*_rule(rule, step.sources), ("why", step.why)])
        case plans.ChangeRule(rule=rule):
            yield f"  ~ firewall rule {rule.name} in project {rule.network.project}"
            yield from _block([*_differences(step.before, rule), ("why", step.why)])
        case plans.AddNetworks():
            yield f"  ~ authorized networks of {step.cluster.title}"
            kept = ranges.text(step.cluster.authorized.cidrs)
            added = [("add", _named(block)) for block in step.added]
            yield from _block([*added, ("keep", kept or "none"), ("why", step.why)])
        case plans.GlobalAccess():
            yield f"  ~ global access to the control plane of {step.cluster.title}"
            yield from _block([("set", "on, it is off"), ("why", step.why)])


def _rule(rule: clusters.Rule, sources: str) -> Iterator[Words]:
    yield "from", f"{ranges.text(rule.sources)} ({sources})"
    yield "to", f"{ranges.text(rule.destinations)} on nodes tagged {', '.join(rule.target_tags)}"
    yield "allow", f"TCP {', '.join(port_sets.texts(rule.tcp))}, priority {rule.priority}"


def _differences(before: clusters.Rule, after: clusters.Rule) -> Iterator[Words]:
    yield from _difference("from", _texts(before.sources), _texts(after.sources))
    yield from _difference("to", _texts(before.destinations), _texts(after.destinations))
    yield from _difference("nodes", before.target_tags, after.target_tags)
    yield from _difference("allow", _traffic(before), _traffic(after))
    if before.priority != after.priority:
        yield "set", f"priority {after.priority}, it is {before.priority}"
    if before.names_sources or before.names_accounts:
        yield "remove", "senders and targets by tag or account"


def _difference(what: str, before: Sequence[str], after: Sequence[str]) -> Iterator[Words]:
    more = [text for text in after if text not in before]
    less = [text for text in before if text not in after]
    if not before and after:
        yield what, f"{', '.join(after)} only; it is: any"
        return
    if more:
        yield what, f"also {', '.join(more)} (wider)"
    if less:
        yield what, f"no more {', '.join(less)} (narrower)"


def _texts(some: Iterable[ranges.Range]) -> tuple[str, ...]:
    return tuple(map(str, some))


def _traffic(rule: clusters.Rule) -> tuple[str, ...]:
    return tuple(
        f"{each.protocol} {ports}" if each.ports != port_sets.EVERY else each.protocol
        for each in rule.traffic
        for ports in port_sets.texts(each.ports)
    )


def _named(block: clusters.Block) -> str:
    return f"{block.cidr}" + (f" ({block.title})" * bool(block.title))


def _block(rows: Iterable[Words]) -> Iterator[str]:
    for label, text in rows:
        begin = " " * _INDENT + label.ljust(_LABEL)
        yield from textwrap.wrap(
            text,
            WIDTH,
            initial_indent=begin,
            subsequent_indent=" " * len(begin),
            break_long_words=False,
            break_on_hyphens=False,
        )


def _cluster_document(plan: plans.Plan, cluster: clusters.Cluster) -> dict[str, object]:
    served = plan.served.get(cluster.title, plans.Served())
    return {
        "name": cluster.title,
        "project": cluster.place.project,
        "location": cluster.place.location,
        "network": f"projects/{cluster.network.project}/global/networks/{cluster.network.name}",
        "pods": _texts(cluster.pods),
        "nodeTag": needs.node_tag(cluster, plan.world.rules.get(cluster.network, ())),
        "privateEndpoint": cluster.private_endpoint,
        "publicEndpoint": cluster.public_endpoint,
        "authorizedNetworks": _texts(cluster.authorized.cidrs)
        if cluster.authorized.enabled
        else None,
        "globalAccess": cluster.has_global_access,
        "ports": port_sets.texts(served.ports),
    }


def _step_document(step: plans.Step) -> dict[str, object]:
    match step:
        case plans.CreateRule():
            return {"action": "createRule", "rule": _rule_document(step.rule), "why": step.why}
        case plans.ChangeRule():
            return {
                "action": "changeRule",
                "rule": _rule_document(step.rule),
                "before": _rule_document(step.before),
                "why": step.why,
            }
        case plans.AddNetworks():
            return {
                "action": "addAuthorizedNetworks",
                "cluster": step.cluster.title,
                "add": [{"cidr": str(each.cidr), "name": each.title} for each in step.added],
                "keep": _texts(step.cluster.authorized.cidrs),
                "why": step.why,
            }
        case plans.GlobalAccess():
            title = step.cluster.title
            return {"action": "enableGlobalAccess", "cluster": title, "why": step.why}


def _rule_document(rule: clusters.Rule) -> dict[str, object]:
    return {
        "name": rule.name,
        "project": rule.network.project,
        "network": rule.network.name,
        "priority": rule.priority,
        "allow": _traffic(rule),
        "sourceRanges": _texts(rule.sources),
        "destinationRanges": _texts(rule.destinations),
        "targetTags": rule.target_tags,
    }


def _finding(found: errors.Finding) -> dict[str, str]:
    return {
        "code": found.code,
        "subject": found.subject,
        "happened": found.happened,
        "hint": found.hint,
    }
