"""What a proxy should have, in the shape in which Envoy's own admin page shows what it has.

So that one program reads both, and a difference between them is a difference in substance.

Source: spec section 9.1; Envoy's `admin.v3.ConfigDump`.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from isthmus.resources import snapshot
from isthmus.resources.envoy import shown
from isthmus.resources.snapshot import Resource, Snapshot, TypeUrl

Document = dict[str, Any]

ADMIN: Final = snapshot.PREFIX + "envoy.admin.v3."
SHORT: Final[Mapping[str, TypeUrl]] = {
    "cds": snapshot.CLUSTERS,
    "eds": snapshot.ENDPOINTS,
    "lds": snapshot.LISTENERS,
    "rds": snapshot.ROUTES,
    "sds": snapshot.SECRETS,
}


def config_dump(found: Snapshot, *, types: str = "") -> Document:
    """Return the dump of a snapshot; `types` are short or full names with commas between."""
    wanted = {SHORT.get(each.strip().lower(), each.strip()) for each in types.split(",")} - {""}
    sections = {
        snapshot.CLUSTERS: ("ClustersConfigDump", "dynamic_active_clusters", "cluster"),
        snapshot.LISTENERS: ("ListenersConfigDump", "dynamic_listeners", "listener"),
        snapshot.ROUTES: ("RoutesConfigDump", "dynamic_route_configs", "route_config"),
        snapshot.ENDPOINTS: ("EndpointsConfigDump", "dynamic_endpoint_configs", "endpoint_config"),
        snapshot.SECRETS: ("SecretsConfigDump", "dynamic_active_secrets", "secret"),
    }
    configs: list[Document] = []
    if not wanted:
        # What reads Envoy's page looks for these sections, too.
        configs += [{"@type": ADMIN + "BootstrapConfigDump"}]
        configs += [{"@type": ADMIN + "ScopedRoutesConfigDump"}]
    for type_url, (section, field, inner) in sections.items():
        if not wanted or type_url in wanted:
            entries = [_entry(one, inner) for one in _ordered(found, type_url)]
            configs.append({"@type": ADMIN + section, field: entries})
    return {"configs": configs}


def assignments(found: Snapshot) -> list[Document]:
    """Return the endpoints of each cluster."""
    return [shown.as_document(one) for one in _ordered(found, snapshot.ENDPOINTS)]


def name_table(found: Snapshot) -> Document:
    """Return the names that a proxy should answer by itself."""
    table: Document = {}
    for one in _ordered(found, snapshot.NAMES):
        table |= shown.as_document(one).get("table") or {}
    return {"table": table}


def _ordered(found: Snapshot, type_url: TypeUrl) -> Iterable[Resource]:
    resources = found.of(type_url)
    return (resources[name] for name in sorted(resources))


def _entry(resource: Resource, inner: str) -> Document:
    said = {"version_info": resource.version, inner: shown.as_document(resource)}
    if resource.type_url == snapshot.LISTENERS:
        return {"name": resource.name, "active_state": said}
    if resource.type_url == snapshot.SECRETS:
        return {"name": resource.name, **said}
    return said
