"""A gateway that has no memory left turns new callers away; a sidecar takes what comes."""

import contextlib
import http.client
import socket
import time

import pytest

from isthmus.node import overload, settings
from isthmus.testing import envoys, pace

PLENTY, NOTHING = 1 << 30, 1 << 20


class Connection(http.client.HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path):
        super().__init__("x", timeout=pace.patience(10))
        self._path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def asked(path, what="/"):
    with contextlib.closing(Connection(path)) as connection:
        connection.request("GET", what, headers={"Connection": "close"})
        with connection.getresponse() as answer:
            return answer.status, answer.read().decode()


def proxy(kind, memory, folder, *, connections=None):
    wanted = settings.read(
        [kind], environment={"GOMEMLIMIT": str(memory)}, pod_folder=folder, folder=folder
    )
    listener = {
        "name": "web",
        "address": {"pipe": {"path": str(folder / "web")}},
        "filter_chains": [{"filters": [envoys.answering()]}],
    }
    document = {
        "admin": {"address": {"pipe": {"path": str(folder / "admin")}}},
        "static_resources": {"listeners": [listener]},
        "overload_manager": overload.manager(wanted),
    }
    if connections is not None:
        limit = document["overload_manager"]["resource_monitors"][0]["typed_config"]
        limit["max_active_downstream_connections"] = str(connections)
    return envoys.running(document, directory=folder)


def is_refusing(folder):
    said = asked(folder / "admin", "/stats?filter=reject_incoming_connections.active")[1]
    return said.strip().endswith(": 1")


@pytest.mark.parametrize(("kind", "memory"), [("router", PLENTY), ("sidecar", NOTHING)])
def test_who_has_memory_or_only_its_application_takes_all(tmp_path, kind, memory):
    with proxy(kind, memory, tmp_path):
        assert asked(tmp_path / "web")[0] == 200
        assert not is_refusing(tmp_path)


def test_a_gateway_without_memory_refuses_at_once_and_says_so(tmp_path):
    with proxy("router", NOTHING, tmp_path):
        # It looks at its memory four times a second.
        deadline = time.monotonic() + 20
        while not is_refusing(tmp_path):
            assert time.monotonic() < deadline

        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            asked(tmp_path / "web")


def test_a_gateway_takes_as_many_connections_as_it_has_memory_for(tmp_path):
    with proxy("router", PLENTY, tmp_path, connections=2), contextlib.ExitStack() as stack:
        for _ in range(2):
            held = Connection(tmp_path / "web")
            stack.callback(held.close)
            held.request("GET", "/")
            assert held.getresponse().status == 200
        with pytest.raises((ConnectionError, http.client.RemoteDisconnected)):
            asked(tmp_path / "web")
        assert asked(tmp_path / "admin", "/ready")[0] == 200


def test_a_connection_counts_with_its_buffers(tmp_path):
    wanted = settings.read(
        ["router"], environment={"GOMEMLIMIT": str(PLENTY)}, pod_folder=tmp_path, folder=tmp_path
    )
    limit = overload.manager(wanted)["resource_monitors"][0]["typed_config"]
    assert limit["max_active_downstream_connections"] == "16384"


def test_a_limit_that_nobody_gave_is_none(tmp_path):
    wanted = settings.read(["router"], environment={}, pod_folder=tmp_path, folder=tmp_path)

    assert "actions" not in overload.manager(wanted)
