"""What the cluster's DNS answers, from Services and EndpointSlices. Pure.

Decides which names exist and what they stand for, as Kubernetes documents them. Names outside
`cluster.local` do not exist here: a lab has no way to the internet, so a program that asks for
them shall know at once.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from isthmus.base import dns

Obj = dict[str, Any]

ZONE = ("cluster", "local")
A, CNAME, SRV, AAAA, ANY = dns.A, dns.CNAME, dns.SRV, dns.AAAA, dns.ANY
_MOST_ALIASES = 8


@dataclass(frozen=True, slots=True)
class Record:
    """One answer.

    Attributes:
        content: An address for `A`, a name for `CNAME`, `priority weight port name` for `SRV`.
    """

    name: str
    kind: int
    content: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What is known of a name; `exists` tells an empty answer from an unknown name."""

    exists: bool
    records: tuple[Record, ...] = ()


class Catalog(Protocol):
    """The objects that names stand for."""

    def service(self, namespace: str, name: str) -> Obj | None:
        """Return a Service."""

    def slices(self, namespace: str, name: str) -> Sequence[Obj]:
        """Return the EndpointSlices of a Service."""


def answer(name: str, kind: int, catalog: Catalog) -> Answer:
    """Answer a question for `name`, which has no final dot."""
    records: list[Record] = []
    for _ in range(_MOST_ALIASES):
        found = _one(name.lower(), catalog)
        if found is None:
            return Answer(bool(records), tuple(records))
        records += (Record(name, each.kind, each.content) for each in found)
        alias = next((each.content for each in found if each.kind == CNAME), "")
        if not alias or kind == CNAME:
            break
        name = alias
    wanted = (kind, CNAME) if kind != ANY else (A, CNAME, SRV)
    return Answer(exists=True, records=tuple(each for each in records if each.kind in wanted))


def _one(  # noqa: PLR0911  # one line for each form of a name
    name: str, catalog: Catalog
) -> list[Record] | None:
    labels = name.split(".")
    if tuple(labels[-2:]) != ZONE:
        return None
    match labels[:-2]:
        case [] | ["svc"] | [_, "svc"]:
            return []
        case [address, _, "pod"]:
            return _of_address(name, address)
        case [service, namespace, "svc"]:
            return _of_service(name, namespace, service, catalog)
        case [port, protocol, service, namespace, "svc"] if port[:1] == protocol[:1] == "_":
            return _of_port(name, port[1:], protocol[1:], (namespace, service), catalog)
        case [host, service, namespace, "svc"]:
            return _of_host(name, host, namespace, service, catalog)
        case _:
            return None


def _of_address(name: str, dashed: str) -> list[Record] | None:
    parts = dashed.split("-")
    if len(parts) != 4 or not all(part.isdigit() and int(part) < 256 for part in parts):
        return None
    return [Record(name, A, ".".join(parts))]


def _of_service(name: str, namespace: str, service: str, catalog: Catalog) -> list[Record] | None:
    found = catalog.service(namespace, service)
    if found is None:
        return None
    spec = found["spec"]
    if spec.get("type") == "ExternalName":
        return [Record(name, CNAME, str(spec["externalName"]).rstrip("."))]
    if spec.get("clusterIP") not in (None, "", "None"):
        return [Record(name, A, spec["clusterIP"])]
    endpoints = _endpoints(found, catalog.slices(namespace, service))
    addresses = dict.fromkeys(ip for each in endpoints for ip in each["addresses"])
    # Without any endpoint a headless Service's name does not resolve, but it does exist.
    return [Record(name, A, ip) for ip in addresses]


def _of_host(
    name: str, host: str, namespace: str, service: str, catalog: Catalog
) -> list[Record] | None:
    found = catalog.service(namespace, service)
    if found is None:
        return None
    addresses = [
        ip
        for each in _endpoints(found, catalog.slices(namespace, service))
        for ip in each["addresses"]
        if host in (each.get("hostname"), ip.replace(".", "-"))
    ]
    return [Record(name, A, ip) for ip in dict.fromkeys(addresses)] or None


def _of_port(
    name: str, port: str, protocol: str, service: tuple[str, str], catalog: Catalog
) -> list[Record] | None:
    found = catalog.service(*service)
    if found is None:
        return None
    for each in found["spec"].get("ports") or ():
        if each.get("name") == port and (each.get("protocol") or "TCP").lower() == protocol:
            target = name.split(".", 2)[2]
            return [Record(name, SRV, f"0 100 {each['port']} {target}")]
    return None


def _endpoints(service: Obj, slices: Iterable[Obj]) -> Iterator[Obj]:
    everyone = service["spec"].get("publishNotReadyAddresses")
    for each in slices:
        if each.get("addressType", "IPv4") != "IPv4":
            continue
        for endpoint in each.get("endpoints") or ():
            if everyone or (endpoint.get("conditions") or {}).get("ready") is not False:
                yield endpoint
