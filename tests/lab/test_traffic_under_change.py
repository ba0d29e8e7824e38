"""No request is lost that had a healthy destination, whatever changes around it.

In each story a client in cluster1 sends requests at a constant rate to `helloworld`, whose v1 is in
cluster1 and always well, and whose v2 is in cluster2 behind a gateway; in some another client
does so in cluster2.
"""

import contextlib
import json
import time

import pytest
import traffic
import yaml

from isthmus.testing import pace

pytestmark = pytest.mark.lab

SYSTEM = "istio-system"
GATEWAY = "istio-eastwestgateway"
SECRET = "istio-remote-secret-cluster2"  # noqa: S105, RUF100  # a name
LONGEST_ABSENCE = 30
GONE_WITHIN_S = 5.0
"""So many requests in a row go to one of two equal destinations once in a thousand million."""

KILL = """
import os, signal, sys
mine = os.readlink('/proc/self/ns/net')
for pid in map(int, filter(str.isdigit, os.listdir('/proc'))):
    try:
        words = open(f'/proc/{pid}/cmdline').read().split('\\0')
        if os.readlink(f'/proc/{pid}/ns/net') == mine and words[1:3] == ['-m', sys.argv[1]]:
            os.kill(pid, signal.SIGKILL)
    except OSError:
        pass
"""


@pytest.fixture(autouse=True)
def _as_it_was(mesh):
    """Wait after each story until all pods are as before."""
    before = standing(mesh)
    yield
    traffic.until(lambda: standing(mesh) == before)


def standing(mesh):
    """Return for each application how many pods there are, and how many of them are ready."""
    found = {}
    for cluster in ("cluster1", "cluster2"):
        for pod in mesh.json_of(cluster, "pod -A")["items"]:
            app = (cluster, pod["metadata"]["labels"].get("app"))
            pods, ready = found.get(app, (0, 0))
            found[app] = (pods + 1, ready + traffic.is_ready(pod))
    return found


def scale(mesh, replicas, *, name="helloworld-v2", namespace="sample"):
    mesh.kubectl("cluster2", f"scale deploy {name} -n {namespace} --replicas={replicas}")


@contextlib.contextmanager
def afterwards(repair):
    """Have the mesh repaired however the block ends."""
    try:
        yield
    finally:
        repair()


def ready_pods(mesh, *, version="v2"):
    pods = traffic.pods_of(mesh, "cluster2", "sample", "helloworld")
    own = [pod for pod in pods if pod["metadata"]["labels"]["version"] == version]
    return sum(traffic.is_ready(pod) for pod in own)


def absence_of(version, answers):
    """Return how many requests in a row another version answered, at most."""
    longest = now = 0
    for answer in sorted(answers, key=lambda one: one.at):
        now = 0 if answer.version == version else now + 1
        longest = max(longest, now)
    return longest


def connected(mesh):
    """Return the proxies that the control plane knows, with what they have accepted."""
    ended = mesh.attempt("isthmus --context cluster1 proxy-status -o json")
    return {one["proxy"] for one in json.loads(ended.stdout)} if ended.returncode == 0 else set()


def removals(mesh):
    """Return how many clusters and listeners the client's proxy has ever given up."""
    inside = f"exec -n sample -c sleep {traffic.pod_of(mesh, 'cluster1', 'sample', 'sleep')} --"
    page = "http://127.0.0.1:15000/stats?filter=(cluster|listener)_removed"
    return mesh.kubectl("cluster1", f"{inside} curl -sS '{page}'")


def kill(mesh, cluster, *, app, program):
    """Kill a program in the pod of an application, as the kernel would for want of memory."""
    pod = traffic.pod_of(mesh, cluster, SYSTEM, app)
    before = restarts(mesh, cluster, app)
    words = f'exec -n {SYSTEM} {pod} -- python3 -c "{KILL}" {program}'
    mesh.attempt(f"{mesh.kubectl_program} --context {cluster} {words}")
    traffic.until(lambda: restarts(mesh, cluster, app) == before + 1)


def restarts(mesh, cluster, app):
    [pod] = traffic.pods_of(mesh, cluster, SYSTEM, app)
    return sum(one["restartCount"] for one in pod["status"]["containerStatuses"])


