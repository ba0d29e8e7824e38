"""Slices in, bytes out: the same for the same, and readable again."""

import dataclasses
import socket

import pytest
from envoy.config.endpoint.v3 import endpoint_components_pb2
from envoy_examples import ALL, AUTO, ENDPOINTS, NAME, SNI, inbound
from hypothesis import given
from hypothesis import strategies as st

from isthmus.mesh import packs, traffic
from isthmus.mesh.localities import Locality
from isthmus.mesh.policies import MtlsMode
from isthmus.mesh.services import Protocol
from isthmus.mesh.workloads import Health, Likeness, Spot
from isthmus.node import bootstrap
from isthmus.resources import building, consistency, snapshot
from isthmus.resources.envoy import build, gateways, members
from isthmus.resources.envoy import endpoints as envoy_endpoints
from isthmus.testing import envoys
from isthmus.views import balanced, view

endpoints = st.builds(
    view.LbEndpoint,
    address=st.ip_addresses(v=4).map(str),
    port=st.integers(1, 65535),
    weight=st.integers(1, 2**32 - 1),
    health=st.sampled_from(Health),
    speaks_mtls=st.booleans(),
    workload=st.text(alphabet="abc;", max_size=9),
)
likes = st.builds(
    Likeness,
    port=st.sampled_from([80, 8080, 65535]),
    port_name=st.just("http"),
    cluster=st.sampled_from(["c1", "c2"]),
    network=st.just(""),
    weight=st.integers(0, 9),
    health=st.sampled_from(Health),
    workload=st.sampled_from(["", "a" * 90]),
)


@st.composite
def some_of_a_pack(draw):
    addresses = st.ip_addresses().map(str) | st.just("pods.example.com")
    rows = draw(st.lists(st.tuples(addresses, likes, st.just(Spot())), max_size=6))
    which = draw(st.sets(st.sampled_from(range(len(rows))))) if rows else ()
    manner = balanced.Manner(draw(st.booleans()), draw(st.integers(1, 3)))
    return view.Members(packs.packed(rows), packs.numbered(tuple(sorted(which))), manner)


shared = some_of_a_pack()
groups = st.builds(
    view.LocalityGroup,
    locality=st.builds(Locality, st.text("ab", max_size=3), st.text("ab", max_size=3)),
    weight=st.integers(0, 2**32 - 1),
    endpoints=st.lists(endpoints, max_size=4).map(tuple) | shared,
    priority=st.integers(0, 3),
)
assignments = st.builds(
    view.EndpointsSlice,
    cluster_name=st.just(NAME),
    groups=st.lists(groups | shared.filter(len), max_size=3).map(tuple),
)


def read_back(message):
    """Return the slice that an assignment says."""
    return view.EndpointsSlice(
        message.cluster_name,
        tuple(
            view.LocalityGroup(
                Locality(group.locality.region, group.locality.zone, group.locality.sub_zone),
                group.load_balancing_weight.value,
                tuple(map(endpoint_read_back, group.lb_endpoints)),
                group.priority,
            )
            for group in message.endpoints
        ),
    )


def each_by_itself(slice_):
    """Return a slice whose endpoints share nothing."""
    groups = [
        view.LocalityGroup(group.locality, group.weight, tuple(group.endpoints), group.priority)
        for group in slice_.groups
    ]
    return dataclasses.replace(slice_, groups=tuple(groups))


def endpoint_read_back(one):
    place = one.endpoint.address.socket_address
    said = {key: dict(value) for key, value in one.metadata.filter_metadata.items()}
    return view.LbEndpoint(
        place.address,
        place.port_value,
        one.load_balancing_weight.value,
        {1: Health.HEALTHY, 2: Health.UNHEALTHY, 3: Health.DRAINING}[one.health_status],
        said.get("envoy.transport_socket_match") != {"tlsMode": "disabled"},
        said.get("istio", {}).get("workload", ""),
    )


@given(assignments)
def test_what_is_put_together_is_what_the_library_writes(slice_):
    said = envoy_endpoints.assignment_of(slice_).SerializeToString(deterministic=True)

    assert build.build(slice_).body == said


