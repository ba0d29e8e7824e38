"""The made-up fleet of the measurements: its truth, and the client that reads what is told of it."""

import struct

import pytest
from bench.scale import apiserver, http2, shapes

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


def test_a_slice_says_which_pods_are_ready():
    one = shapes.endpoint_slice(SMALL, 0, 1, frozenset({0, 2}))

    ready = [member["conditions"]["ready"] for member in one["endpoints"]]
    assert ready == [True, False, True, False]


async def test_an_event_reaches_who_watches(tmp_path):
    server = apiserver.ApiServer(SMALL, 1, "")
    events = apiserver.asyncio.Queue()
    server._kinds[apiserver.SLICES].watchers.add(events)

    server.ready(0, frozenset({1}))

    assert b'"type":"MODIFIED"' in events.get_nowait()


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
