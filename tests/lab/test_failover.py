"""Calls stay near while somebody near is well, and go far when nobody is.

A client in cluster1 sends requests at a constant rate to `helloworld`, whose v1 is in cluster1 and its
region, and whose v2 is in cluster2, another region and network, behind a gateway.
"""

import contextlib
import time

import pytest
import traffic

from isthmus.testing import pace

pytestmark = pytest.mark.lab

RULE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: helloworld, namespace: sample}
spec:
  host: helloworld.sample.svc.cluster.local
  trafficPolicy:
    outlierDetection: {consecutive5xxErrors: 5, interval: 1s, baseEjectionTime: 5s}
"""


@contextlib.contextmanager
def near_first(mesh):
    """Have calls prefer near endpoints while the block runs."""
    mesh.kubectl("cluster1", "apply -f -", stdin=RULE)
    try:
        yield
    finally:
        mesh.kubectl("cluster1", "delete destinationrule -n sample helloworld")


@contextlib.contextmanager
def without_v1(mesh):
    """Have no endpoint in cluster1 while the block runs."""
    scale = "scale deploy helloworld-v1 -n sample --replicas"
    mesh.kubectl("cluster1", f"{scale}=0")
    try:
        yield
    finally:
        mesh.kubectl("cluster1", f"{scale}=1")
        traffic.until(lambda: ready_v1(mesh) == 1)


def ready_v1(mesh):
    pods = traffic.pods_of(mesh, "cluster1", "sample", "helloworld")
    return sum(traffic.is_ready(pod) for pod in pods)


def test_calls_stay_near_and_fail_over_and_back(mesh):
    with traffic.flowing(mesh, "cluster1") as client:
        with near_first(mesh):
            client.until_answered_by({"v1"})
            with without_v1(mesh):
                gone = time.time()
                client.until_answered_by({"v2"})
                client.goes_on()
            client.until_answered_by({"v1"})
            client.goes_on()
        client.until_answered_by({"v1", "v2"})

    assert client.lost == []
    first = min(each.at for each in client.since(gone) if each.version == "v2")
    assert first - gone < pace.promised(5.0), client