def test_a_version_may_have_any_number_of_pods_none_too(mesh):
    with (
        traffic.flowing(mesh, "cluster1", "cluster2") as clients,
        afterwards(lambda: scale(mesh, 1)),
    ):
        for replicas in (0, 3, 1, 0, 1):
            scale(mesh, replicas)
            traffic.until(lambda wanted=replicas: ready_pods(mesh) == wanted)
            for client in clients:
                client.until_answered_by({"v1", "v2"} if replicas else {"v1"})

    assert all(client.lost == [] for client in clients), clients


def test_a_cluster_is_unlinked_and_linked_again(mesh):
    secret = mesh.run("isthmus create-remote-secret --context cluster2 --name cluster2")

    with traffic.flowing(mesh, "cluster1") as client:
        with afterwards(lambda: mesh.kubectl("cluster1", "apply -f -", stdin=secret)):
            mesh.kubectl("cluster1", f"delete secret -n {SYSTEM} {SECRET}")
            client.until_answered_by({"v1"}, limit_s=pace.promised(GONE_WITHIN_S))
        client.until_answered_by({"v1", "v2"})

    assert client.lost == []


def test_a_linked_clusters_token_is_replaced(mesh):
    before = mesh.run("isthmus create-remote-secret --context cluster2 --name cluster2")

    with token(mesh) as fresh, traffic.flowing(mesh, "cluster1") as client:
        began = time.time()
        for secret in (fresh, before):
            mesh.kubectl("cluster1", "apply -f -", stdin=secret)
            client.goes_on()

    assert client.lost == []
    assert absence_of("v2", client.since(began)) < LONGEST_ABSENCE


@contextlib.contextmanager
def token(mesh):
    """Give a remote secret with a token that lives as long as the block."""
    name = "another-token"
    account = {"kubernetes.io/service-account.name": "istio-reader-service-account"}
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": SYSTEM, "annotations": account},
        "type": "kubernetes.io/service-account-token",
    }
    mesh.kubectl("cluster2", "apply -f -", stdin=yaml.safe_dump(manifest))
    words = f"--context cluster2 --name cluster2 --secret-name {name}"
    traffic.until(
        lambda: mesh.json_of("cluster2", f"secret -n {SYSTEM} {name}").get("data", {}).get("token")
    )
    with afterwards(lambda: mesh.kubectl("cluster2", f"delete secret -n {SYSTEM} {name}")):
        yield mesh.run(f"isthmus create-remote-secret {words}")


@pytest.mark.parametrize("way", ["rolled", "killed"])
def test_the_control_plane_starts_again(mesh, way):
    everybody, given_up = connected(mesh), removals(mesh)

    with traffic.flowing(mesh, "cluster1", "cluster2") as clients:
        began = time.time()
        if way == "killed":
            kill(mesh, "cluster1", app="istiod", program="isthmus.runtime")
        else:
            roll(mesh, "cluster1", "istiod", SYSTEM, {"restarted-at": str(began)})
        traffic.until(lambda: connected(mesh) == everybody)
        for client in clients:
            client.goes_on()

    assert all(client.lost == [] for client in clients), clients
    assert all(absence_of("v2", one.since(began)) < LONGEST_ABSENCE for one in clients)
    assert removals(mesh) == given_up


def roll(mesh, cluster, name, namespace, annotations):
    """Change annotations of a deployment's pods, and wait until new pods have replaced the old."""
    change = {"spec": {"template": {"metadata": {"annotations": annotations}}}}
    words = f"deploy {name} -n {namespace}"
    mesh.kubectl(cluster, f"patch {words} -p '{json.dumps(change)}'")

    def is_done():
        deployment = mesh.json_of(cluster, words)
        status, wanted = deployment["status"], deployment["spec"]["replicas"]
        return status["observedGeneration"] == deployment["metadata"]["generation"] and all(
            status.get(field) == wanted
            for field in ("replicas", "updatedReplicas", "availableReplicas")
        )

    traffic.until(is_done)


WORKLOADS = (("cluster1", "sleep"), ("cluster1", "helloworld-v1"), ("cluster2", "helloworld-v2"))


@pytest.fixture
def hasty_certificates(mesh):
    """Have all proxies on the way ask for certificates that live for some three seconds."""
    wish = f"proxyMetadata: {{SECRET_TTL: {3 * pace.slowness():.0f}s}}"
    for lifetime in (wish, None):
        for cluster, name in WORKLOADS:
            roll(mesh, cluster, name, "sample", {"proxy.istio.io/config": lifetime})
        if lifetime:
            yield


