"""Ambient mode: pods without sidecars in three clusters, by their nodes' proxies alone."""

import contextlib
import json
import secrets

import pytest
import traffic
import wires
from drill import packets

from isthmus.testing import pace

pytestmark = pytest.mark.lab

CLUSTERS = {"cluster1": "v1", "cluster2": "v2", "cluster3": "v1"}
HOST = "helloworld.sample.mesh.internal"
LOCAL = "helloworld.sample"
SLEEP = "spiffe://cluster.local/ns/sample/sa/sleep"
NODES = ("cluster1-node1", "cluster1-node2")
REQUESTS = 200
MOST_IN_TUNNELS = 5
TUNNEL, DISCOVERY, API = 15008, 15012, 6443


def asked(ambient, cluster, host=HOST, *, requests=REQUESTS, namespace="sample"):
    """Send requests, each with a connection of its own; return what was answered."""
    ended = ambient.attempt(
        f"{ambient.kubectl_program} --context {cluster} exec -n {namespace} -c sleep deploy/sleep --"
        f" curl -sS -m 20 -H 'Connection: close' 'http://{host}:5000/hello?n=[1-{requests}]'"
    )
    return ended.stdout.splitlines()


def instances(answers):
    return {one.rpartition(" ")[2] for one in answers if one.startswith("Hello version")}


def ready_pod(ambient, cluster, app):
    found = traffic.pods_of(ambient, cluster, "sample", app)
    return next(pod for pod in found if traffic.is_ready(pod))


def test_every_cluster_is_answered_by_its_own_copy(ambient):
    for cluster in CLUSTERS:
        answers = asked(ambient, cluster)
        own = ready_pod(ambient, cluster, "helloworld")["metadata"]["name"]

        assert len(answers) == REQUESTS
        assert instances(answers) == {own}


def test_nothing_but_tls_leaves_a_pod_and_who_calls_is_known(ambient):
    server, client = (ready_pod(ambient, "cluster1", app) for app in ("helloworld", "sleep"))
    wire = wires.Wires(ambient)
    at_client = wire.captured("eth0", at=client["status"]["podIP"])
    at_server = wire.captured("eth0", at=server["status"]["podIP"])
    with at_client as left, at_server as arrived:
        answers = asked(ambient, "cluster1", LOCAL, requests=40)

    assert len(answers) == 40
    ports = {TUNNEL, 53}
    for streams in map(packets.streams_of, (left, arrived)):
        spoken = [one for one in streams if one.runs()]
        assert not [fault for one in spoken if (fault := packets.fault_of(one))]
        assert {min(one.source[1], one.target[1]) for one in spoken} <= ports
        assert sum(len(run) for one in spoken for run in one.runs()) > 10_000
    traffic.until(lambda: SLEEP in log_of_proxies(ambient, "cluster1"))


def log_of_proxies(ambient, cluster):
    names = ambient.kubectl(cluster, "-n istio-system get pods -l app=ztunnel -o name").split()
    return "".join(
        ambient.kubectl(cluster, f"-n istio-system logs {name} --tail=400") for name in names
    )


WAIT = '{"op": "add", "path": "/spec/template/spec/containers/0/lifecycle", "value": '
WAIT += '{"preStop": {"exec": {"command": ["sleep", "2"]}}}}'
"""A pod that ends serves until others know, which Kubernetes leaves to the pod."""


@contextlib.contextmanager
def without_own_copy(ambient, cluster):
    deployment = f"-n sample scale deploy helloworld-{CLUSTERS[cluster]}"
    ambient.kubectl(cluster, f"{deployment} --replicas=0")
    try:
        yield
    finally:
        ambient.kubectl(cluster, f"{deployment} --replicas=1")
        traffic.until(lambda: ready_pods(ambient, cluster))


def ready_pods(ambient, cluster):
    return [one for one in traffic.pods_of(ambient, cluster, "sample", "helloworld")
            if traffic.is_ready(one)]  # fmt: skip


