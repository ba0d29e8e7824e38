"""The made-up fleet of the measurements: its truth, and the client that reads what is told of it."""

import dataclasses
import itertools
import json
import struct

import pytest
from bench.scale import apiserver, clients, decoded, http2, shapes, talks
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_components_pb2, endpoint_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2
from hypothesis import given
from hypothesis import strategies as st

from isthmus.resources import snapshot

SMALL = shapes.Shape(2, 3, 24, 4, is_flat=False)


def kinds_of(cluster):
    found = {}
    for path, one in shapes.objects(SMALL, cluster):
        found.setdefault(path, []).append(one)
    return found


def test_a_fleet_is_as_large_as_its_shape_says():
    found = [kinds_of(cluster) for cluster in range(SMALL.clusters)]
    named = [one["metadata"]["name"] for kinds in found for one in kinds["/api/v1/pods"]]

    assert SMALL.behind == 4
    assert len([name for name in named if name.startswith("s")]) == SMALL.endpoints
    assert sorted(name for name in named if name.startswith("client")) == [
        f"client-{number}" for number in range(SMALL.proxies)
    ]


def test_the_same_seed_gives_the_same_fleet():
    assert kinds_of(1) == kinds_of(1)
    assert shapes.read(SMALL.write()) == SMALL


def test_no_two_pods_of_a_network_have_one_address():
    large = shapes.Shape(10, 1000, 100_000)
    for cluster in (0, 9):
        found = {
            shapes.pod(cluster, service, number)
            for service in range(large.services)
            for number in range(large.behind)
        }
        assert len(found) == large.services * large.behind


def heard_by(server):
    """Have somebody watch slices and pods; what is written is in the queues."""
    queues = {}
    for path in (shapes.SLICES, shapes.PODS):
        queues[path] = apiserver.asyncio.Queue()
        server._kinds[path].watchers.add(queues[path])
    return queues


def events(queue):
    found = []
    while not queue.empty():
        found.append(json.loads(queue.get_nowait()))
    return found


def test_a_slice_says_which_pods_are_ready():
    server = apiserver.ApiServer(SMALL, 0, "")
    queues = heard_by(server)

    server.ready(1, [1, 3])

    (event,) = events(queues[shapes.SLICES])
    ready = [member["conditions"]["ready"] for member in event["object"]["endpoints"]]
    assert (event["type"], ready) == ("MODIFIED", [True, False, True, False])


def test_a_pod_that_is_replaced_has_a_fresh_address_which_is_the_truth():
    server = apiserver.ApiServer(SMALL, 1, "")
    queues = heard_by(server)

    server.replace(0, 2, 77)

    assert [one["type"] for one in events(queues[shapes.PODS])] == ["ADDED", "DELETED"]
    (slice_,) = events(queues[shapes.SLICES])
    assert slice_["object"]["endpoints"][2]["addresses"] == [shapes.marker(77)]
    assert shapes.marker(77) in server.truth()[shapes.host(0)]
    assert shapes.pod(1, 0, 2) not in server.truth()[shapes.host(0)]


def test_a_lost_node_takes_its_pods_out_of_all_their_services():
    server = apiserver.ApiServer(SMALL, 0, "")
    lost = server.on(0)

    server.lose(0)

    assert sum(map(len, lost.values())) == SMALL.services * SMALL.behind
    assert not any(server.truth().values())


# --- what a proxy says and hears


def said(kind, **fields):
    return discovery_pb2.DeltaDiscoveryResponse(
        type_url=kind, nonce="n", **fields
    ).SerializeToString()


def resource(kind, name, message):
    body = any_pb2.Any(type_url=kind, value=message.SerializeToString())
    return discovery_pb2.Resource(name=name, version="v", resource=body)


def cluster(name):
    eds = {"service_name": f"{name}-endpoints"}
    return cluster_pb2.Cluster(name=name, type=cluster_pb2.Cluster.EDS, eds_cluster_config=eds)


def proxy(number=0, **changed):
    one = dataclasses.replace(shapes.proxy(SMALL, number), **changed)
    talk = talks.Talk(one, "net")
    return talk, list(talk.begin(is_new=True))


def hear(talk, content, **looked):
    return talk.hear(decoded.answer(content, is_whole=talk.proxy.is_whole), **looked)


