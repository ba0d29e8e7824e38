"""What was written for node proxies is read as what it was written from."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from isthmus.mesh.ambient import OwnerKind
from isthmus.mesh.authorization import Action, Form, Pattern
from isthmus.mesh.localities import Locality
from isthmus.mesh.services import Protocol
from isthmus.resources import snapshot
from isthmus.resources.ztunnel import addresses, build, reading
from isthmus.views import wds
from isthmus_proto.istio.security import authorization_pb2

names = st.text("abc-", min_size=1, max_size=5)
ips = st.ip_addresses().map(str)
protocols = st.sampled_from([Protocol.AUTO, *addresses.PROTOCOLS])
ports = st.builds(wds.AddressPort, st.integers(1, 65535), st.integers(0, 65535), protocols)
some_ports = st.lists(ports, max_size=3).map(tuple)
placed = st.builds(wds.NetworkAddress, names, ips)
gateways = st.one_of(
    st.none(),
    st.builds(wds.GatewayAddress, st.integers(1, 65535), address=placed),
    st.builds(wds.GatewayAddress, st.integers(1, 65535), host=st.tuples(names, names)),
)
workloads = st.builds(
    wds.WorkloadSlice,
    uid=names,
    name=names,
    namespace=names,
    cluster=names,
    network=names,
    addresses=st.lists(ips, max_size=2).map(tuple),
    hostname=names,
    service_account=names,
    trust_domain=names,
    takes_tunnels=st.booleans(),
    is_tunnel_end=st.booleans(),
    node=names,
    locality=st.builds(Locality, names, names, names),
    owner=st.sampled_from(OwnerKind),
    workload=names,
    canonical_name=names,
    canonical_revision=names,
    services=st.dictionaries(names, some_ports, max_size=2).map(
        lambda one: tuple(sorted(one.items()))
    ),
    policies=st.lists(names, max_size=2).map(tuple),
    is_healthy=st.booleans(),
    uses_host_network=st.booleans(),
    waypoint=gateways,
    gateway=gateways,
    capacity=st.integers(1, 2**32 - 1),
)
nearness = st.lists(st.sampled_from(wds.Nearness), min_size=1, max_size=3).map(tuple)
services = st.builds(
    wds.ServiceSlice,
    name=names,
    namespace=names,
    host=names,
    addresses=st.lists(placed, max_size=2).map(tuple),
    ports=some_ports,
    sans=st.lists(names, max_size=2).map(tuple),
    nearness=nearness,
    is_strict=st.booleans(),
    takes_unready=st.booleans(),
    is_canonical=st.booleans(),
    is_private=st.booleans(),
    waypoint=gateways,
)
patterns = st.one_of(
    st.just(Pattern(Form.PRESENT)),
    st.builds(Pattern, st.sampled_from([Form.EXACT, Form.PREFIX, Form.SUFFIX]), names),
)
matches = st.builds(
    wds.ConnectionMatch,
    principals=st.lists(patterns, max_size=2).map(tuple),
    not_principals=st.lists(patterns, max_size=2).map(tuple),
    namespaces=st.lists(patterns, max_size=2).map(tuple),
    not_namespaces=st.lists(patterns, max_size=2).map(tuple),
    accounts=st.lists(st.tuples(names, names), max_size=2).map(tuple),
    not_accounts=st.lists(st.tuples(names, names), max_size=2).map(tuple),
    sources=st.lists(ips.map(lambda ip: f"{ip}/{128 if ':' in ip else 32}"), max_size=2).map(tuple),
    ports=st.lists(st.integers(1, 65535), min_size=1, max_size=2).map(tuple),
    not_ports=st.lists(st.integers(1, 65535), max_size=2).map(tuple),
)
groups = st.lists(st.lists(matches, min_size=1, max_size=2).map(tuple), max_size=2).map(tuple)
policies = st.builds(
    wds.AuthorizationSlice,
    names,
    names,
    st.sampled_from(wds.Reach),
    st.sampled_from(Action),
    st.lists(groups, max_size=2).map(tuple),
)


@given(st.one_of(workloads, services, policies))
def test_what_is_written_is_read_again(slice_):
    written = build.build(slice_)

    assert reading.read(written.type_url, written.body) == slice_


@pytest.mark.parametrize("kind", [snapshot.ADDRESSES, snapshot.AUTHORIZATIONS])
def test_what_is_malformed_is_refused(kind):
    with pytest.raises(reading.Unreadable):
        reading.read(kind, b"\xff\xff")


def authorization(**match):
    said = authorization_pb2.Authorization(groups=[{"rules": [{"matches": [match]}]}])
    return reading.read(snapshot.AUTHORIZATIONS, said.SerializeToString())


def test_a_match_that_says_nothing_fits_nothing():
    assert authorization().groups == ()


def test_a_match_that_asks_for_more_is_refused():
    with pytest.raises(reading.Unreadable, match="destinations"):
        authorization(destination_ips=[{"address": b"\x0a\x00\x00\x01", "length": 32}])
