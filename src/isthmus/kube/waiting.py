"""Waits until an object is as it should be, and tells meanwhile what it waits for.

What "ready" means is a pure function per kind: it returns what is missing, or nothing. The object
is followed by a watch, so that a change is noticed at once.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

import msgspec

from isthmus.base import errors
from isthmus.kube import client, kinds, problems

Missing = Callable[[client.Obj | None], str]
"""Says what an object lacks to be ready; empty when it is ready."""

RETRY_S = 0.5


async def until(  # noqa: PLR0913  # each argument is an independent choice
    reads: client.Client,
    kind: kinds.Kind,
    name: str,
    *,
    missing: Missing,
    namespace: str = "",
    timeout_s: float = 120.0,
    on_progress: Callable[[str], None] = lambda text: None,
) -> client.Obj:
    """Wait until nothing is `missing`, and return the object.

    Args:
        reads: The API server.
        kind: Kind of the object.
        name: Its name.
        missing: What is waited for.
        namespace: Its namespace.
        timeout_s: How long at most.
        on_progress: Called with what is missing whenever that changes.

    Raises:
        problems.WaitEnded: Time is up; the detail says what was missing (ISM-KUBE-008).
    """
    lacks = ""
    seen: client.Obj | None = None
    try:
        async with asyncio.timeout(timeout_s):
            async with contextlib.aclosing(_states(reads, kind, name, namespace)) as states:
                async for seen in states:
                    now_lacks = missing(seen)
                    if not now_lacks and seen is not None:
                        return seen
                    if now_lacks != lacks:
                        lacks = now_lacks
                        on_progress(lacks)
    except TimeoutError as error:
        where = f"{kind.kind} {namespace}/{name}" if namespace else f"{kind.kind} {name}"
        why = await causes(reads, seen) if seen else ""
        raise problems.WaitEnded(
            f"{where} was not ready within {timeout_s:g} s",
            detail="\n".join(part for part in (lacks, why) if part),
            hint="what was applied stays; run the same command again to go on waiting",
        ) from error
    raise AssertionError("states never end")


async def _states(
    reads: client.Client, kind: kinds.Kind, name: str, namespace: str
) -> AsyncGenerator[client.Obj | None, None]:
    """Yield the object now and after each change, None while it does not exist."""
    fields = f"metadata.name={name}"
    while True:
        try:
            page = msgspec.json.decode(
                await reads.raw(
                    "GET",
                    kind.path(namespace=namespace),
                    query={"fieldSelector": fields},
                )
            )
            items = page.get("items") or []
            yield items[0] if items else None
            events = reads.watch(
                kind,
                resource_version=page["metadata"]["resourceVersion"],
                namespace=namespace,
                fields=fields,
            )
            async with contextlib.aclosing(events):
                async for line in events:
                    event = msgspec.json.decode(line)
                    if event["type"] in ("ADDED", "MODIFIED"):
                        yield event["object"]
                    elif event["type"] == "DELETED":
                        yield None
                    elif event["type"] == "ERROR":
                        break
        except problems.ApiError as error:
            if not (error.is_missing or error.is_expired):
                raise
            yield None
        except (problems.Unreachable, msgspec.DecodeError):
            pass
        await asyncio.sleep(RETRY_S)


# --- what "ready" means ---------------------------------------------------------------------------


def deployment(obj: client.Obj | None) -> str:
    """Say what a Deployment lacks: its pods, all of the newest form, available."""
    if obj is None:
        return "it does not exist yet"
    status = obj.get("status") or {}
    wanted = int((obj.get("spec") or {}).get("replicas", 1))
    if int(status.get("observedGeneration", 0)) < int(obj["metadata"].get("generation", 0)):
        return "the change is not taken up yet"
    updated = int(status.get("updatedReplicas", 0))
    available = int(status.get("availableReplicas", 0))
    if updated < wanted or available < wanted:
        return f"{min(updated, available)} of {wanted} pods ready"
    if int(status.get("replicas", 0)) > updated:
        return "old pods are still ending"
    return ""


def daemon_set(obj: client.Obj | None) -> str:
    """Say what a DaemonSet lacks: a pod of the newest form, available, on each node."""
    if obj is None:
        return "it does not exist yet"
    status = obj.get("status") or {}
    if int(status.get("observedGeneration", 0)) < int(obj["metadata"].get("generation", 0)):
        return "the change is not taken up yet"
    wanted = int(status.get("desiredNumberScheduled", 0))
    updated = int(status.get("updatedNumberScheduled", 0))
    available = int(status.get("numberAvailable", 0))
    if min(updated, available) < wanted:
        return f"{min(updated, available)} of {wanted} nodes ready"
    return ""


def address(obj: client.Obj | None) -> str:
    """Say what a Service of type LoadBalancer lacks: an external address."""
    return "" if addresses_of(obj) else "no external address yet"


def is_balanced(obj: Mapping[str, Any]) -> bool:
    """Tell whether somebody outside is to give a Service an external address."""
    spec = obj.get("spec")
    return isinstance(spec, Mapping) and spec.get("type") == "LoadBalancer"


def addresses_of(obj: client.Obj | None) -> tuple[str, ...]:
    """Return the external addresses of a Service, IP addresses and host names."""
    status = (obj or {}).get("status") or {}
    listed = (status.get("loadBalancer") or {}).get("ingress") or []
    return tuple(str(item.get("ip") or item.get("hostname")) for item in listed)


def established(obj: client.Obj | None) -> str:
    """Say what a CustomResourceDefinition lacks: being served."""
    for condition in ((obj or {}).get("status") or {}).get("conditions") or []:
        if condition.get("type") == "Established" and condition.get("status") == "True":
            return ""
    return "it is not served yet"


# --- why something is not ready -------------------------------------------------------------------


async def causes(reads: client.Client, obj: client.Obj) -> str:
    """Return what holds up the pods of a Deployment, one line a cause; empty for other kinds."""
    labels = ((obj.get("spec") or {}).get("selector") or {}).get("matchLabels") or {}
    if not labels or obj.get("status") is None:
        return ""
    selector = ",".join(f"{key}={value}" for key, value in sorted(labels.items()))
    try:
        pods = await reads.list_(
            kinds.POD, namespace=obj["metadata"].get("namespace", ""), labels=selector
        )
    except errors.IsthmusError:
        return ""
    found = {line: None for pod in pods for line in _pod_causes(pod)}
    return "\n".join(found)


def _pod_causes(pod: client.Obj) -> list[str]:
    name = pod["metadata"]["name"]
    status: dict[str, Any] = pod.get("status") or {}
    waiting = [
        f"pod {name}, container {item['name']}: {state.get('reason', 'waiting')}"
        + (f": {state['message']}" if state.get("message") else "")
        for item in [
            *(status.get("initContainerStatuses") or []),
            *(status.get("containerStatuses") or []),
        ]
        for state in [(item.get("state") or {}).get("waiting")]
        if state and state.get("reason") not in ("PodInitializing", "ContainerCreating")
    ]
    unready = [
        f"pod {name}, container {item['name']}: it runs, but its readiness probe fails"
        for item in status.get("containerStatuses") or []
        if (item.get("state") or {}).get("running") and not item.get("ready")
    ]
    blocked = [
        f"pod {name}: {condition.get('message') or condition.get('reason')}"
        for condition in status.get("conditions") or []
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False"
    ]
    return waiting + unready + blocked