def test_a_proxy_asks_for_the_endpoints_of_the_clusters_that_it_is_told():
    talk, _ = proxy()
    told = said(snapshot.CLUSTERS, resources=[resource(snapshot.CLUSTERS, "c", cluster("c"))])

    acknowledged, asked = map(discovery_pb2.DeltaDiscoveryRequest.FromString, hear(talk, told))

    assert acknowledged.response_nonce == "n"
    assert list(asked.resource_names_subscribe) == ["c-endpoints"]
    assert not talk.is_synced


def test_a_proxy_forgets_the_endpoints_of_clusters_that_go():
    talk, _ = proxy()
    told = [resource(snapshot.CLUSTERS, "c", cluster("c"))]
    hear(talk, said(snapshot.CLUSTERS, resources=told))

    *_, asked = hear(talk, said(snapshot.CLUSTERS, removed_resources=["c"]))

    left = discovery_pb2.DeltaDiscoveryRequest.FromString(asked).resource_names_unsubscribe
    assert list(left) == ["c-endpoints"]


def test_a_proxy_that_comes_back_says_what_it_has():
    talk, _ = proxy()
    told = [resource(snapshot.CLUSTERS, "c", cluster("c"))]
    hear(talk, said(snapshot.CLUSTERS, resources=told))

    requests = [
        discovery_pb2.DeltaDiscoveryRequest.FromString(one) for one in talk.begin(is_new=False)
    ]

    has = {one.type_url: dict(one.initial_resource_versions) for one in requests}
    assert has[snapshot.CLUSTERS] == {"c": "v"}
    assert [one.HasField("node") for one in requests] == [True, False, False]


def test_a_client_of_the_state_of_the_world_names_all_that_it_wants():
    talk, _ = proxy(is_whole=True)
    told = discovery_pb2.DiscoveryResponse(type_url=snapshot.CLUSTERS, nonce="n", version_info="1")
    for name in ("a", "b"):
        told.resources.add(type_url=snapshot.CLUSTERS, value=cluster(name).SerializeToString())

    acknowledged, asked = map(
        discovery_pb2.DiscoveryRequest.FromString, hear(talk, told.SerializeToString())
    )

    assert (acknowledged.version_info, acknowledged.response_nonce) == ("1", "n")
    assert list(asked.resource_names) == ["a-endpoints", "b-endpoints"]


def test_addresses_that_come_with_events_are_found_in_endpoints():
    held = heard(named("c", shapes.marker(70_000), "10.99.1.2", "199.1.2.3")).resources["c"]

    assert held.markers == {shapes.marker(70_000).encode()}
    assert f"{shapes.marker(70_000)} 1" in clients.endpoints_of(held.body)


# --- endpoints that are told one by one

SET = "xdstp://mesh/envoy.config.endpoint.v3.LbEndpoint/s/a/"


def member(address, *, weight=1):
    place = {"socket_address": {"address": address, "port_value": 1}}
    return endpoint_components_pb2.LbEndpoint(
        endpoint={"address": place}, load_balancing_weight={"value": weight}
    )


def members(*addresses, removed=(), **fields):
    found = [resource(snapshot.MEMBERS, SET + one, member(one, **fields)) for one in addresses]
    return said(snapshot.MEMBERS, resources=found, removed_resources=[SET + one for one in removed])


def assigned(*names):
    groups = [{"leds_cluster_locality_config": {"leds_collection_name": one}} for one in names]
    assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name="e", endpoints=groups)
    return said(snapshot.ENDPOINTS, resources=[resource(snapshot.ENDPOINTS, "e", assignment)])


def requests_of(answers):
    return [discovery_pb2.DeltaDiscoveryRequest.FromString(one) for one in answers]


def follower(*names):
    """Return a proxy that has an assignment with these collections, and what it asked."""
    talk, _ = proxy()
    hear(talk, said(snapshot.LISTENERS))
    one = cluster_pb2.Cluster(name="e", type=cluster_pb2.Cluster.EDS)
    told = [resource(snapshot.CLUSTERS, "e", one)]
    hear(talk, said(snapshot.CLUSTERS, resources=told))
    return talk, requests_of(hear(talk, assigned(*names)))