@pytest.mark.parametrize("count", [0, 1, 200, 20_000])
def test_no_length_is_too_long_to_put_together(count):
    members = tuple(view.LbEndpoint(f"10.0.0.{one % 250}", 80, one) for one in range(count))
    group = view.LocalityGroup(Locality("r" * min(count, 9000)), count, members)
    slice_ = view.EndpointsSlice("n" * min(count, 9000), (group,))

    said = envoy_endpoints.assignment_of(slice_).SerializeToString(deterministic=True)

    assert build.build(slice_).body == said


@given(assignments)
def test_an_assignment_says_just_what_its_slice_says(slice_):
    resource = build.build(slice_)

    assert read_back(envoys.decoded(resource)) == each_by_itself(slice_)


@given(assignments)
def test_equal_slices_give_equal_bytes(slice_):
    copy = dataclasses.replace(slice_, groups=tuple(slice_.groups))

    assert build.build(slice_) == build.build(copy)


@given(assignments, assignments)
def test_versions_differ_just_where_bytes_do(one, other):
    first, second = build.build(one), build.build(other)

    assert (first.version == second.version) == (first.body == second.body)


@pytest.mark.parametrize("slice_", ALL, ids=view.name_of)
def test_a_resource_has_the_name_and_a_short_version(slice_):
    resource = build.build(slice_)

    assert resource.name == view.name_of(slice_)
    assert envoys.decoded(resource)
    assert len(resource.version) == 12


@pytest.mark.parametrize("slice_", ALL, ids=view.name_of)
def test_no_resource_names_a_filter_that_only_istios_envoy_has(slice_):
    body = build.build(slice_).body

    for name in (b"istio.alpn", b"istio.stats", b"istio.metadata_exchange"):
        assert name not in body


def test_a_client_does_not_offer_what_it_does_not_speak():
    cluster = envoys.decoded(build.build(AUTO))

    encrypted = cluster.transport_socket_matches[-1]
    context = envoys.unpacked(encrypted.transport_socket.typed_config)

    assert list(context.common_tls_context.alpn_protocols) == ["istio"]
    assert context.sni == SNI


def test_an_endpoint_that_says_nothing_is_spoken_to_in_mutual_tls():
    cluster = envoys.decoded(build.build(AUTO))
    told = [view.LbEndpoint("10.0.0.1", 80, 1, speaks_mtls=it) for it in (True, False)]
    said = (message for _, _, message in envoy_endpoints.each(tuple(told)))
    speaking, plain = map(endpoint_components_pb2.LbEndpoint.FromString, said)

    matches = [(one.name, dict(one.match)) for one in cluster.transport_socket_matches]
    assert matches == [("tlsMode-disabled", {"tlsMode": "disabled"}), ("tlsMode-istio", {})]
    assert "envoy.transport_socket_match" not in speaking.metadata.filter_metadata
    assert dict(plain.metadata.filter_metadata["envoy.transport_socket_match"]) == matches[0][1]


@pytest.mark.parametrize("mode", [MtlsMode.STRICT, MtlsMode.PERMISSIVE])
def test_a_server_demands_a_certificate_of_the_mesh(mode):
    listener = envoys.decoded(build.build(inbound(mode)))

    ending = [chain for chain in listener.filter_chains if chain.HasField("transport_socket")]
    assert ending
    for chain in ending:
        context = envoys.unpacked(chain.transport_socket.typed_config)
        names = context.common_tls_context.combined_validation_context.default_validation_context
        assert context.require_client_certificate.value
        assert [one.matcher.prefix for one in names.match_typed_subject_alt_names] == [
            "spiffe://cluster.local/",
            "spiffe://old.local/",
        ]
        assert list(context.common_tls_context.alpn_protocols) == ["h2", "http/1.1"]


def test_clusters_without_endpoints_are_missed():
    assert consistency.missing(told(ALL)) == (
        f"cluster `outbound_.5000_._.{NAME.split('|')[-1]}` asks for endpoints `{SNI}`",
        *(
            f"cluster `outbound|500{n}|{s}|{NAME.split('|')[-1]}` asks for endpoints "
            f"`outbound|500{n}|{s}|{NAME.split('|')[-1]}`"
            for n, s in ((1, "v1"), (2, ""), (3, "v1"), (3, "v2"), (3, "v3"), (4, ""))
        ),
    )


