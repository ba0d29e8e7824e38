"""A path to a gateway that breaks without a word is noticed, also while something is on its way."""

import json
import pathlib
import subprocess
import sys

import pytest
import wired

from isthmus.testing import builders, envoys, pace

PROGRAM = pathlib.Path(__file__).with_name("broken_path.py")


def cluster_under(keepalive):
    """Return a client's cluster that leads through a gateway, without TLS."""
    mesh = builders.Mesh()
    mesh.cluster("home", network="n0").service("web", ports=wired.PORTS)
    far = mesh.cluster("far", network="n1")
    far.gateway(external=wired.door(1))
    far.service("web", ready=[wired.pod(1, 1)], ports=wired.PORTS)
    mesh.expose_services()
    policy = {"connectionPool": {"tcp": {"tcpKeepalive": keepalive}}}
    mesh.destination_rule("web", {"host": "web", "trafficPolicy": policy})
    client = mesh.proxy("home/client").pod
    cluster = wired.standing(mesh, client, wired.cluster_of(wired.PORTS["http"]))
    return {key: value for key, value in cluster.items() if key != "transport_socket_matches"}


@pytest.fixture
def broken(tmp_path):
    """Return what becomes of a request before a path breaks, and of one after, and how soon."""

    def asked(keepalive):
        cluster, path = cluster_under(keepalive), tmp_path / "socket"
        filters = [wired.manager({"route": {"cluster": cluster["name"], "timeout": "0s"}})]
        chains = [{"filters": filters}]
        listener = {"name": "l", "address": {"pipe": {"path": str(path)}}, "filter_chains": chains}
        bootstrap = tmp_path / "bootstrap.json"
        static = {"listeners": [listener], "clusters": [cluster]}
        node = {"id": "a", "cluster": "b"}
        bootstrap.write_text(json.dumps({"node": node, "static_resources": static}))
        place = wired.place(wired.door(1))
        words = (envoys.binary(), bootstrap, path, place, wired.PASSING_PORT)
        ended = subprocess.run(
            [sys.executable, str(PROGRAM), *map(str, words)],
            capture_output=True,
            text=True,
            timeout=pace.patience(60),
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    return asked


def test_a_request_does_not_wait_for_a_gateway_that_no_packet_reaches(broken):
    before, after, took_s = broken({"time": "1s", "interval": "1s", "probes": 1})

    assert (before, after) == (200, 503)
    # One second of silence and one probe; the kernel looks when it repeats a packet.
    assert 1 < took_s < pace.promised(8), took_s
