"""A container's environment and arguments, from its pod and the objects that it refers to.

Decides values, expansion and order, as Kubernetes documents them. Refuses to know where objects
come from: it is handed a `Lookup`.

Error: `MissingError` (ISM-LAB-203): a required ConfigMap, Secret or key is not there.
"""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from isthmus.base import errors

Obj = dict[str, Any]

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/opt/isthmus/bin"

CONFIG_MAP, SECRET = "configmap", "secret"
_REFERENCE = re.compile(r"\$(\$|\(([^()]*)\))")
_NAME = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_INDEXED = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]")
_DEFAULT_CPU, _DEFAULT_MEMORY = 1, 1 << 30


class MissingError(errors.IsthmusError):
    """Something that a pod needs is not there."""

    code = "ISM-LAB-203"


class Lookup(Protocol):
    """Finds ConfigMaps and Secrets."""

    def find(self, kind: str, namespace: str, name: str) -> Obj | None:
        """Return the object, or nothing; `kind` is `CONFIG_MAP` or `SECRET`."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a pod runs: what the downward API tells beside the pod itself."""

    pod_ip: str
    host_ip: str
    service_host: str
    service_port: int


def values_of(found: Obj, *, kind: str) -> dict[str, bytes]:
    """Return what a ConfigMap or Secret holds."""
    encoded = "binaryData" if kind == CONFIG_MAP else "data"
    plain = "data" if kind == CONFIG_MAP else "stringData"
    content = {key: base64.b64decode(text) for key, text in (found.get(encoded) or {}).items()}
    content.update({key: str(text).encode() for key, text in (found.get(plain) or {}).items()})
    return content


def require(lookup: Lookup, kind: str, namespace: str, reference: Obj) -> dict[str, bytes] | None:
    """Return the values of a referenced object; nothing if it is absent and optional."""
    name = reference.get("name") or reference.get("secretName") or ""
    found = lookup.find(kind, namespace, name)
    if found is not None:
        return values_of(found, kind=kind)
    if reference.get("optional"):
        return None
    raise MissingError(f'{kind} "{name}" not found')


def of_container(
    container: Obj, *, pod: Obj, image: Mapping[str, str], lookup: Lookup, place: Place
) -> dict[str, str]:
    """Return the environment of a container.

    Raises:
        MissingError: It refers to something that is required and absent.
    """
    namespace = pod["metadata"]["namespace"]
    result = {
        "PATH": _PATH,
        "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
        "HOME": "/root",
        **image,
        "KUBERNETES_SERVICE_HOST": place.service_host,
        "KUBERNETES_SERVICE_PORT": str(place.service_port),
        "KUBERNETES_SERVICE_PORT_HTTPS": str(place.service_port),
        "KUBERNETES_PORT": f"tcp://{place.service_host}:{place.service_port}",
    }
    for source in container.get("envFrom") or ():
        result.update(_all_of(source, namespace, lookup))
    for entry in container.get("env") or ():
        value = _value(entry, container, pod, lookup, place)
        if value is not None:
            result[entry["name"]] = expand(value, result) if "value" in entry else value
    return result


def _all_of(source: Obj, namespace: str, lookup: Lookup) -> dict[str, str]:
    prefix = source.get("prefix", "")
    content: dict[str, bytes] = {}
    if "configMapRef" in source:
        content = require(lookup, CONFIG_MAP, namespace, source["configMapRef"]) or {}
    elif "secretRef" in source:
        content = require(lookup, SECRET, namespace, source["secretRef"]) or {}
    return {
        prefix + key: text.decode(errors="replace")
        for key, text in content.items()
        if _NAME.fullmatch(prefix + key)
    }


def _value(entry: Obj, container: Obj, pod: Obj, lookup: Lookup, place: Place) -> str | None:
    source = entry.get("valueFrom")
    if not source:
        return str(entry.get("value") or "")
    if "fieldRef" in source:
        return field(source["fieldRef"]["fieldPath"], pod=pod, place=place)
    if "resourceFieldRef" in source:
        return resource_field(source["resourceFieldRef"], container=container, pod=pod)
    for name, kind in (("configMapKeyRef", CONFIG_MAP), ("secretKeyRef", SECRET)):
        if name in source:
            return _key(source[name], kind, pod["metadata"]["namespace"], lookup)
    return ""


def _key(reference: Obj, kind: str, namespace: str, lookup: Lookup) -> str | None:
    content = require(lookup, kind, namespace, reference)
    if content is None:
        return None
    if reference["key"] in content:
        return content[reference["key"]].decode(errors="replace")
    if reference.get("optional"):
        return None
    raise MissingError(f'{kind} "{reference.get("name")}" has no key "{reference["key"]}"')


def expand(text: str, known: Mapping[str, str]) -> str:
    """Replace `$(NAME)` by values that are known; `$$` stands for a dollar sign."""

    def replaced(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return known.get(match[2], match[0])

    return _REFERENCE.sub(replaced, text)


def field(path: str, *, pod: Obj, place: Place) -> str:
    """Return what a downward API `fieldPath` stands for."""
    metadata, spec = pod["metadata"], pod["spec"]
    indexed = _INDEXED.fullmatch(path)
    if indexed:
        return str((metadata.get(indexed[1]) or {}).get(indexed[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        pairs = sorted((metadata.get(path.partition(".")[2]) or {}).items())
        return "".join(f"{key}={_quoted(value)}\n" for key, value in pairs).rstrip("\n")
    known = {
        "metadata.name": metadata["name"],
        "metadata.namespace": metadata["namespace"],
        "metadata.uid": metadata.get("uid", ""),
        "spec.nodeName": spec.get("nodeName", ""),
        "spec.serviceAccountName": spec.get("serviceAccountName") or "default",
        "status.podIP": place.pod_ip,
        "status.podIPs": place.pod_ip,
        "status.hostIP": place.host_ip,
        "status.hostIPs": place.host_ip,
    }
    return str(known.get(path, ""))


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def resource_field(reference: Obj, *, container: Obj, pod: Obj) -> str:
    """Return what a `resourceFieldRef` stands for; without a limit, a small machine."""
    wanted = reference.get("containerName")
    everyone = [*pod["spec"].get("containers", ()), *pod["spec"].get("initContainers", ())]
    chosen = next((each for each in everyone if each["name"] == wanted), container)
    kind, _, name = reference["resource"].partition(".")
    resources = chosen.get("resources") or {}
    text = (resources.get(kind) or {}).get(name)
    if text is None and kind == "limits":
        text = {"cpu": _DEFAULT_CPU, "memory": _DEFAULT_MEMORY}.get(name, 0)
    amount = quantity(str(text or 0))
    divisor = quantity(str(reference.get("divisor") or "1")) or 1.0
    return str(-int(-amount // divisor))


_SUFFIXES = {"m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "": 1.0}
_BINARY = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


def quantity(text: str) -> float:
    """Return the number that a Kubernetes quantity such as `100m` or `1Gi` stands for."""
    digits = text.rstrip("KMGTimk")
    suffix = text[len(digits) :]
    return float(digits or 0) * (_BINARY.get(suffix) or _SUFFIXES.get(suffix, 1.0))