def test_a_cluster_that_is_not_there_is_missed():
    kept = [one for one in ALL if one is not AUTO and one is not ENDPOINTS]

    assert f"`5000` leads to cluster `{NAME}`" in consistency.missing(told(kept))


def test_routes_that_are_not_there_are_missed():
    kept = [one for one in ALL if not isinstance(one, view.RouteSlice)]

    assert "`0.0.0.0_5000` asks for routes `5000`" in consistency.missing(told(kept))


def told(slices):
    by_type = {}
    for resource in map(build.build, slices):
        by_type.setdefault(resource.type_url, {})[resource.name] = resource
    return snapshot.Snapshot(by_type)


def test_a_gateway_waits_for_the_hello_of_tls_for_some_time_only():
    chain = view.SniChain(("a",), "a", needs_mesh_alpn=True)
    listener = gateways.by_server_name(view.GatewayTls(15443, (chain,), ""))

    assert 0 < listener.listener_filters_timeout.seconds <= 15
    assert not listener.continue_on_listener_filters_timeout


def socket_options(**fields):
    """Return the options of sockets to a cluster, by level and name."""
    cluster = dataclasses.replace(AUTO, **fields)
    said = envoys.decoded(build.build(cluster)).upstream_bind_config.socket_options
    return {(one.level, one.name): one.int_value for one in said}


USER_TIMEOUT, MARK = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), (1, 36)


def test_what_nobody_acknowledges_across_a_gateway_ends_as_soon_as_silence():
    said = traffic.Keepalive(probes=2, time_s=3, interval_s=4)

    assert socket_options(leads_through_gateways=True) == {USER_TIMEOUT: 30_000}
    pool = traffic.ConnectionPool(keepalive=said)
    assert socket_options(leads_through_gateways=True, pool=pool) == {USER_TIMEOUT: 11_000}


def test_sockets_with_options_of_their_own_keep_the_mark_where_there_is_one():
    marked = socket_options(leads_through_gateways=True, marks_sockets=True)

    assert marked == {USER_TIMEOUT: 30_000, MARK: bootstrap.MARK}


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.AUTO])
def test_a_server_of_tcp_may_take_nothing_for_a_while(protocol):
    assert socket_options(leads_through_gateways=True, protocol=protocol) == {}


def test_near_servers_may_take_nothing_for_a_while():
    assert socket_options() == {}


def test_what_is_told_in_two_places_is_one_object_while_it_is_told():
    one, other = (building.build(dataclasses.replace(ENDPOINTS)) for _ in range(2))
    apart = [building.build(dataclasses.replace(ENDPOINTS, is_apart=True)) for _ in range(2)]
    unlike = building.build(dataclasses.replace(ENDPOINTS, groups=()))

    assert one is other
    assert apart[0] is apart[1]
    assert unlike.body != one.body
    assert len({id(found) for found in (one, *apart, unlike)}) == 3


def test_the_collections_of_a_set_that_did_not_change_are_the_same_however_many_others_are_told():
    def told(cluster, *, newest):
        groups = tuple(
            view.LocalityGroup(
                Locality("region", f"zone-{number}"),
                1,
                (view.LbEndpoint(newest if not number else f"10.0.1.{number}", 80, 1),),
            )
            for number in range(10)
        )
        slice_ = view.EndpointsSlice(cluster, groups, is_apart=True)
        return building.build(slice_).collections

    before = told("first", newest="10.0.0.1")
    others = [told(f"other-{number}", newest="10.0.0.1") for number in range(members.RECENT // 5)]
    after = told("first", newest="10.0.0.2")

    assert len(others) * len(before) > members.RECENT
    assert [one is other for one, other in zip(before, after, strict=True)] == [False] + [True] * 9


def test_the_resource_of_a_slice_is_made_once_in_each_form():
    slice_ = dataclasses.replace(ENDPOINTS, is_apart=True)

    apart, whole = building.build(slice_), building.build(slice_, is_apart=False)

    assert whole.body == build.build(ENDPOINTS).body != apart.body
    assert building.build(slice_) is apart
    assert building.build(slice_, is_apart=False) is whole
