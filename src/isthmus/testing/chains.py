"""Which filter chain a connection finds, by Envoy's own rules.

Envoy looks at one property after the other and never goes back. Once a chain names the
destination port, only chains that name it are left, and so on for server name, transport and
application protocols; a connection that then fits none of those left is closed.

Source: Envoy's documentation of FilterChainMatch.
"""

import ipaddress
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from isthmus.testing import envoys


@dataclass(frozen=True, slots=True)
class Connection:
    """What a listener sees of a connection.

    Attributes:
        transport: `tls` or `raw_buffer`.
        protocols: What TLS offers, or what an inspector found out.
    """

    address: str
    port: int
    transport: str = "raw_buffer"
    server_name: str = ""
    protocols: tuple[str, ...] = ()


def chosen(listener: envoys.Message, connection: Connection) -> envoys.Message | None:
    """Return the filter chain that a connection finds, or None when it is closed."""
    left = list(listener.filter_chains)
    steps: Sequence[Callable[[list[envoys.Message], Connection], list[envoys.Message]]] = (
        _by_port,
        _by_address,
        _by_server_name,
        _by_transport,
        _by_protocols,
    )
    for step in steps:
        left = step(left, connection)
    if left:
        return left[0]
    return listener.default_filter_chain if listener.HasField("default_filter_chain") else None


def _by_port(chains: list[envoys.Message], connection: Connection) -> list[envoys.Message]:
    exact = [
        chain
        for chain in chains
        if chain.filter_chain_match.destination_port.value == connection.port
    ]
    return exact or [
        chain for chain in chains if not chain.filter_chain_match.HasField("destination_port")
    ]


def _by_address(chains: list[envoys.Message], connection: Connection) -> list[envoys.Message]:
    address = ipaddress.ip_address(connection.address)
    fitting = [
        (one.prefix_len.value, chain)
        for chain in chains
        for one in chain.filter_chain_match.prefix_ranges
        if address in ipaddress.ip_network(f"{one.address_prefix}/{one.prefix_len.value}")
    ]
    if fitting:
        longest = max(length for length, _ in fitting)
        return [chain for length, chain in fitting if length == longest]
    return [chain for chain in chains if not chain.filter_chain_match.prefix_ranges]


def _by_server_name(chains: list[envoys.Message], connection: Connection) -> list[envoys.Message]:
    for wanted in _patterns(connection.server_name):
        exact = [chain for chain in chains if wanted in chain.filter_chain_match.server_names]
        if exact:
            return exact
    return [chain for chain in chains if not chain.filter_chain_match.server_names]


def _by_transport(chains: list[envoys.Message], connection: Connection) -> list[envoys.Message]:
    exact = [
        chain
        for chain in chains
        if chain.filter_chain_match.transport_protocol == connection.transport
    ]
    return exact or [chain for chain in chains if not chain.filter_chain_match.transport_protocol]


def _by_protocols(chains: list[envoys.Message], connection: Connection) -> list[envoys.Message]:
    for protocol in connection.protocols:
        exact = [
            chain for chain in chains if protocol in chain.filter_chain_match.application_protocols
        ]
        if exact:
            return exact
    return [chain for chain in chains if not chain.filter_chain_match.application_protocols]


def _patterns(name: str) -> Iterable[str]:
    if not name:
        return
    yield name
    labels = name.split(".")
    for index in range(1, len(labels)):
        yield f"*.{'.'.join(labels[index:])}"
