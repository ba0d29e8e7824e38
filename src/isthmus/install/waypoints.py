"""The Gateway that a waypoint is, and what is told of those that there are.

Source: `istioctl waypoint`, whose flags, labels and columns these are.
"""

from collections.abc import Mapping
from typing import Any, Final

from isthmus.mesh import gateway_classes

NAME: Final = "waypoint"
CLASS: Final = "istio-waypoint"
NO_NAME: Final = "none"
"""Wants no waypoint where one is named, so that none may be called so."""

FOR_LABEL: Final = "istio.io/waypoint-for"
USE_LABEL: Final = "istio.io/use-waypoint"
REVISION_LABEL: Final = "istio.io/rev"
MODE_LABEL: Final = "istio.io/dataplane-mode"
TRAFFIC: Final = ("all", "none", "service", "workload")
USUAL_TRAFFIC: Final = "service"


def manifest(
    *, name: str = NAME, namespace: str = "", traffic: str = "", revision: str = ""
) -> dict[str, Any]:
    """Return the Gateway of a waypoint; what is empty is left to the control plane."""
    labels = {FOR_LABEL: traffic, REVISION_LABEL: revision}
    said = {key: value for key, value in sorted(labels.items()) if value}
    metadata: dict[str, Any] = {"labels": said} if said else {}
    metadata["name"] = name
    if namespace:
        metadata["namespace"] = namespace
    return {
        "apiVersion": f"{gateway_classes.GROUP}/v1",
        "kind": "Gateway",
        "metadata": metadata,
        "spec": {
            "gatewayClassName": CLASS,
            "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
        },
    }


def only(gateways: list[dict[str, Any]], *, revision: str = "") -> list[dict[str, Any]]:
    """Return those Gateways that are waypoints, in order; with `revision`, those labelled so."""
    found = [
        one
        for one in gateways
        if one["spec"].get("gatewayClassName") == CLASS
        and (not revision or _labels(one).get(REVISION_LABEL) == revision)
    ]
    return sorted(found, key=lambda one: (one["metadata"]["namespace"], one["metadata"]["name"]))


def described(gateway: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is told of a waypoint, as a document."""
    conditions = (gateway.get("status") or {}).get("conditions") or ()
    wanted = (one for one in conditions if one["type"] == "Programmed")
    programmed = next(wanted, None) or {"type": "Programmed", "status": "Unknown"}
    return {
        "namespace": gateway["metadata"]["namespace"],
        "name": gateway["metadata"]["name"],
        "revision": _labels(gateway).get(REVISION_LABEL) or "default",
        "trafficType": _labels(gateway).get(FOR_LABEL) or USUAL_TRAFFIC,
        "programmed": programmed["status"] == "True",
        "condition": {
            key: str(programmed.get(key, "")) for key in ("type", "status", "reason", "message")
        },
    }


def _labels(gateway: Mapping[str, Any]) -> dict[str, str]:
    labels: dict[str, str] = gateway["metadata"].get("labels") or {}
    return labels
