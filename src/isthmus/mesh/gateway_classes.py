"""The classes of gateways that a Gateway object of the Gateway API may name.

A class is known by the controller that its GatewayClass names, not by its own name, so that users
may have classes of their own.

Source: spec sections 7.6 and 7.7.
"""

from dataclasses import dataclass
from typing import Final

GROUP: Final = "gateway.networking.k8s.io"
NAME_LABEL: Final = f"{GROUP}/gateway-name"
"""On all that runs for a Gateway, pods included."""

MANAGED_LABEL: Final = "gateway.istio.io/managed"
EXPOSE_LABEL: Final = "istio.io/expose-istiod"
"""On a Gateway: the port on which it leads to the control plane."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What gateways of one controller are.

    Attributes:
        controller: As a GatewayClass names it.
        protocols: Of listeners that are served.
        service_type: Of the Service before it, unless the Gateway says otherwise.
        adds_class: Whether what runs is called after the class as well.
    """

    controller: str
    protocols: frozenset[str]
    service_type: str = "LoadBalancer"
    adds_class: bool = False

    @property
    def managed(self) -> str:
        """The value of the label by which all is found that runs for it."""
        return self.controller.replace("/", "-")


INGRESS: Final = Behaviour("istio.io/gateway-controller", frozenset({"HTTP"}), adds_class=True)
EAST_WEST: Final = Behaviour("istio.io/eastwest-controller", frozenset({"HBONE", "TLS"}))
WAYPOINT: Final = Behaviour(
    "istio.io/mesh-controller", frozenset({"HBONE"}), service_type="ClusterIP"
)

BY_CONTROLLER: Final = {one.controller: one for one in (INGRESS, EAST_WEST, WAYPOINT)}

CLASSES: Final = {
    "istio": INGRESS,
    "istio-east-west": EAST_WEST,
    "istio-eastwest": EAST_WEST,
    "istio-waypoint": WAYPOINT,
}
"""Those that a control plane makes; two spellings of one are in use."""