def test_a_proxy_follows_the_collections_that_assignments_name():
    talk, (_, asked) = follower(f"{SET}*")

    assert (asked.type_url, list(asked.resource_names_subscribe)) == (
        snapshot.MEMBERS,
        [f"{SET}*"],
    )
    assert not talk.is_synced
    hear(talk, members("10.0.0.1", "10.0.0.2"))
    assert talk.is_synced
    hear(talk, members("10.0.0.2", removed=["10.0.0.1"], weight=3))
    assert clients.endpoints_in(talk.crowds["e"]) == ["10.0.0.2 3"]


def test_who_is_told_of_other_collections_leaves_those_that_it_followed():
    talk, _ = follower(f"{SET}*")
    hear(talk, members("10.0.0.1"))
    renamed = SET.replace("/a/", "/b/") + "*"

    _, asked = requests_of(hear(talk, assigned(renamed)))

    assert list(asked.resource_names_subscribe) == [renamed]
    assert list(asked.resource_names_unsubscribe) == [f"{SET}*"]
    assert not talk.is_synced
    gone = said(snapshot.MEMBERS, removed_resources=[renamed])
    hear(talk, gone)
    assert talk.is_synced


def test_who_comes_back_names_its_collections_and_says_nothing_of_their_members():
    talk, _ = follower(f"{SET}*")
    hear(talk, members("10.0.0.1"))

    asked = {one.type_url: one for one in requests_of(talk.begin(is_new=False))}

    assert list(asked[snapshot.MEMBERS].resource_names_subscribe) == [f"{SET}*"]
    assert not asked[snapshot.MEMBERS].initial_resource_versions
    assert clients.endpoints_in(talk.crowds["e"]) == ["10.0.0.1 1"]


def test_proxies_that_hear_the_same_hold_one_object():
    talks_ = [follower(f"{SET}*")[0] for _ in range(2)]
    told = [members("10.0.0.1", "10.0.0.2"), members(removed=["10.0.0.2"])]
    for talk, order in zip(talks_, (told, [members("10.0.0.1")]), strict=True):
        for each in order:
            hear(talk, each)

    first, other = (talk.crowds["e"] for talk in talks_)
    assert first is other


# --- the client


def stream():
    client = http2.Stream("/service/Method", [("name", "value" * 50)])
    client.take()
    return client


def message(content):
    return b"\0" + struct.pack(">I", len(content)) + content


def test_messages_come_whole_however_they_are_cut():
    client = stream()
    heard = http2.frame(http2.DATA, 0, 1, message(b"one") + message(b"two")[:6])
    heard += http2.frame(http2.DATA, 0, 1, message(b"two")[6:])

    found = [one for at in range(len(heard)) for one in client.hear(heard[at : at + 1])]

    assert found == [b"one", b"two"]


@given(
    contents=st.lists(st.binary(max_size=40), max_size=5),
    frames=st.lists(st.integers(1, 30), min_size=1),
    reads=st.lists(st.integers(1, 50), min_size=1),
)
def test_what_is_read_into_one_buffer_is_kept_however_it_is_cut(contents, frames, reads):
    client, rest = stream(), b"".join(map(message, contents))
    told, size = http2.frame(http2.PING, 0, 0, b"12345678"), itertools.cycle(frames)
    while rest:
        cut = next(size)
        told += http2.frame(http2.DATA, 0, 1, rest[:cut])
        rest = rest[cut:]
    found, buffer, size = [], bytearray(64), itertools.cycle(reads)
    while told:
        cut = min(next(size), len(told))
        buffer[:cut], told = told[:cut], told[cut:]
        found += client.hear(memoryview(buffer)[:cut])
        buffer[:] = bytes(64)  # The next connection's turn.

    assert found == contents
    assert client.is_between
    assert client.content == sum(len(one) + 5 for one in contents)


def test_settings_and_pings_are_answered():
    client = stream()

    assert not list(client.hear(http2.frame(http2.SETTINGS, 0, 0, b"")))
    assert not list(client.hear(http2.frame(http2.PING, 0, 0, b"12345678")))

    assert client.take() == http2.frame(http2.SETTINGS, http2.ACK, 0, b"") + http2.frame(
        http2.PING, http2.ACK, 0, b"12345678"
    )


