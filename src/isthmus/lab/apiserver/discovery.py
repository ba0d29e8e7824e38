"""What the server tells about itself: groups, versions and resources, old style and new."""

from collections.abc import Iterable

from isthmus.lab.apiserver import resources
from isthmus.lab.apiserver.resources import Catalog, Resource
from isthmus.lab.apiserver.values import Obj

VERSION: Obj = {
    "major": "1",
    "minor": "33",
    "gitVersion": "v1.33.0+isthmus",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "none",
    "compiler": "none",
    "platform": "linux/amd64",
}

_SUB_KINDS = {
    "scale": ("autoscaling", "v1", "Scale"),
    "token": ("authentication.k8s.io", "v1", "TokenRequest"),
    "eviction": ("policy", "v1", "Eviction"),
    "binding": ("", "v1", "Binding"),
    "exec": ("", "v1", "PodExecOptions"),
    "attach": ("", "v1", "PodAttachOptions"),
    "portforward": ("", "v1", "PodPortForwardOptions"),
}
_SUB_VERBS = {
    "status": ["get", "patch", "update"],
    "scale": ["get", "patch", "update"],
    "ephemeralcontainers": ["get", "patch", "update"],
    "finalize": ["update"],
    "log": ["get"],
    "binding": ["create"],
    "eviction": ["create"],
    "token": ["create"],
    "exec": ["create", "get"],
    "attach": ["create", "get"],
    "portforward": ["create", "get"],
    "proxy": ["create", "delete", "get", "patch", "update"],
}
_PROXY_KINDS = {
    "pods": "PodProxyOptions",
    "services": "ServiceProxyOptions",
    "nodes": "NodeProxyOptions",
}


def aggregated(catalog: Catalog, *, core: bool) -> Obj:
    """Return everything in one answer, of the core group or of all others."""
    groups = [group for group in _groups(catalog) if (group == "") is core]
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": [_group_item(catalog, group) for group in groups],
    }


def _group_item(catalog: Catalog, group: str) -> Obj:
    versions = [
        {
            "version": version,
            "freshness": "Current",
            "resources": [_aggregated_entry(one) for one in _in(catalog, group, version)],
        }
        for version in versions_of(catalog, group)
    ]
    meta = {"name": group} if group else {}
    return {"metadata": {**meta, "creationTimestamp": None}, "versions": versions}


def _aggregated_entry(one: Resource) -> Obj:
    entry: Obj = {
        "resource": one.plural,
        "responseKind": _kind(one.group, one.version, one.kind),
        "scope": "Namespaced" if one.namespaced else "Cluster",
        "singularResource": one.singular,
        "verbs": list(one.verbs),
    }
    if one.short_names:
        entry["shortNames"] = list(one.short_names)
    if one.categories:
        entry["categories"] = list(one.categories)
    if one.subresources:
        entry["subresources"] = [
            {
                "subresource": sub,
                "responseKind": _kind(*_sub_kind(one, sub)),
                "verbs": _SUB_VERBS[sub],
            }
            for sub in one.subresources
        ]
    return entry


def core_versions() -> Obj:
    """Return the versions of the core group."""
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups(catalog: Catalog) -> Obj:
    """Return the named groups."""
    return {
        "kind": "APIGroupList",
        "apiVersion": "v1",
        "groups": [_group(catalog, group) for group in _groups(catalog) if group],
    }


def group(catalog: Catalog, name: str) -> Obj | None:
    """Return one group, if there."""
    if name not in _groups(catalog):
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(catalog, name)}


def _group(catalog: Catalog, name: str) -> Obj:
    versions = [
        {"groupVersion": f"{name}/{version}", "version": version}
        for version in versions_of(catalog, name)
    ]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def resource_list(catalog: Catalog, *, group: str, version: str) -> Obj | None:
    """Return the resources of one version, if served."""
    found = _in(catalog, group, version)
    if not found:
        return None
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": [entry for one in found for entry in _entries(one)],
    }


def _entries(one: Resource) -> Iterable[Obj]:
    entry: Obj = {
        "name": one.plural,
        "singularName": one.singular,
        "namespaced": one.namespaced,
        "kind": one.kind,
        "verbs": list(one.verbs),
    }
    if one.short_names:
        entry["shortNames"] = list(one.short_names)
    if one.categories:
        entry["categories"] = list(one.categories)
    yield entry
    for sub in one.subresources:
        group, version, kind = _sub_kind(one, sub)
        yield {
            "name": f"{one.plural}/{sub}",
            "singularName": "",
            "namespaced": one.namespaced,
            "kind": kind,
            **(
                {}
                if (group, version) == (one.group, one.version)
                else {"group": group, "version": version}
            ),
            "verbs": _SUB_VERBS[sub],
        }


def _sub_kind(one: Resource, sub: str) -> tuple[str, str, str]:
    if sub == "proxy":
        return ("", "v1", _PROXY_KINDS[one.plural])
    return _SUB_KINDS.get(sub, (one.group, one.version, one.kind))


def _kind(group: str, version: str, kind: str) -> Obj:
    return {"group": group, "version": version, "kind": kind}


def _groups(catalog: Catalog) -> list[str]:
    """Return the groups, built-in ones in their fixed order first: clients prefer the earlier."""
    known = dict.fromkeys(one.group for one in resources.BUILTIN)
    return list(known | dict.fromkeys(sorted(one.group for one in catalog)))


def versions_of(catalog: Catalog, group: str) -> list[str]:
    """Return a group's versions, the preferred one first."""
    found = {one.version for one in catalog if one.group == group}
    return sorted(found, key=_priority)


def _priority(version: str) -> tuple[int, int, int]:
    """Order versions as Kubernetes does: v2, v1, v1beta2, v1beta1, v1alpha1."""
    digits = "".join(char if char.isdigit() else " " for char in version).split()
    major = int(digits[0]) if digits else 0
    minor = int(digits[1]) if len(digits) > 1 else 0
    stage = 2 if "alpha" in version else 1 if "beta" in version else 0
    return (stage, -major, -minor)


def _in(catalog: Catalog, group: str, version: str) -> list[Resource]:
    return [one for one in catalog if one.group == group and one.version == version]
