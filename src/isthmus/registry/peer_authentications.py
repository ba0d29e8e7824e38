"""PeerAuthentication objects: what workloads accept.

An unknown mode counts as STRICT: a mistake may refuse traffic but never let plain text in.

Source: spec section 4.9.
"""

from typing import Final

from isthmus.kube import objects
from isthmus.mesh.policies import MtlsMode, PeerAuthentication
from isthmus.registry import config, fields

MODES: Final[dict[str, MtlsMode | None]] = {
    "": None,
    "UNSET": None,
    "PERMISSIVE": MtlsMode.PERMISSIVE,
    "STRICT": MtlsMode.STRICT,
    "DISABLE": MtlsMode.DISABLE,
}
MOST_PORT: Final = 65535


def read(
    origin: config.Origin, object_: objects.PeerAuthentication, problems: fields.Problems
) -> PeerAuthentication:
    """Say what a PeerAuthentication means."""
    spec = object_.spec
    ports = []
    for text, part in sorted((spec.port_level_mtls or {}).items()):
        if text.isascii() and text.isdigit() and len(text) <= 5 and 0 < int(text) <= MOST_PORT:
            field = f"spec.portLevelMtls.{text}.mode"
            ports.append((int(text), _mode(part.mode, field, problems)))
        else:
            problems.add("spec.portLevelMtls", f"has a key that is no port: `{text[:40]}`")
    labels = (spec.selector.match_labels if spec.selector else None) or {}
    return PeerAuthentication(
        namespace=origin.namespace,
        name=origin.name,
        created=object_.metadata.creation_timestamp,
        selector=tuple(sorted(labels.items())),
        mode=_mode(spec.mtls.mode if spec.mtls else "", "spec.mtls.mode", problems),
        port_modes=tuple(sorted(ports, key=lambda port: port[0])),
    )


def _mode(text: str, field: str, problems: fields.Problems) -> MtlsMode | None:
    if text not in MODES:
        problems.add(field, f"is unknown and counts as STRICT: `{text[:40]}`")
        return MtlsMode.STRICT
    return MODES[text]
