"""A proxy's configuration, read from the one shape in which Envoy and the control plane show it.

Only sorts what a dump holds by kind and name; what a reader is told of it is decided elsewhere.

Source: spec section 9.1; Envoy's `admin.v3.ConfigDump`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from isthmus.cli import asking

Document = dict[str, Any]

CLUSTERS: Final = "ClustersConfigDump"
LISTENERS: Final = "ListenersConfigDump"
ROUTES: Final = "RoutesConfigDump"
ENDPOINTS: Final = "EndpointsConfigDump"
SECRETS: Final = "SecretsConfigDump"
BOOTSTRAP: Final = "BootstrapConfigDump"
FIELDS: Final[Mapping[str, tuple[tuple[str, ...], str]]] = {
    CLUSTERS: (("static_clusters", "dynamic_active_clusters", "dynamic_warming_clusters"), "cluster"),
    LISTENERS: (("static_listeners", "dynamic_listeners"), "listener"),
    ROUTES: (("static_route_configs", "dynamic_route_configs"), "route_config"),
    ENDPOINTS: (("static_endpoint_configs", "dynamic_endpoint_configs"), "endpoint_config"),
    SECRETS: (
        ("static_secrets", "dynamic_active_secrets", "dynamic_warming_secrets"),
        "secret",
    ),
}  # fmt: skip
"""Where a section keeps its entries, and where an entry keeps the resource."""

STATES: Final = ("active_state", "warming_state")
LEAVING: Final = "draining_state"


@dataclass(frozen=True, slots=True)
class Entry:
    """One resource of a proxy.

    Attributes:
        is_dynamic: Whether it came by discovery, and not with the proxy's first configuration.
        is_warming: Whether it waits for others before it is used.
        error: Why its newest version was refused, or empty.
    """

    name: str
    resource: Document
    is_dynamic: bool = True
    is_warming: bool = False
    version: str = ""
    loaded: str = ""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Dump:
    """All of one proxy's configuration, by kind."""

    entries: Mapping[str, tuple[Entry, ...]]
    bootstrap: Document

    def of(self, kind: str) -> tuple[Entry, ...]:
        """Return the resources of a kind, by name."""
        return self.entries.get(kind, ())

    def dynamic(self, kind: str) -> dict[str, Entry]:
        """Return those that came by discovery."""
        return {one.name: one for one in self.of(kind) if one.is_dynamic}


def parse(document: Any, *, pod: str) -> Dump:  # noqa: ANN401  # a JSON document
    """Read a dump.

    Raises:
        NotUnderstood: It is none (ISM-WIRE-003).
    """
    configs = document.get("configs") if isinstance(document, dict) else None
    if not isinstance(configs, list):
        raise asking.NotUnderstood(
            f"what was shown of pod `{pod}` is no configuration of a proxy",
            hint="check that the pod has a proxy, and that it is running",
        )
    entries: dict[str, tuple[Entry, ...]] = {}
    bootstrap: Document = {}
    for config in configs:
        kind = str(config.get("@type", "")).rpartition(".")[2]
        if kind == BOOTSTRAP:
            bootstrap = config.get("bootstrap") or {}
        elif kind in FIELDS:
            found = sorted(_entries(kind, config), key=lambda one: one.name)
            entries[kind] = (*entries.get(kind, ()), *found)
    return Dump(entries, bootstrap)


def _entries(kind: str, section: Document) -> Iterator[Entry]:
    fields, inner = FIELDS[kind]
    for field in fields:
        for said in section.get(field) or ():
            if LEAVING in said and not any(each in said for each in STATES):
                continue  # taken away; only the calls that it has already are still served
            state = next((said[each] for each in STATES if each in said), said)
            resource = state.get(inner) or {}
            yield Entry(
                str(said.get("name") or resource.get("name") or resource.get("cluster_name") or ""),
                resource,
                is_dynamic=not field.startswith("static"),
                is_warming="warming" in field or ("warming_state" in said and state is not said),
                version=str(state.get("version_info", "")),
                loaded=str(state.get("last_updated", "")),
                error=str((said.get("error_state") or {}).get("details", "")),
            )
