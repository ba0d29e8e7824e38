"""What crosses the wires is TLS, and STRICT means it: captured packets and refused plain text."""

import contextlib

import pytest
import traffic
import wires
from drill import packets

pytestmark = pytest.mark.lab

CLUSTERS = ("cluster1", "cluster2")
MTLS, DISCOVERY, WEBHOOK, API = 15443, 15012, 15017, 6443
OUTSIDE = "outside"
"""A namespace without proxies."""

CURL_ENDED_EARLY = {52, 56}
"""Exit codes of curl for a connection that was closed or reset instead of answered."""


@pytest.fixture(scope="module")
def outsiders(mesh):
    """Clients without proxies in both clusters."""
    for cluster in CLUSTERS:
        mesh.kubectl(cluster, f"create namespace {OUTSIDE}")
        mesh.kubectl(cluster, f"apply -n {OUTSIDE} -f {wires.SAMPLES}/sleep/sleep.yaml")
    for cluster in CLUSTERS:
        wait = f"-n {OUTSIDE} wait --for=condition=Available deployment/sleep --timeout=300s"
        mesh.kubectl(cluster, wait)
    yield
    for cluster in CLUSTERS:
        mesh.kubectl(cluster, f"delete namespace {OUTSIDE}")


def renew_clients(mesh):
    """Replace the client pods: both API servers call the webhook, and proxies begin anew."""
    for cluster in CLUSTERS:
        mesh.kubectl(cluster, "delete pod -n sample -l app=sleep --wait=false")
    for cluster in CLUSTERS:
        traffic.until(lambda cluster=cluster: is_renewed(mesh, cluster))


def is_renewed(mesh, cluster):
    pods = mesh.json_of(cluster, "pods -n sample -l app=sleep")["items"]
    return len(pods) == 1 and traffic.is_ready(pods[0])


def gateway_of(mesh, cluster):
    service = mesh.json_of(cluster, "service -n istio-system istio-eastwestgateway")
    return service["status"]["loadBalancer"]["ingress"][0]["ip"]


@pytest.mark.people
def test_between_the_clusters_there_is_only_tls_and_only_to_known_places(mesh):
    wire = wires.Wires(mesh)
    with wire.captured("transit") as frames:
        renew_clients(mesh)
        report = mesh.json("isthmus verify --requests 100 -o json")
    streams = packets.streams_of(frames)
    gateways = {cluster: gateway_of(mesh, cluster) for cluster in CLUSTERS}
    volumes = packets.volumes_of(streams)
    faults = [stream for stream in streams if packets.fault_of(stream)]

    assert report["is_well"]
    assert not packets.strays_of(frames)
    assert set(volumes) == {
        (gateways["cluster1"], MTLS),
        (gateways["cluster2"], MTLS),
        (gateways["cluster1"], DISCOVERY),
        (gateways["cluster1"], WEBHOOK),
        (wire.api("cluster1"), API),
        (wire.api("cluster2"), API),
    }
    assert all(size > 1000 for size in volumes.values()), volumes
    # `verify` itself asks both gateways once in plain text; nobody says a word to that.
    assert {stream.target for stream in faults} == {(one, MTLS) for one in gateways.values()}
    assert len(faults) == len(CLUSTERS)
    for asked in faults:
        assert b"GET /hello" in b"".join(asked.runs())
        answers = [
            one for one in streams if (one.source, one.target) == (asked.target, asked.source)
        ]
        assert [one.runs() for one in answers] == [[]]


def test_new_connections_between_the_clusters_begin_with_hellos(mesh):
    with wires.Wires(mesh).captured("transit") as frames:
        renew_clients(mesh)
        report = mesh.json("isthmus verify --requests 40 -o json")
    begun = [
        stream
        for stream in packets.streams_of(frames)
        if stream.begin is not None and stream.runs() and not packets.fault_of(stream)
    ]

    assert report["is_well"]
    for port in (MTLS, DISCOVERY, WEBHOOK):
        from_clients = [one for one in begun if one.is_client and one.target[1] == port]
        from_servers = [one for one in begun if not one.is_client and one.source[1] == port]
        assert from_clients, port
        assert from_servers, port


def test_one_plain_request_among_all_others_is_noticed(mesh):
    wire = wires.Wires(mesh)
    where = gateway_of(mesh, "cluster1"), DISCOVERY
    sent = {"host": where[0], "port": where[1], "tls": False, "send": "GET / HTTP/1.1\r\n\r\n"}
    with wire.captured("transit") as frames:
        wire.knock([{**sent, "timeout": 2.0}], at=wire.node("cluster2", 1))
        mesh.json("isthmus verify --requests 20 -o json")
    faults = [each for each in packets.streams_of(frames) if packets.fault_of(each)]

    assert where in {stream.target for stream in faults}


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_within_a_cluster_pods_of_the_mesh_speak_only_tls(mesh, cluster):
    server = wires.pod_of(mesh, cluster, "app=helloworld")
    with wires.Wires(mesh).captured(at=server["status"]["hostIP"]) as frames:
        renew_clients(mesh)
        report = mesh.json("isthmus verify --requests 40 -o json")
    streams = [
        one
        for one in packets.streams_of(frames)
        if (server["status"]["podIP"], 5000) in (one.source, one.target) and one.runs()
    ]

    assert report["is_well"]
    assert sum(len(run) for one in streams for run in one.runs()) > 10_000
    assert not [fault for one in streams if (fault := packets.fault_of(one))]


