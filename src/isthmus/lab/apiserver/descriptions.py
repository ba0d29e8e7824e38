"""Answers for paths that are no resource: discovery and OpenAPI, made once per edition."""

import msgspec

from isthmus.lab.apiserver import discovery, openapi
from isthmus.lab.apiserver.state import State
from isthmus.lab.apiserver.values import Obj

OPEN_PATHS = ("/healthz", "/livez", "/readyz", "/version")
"""Paths that anybody may read."""


class Descriptions:
    """What the cluster tells about itself, kept until the set of resources changes."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._kept: dict[tuple[str, bool], tuple[int, bytes]] = {}

    def at(self, path: str, *, aggregated: bool) -> bytes | None:
        """Return the answer at `path` as JSON, or None when there is nothing."""
        edition = self._state.catalog.edition
        kept = self._kept.get((path, aggregated))
        if kept is not None and kept[0] == edition:
            return kept[1]
        parts = path.strip("/").split("/")
        made = self._aggregated(parts) if aggregated else self._plain(parts)
        if made is None:
            return None
        encoded = msgspec.json.encode(made)
        self._kept[(path, aggregated)] = (edition, encoded)
        return encoded

    def _aggregated(self, parts: list[str]) -> Obj | None:
        if parts not in (["api"], ["apis"]):
            return self._plain(parts)
        return discovery.aggregated(self._state.catalog, core=parts == ["api"])

    def _plain(self, parts: list[str]) -> Obj | None:
        catalog = self._state.catalog
        found: Obj | None = None
        match parts:
            case [""]:
                prefixes = {one.prefix for one in catalog}
                found = {"paths": sorted(prefixes | set(OPEN_PATHS))}
            case ["api"]:
                found = discovery.core_versions()
            case ["apis"]:
                found = discovery.groups(catalog)
            case ["api", version]:
                found = discovery.resource_list(catalog, group="", version=version)
            case ["apis", group]:
                found = discovery.group(catalog, group)
            case ["apis", group, version]:
                found = discovery.resource_list(catalog, group=group, version=version)
            case ["openapi", "v3"]:
                found = openapi.index(self._state)
            case ["openapi", "v3", *prefix]:
                found = openapi.document(self._state, "/".join(prefix))
            case _:
                pass
        return found
