"""Brings objects of one cluster to a wanted form: what would change, the change, the removal.

It decides the order and explains refusals; what the objects should be is its caller's matter.
Everything goes through server-side apply, so that running it twice changes nothing, and fields
that others own are theirs until `force` takes them.

Source: spec section 6.1; Kubernetes' server-side apply.
"""

import asyncio
import contextlib
import functools
import itertools
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from isthmus.base import errors
from isthmus.kube import client, kinds, problems, waiting

Item = TypeVar("Item")
Outcome = TypeVar("Outcome")
Action = Literal["create", "change", "unchanged", "delete", "absent"]

# Webhooks come last: one that points to nothing yet would refuse whatever follows it.
_ORDER = (
    ("Namespace", "PriorityClass"),
    ("CustomResourceDefinition",),
    ("ServiceAccount",),
    ("ClusterRole", "Role"),
    ("ClusterRoleBinding", "RoleBinding"),
    ("ConfigMap", "Secret"),
    ("Service", "Endpoints", "EndpointSlice"),
    ("Deployment", "DaemonSet", "StatefulSet", "Job"),
    ("HorizontalPodAutoscaler", "PodDisruptionBudget", "NetworkPolicy"),
    (),  # everything else
    ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"),
)
_RANKS = {kind: rank for rank, kinds_ in enumerate(_ORDER) for kind in kinds_}
_ELSE = _ORDER.index(())
CRD_TIMEOUT_S = 30.0
AT_ONCE = 6
"""So many objects are under way at a time: most of the time is the way to the server and back."""
_SERVED_ATTEMPTS = 20
_BOOKKEEPING = frozenset(
    {"managedFields", "resourceVersion", "generation", "creationTimestamp", "uid", "selfLink"}
)


