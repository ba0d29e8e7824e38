"""The Gateway by which other networks reach a cluster, as the guides print it.

Source: spec section 7.7.
"""

from collections.abc import Mapping
from typing import Any, Final

from isthmus.mesh import gateway_classes

NAME: Final = "istio-eastwest"
NAMESPACE: Final = "istio-gateways"
NETWORK_LABEL: Final = "topology.istio.io/network"
TUNNEL_PORT: Final = 15008
DISCOVERY_PORT: Final = 15012


def manifest(*, network: str, name: str = NAME, namespace: str = NAMESPACE) -> dict[str, Any]:
    """Return the Gateway of a cluster in `network`."""
    passed = {"mode": "Passthrough"}
    return {
        "apiVersion": f"{gateway_classes.GROUP}/v1",
        "kind": "Gateway",
        "metadata": {
            "labels": {
                gateway_classes.EXPOSE_LABEL: str(DISCOVERY_PORT),
                NETWORK_LABEL: network,
            },
            "name": name,
            "namespace": namespace,
        },
        "spec": {
            "gatewayClassName": "istio-eastwest",
            "listeners": [
                {
                    "name": "cross-network",
                    "port": TUNNEL_PORT,
                    "protocol": "HBONE",
                    "tls": dict(passed),
                },
                {"name": "xds-tls", "port": DISCOVERY_PORT, "protocol": "TLS", "tls": dict(passed)},
            ],
        },
    }


def lacks(gateway: Mapping[str, Any] | None) -> str:
    """Say what a Gateway still lacks to be of use; empty if nothing."""
    status = (gateway or {}).get("status") or {}
    found = {one["type"]: one for one in status.get("conditions") or ()}
    accepted, programmed = found.get("Accepted", {}), found.get("Programmed", {})
    if programmed.get("status") == "True":
        return ""
    for condition in (accepted, programmed):
        if condition.get("status") == "False" and condition.get("message"):
            return str(condition["message"])
    return "no control plane has looked at it yet"


def addresses_of(gateway: Mapping[str, Any]) -> tuple[str, ...]:
    """Return where a Gateway is reached."""
    return tuple(str(one["value"]) for one in (gateway.get("status") or {}).get("addresses") or ())


def unserved(gateway: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the listeners of a Gateway that are not served, and why."""
    return tuple(
        f"{listener['name']}: {condition['message']}"
        for listener in (gateway.get("status") or {}).get("listeners") or ()
        for condition in listener.get("conditions") or ()
        if condition["type"] == "Accepted" and condition["status"] == "False"
    )
