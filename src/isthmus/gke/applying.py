"""Carries out a plan, step by step, and says exactly how far it came.

Decides that each step looks again just before it acts: if what it is about is no longer as the
plan saw it, the step does not happen. Clusters are changed under their etag, so that somebody
else's change at the same moment is never overwritten. Refuses to decide what is to be changed.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final

from isthmus.base import errors
from isthmus.gke import clusters, google, needs, planning, plans, problems, reading
from isthmus.gke import ports as port_sets

LIMIT_S: Final = 1800.0
"""How long one change may take; a control plane's can take many minutes."""

_HELD_S: Final = 120.0
"""How long the server of firewall rules holds back an answer about one that is not done."""

_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 5.0
_ATTEMPTS: Final = 3
_DONE: Final = "DONE"

Tell = Callable[[str], None]


def apply(cloud: google.Cloud, plan: plans.Plan, *, tell: Tell, limit_s: float = LIMIT_S) -> None:
    """Carry out all steps of a plan, each of which may take `limit_s` seconds.

    Raises:
        PlanStopped: Something must be settled first (ISM-GKE-008).
        StoppedHalfway: A step failed; its cause is chained (ISM-GKE-009).
    """
    if plan.is_stopped:
        raise problems.PlanStopped("the plan has problems that must be settled first")
    for index, step in enumerate(plan.steps):
        tell(f"{step.title} ...")
        try:
            _carry_out(cloud, step, tell, limit_s)
        except errors.IsthmusError as error:
            raise _stopped(plan.steps, index, error) from error
        except KeyboardInterrupt:
            tell(f"interrupted; it goes on in the cloud: {step.title}")
            for line in _ledger(plan.steps, index):
                tell(line)
            raise
        tell(f"{step.title}: done")


def _stopped(
    steps: Sequence[plans.Step], index: int, error: errors.IsthmusError
) -> problems.StoppedHalfway:
    lines = [f"because: [{error.code}] {error.happened}", *error.detail.splitlines()]
    lines += [f"failed: {steps[index].title}", *_ledger(steps, index)]
    return problems.StoppedHalfway(
        f"stopped at step {index + 1} of {len(steps)}: {steps[index].title}",
        detail="\n".join(lines),
        still_working="what was done stays; nothing that others had set was taken away",
        hint=error.hint or "run `isthmus gke plan` again: it plans what is left",
    )


def _ledger(steps: Sequence[plans.Step], index: int) -> list[str]:
    done = [f"done: {step.title}" for step in steps[:index]]
    return done + [f"not done: {step.title}" for step in steps[index + 1 :]]


def _carry_out(cloud: google.Cloud, step: plans.Step, tell: Tell, limit_s: float) -> None:
    match step:
        case plans.CreateRule():
            _wait_for_rule(cloud, step.rule, _created(cloud, step), limit_s)
        case plans.ChangeRule():
            _wait_for_rule(cloud, step.rule, _changed_rule(cloud, step), limit_s)
        case plans.AddNetworks():
            made = _update(cloud, step, lambda: _networks_update(cloud, step), tell)
            _wait_for_cluster(cloud, step.cluster.place, made, limit_s)
        case plans.GlobalAccess():
            made = _update(cloud, step, lambda: {"global_access": True}, tell)
            _wait_for_cluster(cloud, step.cluster.place, made, limit_s)


def _created(cloud: google.Cloud, step: plans.CreateRule) -> Any:  # noqa: ANN401  # a library's message
    project = step.rule.network.project
    try:
        with google.asking(f"firewall rule {step.rule.name}"):
            return cloud.firewalls.insert_unary(
                project=project,
                firewall_resource=_firewall(cloud, step.rule),
                timeout=google.TIMEOUT_S,
            )
    except errors.IsthmusError as error:
        if google.is_conflict(error):
            raise _changed(f"there was no firewall rule {step.rule.name}") from error
        raise


def _changed_rule(cloud: google.Cloud, step: plans.ChangeRule) -> Any:  # noqa: ANN401  # a library's message
    # The API of firewall rules knows no etag: looking just before is as near as one can come.
    project, name = step.rule.network.project, step.rule.name
    said = _firewall_now(cloud, project, name)
    now = reading.rule_of(said, project)
    if not planning.is_same(now, step.before):
        raise _changed(f"firewall rule {name} was not as it is")
    if not now.description.startswith(needs.OURS):
        raise _changed(f"firewall rule {name} was ours")
    # All of it is written: a patch could not take a sender's tag away.
    resource = _firewall(cloud, step.rule)
    if "log_config" in said:
        resource.log_config = said.log_config
    with google.asking(f"firewall rule {name}"):
        return cloud.firewalls.update_unary(
            project=project,
            firewall=name,
            firewall_resource=resource,
            timeout=google.TIMEOUT_S,
        )


def _firewall_now(cloud: google.Cloud, project: str, name: str) -> Any:  # noqa: ANN401  # a library's message
    try:
        with google.asking(f"firewall rule {name}"):
            return cloud.firewalls.get(project=project, firewall=name, timeout=google.TIMEOUT_S)
    except errors.IsthmusError as error:
        if google.is_missing(error):
            raise _changed(f"there was a firewall rule {name}") from error
        raise