def test_others_answer_while_there_is_no_own_copy_and_nobody_on_the_way_reads_it(ambient):
    others = {
        ready_pod(ambient, cluster, "helloworld")["metadata"]["name"]
        for cluster in ("cluster2", "cluster3")
    }
    ambient.kubectl("cluster1", f"-n sample patch deploy helloworld-v1 --type=json -p '[{WAIT}]'")
    ambient.kubectl("cluster1", "-n sample rollout status deploy helloworld-v1 --timeout=300s")
    with traffic.flowing(ambient, "cluster1", host=HOST, by=["v1"]) as client:
        with without_own_copy(ambient, "cluster1"):
            traffic.until(lambda: instances(asked(ambient, "cluster1", requests=20)) == others)
            with wires.Wires(ambient).captured("transit") as frames:
                answers = asked(ambient, "cluster1")
            client.goes_on()
            # What is on its way when the old pod is killed at last is lost with it.
            lost = [one for one in client.lost if one.fresh]
        traffic.until(lambda: not instances(asked(ambient, "cluster1", requests=20)) & others)

    assert len(answers) == REQUESTS
    assert instances(answers) == others
    streams = [one for one in packets.streams_of(frames) if one.runs()]
    assert not [fault for one in streams if (fault := packets.fault_of(one))]
    assert {port for _, port in packets.volumes_of(streams)} <= {TUNNEL, DISCOVERY, API}
    assert not lost, client


def test_a_pod_leaves_and_joins_again_under_load_without_a_restart(ambient):
    server = ready_pod(ambient, "cluster1", "helloworld")
    name = server["metadata"]["name"]
    pod = f"-n sample label pod {name} --overwrite"
    with traffic.flowing(ambient, "cluster1", host=LOCAL, by=["v1"]) as client:
        ambient.kubectl("cluster1", f"{pod} istio.io/dataplane-mode=none")
        traffic.until(lambda: mark_of(ambient, name) is None)
        client.goes_on()
        ambient.kubectl("cluster1", f"{pod} istio.io/dataplane-mode-")
        traffic.until(lambda: mark_of(ambient, name) == "enabled")
        client.goes_on()
    after = ready_pod(ambient, "cluster1", "helloworld")

    assert not client.lost, client
    assert after["metadata"]["uid"] == server["metadata"]["uid"]
    assert after["status"]["containerStatuses"][0]["restartCount"] == 0


def mark_of(ambient, name):
    pod = ambient.json_of("cluster1", f"pod -n sample {name}")
    return (pod["metadata"].get("annotations") or {}).get("ambient.istio.io/redirection")


def test_the_nodes_proxies_are_replaced_under_load(ambient):
    """Successors listen beside them before they go; what is in tunnels then ends with them."""
    with traffic.flowing(ambient, "cluster1", host=LOCAL, by=["v1"]) as client:
        ambient.kubectl("cluster1", "-n istio-system rollout restart daemonset/ztunnel")
        status = "-n istio-system rollout status daemonset/ztunnel --timeout=300s"
        ambient.kubectl("cluster1", status)
        traffic.until(lambda: len(proxies(ambient)) == len(NODES))
        client.goes_on()

    assert len(client.lost) <= pace.promised(MOST_IN_TUNNELS), client


def test_the_nodes_proxies_are_killed_under_load(ambient):
    """New calls wait for those that start again, and so do questions for names."""
    with traffic.flowing(ambient, "cluster1", host=HOST, by=["v1"]) as client:
        former = {pod["metadata"]["name"] for pod in proxies(ambient)}
        killed = "-n istio-system delete pod -l app=ztunnel --grace-period=0 --force"
        ambient.kubectl("cluster1", killed)
        traffic.until(lambda: len(ready_proxies(ambient, but=former)) == len(NODES))
        client.goes_on()

    # What was on its way in them is cut off; nobody is refused, and no name goes unanswered.
    assert {one.body.partition("(")[0] for one in client.lost} <= CUT_OFF, client


CUT_OFF = {"IncompleteReadError", "ConnectionResetError"}


def ready_proxies(ambient, *, but):
    found = {pod["metadata"]["name"] for pod in proxies(ambient) if traffic.is_ready(pod)}
    return found - but


def proxies(ambient):
    return ambient.json_of("cluster1", "pods -n istio-system -l app=ztunnel")["items"]


