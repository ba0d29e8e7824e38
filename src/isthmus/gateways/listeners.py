"""Which listeners of a Gateway can be served, and what is wrong with the others.

A listener that cannot be served costs itself alone. Of several that claim one port for different
purposes none is served, as the Gateway API demands: nobody could say which of them was meant.

Source: spec sections 7.6 and 7.7; the Gateway API's conditions of listeners.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from isthmus.kube import gateway_api
from isthmus.mesh import gateway_classes
from isthmus.mesh.gateway_classes import Behaviour

MOST_PORT: Final = 65535
MOST_DIGITS: Final = 6
LOW_PORT: Final = 1024
SHIFTS: Final = (8000, 18000)
RESERVED: Final = frozenset({15000, 15001, 15006, 15020, 15021, 15090})
"""What a proxy listens on for itself."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One listener, and why it is not served.

    Attributes:
        condition: Of the listener, that says so; empty if it is served.
        reason: In the Gateway API's words.
        message: For people.
    """

    listener: gateway_api.Listener
    condition: str = ""
    reason: str = ""
    message: str = ""

    @property
    def is_served(self) -> bool:
        """Whether something listens for it."""
        return not self.condition


def judged(gateway: gateway_api.Gateway, behaviour: Behaviour) -> tuple[Judged, ...]:
    """Judge the listeners of a Gateway, in order."""
    claims = dict[int, set[str]]()
    doors = Counter[tuple[int, str, str]]()
    for one in gateway.spec.listeners:
        claims.setdefault(one.port, set()).add(_purpose(one))
        doors[_door(one)] += 1
    return tuple(
        _judged(
            one,
            behaviour,
            purposes=claims[one.port],
            doors=doors[_door(one)],
            port_of_control_plane=exposed_port(gateway),
        )
        for one in gateway.spec.listeners
    )


def _judged(
    listener: gateway_api.Listener,
    behaviour: Behaviour,
    *,
    purposes: set[str],
    doors: int,
    port_of_control_plane: int,
) -> Judged:
    if not 0 < listener.port <= MOST_PORT or listener.port in RESERVED:
        text = f"port {listener.port} is taken by the proxy itself"
        return Judged(listener, "Accepted", "PortUnavailable", text)
    protocol = listener.protocol
    if protocol not in behaviour.protocols:
        text = f"protocol {protocol[:40]} is not served by gateways of {behaviour.controller}"
        return Judged(listener, "Accepted", "UnsupportedProtocol", text)
    if len(purposes) > 1:
        text = f"listeners claim port {listener.port} for different protocols"
        return Judged(listener, "Conflicted", "ProtocolConflict", text)
    if doors > 1:
        text = f"another listener has port {listener.port} and the same host"
        return Judged(listener, "Conflicted", "HostnameConflict", text)
    return _judged_tls(listener, port_of_control_plane) if protocol == "TLS" else Judged(listener)


def _judged_tls(listener: gateway_api.Listener, port_of_control_plane: int) -> Judged:
    mode = listener.tls.mode if listener.tls else None
    if mode != "Passthrough":
        text = f"TLS can only be passed on here, but `tls.mode` is {mode or 'Terminate'}"
        return Judged(listener, "Accepted", "UnsupportedValue", text)
    if listener.port != port_of_control_plane or listener.hostname:
        text = (
            f"TLS is passed on to the control plane only, without a hostname,"
            f" on the port that label `{gateway_classes.EXPOSE_LABEL}` names"
        )
        return Judged(listener, "Accepted", "UnsupportedValue", text)
    return Judged(listener)


def exposed_port(gateway: gateway_api.Gateway) -> int:
    """Return the port on which a Gateway shall lead to the control plane; 0 for none."""
    text = gateway.metadata.label(gateway_classes.EXPOSE_LABEL)
    return int(text) if text.isascii() and text.isdecimal() and len(text) < MOST_DIGITS else 0


def _purpose(listener: gateway_api.Listener) -> str:
    """Return what may share a port: TLS of all kinds is told apart by the name that it asks for."""
    return "TLS" if listener.protocol in {"HTTPS", "TLS"} else listener.protocol


def _door(listener: gateway_api.Listener) -> tuple[int, str, str]:
    return listener.port, _purpose(listener), (listener.hostname or "").lower()


def target_port(port: int, *, ports: Sequence[int]) -> int:
    """Return where a gateway's pod listens for a port of its Service.

    Its user may not open low ports, so these are moved out of the way of all others.
    """
    if port >= LOW_PORT:
        return port
    shifted = [port + shift for shift in SHIFTS]
    return next((one for one in shifted if one not in ports), shifted[-1])
