"""Whom a pod calls, by what a Service says of its traffic: in its zone, region, network and beyond.

Each cluster of the lab is a region and a network, each of its nodes a zone. Pods bear their place as
their version: `here` is on the client's own node, `beside` on another of its cluster, `far` in
another cluster.
"""

import json

import pytest
import traffic
import who_answers

pytestmark = pytest.mark.lab

# What Services say, and who answers while some are there.
TABLE = {
    "": ("beside here", "beside", "far"),
    "PreferNetwork": ("beside here", "beside", "far"),
    "PreferRegion": ("beside here", "beside", "far"),
    "PreferClose": ("here", "beside", "far"),
    "preferSameNode": ("here", "beside", "far"),
    "Any": ("beside far here", "beside far", "far"),
    "PreferTheMoon": ("beside far here", "beside far", "far"),
}
HOSTS = [f"near{number}.sample.mesh.internal" for number in range(len(TABLE))]


def pod(place, node=""):
    """Return a server that says where it is."""
    container = {
        "name": "helloworld",
        "image": "docker.io/istio/examples-helloworld-v1:1.0",
        "env": [{"name": "SERVICE_VERSION", "value": place}],
        "ports": [{"containerPort": 5000}],
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "1"]}}},
    }
    meta = {"name": f"place-{place}", "namespace": "sample", "labels": {"app": "place"}}
    spec = {"containers": [container]} | ({"nodeName": node} if node else {})
    return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}


def services():
    return [
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {
                "name": f"near{number}",
                "namespace": "sample",
                "labels": {"solo.io/service-scope": "global", "rows": "distribution"},
                "annotations": {"networking.istio.io/traffic-distribution": value} if value else {},
            },
            "spec": {
                "selector": {"app": "place"},
                "ports": [{"name": "http", "port": 5000, "targetPort": 5000}],
            },
        }
        for number, value in enumerate(TABLE)
    ]


@pytest.fixture
def places(ambient):
    """A server on each of two nodes of cluster1, and one in cluster2."""
    listed = ambient.json_of("cluster1", "nodes")["items"]
    (sleep,) = traffic.pods_of(ambient, "cluster1", "sample", "sleep")
    own = sleep["spec"]["nodeName"]
    (other,) = {one["metadata"]["name"] for one in listed} - {own}
    there = {"cluster1": [pod("here", own), pod("beside", other)], "cluster2": [pod("far")]}
    for cluster, pods in there.items():
        wanted = {"apiVersion": "v1", "kind": "List", "items": [*services(), *pods]}
        ambient.kubectl(cluster, "apply -f -", stdin=json.dumps(wanted))
    yield ambient
    for cluster in there:
        ambient.kubectl(cluster, "-n sample delete pods -l app=place --wait=false")
        ambient.kubectl(cluster, "-n sample delete services -l rows=distribution --wait=false")


def test_the_nearest_answer_and_the_next_when_these_are_gone(places):
    def become(step):
        wanted = [row[step] for row in TABLE.values()]
        traffic.until(lambda: answers() == wanted)

    def answers():
        return [who for _, who in who_answers.asked(places, "cluster1", HOSTS).values()]

    become(0)
    places.kubectl("cluster1", "-n sample delete pod place-here --wait=false")
    become(1)
    places.kubectl("cluster1", "-n sample delete pod place-beside --wait=false")
    become(2)
