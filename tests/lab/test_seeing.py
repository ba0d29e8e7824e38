"""What people see of a running mesh: what proxies have, why a call goes where, and who may look."""

import json
import re

import meshes
import pytest
import traffic
import wires

pytestmark = pytest.mark.lab

CLUSTERS = ("cluster1", "cluster2")
OTHER = dict(zip(CLUSTERS, reversed(CLUSTERS), strict=True))
MATCHING = ["Clusters Match", "Listeners Match", "Routes Match", "Endpoints Match"]
HOME = "--control-plane-context cluster1"


@pytest.mark.parametrize(
    ("cluster", "pod"),
    [
        ("cluster1", "deploy/sleep.sample"),
        ("cluster2", "deploy/sleep.sample"),
        ("cluster2", "deploy/istio-eastwestgateway.istio-system"),
    ],
)
def test_a_proxy_has_what_its_control_plane_wants_whatever_cluster_it_is_in(mesh, cluster, pod):
    def told():
        ended = mesh.attempt(f"isthmus proxy-status {pod} --context {cluster} {HOME}")
        return None if ended.returncode else ended.stdout.splitlines()

    lines = traffic.until(told)

    assert [line.partition(" (")[0] for line in lines] == MATCHING


def test_both_sides_show_the_same_endpoints_in_istios_tables(mesh):
    words = f"isthmus pc ep deploy/sleep.sample --cluster '{NAME}' --context cluster2 {HOME}"
    own = mesh.run(words).splitlines()
    wanted = mesh.run(f"{words} --from control-plane").splitlines()

    assert own[0].split() == ["ENDPOINT", "STATUS", "OUTLIER", "CHECK", "CLUSTER"]
    assert wanted[0].split() == ["NAME", "STATUS", "LOCALITY", "CLUSTER"]
    assert {row.split()[0] for row in own[1:]} == {row.split()[0] for row in wanted[1:]}
    assert f"{gateway_of(mesh, 'cluster1')}:15443" in {row.split()[0] for row in own[1:]}


NAME = "outbound|5000||helloworld.sample.svc.cluster.local"


def gateway_of(mesh, cluster):
    service = mesh.json_of(cluster, "service -n istio-system istio-eastwestgateway")
    return service["status"]["loadBalancer"]["ingress"][0]["ip"]


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_call_is_explained_to_the_last_endpoint(mesh, cluster):
    words = f"deploy/sleep.sample helloworld:5000 --context {cluster} {HOME}"
    document = mesh.json(f"isthmus explain {words} -o json")

    [leg] = document["legs"]
    found = {one["cluster"]: one for one in leg["endpoints"]}
    assert {one["workload"] for one in found.values()} == {"helloworld-v1", "helloworld-v2"}
    assert found[cluster]["verdict"] == "preferred"
    assert found[OTHER[cluster]]["via"] == [f"{gateway_of(mesh, OTHER[cluster])}:15443"]
    assert sum(one["share"] for one in found.values()) == pytest.approx(1)
    assert all(one["mutualTls"] for one in found.values())
    assert document["certificates"]["identity"] == "spiffe://cluster.local/ns/sample/sa/sleep"
    assert document["certificates"]["own"]["isValid"]


def test_the_story_of_a_call_fits_a_terminal(mesh):
    told = mesh.run("isthmus explain deploy/sleep.sample helloworld:5000 --context cluster1")

    assert max(map(len, told.splitlines())) <= 80
    assert f"hidden behind {gateway_of(mesh, 'cluster2')}:15443 of network2" in told


PAGE = meshes.ROOT / "docs/howto/debug-a-call.md"


def test_every_command_of_the_guide_does_what_it_says(mesh):
    commands = re.findall(r"```sh\n(.+?)\n```", PAGE.read_text(), re.DOTALL)

    assert len(commands) == 4
    for command in commands:
        assert succeeds(mesh, command), command


def succeeds(mesh, command):
    # What tests before this one removed may still be on its way out.
    return traffic.until(lambda: not mesh.attempt(command).returncode)


# --- who may look

TOKEN = "/var/run/secrets/tokens/istio-token"
OF_API = "/var/run/secrets/kubernetes.io/serviceaccount/token"


def proof(mesh, cluster, where, *, file=TOKEN):
    return mesh.kubectl(cluster, f"exec {where} -- cat {file}").strip()


def test_the_monitoring_port_tells_each_caller_what_is_its_own(mesh):
    sleep, gateway = "-n sample deploy/sleep -c istio-proxy", "-n istio-system deploy/"
    gateway += "istio-eastwestgateway -c istio-proxy"
    proofs = {
        "nobody": ("", ""),
        "wrong audience": (proof(mesh, "cluster1", sleep, file=OF_API), ""),
        "system": (proof(mesh, "cluster1", gateway), ""),
        "remote system": (proof(mesh, "cluster2", gateway), "cluster2"),
        "sample": (proof(mesh, "cluster1", sleep), "cluster1"),
        "sample elsewhere": (proof(mesh, "cluster2", sleep), "cluster2"),
        "forged": (proof(mesh, "cluster2", sleep), "cluster1"),
    }
    pods = {each: wires.pod_of(mesh, each, "app=sleep")["metadata"]["name"] for each in CLUSTERS}
    pages = [
        "clusterz",
        f"config_dump?proxyID={pods['cluster1']}.sample",
        f"edsz?proxyID={pods['cluster2']}.sample",
    ]
    questions = [(f"/debug/{page}", *proofs[who]) for who in proofs for page in pages]
    found = [status for status, _ in asked(mesh, *questions)]

    statuses = {who: found[3 * index : 3 * index + 3] for index, who in enumerate(proofs)}
    assert statuses == {
        "nobody": [401, 401, 401],
        "wrong audience": [401, 401, 401],
        "system": [200, 200, 200],
        "remote system": [403, 404, 200],
        "sample": [403, 200, 404],
        "sample elsewhere": [403, 404, 200],
        "forged": [401, 401, 401],
    }


def asked(mesh, *questions):
    """Return status and body of pages on 15014, asked from a node of the first cluster."""
    place = wires.pod_of(mesh, "cluster1", "app=istiod", namespace="istio-system")["status"]
    wire = wires.Wires(mesh)
    attempts = [
        {"host": place["podIP"], "port": 15014, "tls": False, "send": request(*question)}
        for question in questions
    ]
    answers = wire.knock(attempts, at=wire.node("cluster1", 1))
    parts = [answer["text"].partition("\r\n\r\n") for answer in answers]
    return [(int(head.split()[1]), body) for head, _, body in parts]


def request(path, token="", cluster=""):
    lines = [f"GET {path} HTTP/1.1", "Host: istiod", "Connection: close"]
    lines += [f"Authorization: Bearer {token}"] if token else []
    lines += [f"clusterid: {cluster}"] if cluster else []
    return "\r\n".join(lines) + "\r\n\r\n"


def test_everybody_may_read_the_metrics(mesh):
    [(status, text)] = asked(mesh, ["/metrics"])

    assert status == 200
    for name in ("pilot_services", "pilot_xds_pushes", "citadel_server_root_cert_expiry_seconds"):
        assert f"\n{name}" in text, name
    assert 'istiod_managed_clusters{cluster_type="remote"} 1' in text


def test_one_page_lists_all_others(mesh):
    words = "exec -n istio-system deploy/istiod -- python -m isthmus.runtime request GET"

    # Without a slash in front, as `istioctl bug-report` asks.
    assert "/debug/explain" in json.loads(mesh.kubectl("cluster1", f"{words} debug/list"))