def policy(namespace, mode, *, selector="", port_mode=""):
    lines = [
        "apiVersion: security.istio.io/v1",
        "kind: PeerAuthentication",
        f"metadata: {{name: story, namespace: {namespace}}}",
        "spec:",
        f"  mtls: {{mode: {mode}}}",
    ]
    if selector:
        lines.append(f"  selector: {{matchLabels: {{app: {selector}}}}}")
    if port_mode:
        lines.append(f"  portLevelMtls: {{5000: {{mode: {port_mode}}}}}")
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def in_force(mesh, text):
    """Have a policy in the cluster that configuration is read from."""
    mesh.kubectl("cluster1", "apply -f -", stdin=text)
    try:
        yield
    finally:
        namespace = text.split("namespace: ")[1].split("}")[0]
        mesh.kubectl("cluster1", f"delete peerauthentication -n {namespace} story")


def plain_request(mesh, cluster):
    """Send a request from a pod without a proxy; return curl's exit code and the status."""
    ended = mesh.attempt(
        f"{mesh.kubectl_program} --context {cluster} exec -n {OUTSIDE} deploy/sleep -- curl -s -m 20"
        " -o /dev/null -w '%{http_code}' http://helloworld.sample:5000/hello"
    )
    return ended.returncode, ended.stdout.strip()


def is_answered(mesh, cluster):
    return plain_request(mesh, cluster) == (0, "200")


def is_refused(mesh, cluster):
    code, status = plain_request(mesh, cluster)
    return code in CURL_ENDED_EARLY and status == "000"


POLICIES = {
    "the whole mesh": policy("istio-system", "STRICT"),
    "one namespace": policy("sample", "STRICT"),
    "one workload": policy("sample", "STRICT", selector="helloworld"),
    "one port": policy("sample", "PERMISSIVE", selector="helloworld", port_mode="STRICT"),
}


@pytest.mark.parametrize("extent", POLICIES)
def test_strict_refuses_plain_text_and_loses_no_request_of_the_mesh(mesh, outsiders, extent):
    for cluster in CLUSTERS:
        traffic.until(lambda cluster=cluster: is_answered(mesh, cluster))
    with traffic.flowing(mesh, *CLUSTERS) as clients:
        with in_force(mesh, POLICIES[extent]):
            for cluster in CLUSTERS:
                traffic.until(lambda cluster=cluster: is_refused(mesh, cluster))
            assert all(is_refused(mesh, cluster) for cluster in CLUSTERS * 2)
            for client in clients:
                client.until_answered_by({"v1", "v2"})
        for cluster in CLUSTERS:
            traffic.until(lambda cluster=cluster: is_answered(mesh, cluster))

    assert [client.lost for client in clients] == [[], []]


def test_an_exception_for_one_port_lets_plain_text_in_where_the_mesh_is_strict(mesh, outsiders):
    exception = policy("sample", "STRICT", selector="helloworld", port_mode="PERMISSIVE")
    with in_force(mesh, POLICIES["the whole mesh"]):
        for cluster in CLUSTERS:
            traffic.until(lambda cluster=cluster: is_refused(mesh, cluster))
        with in_force(mesh, exception):
            for cluster in CLUSTERS:
                traffic.until(lambda cluster=cluster: is_answered(mesh, cluster))


def test_a_workload_without_tls_is_asked_in_plain_text_and_only_from_its_own_network(
    mesh, outsiders
):
    with in_force(mesh, policy("sample", "DISABLE", selector="helloworld")):
        for cluster, own in (("cluster1", "v1"), ("cluster2", "v2")):
            traffic.until(lambda cluster=cluster, own=own: versions(mesh, cluster) == {own})
            assert is_answered(mesh, cluster)
    for cluster in CLUSTERS:
        traffic.until(lambda cluster=cluster: versions(mesh, cluster) == {"v1", "v2"})


def versions(mesh, cluster):
    """Return who answers ten requests of a pod of the mesh; `nobody` for a failure."""
    told = mesh.kubectl(
        cluster,
        "exec -n sample -c sleep deploy/sleep -- curl -sS -m 20"
        " 'http://helloworld.sample:5000/hello?n=[1-10]'",
    )
    return {
        line.split("version: ")[1].split(",")[0] if "version: " in line else "nobody"
        for line in told.splitlines()
        if line
    }
