"""Envoy keeps the first of equal addresses: its own count of weights must be the mesh's."""

import json
import subprocess
import urllib.request

import pytest

from isthmus.resources import snapshot
from isthmus.testing import builders, envoys, shapes

NAME = "outbound|80||spread.default.svc.cluster.local"


@pytest.fixture
def weights_in(tmp_path):
    """Return what a running Envoy makes of an assignment: weight by address."""
    started = []

    def weights(assignment):
        source = tmp_path / "endpoints.json"
        resource = {"@type": snapshot.ENDPOINTS, **envoys.as_json(assignment)}
        source.write_text(json.dumps({"resources": [resource]}))
        path = tmp_path / "bootstrap.json"
        path.write_text(json.dumps(bootstrap(assignment.cluster_name, source)))
        admin = tmp_path / "admin"
        command = [str(envoys.binary()), "-c", str(path), "--admin-address-path", str(admin)]
        process = subprocess.Popen(
            [*command, "--disable-hot-restart", "--concurrency", "1"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert any("starting main dispatch loop" in line for line in process.stderr)
        with urllib.request.urlopen(f"http://{admin.read_text()}/clusters?format=json") as answer:
            (status,) = json.load(answer)["cluster_statuses"]
        return {
            host["address"]["socket_address"]["address"]: host["weight"]
            for host in status["host_statuses"]
        }

    yield weights
    for process in started:
        process.terminate()
        process.wait(10)
        process.stderr.close()


def bootstrap(cluster, endpoints):
    source = {"resource_api_version": "V3", "path_config_source": {"path": str(endpoints)}}
    return {
        "node": {"id": "a", "cluster": "b"},
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "static_resources": {
            "clusters": [
                {
                    "name": cluster,
                    "type": "EDS",
                    "connect_timeout": "1s",
                    "eds_cluster_config": {"eds_config": source},
                }
            ]
        },
    }


def test_a_gateway_before_three_zones_has_the_weight_of_all_their_pods(weights_in):
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n2")
    west.gateway(external="172.30.0.12")
    sizes = {"z1": 12, "z2": 15, "z3": 18}
    ready = []
    for zone, size in sizes.items():
        west.node(zone, region="r", zone=zone)
        for number in range(size):
            address = f"10.2.{zone[1]}.{number + 1}"
            west.pod(f"spread-{zone}-{number}", address=address, shape=shapes.Shape(node=zone))
            ready.append(address)
    west.service("spread", ready=ready)
    east.service("spread", ready=["10.1.0.1", "10.1.0.2"])
    told = mesh.snapshot_of(mesh.proxy("east/client").pod)

    weights = weights_in(envoys.decoded(told.of(snapshot.ENDPOINTS)[NAME]))

    assert weights == {"10.1.0.1": 1, "10.1.0.2": 1, "172.30.0.12": 45}