@dataclass(frozen=True, slots=True)
class Change:
    """What happens, or would happen, to one object.

    Attributes:
        fields: The paths that differ, such as `spec.replicas`; for people.
    """

    action: Action
    kind: str
    name: str
    namespace: str = ""
    fields: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The object for people."""
        where = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return f"{self.kind} {where}"


@dataclass(frozen=True, slots=True)
class Step:
    """Progress: the last change, and how many of how many are behind us."""

    change: Change
    number: int
    total: int


Progress = Callable[[Step], None]


def _silent(step: Step) -> None:
    """Tell nobody."""


def ordered(manifests: Iterable[Mapping[str, Any]]) -> list[client.Obj]:
    """Return the objects in the order in which they must be made."""
    return sorted((dict(item) for item in manifests), key=_rank)


def _rank(manifest: Mapping[str, Any]) -> int:
    return _RANKS.get(str(manifest.get("kind")), _ELSE)


# --- planning -------------------------------------------------------------------------------------


async def plan(
    writes: client.Client,
    manifests: Sequence[Mapping[str, Any]],
    *,
    field_manager: str = client.FIELD_MANAGER,
    force: bool = False,
) -> list[Change]:
    """Return what `apply` would do; nothing is changed, but the API server checks every object.

    Raises:
        problems.ApiError: The server would refuse an object (ISM-KUBE-001).
        problems.FieldsOwnedElsewhere: Another writer owns fields (ISM-KUBE-007).
        problems.KindUnknown: An object's kind is neither served nor among `manifests`
            (ISM-KUBE-006).
    """
    coming = _coming(manifests)

    async def one(manifest: client.Obj) -> Change:
        return await _planned(
            writes, manifest, coming=coming, field_manager=field_manager, force=force
        )

    return await _each(ordered(manifests), one)


async def _planned(
    writes: client.Client,
    manifest: client.Obj,
    *,
    coming: frozenset[str],
    field_manager: str,
    force: bool,
) -> Change:
    metadata = manifest["metadata"]
    namespace = str(metadata.get("namespace", ""))
    if str(manifest.get("kind")) in coming or f"namespace/{namespace}" in coming:
        kind: kinds.Kind | None = None
        with contextlib.suppress(problems.KindUnknown):
            kind = await writes.kind_of(manifest)
        if kind is None or await writes.find(kind, metadata["name"], namespace=namespace) is None:
            return Change("create", str(manifest["kind"]), metadata["name"], namespace)
    kind = await writes.kind_of(manifest)
    before = await writes.find(kind, metadata["name"], namespace=namespace)
    try:
        after = await _applied(
            writes, kind, manifest, field_manager=field_manager, force=force, dry_run=True
        )
    except problems.ApiError as error:
        # The kind or namespace comes with an earlier object of this very plan.
        if before is None and error.is_missing and coming:
            return Change("create", kind.kind, metadata["name"], namespace)
        raise
    return _difference(kind, before, after)


def _coming(manifests: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """Return the kinds and namespaces that `manifests` themselves bring."""
    found = set()
    for item in manifests:
        if item.get("kind") == "CustomResourceDefinition":
            found.add(str(item["spec"]["names"]["kind"]))
        elif item.get("kind") == "Namespace":
            found.add(f"namespace/{item['metadata']['name']}")
    return frozenset(found)


def _difference(kind: kinds.Kind, before: client.Obj | None, after: client.Obj) -> Change:
    metadata = after["metadata"]
    name, namespace = metadata["name"], str(metadata.get("namespace", ""))
    if before is None:
        return Change("create", kind.kind, name, namespace)
    fields = tuple(sorted(differing(_meaningful(before), _meaningful(after))))
    return Change("change" if fields else "unchanged", kind.kind, name, namespace, fields)


def _meaningful(obj: client.Obj) -> client.Obj:
    metadata = {key: item for key, item in obj["metadata"].items() if key not in _BOOKKEEPING}
    rest = {key: item for key, item in obj.items() if key not in ("status", "metadata")}
    return {**rest, "metadata": metadata}


def differing(before: object, after: object, *, path: str = "") -> list[str]:
    """Return the paths of the fields in which two objects differ."""
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        return [
            found
            for key in sorted({*before, *after})
            for found in differing(
                before.get(key), after.get(key), path=f"{path}.{key}" if path else str(key)
            )
        ]
    return [path]


# --- applying -------------------------------------------------------------------------------------


async def apply(
    writes: client.Client,
    manifests: Sequence[Mapping[str, Any]],
    *,
    field_manager: str = client.FIELD_MANAGER,
    force: bool = False,
    on_progress: Progress = _silent,
) -> list[Change]:
    """Make the objects be as `manifests` say, in order, and return what was done.

    Those that do not need each other are applied at once, some at a time.

    Raises:
        problems.ApiError: The server refused an object; what was applied stays (ISM-KUBE-001).
        problems.FieldsOwnedElsewhere: Another writer owns fields (ISM-KUBE-007).
        problems.KindUnknown: The server does not serve a kind (ISM-KUBE-006).
        problems.WaitEnded: A new kind was not served in time (ISM-KUBE-008).
    """
    todo = ordered(manifests)
    done: list[Change] = []
    made = 0

    async def one(manifest: client.Obj) -> Change:
        nonlocal made
        change = await _apply_one(writes, manifest, field_manager=field_manager, force=force)
        made += 1
        on_progress(Step(change, made, len(todo)))
        return change

    for rank, same in itertools.groupby(todo, key=_rank):
        changes = await _each(tuple(same), one)
        if rank == _RANKS["CustomResourceDefinition"]:
            await _each([each.name for each in changes if each.action != "unchanged"],
                        functools.partial(_established, writes))  # fmt: skip
        done += changes
    return done


async def _established(reads: client.Client, name: str) -> None:
    await waiting.until(
        reads,
        kinds.CUSTOM_RESOURCE_DEFINITION,
        name,
        missing=waiting.established,
        timeout_s=CRD_TIMEOUT_S,
    )


async def _each(items: Sequence[Item], work: Callable[[Item], Awaitable[Outcome]]) -> list[Outcome]:
    """Do something for each of `items`, some at a time; return what came of it, in their order.

    After a failure nothing further is begun; what was begun is awaited, so that nobody wonders
    what became of it, and then the failure of the foremost is raised.
    """
    came: dict[int, Outcome] = {}
    failed: dict[int, errors.IsthmusError | OSError] = {}
    left = enumerate(items)

    async def some() -> None:
        for number, item in left:
            try:
                came[number] = await work(item)
            except (errors.IsthmusError, OSError) as error:  # such as nobody reads what we print
                failed[number] = error
            if failed:
                return

    async with asyncio.TaskGroup() as group:
        for _ in items[:AT_ONCE]:
            group.create_task(some())
    if failed:
        raise failed[min(failed)]
    return [came[number] for number in range(len(items))]


async def _apply_one(
    writes: client.Client, manifest: client.Obj, *, field_manager: str, force: bool
) -> Change:
    kind = await _served(writes, manifest)
    metadata = manifest["metadata"]
    before = await writes.find(kind, metadata["name"], namespace=str(metadata.get("namespace", "")))
    for attempt in range(_SERVED_ATTEMPTS):
        try:
            after = await _applied(writes, kind, manifest, field_manager=field_manager, force=force)
        except problems.ApiError as error:
            # A kind is established a moment before every server instance serves it.
            if not error.is_missing or attempt == _SERVED_ATTEMPTS - 1:
                raise
            await asyncio.sleep(0.1)
        else:
            return _difference(kind, before, after)
    raise AssertionError("the last attempt returns or raises")


async def _served(writes: client.Client, manifest: client.Obj) -> kinds.Kind:
    for _ in range(3):
        try:
            return await writes.kind_of(manifest)
        except problems.KindUnknown:
            await asyncio.sleep(0.1)
    return await writes.kind_of(manifest)


async def _applied(
    writes: client.Client,
    kind: kinds.Kind,
    manifest: client.Obj,
    *,
    field_manager: str,
    force: bool,
    dry_run: bool = False,
) -> client.Obj:
    metadata = manifest["metadata"]
    try:
        return await writes.patch(
            kind,
            metadata["name"],
            manifest,
            namespace=str(metadata.get("namespace", "")),
            patch="apply",
            field_manager=field_manager,
            force=force,
            dry_run=dry_run,
        )
    except problems.ApiError as error:
        owned = _owned_elsewhere(error)
        if not owned:
            raise
        raise problems.FieldsOwnedElsewhere(
            f"{kind.kind} `{metadata['name']}` has fields that somebody else set",
            detail="\n".join(owned),
            still_working="the object stays as it was",
            hint="take those fields out of what is applied, or take them over with `--force`",
        ) from error


def _owned_elsewhere(error: problems.ApiError) -> list[str]:
    causes = error.details.get("causes")
    if not error.is_conflict or not isinstance(causes, list):
        return []
    return [
        f"{cause.get('field', '').lstrip('.')}: {cause.get('message', '')}"
        for cause in causes
        if cause.get("reason") == "FieldManagerConflict"
    ]


# --- removing -------------------------------------------------------------------------------------


async def labelled(
    reads: client.Client, kinds_: Iterable[kinds.Kind], *, labels: str, namespace: str = ""
) -> list[client.Obj]:
    """Return the objects of the given kinds that bear `labels`; kinds not served have none."""

    async def of(kind: kinds.Kind) -> list[client.Obj]:
        where = namespace if kind.namespaced else ""
        try:
            return await reads.list_(kind, namespace=where, labels=labels)
        except problems.ApiError as error:
            if not error.is_missing:
                raise
            return []

    return list(itertools.chain.from_iterable(await _each(list(kinds_), of)))


async def delete(
    writes: client.Client,
    manifests: Sequence[Mapping[str, Any]],
    *,
    on_progress: Progress = _silent,
) -> list[Change]:
    """Delete exactly these objects, last made first; what is gone already is no error."""
    done: list[Change] = []
    for manifest in reversed(ordered(manifests)):
        metadata = manifest["metadata"]
        name, namespace = metadata["name"], str(metadata.get("namespace", ""))
        action: Action = "delete"
        try:
            kind = await writes.kind_of(manifest)
            await writes.delete(kind, name, namespace=namespace, uid=str(metadata.get("uid", "")))
        except problems.KindUnknown:
            action = "absent"
        except problems.ApiError as error:
            if not error.is_missing:
                raise
            action = "absent"
        done.append(Change(action, str(manifest["kind"]), name, namespace))
        on_progress(Step(done[-1], len(done), len(manifests)))
    return done