def test_what_the_window_does_not_let_through_waits():
    client = stream()
    client.send(b"x" * 100_000)
    assert len(client.take()) < http2.USUAL + 100

    more = struct.pack(">I", 100_000)
    list(client.hear(http2.frame(http2.WINDOW, 0, 0, more)))
    assert client.take() == b""
    list(client.hear(http2.frame(http2.WINDOW, 0, 1, more)))

    assert 100_005 - http2.USUAL < len(client.take()) < 100_000 - http2.USUAL + 100


@pytest.mark.parametrize("kind", [http2.RESET, http2.GOAWAY])
def test_an_end_is_told(kind):
    with pytest.raises(http2.Ended):
        list(stream().hear(http2.frame(kind, 0, 1, b"\0\0\0\0")))


def test_the_frame_of_a_message_waits_where_the_window_is_too_small_for_it():
    client, content = stream(), b"x" * 40_000
    framed = http2.message(content)
    client.share(content, framed)
    client.share(content, framed)

    first = client.take()
    list(client.hear(http2.frame(http2.WINDOW, 0, 0, struct.pack(">I", 100_000))))
    list(client.hear(http2.frame(http2.WINDOW, 0, 1, struct.pack(">I", 100_000))))

    assert first.startswith(framed)
    sizes = [len(first), len(client.take())]
    assert sum(sizes) == 2 * (40_005 + 9) + 9 * 2  # What is late is cut into frames.


def test_who_has_heard_much_gives_room_for_more():
    client = stream()

    client.skip(http2.WIDEN)

    more = struct.pack(">I", http2.WIDEN)
    told = [http2.frame(http2.WINDOW, 0, each, more) for each in (0, http2.STREAM)]
    assert client.take() == b"".join(told)


# --- what is known is not decoded again


def named(name, *addresses):
    group = {
        "lb_endpoints": [
            {"endpoint": {"address": {"socket_address": {"address": one, "port_value": 1}}}}
            for one in addresses
        ]
    }
    return resource(
        snapshot.ENDPOINTS,
        name,
        endpoint_pb2.ClusterLoadAssignment(cluster_name=name, endpoints=[group]),
    )


MANY = [f"10.0.0.{number}" for number in range(10, 90)]


def heard(*resources, nonce="n"):
    told = discovery_pb2.DeltaDiscoveryResponse(
        type_url=snapshot.ENDPOINTS, nonce=nonce, resources=resources
    )
    return decoded.answer(told.SerializeToString(), is_whole=False)


def test_a_resource_that_another_message_held_is_the_same_object():
    alone = heard(named("a", *MANY))
    among = heard(named("b", *MANY), named("a", *MANY), nonce="other")

    assert among.resources["a"] is alone.resources["a"]
    assert list(among.resources) == ["b", "a"]


def test_resources_that_differ_in_the_middle_alone_are_told_apart():
    other = [*MANY[:40], "10.9.9.91", *MANY[41:]]
    assert len("".join(other)) == len("".join(MANY))

    for some in (MANY, other, MANY):
        body = heard(named("a", *some)).resources["a"].body
        assert clients.endpoints_of(body) == sorted(f"{one} 1" for one in some)


def test_a_message_with_fields_that_none_has_is_refused():
    with pytest.raises(ValueError, match="field"):
        decoded.answer(b"\x08\x01", is_whole=False)


@given(
    told=st.dictionaries(st.text(max_size=9), st.integers(0, 300), max_size=4),
    removed=st.lists(st.text(max_size=9), max_size=3),
)
def test_a_message_says_what_the_protocol_makes_of_it(told, removed):
    resources = [named(name, *["10.0.0.1"] * count) for name, count in told.items()]
    content = said(snapshot.ENDPOINTS, resources=resources, removed_resources=removed)

    found = decoded.answer(content, is_whole=False)

    assert {name: one.body for name, one in found.resources.items()} == {
        one.name: one.resource.value for one in resources
    }
    assert (found.removed, found.kind, found.nonce) == (tuple(removed), snapshot.ENDPOINTS, "n")
    assert {one.version for one in found.resources.values()} <= {"v"}


def test_messages_are_known_by_each_of_their_bytes():
    known = decoded.Known(2)
    text = bytes(range(200))
    known.keep(text, "found")

    assert known.find(bytearray(text) + b"and more", len(text)) == "found"
    assert known.find(text[:50] + b"?" + text[51:], len(text)) is None
    assert known.find(text, len(text) - 1) is None
