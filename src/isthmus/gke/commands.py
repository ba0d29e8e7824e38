"""The shell commands that change what a plan would change."""

import shlex
from collections.abc import Iterator, Sequence

from isthmus.gke import clusters, plans
from isthmus.gke import ports as port_sets


def commands(plan: plans.Plan) -> Iterator[str]:
    """Yield one command for each step, broken into lines that a shell takes as one."""
    for step in plan.steps:
        match step:
            case plans.CreateRule():
                yield _command(_create(step.rule))
            case plans.ChangeRule():
                yield _command([*_change(step.rule), *_emptied(step.before)])
            case plans.AddNetworks():
                if any(block.title for block in step.after):
                    yield "# gcloud forgets the networks' names; `isthmus gke apply` keeps them"
                yield _command(_networks(step))
            case plans.GlobalAccess():
                yield _command([*_update(step.cluster), "--enable-master-global-access"])


def remote_secret(plan: plans.Plan, cluster: clusters.Cluster, *, is_private: bool) -> str:
    """Return the command that lets other control planes watch a cluster, less where it goes."""
    member = next(each for each in plan.wishes.members if each.title == cluster.title)
    words = ["isthmus", "create-remote-secret", f"--context={member.context}"]
    words += [f"--name={cluster.title}"]
    if is_private:
        words += [f"--server=https://{cluster.private_endpoint}"]
    return _command(words)


def _create(rule: clusters.Rule) -> list[str]:
    return [
        "gcloud",
        "compute",
        "firewall-rules",
        "create",
        rule.name,
        f"--project={rule.network.project}",
        f"--network={rule.network.name}",
        "--direction=INGRESS",
        *_match(rule),
        f"--description={rule.description}",
    ]


def _change(rule: clusters.Rule) -> list[str]:
    project = f"--project={rule.network.project}"
    return ["gcloud", "compute", "firewall-rules", "update", rule.name, project, *_match(rule)]


def _emptied(before: clusters.Rule) -> list[str]:
    """Return what takes senders away that are named by anything but their addresses."""
    return ["--source-tags=", "--source-service-accounts="] if before.names_sources else []


def _match(rule: clusters.Rule) -> list[str]:
    allowed = ",".join(
        f"{each.protocol}:{ports}" for each in rule.traffic for ports in port_sets.texts(each.ports)
    )
    return [
        f"--priority={rule.priority}",
        f"--allow={allowed}",
        f"--source-ranges={','.join(map(str, rule.sources))}",
        f"--destination-ranges={','.join(map(str, rule.destinations))}",
        f"--target-tags={','.join(rule.target_tags)}",
    ]


def _networks(step: plans.AddNetworks) -> list[str]:
    networks = ",".join(str(block.cidr) for block in step.after)
    return [
        *_update(step.cluster),
        "--enable-master-authorized-networks",
        f"--master-authorized-networks={networks}",
    ]


def _update(cluster: clusters.Cluster) -> list[str]:
    place = cluster.place
    return [
        "gcloud",
        "container",
        "clusters",
        "update",
        place.name,
        f"--project={place.project}",
        f"--location={place.location}",
    ]


def _command(words: Sequence[str]) -> str:
    verb = [word for word in words if not word.startswith("--")]
    options = [word for word in words if word.startswith("--")]
    lines = [shlex.join(verb), *(shlex.quote(option) for option in options)]
    return " \\\n  ".join(lines)