def test_certificates_are_replaced_again_and_again(mesh, hasty_certificates):
    # Those before them may still be ending.
    pods = [
        (cluster, traffic.pod_of(mesh, cluster, "sample", name.partition("-")[0]))
        for cluster, name in WORKLOADS
    ]

    def received():
        return [
            mesh.kubectl(cluster, f"logs -n sample {pod} -c istio-proxy").count(
                "certificate received"
            )
            for cluster, pod in pods
        ]

    with traffic.flowing(mesh, "cluster1", "cluster2") as clients:
        before = received()
        traffic.until(
            lambda: all(now >= then + 3 for now, then in zip(received(), before, strict=True))
        )

    assert all(client.lost == [] for client in clients), clients


def test_a_gateway_is_killed(mesh):
    with traffic.flowing(mesh, "cluster1") as client:
        kill(mesh, "cluster2", app=GATEWAY, program="isthmus.node")
        killed = time.time()
        client.until_answered_by({"v1", "v2"})
        client.goes_on()

    # What was on its way through the gateway is lost with it; nothing that was sent later is.
    ended = max((one.at for one in client.lost), default=killed)
    assert len(client.lost) <= pace.promised(3), client
    assert ended - killed < pace.promised(1.0), client
    assert absence_of("v1", [one for one in client.answers if not one.is_lost]) < LONGEST_ABSENCE


def test_a_gateway_goes_and_comes_back(mesh):
    with traffic.flowing(mesh, "cluster1") as client:
        with afterwards(lambda: scale(mesh, 1, name=GATEWAY, namespace=SYSTEM)):
            scale(mesh, 0, name=GATEWAY, namespace=SYSTEM)
            client.until_answered_by({"v1"}, limit_s=pace.promised(GONE_WITHIN_S))
            traffic.until(lambda: traffic.pods_of(mesh, "cluster2", SYSTEM, GATEWAY) == [])
            client.goes_on()
        client.until_answered_by({"v1", "v2"})
        client.goes_on()

    assert client.lost == []


def leader(mesh):
    """Return the control plane that writes for all of them."""
    held = mesh.json_of("cluster1", f"configmap -n {SYSTEM} istio-namespace-controller-election")
    record = held["metadata"]["annotations"]["control-plane.alpha.kubernetes.io/leader"]
    return json.loads(record)["holderIdentity"]


def control_planes(mesh):
    pods = traffic.pods_of(mesh, "cluster1", SYSTEM, "istiod")
    return {pod["metadata"]["name"] for pod in pods if traffic.is_ready(pod)}


def told_by(mesh):
    """Return which proxies each control plane tells, by its name."""
    shown = json.loads(mesh.run("isthmus --context cluster1 proxy-status -o json"))
    found = {}
    for one in shown:
        found.setdefault(one["istiod"], set()).add(one["proxy"])
    return found


def has_roots(mesh, namespace):
    words = f"--context cluster2 get configmap -n {namespace} istio-ca-root-cert"
    return mesh.attempt(f"{mesh.kubectl_program} {words}").returncode == 0


def test_of_two_control_planes_the_one_that_leads_goes(mesh):
    deployment, everybody = f"deploy istiod -n {SYSTEM}", connected(mesh)

    with (
        traffic.flowing(mesh, "cluster1", "cluster2") as clients,
        afterwards(lambda: mesh.kubectl("cluster1", f"scale {deployment} --replicas=1")),
    ):
        mesh.kubectl("cluster1", f"scale {deployment} --replicas=2")
        traffic.until(lambda: len(control_planes(mesh)) == 2)
        gone = leader(mesh)
        mesh.kubectl("cluster1", f"delete pod -n {SYSTEM} {gone} --wait=false")
        traffic.until(lambda: leader(mesh) != gone)
        traffic.until(lambda: gone not in told_by(mesh) and connected(mesh) == everybody)

        # Who leads now writes, and who tells now knows what changes.
        mesh.kubectl("cluster2", "create namespace second")
        with afterwards(lambda: mesh.kubectl("cluster2", "delete namespace second")):
            traffic.until(lambda: has_roots(mesh, "second"))
        with afterwards(lambda: scale(mesh, 1)):
            scale(mesh, 0)
            for client in clients:
                client.until_answered_by({"v1"})
        for client in clients:
            client.until_answered_by({"v1", "v2"})

    assert all(client.lost == [] for client in clients), clients
