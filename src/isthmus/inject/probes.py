"""Points the application's probes at the agent, which may reach it through the mesh's rules.

Source: spec section 5.3 (`/app-health/<container>/{livez,readyz,startupz}`).
"""

import json
from dataclasses import dataclass
from typing import Final

from isthmus.inject import shapes
from isthmus.inject.shapes import Obj

KINDS: Final = ("httpGet", "tcpSocket")
PATHS: Final = {"livenessProbe": "livez", "readinessProbe": "readyz", "startupProbe": "startupz"}


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Containers whose probes ask the agent, and what the agent shall ask instead.

    Attributes:
        probers: JSON: by path, the probe as it was; empty when there is none.
    """

    containers: list[Obj]
    probers: str


def rewrite(containers: list[Obj], *, port: int) -> Rewritten:
    """Rewrite probes by HTTP and TCP; those by command or gRPC stay as they are."""
    probers: dict[str, Obj] = {}
    changed = [_container(each, probers, port) for each in containers]
    shown = json.dumps(probers, separators=(",", ":"), sort_keys=True) if probers else ""
    return Rewritten(changed, shown)


def _container(container: Obj, probers: dict[str, Obj], port: int) -> Obj:
    name = str(container.get("name", ""))
    changed = dict(container)
    for key, short in PATHS.items():
        probe = shapes.below(container, key, what=f"container `{name}`")
        asked = _asked(probe, container)
        if asked is not None:
            path = f"/app-health/{name}/{short}"
            probers[path] = asked
            kept = {k: v for k, v in probe.items() if k not in KINDS}
            changed[key] = {"httpGet": {"path": path, "port": port}, **kept}
    return changed


def _asked(probe: Obj, container: Obj) -> Obj | None:
    for kind in KINDS:
        if kind in probe:
            action = shapes.below(probe, kind, what="probe")
            port = _port(action.get("port"), container)
            if port is None:
                return None
            asked: Obj = {kind: {**action, "port": port}}
            if probe.get("timeoutSeconds"):
                asked["timeoutSeconds"] = probe["timeoutSeconds"]
            return asked
    return None


def _port(wanted: object, container: Obj) -> int | None:
    if isinstance(wanted, int):
        return wanted
    for port in shapes.listed(container, "ports", what="container"):
        found = port.get("containerPort")
        if port.get("name") == wanted and isinstance(found, int):
            return found
    # The agent asks by number only; what names no port stays the kubelet's to complain about.
    return int(wanted) if isinstance(wanted, str) and wanted.isdecimal() else None
