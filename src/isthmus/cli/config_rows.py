"""The rows that `proxy-config` prints, under the headings of Istio's own command.

Source: spec section 9.2.
"""

import base64
import datetime
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from cryptography import x509

from isthmus.base import clock
from isthmus.cli.config_dumps import Document, Entry

HEADINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "cluster": ("SERVICE FQDN", "PORT", "SUBSET", "DIRECTION", "TYPE", "DESTINATION RULE"),
    "endpoint": ("ENDPOINT", "STATUS", "OUTLIER CHECK", "CLUSTER"),
    "assignment": ("NAME", "STATUS", "LOCALITY", "CLUSTER"),
    "listener": ("ADDRESSES", "PORT", "MATCH", "DESTINATION"),
    "listener type": ("ADDRESSES", "PORT", "TYPE"),
    "route": ("NAME", "VHOST NAME", "DOMAINS", "MATCH", "VIRTUAL SERVICE"),
    "secret": (
        "RESOURCE NAME",
        "TYPE",
        "STATUS",
        "VALID CERT",
        "SERIAL NUMBER",
        "NOT AFTER",
        "NOT BEFORE",
    ),
}
HTTP: Final = "envoy.filters.network.http_connection_manager"
TCP: Final = "envoy.filters.network.tcp_proxy"
PARTS: Final = 4
SHOWN_DOMAINS: Final = 1

Row = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ClusterName:
    """The parts of `<direction>|<port>|<subset>|<host>`; of other names the name alone."""

    host: str
    port: str = "-"
    subset: str = "-"
    direction: str = "-"


def cluster_name(name: str) -> ClusterName:
    """Take the name of a cluster apart."""
    parts = name.split("|")
    if len(parts) == PARTS:
        direction, port, subset, host = parts
        return ClusterName(host, port, subset or "-", direction)
    if name.startswith("outbound_.") and name.count("_.") >= PARTS - 1:
        direction, port, subset, host = name.split("_.", PARTS - 1)
        return ClusterName(host, port, subset or "-", direction)
    return ClusterName(name)


def cluster(entry: Entry) -> Row:
    """Return the row of a cluster."""
    name = cluster_name(entry.name)
    rule = _object_named(entry.resource, "destination-rule")
    kind = str(entry.resource.get("type", "STATIC"))
    return (name.host, name.port, name.subset, name.direction, kind, rule)


def endpoints(statuses: Document) -> Iterator[Row]:
    """Yield the rows of all endpoints, from Envoy's page `/clusters`."""
    for one in statuses.get("cluster_statuses") or ():
        for host in one.get("host_statuses") or ():
            health = host.get("health_status") or {}
            failed = health.get("failed_outlier_check", False)
            status = str(health.get("eds_health_status", "HEALTHY"))
            yield (
                address(host.get("address") or {}),
                status,
                "FAILED" if failed else "OK",
                str(one["name"]),
            )


def narrowed(statuses: Document, is_shown: Callable[[Row], bool]) -> Document:
    """Return Envoy's page `/clusters` with those endpoints alone whose row is to be shown."""
    found = []
    for one in statuses.get("cluster_statuses") or ():
        hosts = [
            host
            for host in one.get("host_statuses") or ()
            if any(
                map(is_shown, endpoints({"cluster_statuses": [{**one, "host_statuses": [host]}]}))
            )
        ]
        found += [{**one, "host_statuses": hosts}] if hosts else []
    return {"cluster_statuses": found}


def assignment(entry: Entry) -> Iterator[Row]:
    """Yield the rows of the endpoints that a cluster should have."""
    for group in entry.resource.get("endpoints") or ():
        place = locality(group.get("locality") or {})
        for one in group.get("lb_endpoints") or ():
            where = address((one.get("endpoint") or {}).get("address") or {})
            yield (where, str(one.get("health_status", "HEALTHY")), place, entry.name)


def listener(entry: Entry) -> Iterator[Row]:
    """Yield a row for each chain of a listener."""
    place = _listening(entry.resource)
    chains = [*(entry.resource.get("filter_chains") or ())]
    if "default_filter_chain" in entry.resource:
        chains.append(entry.resource["default_filter_chain"])
    for chain in chains:
        yield (*place, _match(chain.get("filter_chain_match") or {}), _destination(chain))


def listener_type(entry: Entry) -> Row:
    """Return the row of a listener: what kind it is."""
    kinds = {_kind(chain) for chain in entry.resource.get("filter_chains") or ()}
    return (*_listening(entry.resource), "+".join(sorted(kinds, reverse=True)) or "UNKNOWN")


def route(entry: Entry) -> Iterator[Row]:
    """Yield a row for each route."""
    name = entry.name if entry.is_dynamic else (entry.name or "(inline)")
    for host in entry.resource.get("virtual_hosts") or ():
        for one in host.get("routes") or ():
            yield (
                name,
                str(host.get("name", "")),
                _domains(host.get("domains") or ()),
                _path(one.get("match") or {}),
                _object_named(one, "virtual-service") or _answer(one),
            )


def secret(entry: Entry, *, now: datetime.datetime) -> Row:
    """Return the row of a secret: the first certificate in it, never its key."""
    chain = (entry.resource.get("tls_certificate") or {}).get("certificate_chain")
    roots = (entry.resource.get("validation_context") or {}).get("trusted_ca")
    kind = "Cert Chain" if chain else ("CA" if roots else "")
    return _certified(entry.name, kind, chain or roots or {}, entry=entry, now=now)


