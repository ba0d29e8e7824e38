"""What the injector works with, read anew when its ConfigMap or the mesh's settings change.

Source: spec section 5.2.
"""

import json
from collections.abc import Mapping

from isthmus.engine import collections, reader
from isthmus.fleet.sources import ObjectKey
from isthmus.inject import settings as inject_settings
from isthmus.registry import documents
from isthmus.runtime import assembly, settings


def declare(
    mesh: assembly.Mesh, chosen: settings.Settings
) -> collections.Single[inject_settings.InjectionSettings]:
    """Declare the injector's settings in the compiler's graph."""
    suffix = "" if chosen.revision in {"", "default"} else f"-{chosen.revision}"
    key = ObjectKey(chosen.cluster, chosen.namespace, f"istio-sidecar-injector{suffix}")
    mesh_key = ObjectKey(chosen.cluster, chosen.namespace, f"istio{suffix}")

    def found(read: reader.Reader) -> inject_settings.InjectionSettings:
        config_map = read.get(mesh.sources.config_maps, key)
        mesh_map = read.get(mesh.sources.config_maps, mesh_key)
        texts = (config_map.data or {}) if config_map else {}
        mesh_texts = (mesh_map.data or {}) if mesh_map else {}
        try:
            values = _mapping(json.loads(texts.get("values", "{}")))
            config = _mapping(documents.parse(texts.get("config", "")))
            mesh_config = _mapping(documents.parse(mesh_texts.get("mesh", "")))
        except (ValueError, documents.DocumentBroken) as error:
            raise reader.KeepLast(f"the injector's settings are broken: {error}") from error
        return inject_settings.read(
            values,
            config=config,
            mesh=read.value(mesh.model.settings),
            default_config=_mapping(mesh_config.get("defaultConfig")),
        )

    return mesh.graph.single("injection", found)


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}
