"""What the injector works with, read anew when its ConfigMap or the mesh's settings change.

Nothing is guessed: without its ConfigMap there are no settings, because a pod that says a wrong
cluster or network of itself is worse than one that is refused. A ConfigMap that is broken leaves
the last good settings in force.

Source: spec section 5.2.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from isthmus.base import errors
from isthmus.engine import collections, faults, graph, reader
from isthmus.fleet.sources import ObjectKey
from isthmus.inject import settings as inject_settings
from isthmus.kube import objects
from isthmus.registry import documents
from isthmus.registry import settings as registry_settings
from isthmus.runtime import assembly, settings

SETTINGS_UNUSABLE = "ISM-RUN-005"


@dataclass(frozen=True, slots=True)
class Declared:
    """What this module declares.

    Attributes:
        last_good: Without a value while there were never any that could be used.
        findings: What is wrong with them, if anything.
    """

    graph: graph.Graph
    last_good: collections.Single[inject_settings.InjectionSettings]
    findings: collections.Single[tuple[errors.Finding, ...]]

    def settings(self) -> inject_settings.InjectionSettings | None:
        """Return the settings in force; None while there are none."""
        try:
            return self.graph.value(self.last_good)
        except faults.NoValueYet:
            return None


def declare(mesh: assembly.Mesh, chosen: settings.Settings) -> Declared:
    """Declare the injector's settings in the compiler's graph."""
    suffix = "" if chosen.revision in {"", "default"} else f"-{chosen.revision}"
    key = mesh.seat.settings_map(f"istio-sidecar-injector{suffix}")
    mesh_key = mesh.seat.settings_map()

    def parsed(read: reader.Reader) -> tuple[inject_settings.InjectionSettings | None, str]:
        config_map = read.get(mesh.sources.config_maps, key)
        if config_map is None:
            return None, "is missing"
        mesh_map = read.get(mesh.sources.config_maps, mesh_key)
        try:
            values = json.loads(_text(config_map, "values") or "{}")
            config = documents.parse(_text(config_map, "config"))
            shared = registry_settings.shared_text(read, mesh.sources, mesh.seat, "mesh")
            mesh_config = documents.layered(_text(mesh_map, "mesh"), below=shared)
        except documents.DocumentBroken as error:
            return None, error.happened
        except (ValueError, RecursionError) as error:
            return None, f"`values` is no JSON: {str(error)[:200]}"
        found = inject_settings.read(
            _mapping(values),
            config=_mapping(config),
            mesh=read.value(mesh.model.settings),
            default_config=_mapping(_mapping(mesh_config).get("defaultConfig")),
        )
        return found, ""

    def good(read: reader.Reader) -> inject_settings.InjectionSettings:
        found, _ = read.value(both)
        if found is None:
            raise reader.KeepLast
        return found

    def findings(read: reader.Reader) -> tuple[errors.Finding, ...]:
        _, fault = read.value(both)
        return (_finding(key, fault),) if fault else ()

    both = mesh.graph.single("injection.parsed", parsed)
    return Declared(
        mesh.graph,
        mesh.graph.single("injection", good),
        mesh.graph.single("injection.findings", findings),
    )


def _finding(key: ObjectKey, fault: str) -> errors.Finding:
    return errors.Finding(
        SETTINGS_UNUSABLE,
        f"ConfigMap {key.namespace}/{key.name} {registry_settings.place(key)}",
        fault,
        still_working="pods get their proxies by the last good settings, if there were any",
        hint="run the same `isthmus install` again: it puts the ConfigMap back",
    )


def _text(config_map: objects.ConfigMap | None, name: str) -> str:
    return ((config_map.data or {}) if config_map else {}).get(name, "")


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
