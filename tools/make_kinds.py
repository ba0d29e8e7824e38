"""Make the lab API server's kinds.json from the published schemas of Kubernetes.

Run from the top of the repository with the development dependencies installed:

    python tools/make_kinds.py

It keeps what the server acts on (types, merge keys, list kinds, required fields) and drops the
prose. The names of the fields of the result are explained in isthmus.lab.apiserver.schemas.
"""

import json
import pathlib
from typing import Any

import kubernetes_validate

from isthmus.lab.apiserver import resources

VERSION = "v1.33.0-local"
OUT = pathlib.Path("src/isthmus/lab/apiserver/kinds.json")
SPECIAL = {
    "IntOrString": {"t": "int-or-string"},
    "Quantity": {"t": "quantity"},
    "FieldsV1": {"t": "any"},
    "RawExtension": {"t": "any"},
    "JSON": {"t": "any"},
    "JSONSchemaPropsOrBool": {"t": "any"},
    "JSONSchemaPropsOrArray": {"t": "any"},
    "JSONSchemaPropsOrStringArray": {"t": "any"},
    # Checked by the custom resource code itself; recursion makes it costly here.
    "JSONSchemaProps": {"t": "any"},
}
# Part of a list's key, so server-side apply must know them; the published files leave them out.
DEFAULTS = {("ContainerPort", "protocol"): "TCP", ("ServicePort", "protocol"): "TCP"}


def short(name: str) -> str:
    """Return `core.v1.Pod` for `io.k8s.api.core.v1.Pod`."""
    return ".".join(name.split(".")[-3:])


def compact(raw: dict[str, Any], wanted: set[str]) -> dict[str, Any]:
    """Translate one schema, adding the names that it refers to to `wanted`."""
    if "$ref" in raw:
        name = raw["$ref"].removeprefix("#/$defs/")
        special = SPECIAL.get(name.rsplit(".", 1)[1])
        if special:
            return dict(special)
        wanted.add(name)
        return {"r": short(name)}
    kinds = raw.get("type", "any")
    kind = kinds if isinstance(kinds, str) else next(one for one in kinds if one != "null")
    out: dict[str, Any] = {"t": kind}
    if raw.get("format") == "byte":
        out["t"] = "bytes"
    elif raw.get("format") == "date-time":
        out["t"] = "time"
    if "properties" in raw:
        out["p"] = {key: compact(value, wanted) for key, value in raw["properties"].items()}
    if isinstance(raw.get("additionalProperties"), dict):
        out["v"] = compact(raw["additionalProperties"], wanted)
    if "items" in raw:
        out["i"] = compact(raw["items"], wanted)
    if raw.get("required"):
        out["q"] = raw["required"]
    copied = {
        "x-kubernetes-list-type": "l",
        "x-kubernetes-list-map-keys": "k",
        "x-kubernetes-patch-merge-key": "m",
        "x-kubernetes-patch-strategy": "s",
    }
    out.update({to: raw[key] for key, to in copied.items() if key in raw})
    if raw.get("x-kubernetes-map-type") == "atomic":
        out["a"] = 1
    return out


def main() -> None:
    """Write the file."""
    home = pathlib.Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / VERSION
    definitions = json.loads((home / "_definitions.json").read_text())["$defs"]
    by_kind = {}
    for name, raw in definitions.items():
        for gvk in raw.get("x-kubernetes-group-version-kind", []):
            by_kind[(gvk["group"], gvk["version"], gvk["kind"])] = name
    kinds, wanted, types = {}, set(), {}
    for group, version, kind in sorted(resources.builtin_kinds()):
        name = by_kind[(group, version, kind)]
        kinds[f"{group}/{version}/{kind}"] = short(name)
        wanted.add(name)
    done: set[str] = set()
    while wanted - done:
        name = min(wanted - done)
        done.add(name)
        types[short(name)] = compact(definitions[name], wanted)
    for (name, field), value in DEFAULTS.items():
        types[f"core.v1.{name}"]["p"][field]["d"] = value
    assert len(types) == len(done), "two types have one short name"
    text = json.dumps({"kinds": kinds, "types": types}, sort_keys=True, separators=(",", ":"))
    OUT.write_text(text + "\n")
    print(f"{OUT}: {len(kinds)} kinds, {len(types)} types, {len(text) // 1000} kB")


if __name__ == "__main__":
    main()
