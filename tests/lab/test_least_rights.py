"""Nobody may more than needed: roles, processes, open ports, and what logs tell.

The lab's API servers keep what was asked of them, so granted and used can be compared.
"""

import asyncio
import base64
import contextlib
import json
import re
from pathlib import Path

import inside
import pytest
import traffic
import wires

from isthmus.kube import access, client
from isthmus.wire import debugging

pytestmark = pytest.mark.lab

CLUSTERS = ("cluster1", "cluster2")
ISTIOD = "system:serviceaccount:istio-system:istiod"
READER = "system:serviceaccount:istio-system:istio-reader-service-account"
ROLES = {
    ("cluster1", ISTIOD): ("clusterrole istiod-clusterrole-istio-system", "role istiod"),
    ("cluster2", READER): ("clusterrole istio-reader-clusterrole-istio-system",),
}
PROXY_UID = 1337
JWT = re.compile(r"eyJ[\w-]{16,}\.[\w-]{16,}\.[\w-]{16,}")
KEY = re.compile(r"BEGIN (?:EC |RSA )?PRIVATE KEY")


def asked(mesh, cluster):
    """Return what was asked of an API server."""
    folder = Path(mesh.environment["ISTHMUS_LAB_HOME"], mesh.name)
    lines = (folder / f"audit-{cluster}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def used_by(mesh, cluster, account):
    return {
        (one["group"], one["resource"], one["verb"])
        for one in asked(mesh, cluster)
        if one["user"] == account
    }


def granted_to(mesh, cluster, account):
    found = set()
    for role in ROLES[cluster, account]:
        for rule in mesh.json_of(cluster, f"{role} -n istio-system")["rules"]:
            found |= {
                (group, resource, verb)
                for group in rule["apiGroups"]
                for resource in rule["resources"]
                for verb in rule["verbs"]
            }
    return found


@pytest.mark.parametrize(("cluster", "account"), ROLES, ids=["istiod", "reader"])
def test_what_is_granted_is_what_is_used(mesh, cluster, account):
    assert granted_to(mesh, cluster, account) == used_by(mesh, cluster, account)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_no_part_of_the_mesh_was_refused_anything(mesh, cluster):
    refused = [
        one
        for one in asked(mesh, cluster)
        if not one["allowed"] and one["user"].startswith("system:serviceaccount:istio-system:")
    ]

    assert refused == []


def test_proxies_and_gateways_ask_no_api_server_for_anything(mesh):
    users = {one["user"] for cluster in CLUSTERS for one in asked(mesh, cluster)}
    accounts = {user for user in users if user.startswith("system:serviceaccount:")}

    assert accounts == {ISTIOD, READER}


def judged(mesh, cluster, questions):
    """Return the questions (user, verb, group, resource, namespace, name) that are allowed."""

    async def ask():
        reached = access.from_kubeconfig(mesh.environment["KUBECONFIG"], context=cluster)
        async with client.Client(reached) as server:
            return [one for one in questions if await allowed(server, one)]

    return asyncio.run(ask())


async def allowed(server, question):
    user, verb, group, resource, namespace, name = question
    resource, _, subresource = resource.partition("/")
    attributes = {"verb": verb, "group": group, "resource": resource, "namespace": namespace}
    attributes |= {"subresource": subresource, "name": name}
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": GROUPS, "resourceAttributes": attributes},
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return json.loads(await server.raw("POST", path, body=body))["status"]["allowed"]


GROUPS = ["system:serviceaccounts", "system:serviceaccounts:istio-system", "system:authenticated"]
RBAC = "rbac.authorization.k8s.io"
NEVER = [
    *((verb, "", "secrets", "sample", "") for verb in ("get", "list", "watch", "create", "update")),
    *((verb, "", "secrets", "", "") for verb in ("get", "list", "watch", "delete")),
    *((verb, "", "secrets", "kube-system", "") for verb in ("get", "list")),
    *(
        (verb, "", "secrets", "istio-system", "")
        for verb in ("create", "update", "patch", "delete")
    ),
    *((verb, "", "configmaps", "sample", "settings") for verb in ("get", "list", "update")),
    *((verb, "", "configmaps", "", "") for verb in ("list", "watch", "delete")),
    *((verb, "", "pods", "sample", "") for verb in ("create", "update", "patch", "delete")),
    *(("create", "", f"pods/{kind}", "sample", "") for kind in ("exec", "attach", "portforward")),
    ("get", "", "pods/log", "sample", ""),
    ("create", "", "serviceaccounts/token", "sample", "sleep"),
    ("create", "", "services", "sample", ""),
    ("update", "", "nodes", "", ""),
    ("impersonate", "", "users", "", ""),
    ("impersonate", "", "groups", "", ""),
    ("create", RBAC, "clusterrolebindings", "", ""),
    ("bind", RBAC, "clusterroles", "", ""),
    ("escalate", RBAC, "clusterroles", "", ""),
    ("create", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", "", ""),
    ("delete", "admissionregistration.k8s.io", "mutatingwebhookconfigurations", "", ""),
    ("list", "admissionregistration.k8s.io", "validatingwebhookconfigurations", "", ""),
    ("update", "networking.istio.io", "gateways", "sample", ""),
    ("approve", "certificates.k8s.io", "signers", "", ""),
    ("*", "*", "*", "", ""),
]
GATEWAY = "system:serviceaccount:istio-system:istio-eastwestgateway-service-account"


@pytest.mark.parametrize("cluster", CLUSTERS)
@pytest.mark.parametrize("account", [ISTIOD, READER, GATEWAY], ids=["istiod", "reader", "gateway"])
def test_nobody_of_the_mesh_may_what_would_hurt_others(mesh, cluster, account):
    assert len(NEVER) >= 30
    assert judged(mesh, cluster, [(account, *one) for one in NEVER]) == []


def test_only_the_control_plane_reads_secrets_and_only_beside_itself(mesh):
    places = [
        (account, verb, "", "secrets", "istio-system", "cacerts")
        for account in (ISTIOD, READER, GATEWAY)
        for verb in ("get", "list", "watch")
    ]

    assert {(one[0], one[1]) for one in judged(mesh, "cluster1", places)} == {
        (ISTIOD, "list"),
        (ISTIOD, "watch"),
    }
    assert judged(mesh, "cluster2", places) == []


POWERS = re.compile(r"^(Uid|CapEff|CapPrm|CapBnd|NoNewPrivs):\s+(\S+)", re.MULTILINE)
PARTS = {
    "the control plane": ("istio-system", "deploy/istiod", "discovery"),
    "a gateway": ("istio-system", "deploy/istio-eastwestgateway", "istio-proxy"),
    "a sidecar": ("sample", "deploy/helloworld-v1", "istio-proxy"),
}


def run_in(mesh, part, command, *, cluster="cluster1"):
    """Run a shell command in a container of ours."""
    namespace, target, container = PARTS[part]
    return mesh.attempt(
        f"{mesh.kubectl_program} --context {cluster} exec -n {namespace} {target} -c {container} -- sh -c '{command}'"
    )


@pytest.mark.people
@pytest.mark.parametrize("part", PARTS)
def test_our_processes_have_no_powers(mesh, part):
    # The first process of a container is the lab's own, as the pause process is elsewhere.
    shown = run_in(mesh, part, "cat /proc/[2-9]/status /proc/[1-9][0-9]/status 2>/dev/null").stdout
    powers = [dict(POWERS.findall(one)) for one in shown.split("Name:")[1:]]
    as_root = mesh.user is None

    assert powers
    assert {one["NoNewPrivs"] for one in powers} == {"1"}
    assert {int(one["Uid"]) for one in powers} == {PROXY_UID if as_root else 0}
    if as_root or part == "the control plane":
        assert {int(one["CapEff"], 16) | int(one["CapPrm"], 16) for one in powers} == {0}
        assert {int(one["CapBnd"], 16) for one in powers} == {0}


@pytest.mark.people
@pytest.mark.parametrize("part", PARTS)
def test_our_containers_cannot_write_but_to_their_volumes(mesh, part):
    for path in ("/x", "/tmp/x", "/etc/x", "/var/x", "/usr/x", "/opt/x"):
        tried = run_in(mesh, part, f"echo x > {path}")
        assert tried.returncode != 0, path
        assert "Read-only file system" in tried.stderr


def listeners_of(mesh, part, *, cluster="cluster1"):
    """Return ports that are open to other pods, and those on loopback."""
    lines = run_in(mesh, part, "cat /proc/net/tcp /proc/net/tcp6", cluster=cluster).stdout
    places = [line.split()[1] for line in lines.splitlines() if line.split()[3] == "0A"]
    found = [(host, int(port, 16)) for host, port in (place.split(":") for place in places)]
    near = {port for host, port in found if host in LOOPBACK}
    return {port for host, port in found if host not in LOOPBACK}, near


LOOPBACK = {"0100007F", "00000000000000000000000001000000"}
ADMIN = 15000
OF_SIDECARS = {15001, 15006, 15020, 15021, 15090}
OPEN = {
    "the control plane": {8080, 15012, 15014, 15017},
    "a gateway": {15012, 15017, 15020, 15021, 15090, 15443},
    "a sidecar": OF_SIDECARS | {5000},
}


@pytest.mark.people
@pytest.mark.parametrize("part", PARTS)
def test_only_these_ports_are_open_and_the_proxys_own_one_is_for_itself(mesh, part):
    outside, near = listeners_of(mesh, part)

    assert outside == OPEN[part]
    assert near == (set() if part == "the control plane" else {ADMIN})


PATHS = [
    "/", "/debug", "/debug/syncz", "/debug/configz", "/debug/config_dump?proxyID=x", "/debug/pprof/",
    "/v1/registration", "/ready/../debug/syncz", "//debug/syncz", "/debug%2Fsyncz", "/metrics/../debug",
    "/config_dump", "/certs", "/server_info", "/quitquitquit", "/logging", "/.env", "/stats",
]  # fmt: skip


def knocked(mesh, place, ports, *, verbs=("GET",)):
    """Return (port, path, status) for each of our paths, asked from another node."""
    wire = wires.Wires(mesh)
    ways = [(port, verb, path) for port in ports for verb in verbs for path in PATHS]
    answers = wire.knock(
        [
            {
                "host": place,
                "port": port,
                "tls": False,
                "send": f"{verb} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n"
                "Connection: close\r\n\r\n",
            }
            for port, verb, path in ways
        ],
        at=wire.node("cluster1", 1),
    )
    return {
        (port, verb, path): int(answer["text"].split()[1]) if answer["text"] else 0
        for (port, verb, path), answer in zip(ways, answers, strict=True)
    }


def test_the_control_planes_open_pages_tell_readiness_version_and_metrics_only(mesh):
    place = wires.pod_of(mesh, "cluster1", "app=istiod", namespace="istio-system")["status"][
        "podIP"
    ]
    found = knocked(mesh, place, (8080, 15014), verbs=("GET", "POST"))

    assert set(found.values()) <= {401, 404, 405}, found


def test_the_pages_of_a_proxy_that_other_pods_can_reach_tell_no_configuration(mesh):
    place = wires.pod_of(mesh, "cluster1", "app=helloworld")["status"]["podIP"]
    found = knocked(mesh, place, (15020, 15021, 15090), verbs=("GET", "POST"))

    assert {status for status in found.values() if status < 400} == set(), found


DEBUG = "default:debug"


@contextlib.contextmanager
def talkative(mesh):
    """Have the control plane and the clients' agents tell all that they can."""
    usual = mesh.json_of("cluster1", "deployment -n istio-system istiod")
    arguments = usual["spec"]["template"]["spec"]["containers"][0]["args"]
    loud = [one.replace("default:info", DEBUG) for one in arguments]
    set_arguments(mesh, loud)
    for cluster in CLUSTERS:
        set_agents_level(mesh, cluster, DEBUG)
    try:
        yield
    finally:
        set_arguments(mesh, arguments)
        for cluster in CLUSTERS:
            set_agents_level(mesh, cluster, None)
        mesh.run("isthmus verify --requests 20")


def set_arguments(mesh, arguments):
    place = "/spec/template/spec/containers/0/args"
    patch = json.dumps([{"op": "replace", "path": place, "value": arguments}])
    mesh.kubectl("cluster1", f"patch deployment -n istio-system istiod --type json -p '{patch}'")
    traffic.until(lambda: runs_with(mesh, arguments))


def runs_with(mesh, arguments):
    pods = mesh.json_of("cluster1", "pods -n istio-system -l app=istiod")["items"]
    args = [one["spec"]["containers"][0]["args"] for one in pods]
    return args == [arguments] and traffic.is_ready(pods[0])


def set_agents_level(mesh, cluster, level):
    annotations = {"sidecar.istio.io/agentLogLevel": level}
    patch = json.dumps({"spec": {"template": {"metadata": {"annotations": annotations}}}})
    mesh.kubectl(cluster, f"patch deployment -n sample sleep -p '{patch}'")
    traffic.until(lambda: has_client(mesh, cluster, level))


def has_client(mesh, cluster, level):
    """Say whether there is one client pod, ready, whose agent tells that much."""
    pods = mesh.json_of(cluster, "pods -n sample -l app=sleep")["items"]
    return (
        len(pods) == 1
        and traffic.is_ready(pods[0])
        and pods[0]["metadata"].get("annotations", {}).get("sidecar.istio.io/agentLogLevel")
        == level
    )


def all_that_is_shown(mesh):
    """Yield what can be read without being in a container: logs, reports, command lines."""
    place = Path(mesh.environment["ISTHMUS_LAB_HOME"], mesh.name)
    for file in ("lab.log", "audit-cluster1.jsonl", "audit-cluster2.jsonl"):
        yield file, (place / file).read_text()
    for cluster in CLUSTERS:
        for pod in mesh.json_of(cluster, "pods -A")["items"]:
            spec, name = pod["spec"], pod["metadata"]["name"]
            where = f"{cluster} {pod['metadata']['namespace']}/{name}"
            for one in [*spec.get("initContainers", []), *spec["containers"]]:
                command = f"isthmus lab logs --name {mesh.name} -c {one['name']} {where}"
                yield f"{where} {one['name']}", mesh.run(command)
    yield from reports(mesh)
    for process in inside.family(json.loads((place / "lab.json").read_text())["pid"]):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            yield f"process {process}", Path(f"/proc/{process}/cmdline").read_text()


def reports(mesh):
    proxies = mesh.json("isthmus --context cluster1 proxy-status -o json")
    of_proxies = [f"/debug/config_dump?proxyID={one['proxy']}" for one in proxies]
    for page in ("/metrics", *REPORTS, *of_proxies):
        words = "exec -n istio-system deploy/istiod -c discovery -- python -m isthmus.runtime"
        yield page, mesh.kubectl("cluster1", f"{words} request GET '{page}'")


REPORTS = [f"/debug/{name}" for name in (*debugging.PAGES, "list")]


def canaries_of(mesh):
    """Return secrets that exist, or parts of them that would not be elsewhere by chance."""
    found = {}
    for cluster in CLUSTERS:
        for secret in mesh.json_of(cluster, "secrets -A")["items"]:
            for key, value in secret.get("data", {}).items():
                text = base64.b64decode(value).decode(errors="replace")
                if "PRIVATE KEY" in text:
                    found[f"{cluster} {secret['metadata']['name']} {key}"] = text.splitlines()[1]
                for token in JWT.findall(text):
                    found[f"{cluster} {secret['metadata']['name']} {key}"] = token[-40:]
        own = f"exec -n sample deploy/sleep -c istio-proxy -- cat {TOKEN}"
        found[f"{cluster} token"] = mesh.kubectl(cluster, own).strip()[-40:]
    return found


TOKEN = "/var/run/secrets/tokens/istio-token"


def test_nothing_that_anybody_writes_or_shows_has_a_key_or_a_token_in_it(mesh):
    with talkative(mesh):
        mesh.run("isthmus verify --requests 20")
        shown = dict(all_that_is_shown(mesh))
        canaries = canaries_of(mesh)

    assert len(canaries) >= 5, canaries.keys()
    loud = [place for place, text in shown.items() if " DEBUG " in text]
    assert any("istiod" in place for place in loud)
    assert sum("istio-proxy" in place for place in loud) >= len(CLUSTERS)
    for place, text in shown.items():
        assert not JWT.search(text), place
        assert not KEY.search(text), place
        assert not [name for name, canary in canaries.items() if canary in text], place
