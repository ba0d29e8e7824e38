"""By which congestion control the kernel sends what proxies are told."""

import contextlib
import socket

import pytest

from isthmus.base import clock
from isthmus.testing import certificates
from isthmus.wire import congestion, listening, tls

RENO = "reno"  # the one that every kernel has, and lets everybody have


def used(sock):
    name = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
    return name.rstrip(b"\0").decode()


def usual():
    with socket.socket() as sock:
        return used(sock)


@contextlib.contextmanager
def accepted(door):
    door.listen()
    with socket.create_connection(door.getsockname()), door.accept()[0] as ours:
        yield ours


@pytest.mark.parametrize(("name", "expected"), [(RENO, RENO), ("", usual())])
def test_what_is_accepted_is_sent_to_as_was_chosen(name, expected):
    with (
        listening.bound("127.0.0.1", 0, sends_by=name) as door,
        accepted(door) as ours,
    ):
        assert used(ours) == expected


def test_what_the_kernel_does_not_have_is_said_and_the_hosts_own_is_used(caplog):
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        congestion.choose(door, "carrier_pigeon")
        with accepted(door) as ours:
            assert used(ours) == usual()

    assert "carrier_pigeon" in caplog.text
    assert RENO in caplog.text


async def test_a_server_of_discovery_sends_as_was_chosen():
    now = clock.SystemClock().now()
    shown = tls.issue(certificates.signer(now=now), names=("istiod.istio-system.svc",), now=now)
    server, _ = listening.listen(
        (), address="127.0.0.1:0", serving=tls.Serving(shown), sends_by=RENO
    )
    try:
        (door,) = server._doors
        assert used(door) == RENO
    finally:
        await server.stop(0)
