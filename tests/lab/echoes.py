"""The sample that speaks gRPC, in so many pods of each zone, and calls to it."""

import json

import traffic
import yaml
from meshes import ROOT

SAMPLE = ROOT / "samples" / "echo" / "echo.yaml"
NAMESPACE = "echo"
IDENTITY = f"spiffe://cluster.local/ns/{NAMESPACE}/sa/default"


def deploy(lab, sizes):
    """Deploy pods in clusters: `sizes` says how many in each zone of each cluster's region.

    All of them answer cluster1 then.
    """
    for number, zones in enumerate(sizes, 1):
        cluster = f"cluster{number}"
        lab.kubectl(cluster, f"create namespace {NAMESPACE}")
        lab.kubectl(cluster, f"label namespace {NAMESPACE} istio-injection=enabled")
        manifest = yaml.safe_dump_all(_objects(number, zones))
        lab.kubectl(cluster, f"apply -n {NAMESPACE} -f -", stdin=manifest)
    for number, zones in enumerate(sizes, 1):
        for zone, _ in enumerate(zones, 1):
            rollout = f"rollout status deployment echo-zone{zone} --timeout=300s"
            lab.kubectl(f"cluster{number}", f"-n {NAMESPACE} {rollout}")
    wanted = sum(map(sum, sizes))
    traffic.until(lambda: len(calls(lab, "cluster1", calls=40 * wanted, at_once=16)[0]) == wanted)


def _objects(number, zones):
    service, deployment = yaml.safe_load_all(SAMPLE.read_text())
    yield service
    for zone, size in enumerate(zones, 1):
        one = yaml.safe_load(json.dumps(deployment))
        one["metadata"]["name"] = f"echo-zone{zone}"
        labels = {"app": "echo", "zone": f"zone{zone}"}
        one["spec"]["replicas"] = size
        one["spec"]["selector"]["matchLabels"] = labels
        one["spec"]["template"]["metadata"]["labels"] = labels
        where = {"topology.kubernetes.io/zone": f"region{number}-zone{zone}"}
        one["spec"]["template"]["spec"]["nodeSelector"] = where
        yield one


def remove(lab, clusters):
    """Remove what was deployed in so many clusters."""
    for number in range(1, clusters + 1):
        lab.kubectl(f"cluster{number}", f"delete namespace {NAMESPACE} --wait=false")
    # Whoever looks at all pods next must not find some that are about to go.
    traffic.until(lambda: not any(pods(lab, clusters)))


def pods(lab, clusters):
    """Return the names of the pods of each of so many clusters."""
    return [
        {
            pod["metadata"]["name"]
            for pod in lab.json_of(f"cluster{number}", f"pod -n {NAMESPACE}")["items"]
        }
        for number in range(1, clusters + 1)
    ]


def calls(lab, cluster, *, calls, at_once):
    """Have a pod send calls; return how many each pod has answered, and whom they saw."""
    words = f"exec -n {NAMESPACE} -c echo deploy/echo-zone1 -- echo-grpc call"
    said = lab.kubectl(cluster, f"{words} echo:7070 --calls {calls} --at-once {at_once}")
    found = json.loads(said)
    return found["pods"], found["callers"]
