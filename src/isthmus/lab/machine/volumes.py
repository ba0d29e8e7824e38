"""The volumes of a pod: what is in them, written so that a reader never sees half a change.

Decides content, modes and the way of replacing it: a new folder beside the old one, then one
symbolic link is swapped, as Kubernetes does. Refuses to know where objects and tokens come from.

Errors: `environment.MissingError`; `UnsupportedVolumeError` (ISM-LAB-204).
"""

import contextlib
import itertools
import os
import pathlib
import shutil
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from isthmus.base import errors
from isthmus.lab.machine import environment, roots

Obj = dict[str, Any]

IssueToken = Callable[[str, int], Awaitable[str]]
"""Returns a token of the pod's account for an audience (empty: the API server) and seconds."""

_DEFAULT_MODE = 0o644
_DEFAULT_LIFE_S = 3600
_generation = itertools.count(1)


class UnsupportedVolumeError(errors.IsthmusError):
    """A kind of volume that the lab does not have."""

    code = "ISM-LAB-204"


@dataclass(frozen=True, slots=True)
class File:
    """A file of a volume."""

    content: bytes
    mode: int


@dataclass(frozen=True, slots=True)
class Source:
    """What volumes are filled from.

    Attributes:
        place: Facts of the downward API.
        tokens: Makes service account tokens.
        on_node: Finds where a `hostPath` of the pod's node is.
    """

    pod: Obj
    lookup: environment.Lookup
    place: environment.Place
    tokens: IssueToken
    on_node: Callable[[Obj], pathlib.Path]


def token_lives(pod: Obj) -> Iterable[int]:
    """Yield the lifetimes in seconds of the tokens that a pod mounts."""
    for volume in pod["spec"].get("volumes") or ():
        for part in (volume.get("projected") or {}).get("sources") or ():
            if "serviceAccountToken" in part:
                yield part["serviceAccountToken"].get("expirationSeconds") or _DEFAULT_LIFE_S


def references(pod: Obj) -> set[tuple[str, str]]:
    """Return the ConfigMaps and Secrets that a pod refers to, as kind and name."""
    spec, found = pod["spec"], set()
    for volume in spec.get("volumes") or ():
        for part in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            if part.get("configMap"):
                found.add((environment.CONFIG_MAP, part["configMap"].get("name", "")))
            if part.get("secret"):
                secret = part["secret"]
                found.add((environment.SECRET, secret.get("secretName") or secret.get("name", "")))
    for container in (*spec.get("containers", ()), *(spec.get("initContainers") or ())):
        for entry in (*(container.get("env") or ()), *(container.get("envFrom") or ())):
            found |= set(_named({**(entry.get("valueFrom") or {}), **entry}))
    return found


def _named(entry: Obj) -> Iterable[tuple[str, str]]:
    for field, kind in (
        ("configMapKeyRef", environment.CONFIG_MAP),
        ("configMapRef", environment.CONFIG_MAP),
        ("secretKeyRef", environment.SECRET),
        ("secretRef", environment.SECRET),
    ):
        if field in entry:
            yield kind, entry[field].get("name", "")


async def fill(folder: pathlib.Path, source: Source) -> None:
    """Write all volumes of a pod below `folder`, each in a folder of its name.

    Raises:
        environment.MissingError: A required object or key is not there.
        UnsupportedVolumeError: A volume is of a kind that the lab does not have.
    """
    group = (source.pod["spec"].get("securityContext") or {}).get("fsGroup")
    for volume in source.pod["spec"].get("volumes") or ():
        place = folder / volume["name"]
        if "emptyDir" in volume:
            _empty(place, group)
            continue
        if "hostPath" in volume:
            _lead(place, source.on_node(volume["hostPath"] or {}))
            continue
        write(place, await _content(volume, source), group=group)


def _empty(place: pathlib.Path, group: int | None) -> None:
    if not place.exists():
        place.mkdir(parents=True)
        place.chmod(0o777)
        _give(place, group)


def _lead(place: pathlib.Path, to: pathlib.Path) -> None:
    if not place.is_symlink():
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(to)


async def _content(volume: Obj, source: Source) -> dict[str, File]:
    if "projected" in volume:
        mode = volume["projected"].get("defaultMode") or _DEFAULT_MODE
        content: dict[str, File] = {}
        for part in volume["projected"].get("sources") or ():
            content.update(await _part(part, mode, source))
        return content
    for kind in ("configMap", "secret", "downwardAPI"):
        if kind in volume:
            return await _part(volume, volume[kind].get("defaultMode") or _DEFAULT_MODE, source)
    kinds = ", ".join(key for key in volume if key != "name")
    raise UnsupportedVolumeError(
        f"volume `{volume['name']}` is of a kind that the lab does not have: {kinds}",
        hint="the lab has emptyDir, configMap, secret, projected, downwardAPI and hostPath",
    )


