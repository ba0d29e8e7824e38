"""All objects that an installation wants, from its options.

Source: spec section 6.2.
"""

from collections.abc import Mapping

from isthmus.install import (
    ambient,
    control_plane,
    crds,
    expansion,
    gateway_crds,
    gateways,
    labels,
    older,
    reader,
    remote_plane,
)
from isthmus.install.control_plane import Manifest
from isthmus.install.options import Options


def of_options(options: Options) -> list[Manifest]:
    """Return every object, in the order in which they should come to be."""
    found: list[Manifest] = []
    if options.base:
        found += _base(options)
    if options.pilot:
        found += remote_plane.objects(options) if options.remote else control_plane.objects(options)
        found += _around(options)
    found += ambient.agent(options) if options.nodes.agent else []
    found += ambient.proxy(options) if options.nodes.proxy else []
    for gateway in options.gateways:
        found += gateways.objects(options, gateway)
    return found


def _around(options: Options) -> list[Manifest]:
    """Return what stands beside a control plane, as older charts ask for it."""
    return [
        *(remote_plane.discovery(options) if older.has_own_discovery(options) else ()),
        *(expansion.objects(options) if options.expands_mesh else ()),
        *((older.strict(options),) if options.strict else ()),
    ]


def _base(options: Options) -> list[Manifest]:
    found = [*crds.manifests(), *(gateway_crds.manifests() if options.runs_gateways else ())]
    for manifest in found:
        labels.add_ownership(options, manifest, component="Base")
    readers = reader.objects(
        namespace=options.namespace, suffix=options.suffix, manages_cluster=options.remote
    )
    for manifest in readers:
        labels.add_ownership(options, manifest, component="Base")
    return found + readers


def identity(manifest: Mapping[str, object]) -> tuple[str, str, str]:
    """Return kind, namespace and name of an object."""
    metadata = manifest["metadata"]
    assert isinstance(metadata, Mapping)
    return (
        str(manifest["kind"]),
        str(metadata.get("namespace", "")),
        str(metadata["name"]),
    )