def _firewall(cloud: google.Cloud, rule: clusters.Rule) -> Any:  # noqa: ANN401  # a library's message
    network = rule.network
    return cloud.compute.Firewall(
        name=rule.name,
        network=f"projects/{network.project}/global/networks/{network.name}",
        description=rule.description,
        direction="INGRESS",
        priority=rule.priority,
        allowed=[
            cloud.compute.Allowed(I_p_protocol=each.protocol, ports=port_sets.texts(each.ports))
            for each in rule.traffic
        ],
        source_ranges=[str(each) for each in rule.sources],
        destination_ranges=[str(each) for each in rule.destinations],
        target_tags=list(rule.target_tags),
    )


def _wait_for_rule(
    cloud: google.Cloud,
    rule: clusters.Rule,
    operation: Any,  # noqa: ANN401  # a library's message
    limit_s: float,
) -> None:
    deadline = time.monotonic() + limit_s
    pause_s = _FIRST_PAUSE_S
    while operation.status.name != _DONE:
        if time.monotonic() > deadline:
            raise _too_long(operation.name, limit_s)
        # The server answers when it is done, or after two minutes; it may also do so earlier.
        asked = time.monotonic()
        with google.asking(f"operation {operation.name}"):
            operation = cloud.operations.wait(
                project=rule.network.project,
                operation=operation.name,
                timeout=google.TIMEOUT_S + _HELD_S,
            )
        if operation.status.name != _DONE and time.monotonic() - asked < pause_s:
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    if operation.error.errors or operation.http_error_status_code:
        said = [each.message for each in operation.error.errors]
        raise problems.CloudFailed(
            f"operation {operation.name} failed",
            detail="\n".join(said) or operation.http_error_message,
        )


def _update(
    cloud: google.Cloud,
    step: plans.AddNetworks | plans.GlobalAccess,
    changes: Callable[[], dict[str, object]],
    tell: Tell,
) -> Any:  # noqa: ANN401  # a library's message
    """Change a cluster under its etag; what else changes meanwhile does not matter."""
    seen = step.cluster
    for attempt in range(1, _ATTEMPTS + 1):
        now = reading.cluster(cloud, seen.title, seen.place)
        if _about(now, step) != _about(seen, step):
            raise _changed(f"cluster {seen.title} was not as it is")
        try:
            return _updated(cloud, now, changes())
        except errors.IsthmusError as error:
            if google.is_conflict(error) and attempt < _ATTEMPTS:
                tell(f"cluster {seen.title} has changed at the same moment; looking again")
                continue
            raise
    raise AssertionError("the last attempt returns or raises")


def _about(cluster: clusters.Cluster, step: plans.AddNetworks | plans.GlobalAccess) -> object:
    """Return what a step on a cluster depends on; the order of networks means nothing."""
    if isinstance(step, plans.GlobalAccess):
        return (cluster.network, cluster.private_endpoint)
    blocks = frozenset(cluster.authorized.blocks)
    return (cluster.network, replace(cluster.authorized, blocks=()), blocks)


def _networks_update(cloud: google.Cloud, step: plans.AddNetworks) -> dict[str, object]:
    kept = step.cluster.authorized
    blocks = [{"cidr_block": str(each.cidr), "display_name": each.title} for each in step.after]
    said: dict[str, object] = {"enabled": True, "cidr_blocks": blocks}
    if kept.for_google is not None:
        said["gcp_public_cidrs_access_enabled"] = kept.for_google
    if kept.for_private is not None:
        said["private_endpoint_enforcement_enabled"] = kept.for_private
    made = cloud.container.MasterAuthorizedNetworksConfig(said)
    return {"authorized_networks_config": made}


def _updated(cloud: google.Cloud, now: clusters.Cluster, changes: dict[str, object]) -> Any:  # noqa: ANN401  # a library's message
    shapes = cloud.container.ControlPlaneEndpointsConfig
    update = cloud.container.ClusterUpdate(
        desired_control_plane_endpoints_config=shapes(
            ip_endpoints_config=shapes.IPEndpointsConfig(**changes)
        ),
        etag=now.etag,
    )
    with google.asking(f"cluster {now.title}"):
        return cloud.clusters.update_cluster(
            request={"name": reading.path_of(now.place), "update": update}, timeout=google.TIMEOUT_S
        )


def _wait_for_cluster(
    cloud: google.Cloud,
    place: clusters.Place,
    operation: Any,  # noqa: ANN401  # a library's message
    limit_s: float,
) -> None:
    name = f"projects/{place.project}/locations/{place.location}/operations/{operation.name}"
    deadline = time.monotonic() + limit_s
    pause_s = _FIRST_PAUSE_S
    while operation.status.name != _DONE:
        if time.monotonic() > deadline:
            raise _too_long(operation.name, limit_s)
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
        with google.asking(f"operation {operation.name}"):
            operation = cloud.clusters.get_operation(name=name, timeout=google.TIMEOUT_S)
    if operation.error.code or operation.error.message:
        raise problems.CloudFailed(
            f"operation {operation.name} failed", detail=operation.error.message
        )


def _changed(happened: str) -> problems.ChangedMeanwhile:
    return problems.ChangedMeanwhile(
        f"{happened} when the plan was made", hint="look at a new plan: isthmus gke plan"
    )


def _too_long(name: str, limit_s: float) -> problems.CloudFailed:
    return problems.CloudFailed(
        f"operation {name} is not done after {limit_s:.0f} s",
        hint="it goes on in the cloud; run `isthmus gke plan` later",
    )