STRICT = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: strict, namespace: sample}
spec: {mtls: {mode: STRICT}}
"""


@pytest.fixture
def outsider(ambient):
    """A client that takes no part."""
    namespace = f"outside-{secrets.token_hex(3)}"
    ambient.kubectl("cluster1", f"create namespace {namespace}")
    ambient.kubectl("cluster1", f"apply -n {namespace} -f {wires.SAMPLES}/sleep/sleep.yaml")
    wait = f"-n {namespace} wait --for=condition=Available deployment/sleep --timeout=300s"
    ambient.kubectl("cluster1", wait)
    yield namespace
    ambient.kubectl("cluster1", f"delete namespace {namespace} --wait=false")


def test_who_takes_no_part_is_left_alone_and_refused_where_an_identity_is_wanted(ambient, outsider):
    def answered():
        return len(asked(ambient, "cluster1", LOCAL, requests=4, namespace=outsider))

    [pod] = traffic.pods_of(ambient, "cluster1", outsider, "sleep")
    assert "ambient.istio.io/redirection" not in (pod["metadata"].get("annotations") or {})
    assert answered() == 4

    ambient.kubectl("cluster1", "apply -f -", stdin=STRICT)
    try:
        traffic.until(lambda: answered() == 0)
        assert len(asked(ambient, "cluster1", LOCAL, requests=20)) == 20
    finally:
        ambient.kubectl("cluster1", "delete -f -", stdin=STRICT)
    traffic.until(lambda: answered() == 4)


ALL = "--contexts=cluster1,cluster2,cluster3"


def checked(ambient, *more):
    """Return what a check finds, by what it is about and its title, and its exit status."""
    ended = ambient.attempt(f"isthmus multicluster check {ALL} -o json {' '.join(more)}")
    found = json.loads(ended.stdout)
    return {(one["about"], one["check"].split()[0]): one for one in found}, ended.returncode


def test_a_check_climbs_from_each_cluster_to_each_other(ambient):
    """From inside of the clusters: where the command runs no gateway can be reached."""
    before, ended_before = checked(ambient, "--precheck")
    found, ended = checked(ambient)

    assert [one for one in (*before.values(), *found.values()) if not one["good"]] == []
    assert (ended_before, ended) == (0, 0)
    ladders = {about: one["found"] for (about, title), one in found.items() if title == "HBONE"}
    whole = "DNS → TCP → TLS → identity → HBONE → HTTP"
    pairs = {f"{one} → {other}" for one in CLUSTERS for other in CLUSTERS if one != other}
    assert ladders == dict.fromkeys(pairs, whole)


@pytest.fixture
def sidecars(ambient):
    """A namespace with the samples in it, with sidecars."""
    namespace = f"side-{secrets.token_hex(3)}"
    ambient.kubectl("cluster1", f"create namespace {namespace}")
    ambient.kubectl("cluster1", f"label namespace {namespace} istio-injection=enabled")
    for name in ("helloworld", "sleep"):
        ambient.kubectl("cluster1", f"apply -n {namespace} -f {wires.SAMPLES}/{name}/{name}.yaml")
    shared = f"label service helloworld -n {namespace} solo.io/service-scope=global"
    ambient.kubectl("cluster1", shared)
    wait = f"-n {namespace} wait --for=condition=Available deployment --all --timeout=300s"
    ambient.kubectl("cluster1", wait)
    yield namespace
    ambient.kubectl("cluster1", f"delete namespace {namespace} --wait=false")


def test_pods_with_sidecars_and_those_without_call_each_other_under_strict(
    ambient, outsider, sidecars
):
    """Within a cluster both ways, and from another network to those with sidecars."""
    calls = {
        "from a sidecar": ("cluster1", LOCAL, sidecars),
        "to a sidecar": ("cluster1", f"helloworld.{sidecars}", "sample"),
        "to a sidecar far away": ("cluster2", f"helloworld.{sidecars}.mesh.internal", "sample"),
    }

    def answered(cluster, host, namespace):
        return len(asked(ambient, cluster, host, requests=20, namespace=namespace))

    everywhere = STRICT.replace("namespace: sample", "namespace: istio-system")
    ambient.kubectl("cluster1", "apply -f -", stdin=everywhere)
    try:
        for host in (LOCAL, f"helloworld.{sidecars}"):
            traffic.until(lambda host=host: answered("cluster1", host, outsider) == 0)
        for call in calls.values():
            traffic.until(lambda call=call: answered(*call) == 20)
        found = {name: answered(*call) for name, call in calls.items()}
    finally:
        ambient.kubectl("cluster1", "delete -f -", stdin=everywhere)

    assert found == dict.fromkeys(calls, 20)