async def _part(part: Obj, mode: int, source: Source) -> dict[str, File]:
    namespace = source.pod["metadata"]["namespace"]
    if "serviceAccountToken" in part:
        wanted = part["serviceAccountToken"]
        life_s = wanted.get("expirationSeconds") or _DEFAULT_LIFE_S
        token = await source.tokens(wanted.get("audience") or "", life_s)
        return {wanted["path"]: File(token.encode(), mode)}
    if "downwardAPI" in part:
        items = part["downwardAPI"].get("items") or ()
        return {item["path"]: File(_told(item, source), item.get("mode") or mode) for item in items}
    for field, kind in (("configMap", environment.CONFIG_MAP), ("secret", environment.SECRET)):
        if field in part:
            values = environment.require(source.lookup, kind, namespace, part[field])
            return _chosen(values or {}, part[field], mode)
    raise UnsupportedVolumeError(f"a projected volume has a source of an unknown kind: {set(part)}")


def _told(item: Obj, source: Source) -> bytes:
    if "fieldRef" in item:
        path = item["fieldRef"]["fieldPath"]
        return environment.field(path, pod=source.pod, place=source.place).encode()
    reference = item["resourceFieldRef"]
    return environment.resource_field(reference, container={}, pod=source.pod).encode()


def _chosen(values: Mapping[str, bytes], reference: Obj, mode: int) -> dict[str, File]:
    items = reference.get("items")
    if not items:
        return {key: File(content, mode) for key, content in values.items()}
    chosen = {}
    for item in items:
        if item["key"] in values:
            chosen[item["path"]] = File(values[item["key"]], item.get("mode") or mode)
        elif values and not reference.get("optional"):
            raise environment.MissingError(f'no key "{item["key"]}" in what the volume refers to')
    return chosen


def write(folder: pathlib.Path, content: Mapping[str, File], *, group: int | None = None) -> bool:
    """Make `folder` hold exactly `content`, in one step; say whether anything changed."""
    wanted = {_safe(path): file for path, file in content.items()}
    current = folder / "..data"
    if folder.exists() and _held(current) == {path: file.content for path, file in wanted.items()}:
        return False
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    before = os.readlink(current) if current.is_symlink() else ""  # noqa: PTH115
    made = folder / f"..{next(_generation)}"
    made.mkdir()
    for path, file in wanted.items():
        _write_file(made / path, file, group)
    fresh = folder / "..data_tmp"
    fresh.symlink_to(made.name)
    fresh.replace(current)
    _link_names(folder, {path.partition("/")[0] for path in wanted})
    if before:
        shutil.rmtree(folder / before)
    return True


def _held(current: pathlib.Path) -> dict[str, bytes]:
    files = (path for path in current.rglob("*") if path.is_file()) if current.exists() else ()
    return {str(path.relative_to(current)): path.read_bytes() for path in files}


def _safe(path: str) -> str:
    parts = pathlib.PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or parts[0].startswith(".."):
        raise UnsupportedVolumeError(f"`{path}` is no path inside a volume")
    return "/".join(parts)


def _write_file(path: pathlib.Path, file: File, group: int | None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_bytes(file.content)
    path.chmod(file.mode | (0o040 if group is not None else 0))
    _give(path, group)


def _give(path: pathlib.Path, group: int | None) -> None:
    # Without root there is only one group, and everything is already in it.
    if group is not None:
        with contextlib.suppress(OSError):
            os.chown(path, -1, group)


def _link_names(folder: pathlib.Path, names: set[str]) -> None:
    for name in names:
        link = folder / name
        if not link.is_symlink():
            link.symlink_to(f"..data/{name}")
    for link in folder.iterdir():
        if not link.name.startswith("..") and link.name not in names:
            link.unlink()


def binds(container: Obj, folder: pathlib.Path, env: Mapping[str, str]) -> tuple[roots.Bind, ...]:
    """Return where a container sees its pod's volumes, parents before children.

    Raises:
        environment.MissingError: A `subPath` does not exist and cannot be made.
    """
    found = []
    for mount in container.get("volumeMounts") or ():
        # What lies on the node is bound from there: a container's root has no links out of it.
        source = (folder / mount["name"]).resolve()
        part = mount.get("subPath") or environment.expand(mount.get("subPathExpr") or "", env)
        if part:
            source = _below(source, _safe(part))
        target = mount["mountPath"].rstrip("/") or "/"
        read_only = bool(mount.get("readOnly")) or (source / "..data").is_symlink()
        propagation = mount.get("mountPropagation") or "None"
        if propagation == "Bidirectional":
            raise UnsupportedVolumeError(
                f"`{target}` is to show its mounts to the node, which the lab does not have",
                hint="mountPropagation can be None or HostToContainer",
            )
        follows = propagation == "HostToContainer"
        found.append(roots.Bind(str(source), target, read_only, follows))
    return tuple(sorted(found, key=lambda bind: bind.target.count("/")))


def _below(source: pathlib.Path, part: str) -> pathlib.Path:
    wanted = source / part
    if wanted.exists():
        resolved = wanted.resolve()
        if not resolved.is_relative_to(source.resolve()):
            raise UnsupportedVolumeError(f"`{part}` leads out of its volume")
        return resolved
    if (source / "..data").is_symlink():
        raise environment.MissingError(f'no "{part}" in the volume')
    wanted.mkdir(parents=True)
    wanted.chmod(0o777)
    return wanted
