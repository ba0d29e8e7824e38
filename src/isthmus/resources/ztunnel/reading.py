"""Reads what node proxies are told: the other end of `addresses` and `authorizations`.

What is told and means nothing to a node's Envoy (owners, names for telemetry) is read as well, so
that reading what was written gives the same slice again.

Source: spec section 7.1.
"""

import ipaddress
from collections.abc import Iterable, Iterator
from typing import Final

from google.protobuf import message

from isthmus.mesh.authorization import Action, Form, Pattern
from isthmus.mesh.identities import ClusterId, NetworkId, TrustDomain
from isthmus.mesh.localities import Locality
from isthmus.mesh.services import Protocol
from isthmus.mesh.settings import DEFAULT_TRUST_DOMAIN
from isthmus.resources import snapshot
from isthmus.resources.ztunnel import addresses, authorizations
from isthmus.views import view
from isthmus_proto.istio.security import authorization_pb2
from isthmus_proto.istio.workload import workload_pb2 as wire

PROTOCOLS: Final = {number: one for one, number in addresses.PROTOCOLS.items()}
OWNERS: Final = {number: one for one, number in addresses.OWNERS.items()}
SCOPES: Final = {number: one for one, number in addresses.SCOPES.items()}
REACHES: Final = {number: one for one, number in authorizations.REACHES.items()}
FORMS: Final = {field: form for form, field in authorizations.FORMS.items()}


Group = tuple[view.wds.Alternatives, ...]


class Unreadable(ValueError):  # noqa: N818  # what is wrong with a message of others
    """A resource cannot be understood."""


def read(type_url: snapshot.TypeUrl, body: bytes) -> view.wds.NodeSlice:
    """Return what a resource says.

    Raises:
        Unreadable: It is malformed.
    """
    try:
        if type_url == snapshot.AUTHORIZATIONS:
            return _authorization(authorization_pb2.Authorization.FromString(body))
        said = wire.Address.FromString(body)
        match said.WhichOneof("type"):
            case "workload":
                return _workload(said.workload)
            case "service":
                return _service(said.service)
            case _:
                pass
    except (message.DecodeError, ValueError, KeyError) as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error
    raise Unreadable("neither workload nor service")


def _workload(said: wire.Workload) -> view.wds.WorkloadSlice:
    place = said.locality
    return view.wds.WorkloadSlice(
        uid=said.uid,
        name=said.name,
        namespace=said.namespace,
        cluster=ClusterId(said.cluster_id),
        network=NetworkId(said.network),
        addresses=tuple(map(_address, said.addresses)),
        hostname=said.hostname,
        service_account=said.service_account,
        trust_domain=TrustDomain(said.trust_domain or DEFAULT_TRUST_DOMAIN),
        takes_tunnels=said.tunnel_protocol == wire.HBONE,
        is_tunnel_end=said.native_tunnel,
        node=said.node,
        locality=Locality(place.region, place.zone, place.subzone),
        owner=OWNERS[said.workload_type],
        workload=said.workload_name,
        canonical_name=said.canonical_name,
        canonical_revision=said.canonical_revision,
        services=tuple(
            (name, tuple(_ports(ports.ports))) for name, ports in sorted(said.services.items())
        ),
        policies=tuple(said.authorization_policies),
        is_healthy=said.status == wire.HEALTHY,
        uses_host_network=said.network_mode == wire.HOST_NETWORK,
        waypoint=_gateway(said.waypoint) if said.HasField("waypoint") else None,
        gateway=_gateway(said.network_gateway) if said.HasField("network_gateway") else None,
        capacity=said.capacity.value if said.HasField("capacity") else 1,
    )


def _service(said: wire.Service) -> view.wds.ServiceSlice:
    balancing, modes = said.load_balancing, wire.LoadBalancing
    return view.wds.ServiceSlice(
        name=said.name,
        namespace=said.namespace,
        host=said.hostname,
        addresses=tuple(map(_network_address, said.addresses)),
        ports=tuple(_ports(said.ports)),
        sans=tuple(said.subject_alt_names),
        nearness=tuple(SCOPES[one] for one in balancing.routing_preference),
        is_strict=balancing.mode == modes.STRICT,
        takes_unready=balancing.health_policy == modes.ALLOW_ALL,
        is_canonical=said.canonical,
        is_passed_through=balancing.mode == modes.PASSTHROUGH,
        is_private=said.visibility == wire.Service.NAMESPACE,
        waypoint=_gateway(said.waypoint) if said.HasField("waypoint") else None,
    )


def _ports(said: Iterable[wire.Port]) -> Iterator[view.wds.AddressPort]:
    for port in said:
        protocol = PROTOCOLS.get(port.app_protocol, Protocol.AUTO)
        yield view.wds.AddressPort(port.service_port, port.target_port, protocol)


def _address(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))


def _network_address(said: wire.NetworkAddress) -> view.wds.NetworkAddress:
    return view.wds.NetworkAddress(NetworkId(said.network), _address(said.address))


def _gateway(said: wire.GatewayAddress) -> view.wds.GatewayAddress:
    if said.WhichOneof("destination") == "address":
        where = _network_address(said.address)
        return view.wds.GatewayAddress(said.hbone_mtls_port, address=where)
    named = said.hostname
    return view.wds.GatewayAddress(said.hbone_mtls_port, host=(named.namespace, named.hostname))


# --- policies


def _authorization(said: authorization_pb2.Authorization) -> view.wds.AuthorizationSlice:
    groups = (_group(group) for group in said.groups)
    return view.wds.AuthorizationSlice(
        said.namespace,
        said.name,
        REACHES[said.scope],
        Action.DENY if said.action == authorization_pb2.DENY else Action.ALLOW,
        tuple(group for group in groups if group is not None),
    )


def _group(said: authorization_pb2.Group) -> Group | None:
    """Return a group; None for one that nothing fits."""
    lists = tuple(tuple(_alternatives(rules)) for rules in said.rules if rules.matches)
    return lists if all(lists) else None


def _alternatives(said: authorization_pb2.Rules) -> Iterator[view.wds.ConnectionMatch]:
    for one in said.matches:
        if one.destination_ips or one.not_destination_ips:
            raise Unreadable("addresses of destinations are not supported")
        match = _match(one)
        # One that says nothing is taken for one that nothing fits.
        if match != view.wds.ANY_CONNECTION:
            yield match


def _match(said: authorization_pb2.Match) -> view.wds.ConnectionMatch:
    return view.wds.ConnectionMatch(
        principals=tuple(map(_pattern, said.principals)),
        not_principals=tuple(map(_pattern, said.not_principals)),
        namespaces=tuple(map(_pattern, said.namespaces)),
        not_namespaces=tuple(map(_pattern, said.not_namespaces)),
        accounts=tuple((one.namespace, one.serviceAccount) for one in said.service_accounts),
        not_accounts=tuple(
            (one.namespace, one.serviceAccount) for one in said.not_service_accounts
        ),
        sources=tuple(map(_range, said.source_ips)),
        not_sources=tuple(map(_range, said.not_source_ips)),
        ports=tuple(said.destination_ports),
        not_ports=tuple(said.not_destination_ports),
    )


def _pattern(said: authorization_pb2.StringMatch) -> Pattern:
    field = said.WhichOneof("match_type")
    return Pattern(FORMS[field], getattr(said, field)) if field in FORMS else Pattern(Form.PRESENT)


def _range(said: authorization_pb2.Address) -> str:
    return f"{ipaddress.ip_address(said.address)}/{said.length}"