def secrets(entry: Entry, *, now: datetime.datetime) -> Iterator[Row]:
    """Yield the row of a secret; of one that lists trust domains a row for each."""
    context = entry.resource.get("validation_context") or {}
    validator = context.get("custom_validator_config") or {}
    listed = (validator.get("typed_config") or {}).get("trust_domains") or ()
    for one in listed:
        name = f"{entry.name}/{one.get('name', '')}"
        yield _certified(name, "CA", one.get("trust_bundle") or {}, entry=entry, now=now)
    if not listed:
        yield secret(entry, now=now)


def _certified(
    name: str, kind: str, source: Document, *, entry: Entry, now: datetime.datetime
) -> Row:
    state = "WARMING" if entry.is_warming else "ACTIVE"
    found = certificates(source)
    if not found:
        return (name, kind, state, "false", "", "", "")
    first = found[0]
    is_valid = first.not_valid_before_utc <= now <= first.not_valid_after_utc
    return (
        name,
        kind,
        state,
        str(is_valid).lower(),
        f"{first.serial_number:x}",
        _instant(first.not_valid_after_utc),
        _instant(first.not_valid_before_utc),
    )


def certificates(source: Document) -> list[x509.Certificate]:
    """Return the certificates of a data source; none of what cannot be read."""
    text = str(source.get("inline_string", "")).encode()
    if "inline_bytes" in source:
        text = base64.b64decode(str(source["inline_bytes"]))
    try:
        return x509.load_pem_x509_certificates(text) if b"BEGIN CERTIFICATE" in text else []
    except ValueError:
        return []


def address(document: Document) -> str:
    """Return an address of Envoy as text."""
    socket = document.get("socket_address")
    if socket:
        return f"{socket.get('address', '')}:{socket.get('port_value', 0)}"
    pipe = document.get("pipe")
    if pipe:
        return f"unix://{pipe.get('path', '')}"
    inner = document.get("envoy_internal_address") or {}
    return f"envoy://{inner.get('server_listener_name', '')}/{inner.get('endpoint_id', '')}"


def locality(document: Document) -> str:
    """Return a place as `region/zone/subzone`."""
    parts = [str(document.get(key, "")) for key in ("region", "zone", "sub_zone")]
    return "/".join(parts).rstrip("/")


def _instant(when: clock.Instant) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


def _listening(resource: Document) -> tuple[str, str]:
    socket = (resource.get("address") or {}).get("socket_address") or {}
    return str(socket.get("address", "")), str(socket.get("port_value", 0))


def _match(said: Document) -> str:
    conditions = [
        ("SNI: ", said.get("server_names")),
        ("Trans: ", said.get("transport_protocol")),
        ("App: ", said.get("application_protocols")),
        ("Addr: ", [_range(one) for one in said.get("prefix_ranges") or ()]),
        ("Port: ", said.get("destination_port")),
    ]
    found = [f"{label}{_listed(value)}" for label, value in conditions if value]
    return "; ".join(found) or "ALL"


def _range(said: Document) -> str:
    return f"{said.get('address_prefix', '')}/{said.get('prefix_len', 0)}"


def _listed(value: Any) -> str:  # noqa: ANN401  # of JSON
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _filters(chain: Document) -> dict[str, Document]:
    return {
        str(one.get("name")): one.get("typed_config") or {} for one in chain.get("filters") or ()
    }


def _destination(chain: Document) -> str:
    filters = _filters(chain)
    if HTTP in filters:
        said = filters[HTTP]
        if "rds" in said:
            return f"Route: {said['rds'].get('route_config_name', '')}"
        hosts = (said.get("route_config") or {}).get("virtual_hosts") or ()
        paths = [_path(one.get("match") or {}) for host in hosts for one in host["routes"]]
        return f"Inline Route: {', '.join(paths)}"
    if TCP in filters:
        said = filters[TCP]
        names = [said.get("cluster"), *_weighted(said.get("weighted_clusters") or {})]
        return ", ".join(_short(str(name)) for name in names if name)
    return "Non-HTTP/Non-TCP"


def _weighted(said: Document) -> Iterator[str]:
    for one in said.get("clusters") or ():
        yield str(one.get("name"))


def _short(name: str) -> str:
    return f"Cluster: {name}" if "|" in name else name


def _kind(chain: Document) -> str:
    filters = _filters(chain)
    return "HTTP" if HTTP in filters else ("TCP" if TCP in filters else "UNKNOWN")


def _domains(domains: Iterable[str]) -> str:
    listed = list(domains)
    rest = len(listed) - SHOWN_DOMAINS
    shown = ", ".join(listed[:SHOWN_DOMAINS])
    return f"{shown} + {rest} more..." if rest > 0 else shown


def _path(said: Document) -> str:
    path = said.get("path")
    if path is None:
        path = f"{said.get('prefix', '/')}*"
    others = [str(one.get("name", "")) for one in said.get("headers") or ()]
    return f"{path} [{', '.join(others)}]" if others else str(path)


def _answer(route: Document) -> str:
    answer = route.get("direct_response")
    return str(answer.get("status", "")) if answer else ""


def _object_named(resource: Document, kind: str) -> str:
    """Return `<name>.<namespace>` of the object that a resource's metadata names."""
    said = ((resource.get("metadata") or {}).get("filter_metadata") or {}).get("istio") or {}
    parts = str(said.get("config", "")).split("/")
    if kind not in parts or "namespaces" not in parts:
        return ""
    return f"{parts[-1]}.{parts[parts.index('namespaces') + 1]}"
