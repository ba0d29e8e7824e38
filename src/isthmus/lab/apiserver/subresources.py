"""The parts of an object that are read and written on their own: scale, binding, eviction, token.

It translates them into changes of the object. Status and finalize are ordinary updates.
"""

from collections.abc import Mapping

from isthmus.lab.apiserver import copying, deletion, errors, receiving, writes
from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.state import Options, State
from isthmus.lab.apiserver.values import AdmissionRequest, Json, Obj


def scale_of(state: State, resource: Resource, obj: Obj) -> Obj:
    """Return the Scale of an object."""
    paths = state.scale_paths(resource)
    meta = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta[key] for key in kept if key in meta},
        "spec": {"replicas": _at(obj, paths.get("specReplicasPath", "")) or 0},
        "status": {
            "replicas": _at(obj, paths.get("statusReplicasPath", "")) or 0,
            **_selector(obj, paths),
        },
    }


def _selector(obj: Obj, paths: Mapping[str, str]) -> Obj:
    found = _at(obj, paths.get("labelSelectorPath", ""))
    if isinstance(found, str):
        return {"selector": found}
    if not isinstance(found, dict):
        return {}
    labels = found.get("matchLabels", found if "matchExpressions" not in found else {})
    return {"selector": ",".join(f"{key}={value}" for key, value in sorted(labels.items()))}


async def rescale(  # the address of one object and what to make of it
    state: State,
    resource: Resource,
    scale: writes.Edit,
    *,
    name: str,
    namespace: str,
    options: Options,
) -> Obj:
    """Change the number of replicas through a Scale; returns the new Scale."""
    path = state.scale_paths(resource).get("specReplicasPath", "")

    def edit(old: Obj) -> Obj:
        asked = scale(scale_of(state, resource, old))
        wanted = receiving.typed(asked, group="autoscaling", version="v1", kind="Scale")
        replicas = (wanted.get("spec") or {}).get("replicas", 0)
        if not isinstance(replicas, int) or replicas < 0:
            cause = errors.Cause(
                "spec.replicas", f"Invalid value: {replicas}: must be greater than or equal to 0"
            )
            raise errors.invalid("Scale", name=name, causes=[cause], group="autoscaling")
        out = copying.copied(old)
        if "resourceVersion" in (wanted.get("metadata") or {}):
            out["metadata"]["resourceVersion"] = wanted["metadata"]["resourceVersion"]
        _put(out, path, replicas)
        return out

    changed = await writes.update(
        state, resource, edit, name=name, namespace=namespace, options=options
    )
    return scale_of(state, resource, changed)


async def bind(state: State, binding: Obj, *, name: str, namespace: str, options: Options) -> None:
    """Put a pod on a node; raises 409 when it is on one already."""
    node = (binding.get("target") or {}).get("name") or ""
    pods = state.catalog.named("pods")

    def edit(old: Obj) -> Obj:
        bound = old["spec"].get("nodeName")
        if bound:
            why = f'pod {name} is already assigned to node "{bound}"'
            raise errors.conflict("pods/binding", name=name, why=why)
        out = copying.copied(old)
        out["spec"]["nodeName"] = node
        out["metadata"].setdefault("annotations", {}).update(
            (binding.get("metadata") or {}).get("annotations") or {}
        )
        return out

    changed = await writes.update(
        state, pods, edit, name=name, namespace=namespace, options=options
    )
    _mark_scheduled(state, changed)


def _mark_scheduled(state: State, pod: Obj) -> None:
    out = copying.copied(pod)
    status = out.setdefault("status", {})
    others = [one for one in status.get("conditions") or () if one["type"] != "PodScheduled"]
    status["conditions"] = [
        *others,
        {
            "type": "PodScheduled",
            "status": "True",
            "lastProbeTime": None,
            "lastTransitionTime": state.now(),
        },
    ]
    state.store.put("pods", out)


async def evict(
    state: State, eviction: Obj, *, name: str, namespace: str, options: Options
) -> None:
    """Delete a pod as an eviction asks."""
    wanted = eviction.get("deleteOptions") or {}
    how = deletion.How(
        grace_s=wanted.get("gracePeriodSeconds"),
        uid=(wanted.get("preconditions") or {}).get("uid") or "",
        options=options,
    )
    pods = state.catalog.named("pods")
    await deletion.delete(state, pods, name=name, namespace=namespace, how=how)


async def token(state: State, request: Obj, *, name: str, namespace: str, options: Options) -> Obj:
    """Issue a token for a service account."""
    if state.issue_token is None:
        raise errors.not_found("serviceaccounts/token", name=name)
    accounts = state.catalog.named("serviceaccounts")
    account = state.read(accounts, name=name, namespace=namespace).obj
    wanted = {
        **copying.copied(request),
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
    }
    if state.admission is not None:
        await state.admission(
            AdmissionRequest(
                operation="CREATE",
                group="",
                version="v1",
                resource="serviceaccounts",
                kind="TokenRequest",
                name=name,
                namespace=namespace,
                user=options.user,
                obj=wanted,
                old={},
                subresource="token",
                dry_run=options.dry_run,
            )
        )
    return await state.issue_token(copying.copied(account), wanted)


def finalize(old: Obj, given: Obj) -> Obj:
    """Return a namespace with the finalizers of `given`."""
    given = receiving.typed(given, group="", version="v1", kind="Namespace")
    out = copying.copied(old)
    out["spec"] = {**(out.get("spec") or {}), **copying.copied(given.get("spec") or {})}
    return out


def _at(obj: Obj, path: str) -> Json:
    value: Json = obj
    for part in path.strip(".").split("."):
        value = value.get(part) if isinstance(value, dict) and part else None
    return value


def _put(obj: Obj, path: str, value: Json) -> None:
    *parents, last = path.strip(".").split(".")
    at = obj
    for part in parents:
        at = at.setdefault(part, {})
    at[last] = value
