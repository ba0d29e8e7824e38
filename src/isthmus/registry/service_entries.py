"""ServiceEntry objects: what they say of services that no cluster has a Service for.

A part that is not understood is left out; so is an entry that could not lead anywhere, since a
proxy that half obeyed it would send traffic where nobody meant it to go.

Source: spec sections 7.8, 8.5 and 8.6.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from isthmus.kube import objects
from isthmus.mesh import localities
from isthmus.mesh.entries import EntryEndpoint, ServiceEntry
from isthmus.mesh.identities import IdentityMalformed, NetworkId, parse_spiffe_id
from isthmus.mesh.services import Protocol, Resolution, ServicePort
from isthmus.registry import (
    addresses,
    config,
    fields,
    protocols,
    recorded,
    services,
    topology,
    workloads,
)

MOST_PORT: Final = 65535
MOST_WEIGHT: Final = 128
NO_ADDRESS_LABEL: Final = "networking.istio.io/enable-autoallocate-ip"
RESOLUTIONS: Final = {
    "NONE": Resolution.NONE,
    "STATIC": Resolution.VIP,
    "DNS": Resolution.DNS,
    "DNS_ROUND_ROBIN": Resolution.ONE_BY_DNS,
}
KNOWN: Final = frozenset(
    {
        "hosts",
        "addresses",
        "ports",
        "location",
        "resolution",
        "endpoints",
        "workloadSelector",
        "exportTo",
        "subjectAltNames",
    }
)
BY_NAME: Final = frozenset({Resolution.DNS, Resolution.ONE_BY_DNS})


def read(
    origin: config.Origin, object_: objects.FreeForm, problems: fields.Problems
) -> ServiceEntry | None:
    """Say what a ServiceEntry means; None if it leads nowhere, or says what is known anyway."""
    if object_.metadata.label(recorded.OURS):
        return None
    spec = fields.Fields(object_.spec, path="spec", problems=problems)
    spec.refuse_others(KNOWN)
    resolution = _resolution(spec)
    location = spec.text("location") or "MESH_EXTERNAL"
    if location not in {"MESH_EXTERNAL", "MESH_INTERNAL"}:
        spec.problem("location", f"is unknown: `{location[:40]}`")
        return None
    if resolution is None:
        return None
    listed = tuple(_ports(spec))
    endpoints = _endpoints(spec, resolution, names=frozenset(port.name for port, _ in listed))
    hosts = tuple(_hosts(spec, resolution, has_endpoints=bool(endpoints), domain=origin.domain))
    if not hosts or not listed:
        return None
    labels = object_.metadata.labels or {}
    found = tuple(_addresses(spec))
    _note_unreachable(spec, [port for port, _ in listed], has_address=bool(found))
    return ServiceEntry(
        namespace=origin.namespace,
        name=origin.name,
        hosts=hosts,
        ports=tuple(port for port, _ in listed),
        resolution=resolution,
        is_external=location == "MESH_EXTERNAL",
        addresses=found,
        targets=tuple(sorted((port.name, target) for port, target in listed if target)),
        endpoints=endpoints,
        selector=_selector(spec, resolution, has_endpoints=bool(endpoints)),
        export_to=spec.texts("exportTo") or _exported_by_annotation(object_),
        identities=tuple(_identities(spec)),
        labels=tuple(sorted(labels.items())),
        wants_address=not found
        and resolution is not Resolution.NONE
        and labels.get(NO_ADDRESS_LABEL) != "false",
        created=object_.metadata.creation_timestamp,
    )


def _resolution(spec: fields.Fields) -> Resolution | None:
    said = spec.text("resolution") or "NONE"
    if said not in RESOLUTIONS:
        spec.problem("resolution", f"is not supported: `{said[:40]}`")
    return RESOLUTIONS.get(said)


def _hosts(
    spec: fields.Fields, resolution: Resolution, *, has_endpoints: bool, domain: str
) -> Iterable[str]:
    found = dict.fromkeys(host.rstrip(".").lower() for host in spec.texts("hosts"))
    for host in found:
        plain = host.removeprefix("*.")
        if "." not in host or not addresses.is_hostname(plain):
            spec.problem("hosts", f"must be DNS names with a dot: `{host[:80]}` is left out")
        elif plain != host and f".{plain}".endswith(f".{domain}"):
            spec.problem("hosts", f"must not cover Services: `{host[:80]}` is left out")
        elif plain != host and resolution in BY_NAME and not has_endpoints:
            spec.problem("hosts", f"cannot be looked up: `{host[:80]}` is left out")
        else:
            yield host
    if not found:
        spec.problem("hosts", "must name a host")


def _ports(spec: fields.Fields) -> Iterable[tuple[ServicePort, int]]:
    """Yield ports, each name and number once, with the numbers that endpoints listen on."""
    taken = set[object]()
    for part in spec.parts("ports"):
        part.refuse_others({"number", "name", "protocol", "targetPort"})
        number = part.number("number", default=0, least=1, most=MOST_PORT)
        name = part.text("name") or str(number)
        if not number or number in taken or name in taken:
            part.problem("number", "and name must be there, and differ from those of other ports")
            continue
        taken |= {number, name}
        target = part.number("targetPort", default=0, least=1, most=MOST_PORT)
        said = part.text("protocol").lower()
        transport = "UDP" if said == "udp" else "TCP"
        protocol = protocols.protocol_of(
            transport=transport, app_protocol=said or None, port_name=name, port=number
        )
        if protocol is Protocol.UDP:
            part.problem("protocol", "UDP does not go through proxies")
        yield ServicePort(name, number, protocol), target
    if not taken:
        spec.problem("ports", "must name a port")


def _addresses(spec: fields.Fields) -> Iterable[str]:
    for text in dict.fromkeys(spec.texts("addresses")):
        address, _, length = text.partition("/")
        parsed = addresses.parsed(address)
        fault = addresses.fault_of(address)
        if not fault and parsed is not None and length in {"", str(parsed.max_prefixlen)}:
            yield address
        else:
            why = fault or "ranges are not supported"
            spec.problem("addresses", f"`{text[:64]}` is left out: {why}")


def _note_unreachable(
    spec: fields.Fields, ports: Iterable[ServicePort], *, has_address: bool
) -> None:
    """Say of ports that only an address tells apart from others that they have none."""
    for port in ports:
        if not has_address and port.protocol in {Protocol.TCP, Protocol.AUTO}:
            spec.problem(
                "addresses",
                f"must be there for port {port.number}, which is neither HTTP nor TLS; without, "
                "it is known only to pods with ISTIO_META_DNS_CAPTURE",
            )


def _endpoints(
    spec: fields.Fields, resolution: Resolution, *, names: frozenset[str]
) -> tuple[EntryEndpoint, ...]:
    found = [
        one
        for part in spec.parts("endpoints")
        if (one := _endpoint(part, resolution, names=names)) is not None
    ]
    if resolution is Resolution.NONE and found:
        spec.problem("endpoints", "are not called where `resolution` is NONE")
        return ()
    if resolution is Resolution.ONE_BY_DNS and len(found) > 1:
        spec.problem("endpoints", "must be one with DNS_ROUND_ROBIN; the first counts")
        return tuple(found[:1])
    if resolution is Resolution.VIP and not found and "workloadSelector" not in spec:
        spec.problem("endpoints", "or `workloadSelector` must say who answers")
    return tuple(found)


def _endpoint(
    part: fields.Fields, resolution: Resolution, *, names: frozenset[str]
) -> EntryEndpoint | None:
    part.refuse_others(
        {"address", "ports", "labels", "network", "locality", "weight", "serviceAccount"}
    )
    address = part.text("address")
    is_name = resolution in BY_NAME and addresses.is_hostname(address)
    fault = "" if is_name else addresses.fault_of(address)
    if fault:
        part.problem("address", f"is left out: `{address[:64]}` ({fault})")
        return None
    own = part.part("ports")
    own.refuse_others(names, "is no port of the entry")
    labels = part.pairs("labels")
    by_label = dict(labels)
    account = part.text("serviceAccount")
    mode = by_label.get(workloads.TLS_MODE_LABEL)
    return EntryEndpoint(
        address=address.lower() if is_name else address,
        ports=tuple(
            (name, own.number(name, default=0, least=1, most=MOST_PORT))
            for name in sorted(names)
            if name in own
        ),
        labels=labels,
        network=NetworkId(part.text("network") or by_label.get(topology.NETWORK_LABEL, "")),
        locality=_locality(part, by_label),
        weight=part.number("weight", default=1, least=0, most=MOST_WEIGHT) or 1,
        service_account=account,
        accepts_mtls=mode == "istio" if mode else bool(account),
    )


def _locality(part: fields.Fields, labels: Mapping[str, str]) -> localities.Locality:
    said = part.text("locality")
    if said:
        return localities.parse(said)
    return topology.locality_by_label(labels) or localities.NOWHERE


def _selector(
    spec: fields.Fields, resolution: Resolution, *, has_endpoints: bool
) -> tuple[tuple[str, str], ...] | None:
    part = spec.part("workloadSelector")
    if "workloadSelector" not in spec:
        return None
    part.refuse_others({"labels"})
    wanted = part.pairs("labels")
    if not wanted:
        part.problem("labels", "must name a label; no pod is selected")
        return None
    if resolution is not Resolution.VIP:
        spec.problem("workloadSelector", "selects only where `resolution` is STATIC")
        return None
    if has_endpoints:
        spec.problem("workloadSelector", "is left out beside `endpoints`")
        return None
    return wanted


def _identities(spec: fields.Fields) -> Iterable[str]:
    for text in dict.fromkeys(spec.texts("subjectAltNames")):
        try:
            yield str(parse_spiffe_id(text))
        except IdentityMalformed:
            spec.problem("subjectAltNames", f"is no identity of a workload: `{text[:80]}`")


def _exported_by_annotation(object_: objects.FreeForm) -> tuple[str, ...]:
    said = object_.metadata.annotation(services.EXPORT_ANNOTATION)
    return tuple(dict.fromkeys(one.strip() for one in said.split(",") if one.strip()))
