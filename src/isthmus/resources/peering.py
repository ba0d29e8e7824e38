"""What linked clusters tell each other, said and read as protobuf.

Reading gives values of the right shape and size, and nothing more: whether a cluster may say what
it says is for others to judge.

Source: spec section 7.7.

    IsthmusError
    └── RecordMalformed
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

from google.protobuf import message as protobuf

from isthmus.base import errors
from isthmus.mesh import peering
from isthmus.mesh.ambient import Scope
from isthmus.mesh.identities import ClusterId, Hostname, NetworkId, TrustDomain
from isthmus.mesh.localities import Locality
from isthmus.mesh.services import Protocol, ServiceKey, ServicePort
from isthmus.resources import snapshot, versions
from isthmus_proto.isthmus.peering.v1 import peering_pb2

CLUSTER: Final = snapshot.TypeUrl(snapshot.PREFIX + "isthmus.peering.v1.Cluster")
SERVICE: Final = snapshot.TypeUrl(snapshot.PREFIX + "isthmus.peering.v1.Service")
CLUSTER_NAME: Final = "cluster"
"""The one resource of its type."""

MOST_RECORD_BYTES: Final = 64 * 1024
PROTOCOLS: Final = {one.value: one for one in Protocol}


class RecordMalformed(errors.IsthmusError):
    """A linked cluster sends what is no record, or more than any record needs."""

    code = "ISM-XDS-010"


@dataclass(frozen=True, slots=True)
class Speaker:
    """Who a linked cluster says that it is."""

    cluster: ClusterId
    network: NetworkId
    trust_domain: TrustDomain


def cluster_resource(speaker: Speaker) -> snapshot.Resource:
    """Return the resource by which a cluster says who it is."""
    body = peering_pb2.Cluster(
        cluster=speaker.cluster, network=speaker.network, trust_domain=speaker.trust_domain
    )
    return versions.resource(CLUSTER, body, name=CLUSTER_NAME)


def service_resource(export: peering.Export) -> snapshot.Resource:
    """Return the resource by which a cluster tells of a service."""
    service = export.service
    body = peering_pb2.Service(
        namespace=service.namespace,
        name=service.name,
        derives=export.scope.derives,
        takes_over=export.scope.takes_over,
        hosts=export.hosts,
        ports=[
            peering_pb2.Port(name=one.name, number=one.number, protocol=one.protocol.value)
            for one in export.ports
        ],
        capacity=[
            peering_pb2.Capacity(
                network=one.network,
                region=one.locality.region,
                zone=one.locality.zone,
                pods=one.pods,
            )
            for one in export.capacity
        ],
        identities=export.identities,
        distribution=export.distribution,
    )
    return versions.resource(SERVICE, body, name=resource_name(service))


def resource_name(service: ServiceKey) -> str:
    """Return the name of the resource that tells of a service."""
    return f"{service.namespace}/{service.name}"


def key_of(name: str) -> ServiceKey | None:
    """Return the service that a resource of a name tells of; None for any other name."""
    namespace, _, rest = name.partition("/")
    return ServiceKey(namespace, rest) if namespace and rest and "/" not in rest else None


def read_cluster(body: bytes) -> Speaker:
    """Read who a linked cluster says that it is.

    Raises:
        RecordMalformed: It is no such message (ISM-XDS-010).
    """
    said = _parsed(peering_pb2.Cluster, body)
    return Speaker(ClusterId(said.cluster), NetworkId(said.network), TrustDomain(said.trust_domain))


def read_service(body: bytes, *, name: str) -> peering.Export:
    """Read what a linked cluster tells of a service.

    Raises:
        RecordMalformed: It is no such message, too large, or about another service than its
            name says (ISM-XDS-010).
    """
    said = _parsed(peering_pb2.Service, body)
    service = ServiceKey(said.namespace, said.name)
    if key_of(name) != service:
        raise RecordMalformed("is about another service than its name says")
    return peering.Export(
        service=service,
        scope=Scope(said.derives, said.takes_over),
        hosts=tuple(Hostname(one) for one in sorted(set(said.hosts))),
        ports=tuple(_ports(said.ports)),
        capacity=tuple(sorted(_capacity(said.capacity))),
        identities=tuple(sorted(set(said.identities))),
        distribution=said.distribution,
    )


def _parsed(kind: Any, body: bytes) -> Any:  # noqa: ANN401  # generated messages have no types
    if len(body) > MOST_RECORD_BYTES:
        raise RecordMalformed(f"is of {len(body)} bytes; the most is {MOST_RECORD_BYTES}")
    try:
        return kind.FromString(body)
    except protobuf.DecodeError as error:
        raise RecordMalformed("is no record") from error


def _ports(ports: Iterable[Any]) -> Iterable[ServicePort]:
    for one in ports:
        # What a newer cluster calls by a name that we do not know is passed on as it is.
        yield ServicePort(one.name, one.number, PROTOCOLS.get(one.protocol, Protocol.TCP))


def _capacity(places: Iterable[Any]) -> Iterable[peering.Capacity]:
    for one in places:
        yield peering.Capacity(NetworkId(one.network), Locality(one.region, one.zone), one.pods)
