"""Who may call what, on real Envoys in both clusters: identities, paths, and nobody at all."""

import contextlib
import json

import pytest
import traffic
import wires

pytestmark = pytest.mark.lab

CLUSTERS = ("cluster1", "cluster2")
STRANGER = "stranger"
"""An account, and a client that runs as it, beside the usual client."""


@pytest.fixture(scope="module")
def strangers(mesh):
    """Clients of another account in both clusters."""
    for cluster in CLUSTERS:
        text = (wires.SAMPLES / "sleep" / "sleep.yaml").read_text().replace("sleep", STRANGER)
        text = text.replace(f"/bin/{STRANGER}", "/bin/sleep")
        mesh.kubectl(cluster, "apply -n sample -f -", stdin=text)
    for cluster in CLUSTERS:
        wait = f"-n sample wait --for=condition=Available deployment/{STRANGER} --timeout=300s"
        mesh.kubectl(cluster, wait)
    yield
    for cluster in CLUSTERS:
        for kind in ("deployment", "service", "serviceaccount"):
            mesh.kubectl(cluster, f"delete {kind} -n sample {STRANGER} --ignore-not-found")


def policy(name, namespace="sample", **spec):
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


HELLOWORLD = {"matchLabels": {"app": "helloworld"}}
SLEEP = {"source": {"principals": ["cluster.local/ns/sample/sa/sleep"]}}
ONLY_SLEEP = policy("only-sleep", selector=HELLOWORLD, action="ALLOW", rules=[{"from": [SLEEP]}])
NO_ADMIN = policy(
    "no-admin",
    selector=HELLOWORLD,
    action="DENY",
    rules=[{"to": [{"operation": {"paths": ["/admin*"]}}]}],
)
NOBODY = policy("nobody", "istio-system")
NOT_UNDERSTOOD = policy(
    "not-understood",
    selector=HELLOWORLD,
    rules=[{"from": [SLEEP], "to": [{"operation": {"colours": ["red"]}}]}],
)


@contextlib.contextmanager
def in_force(mesh, *policies):
    """Have policies in the cluster that configuration is read from."""
    for one in policies:
        mesh.kubectl("cluster1", "apply -f -", stdin=json.dumps(one))
    try:
        yield
    finally:
        for one in policies:
            where = one["metadata"]
            name = f"-n {where['namespace']} {where['name']}"
            mesh.kubectl("cluster1", f"delete authorizationpolicy {name}")


def statuses(mesh, cluster, client="sleep", path="/hello"):
    """Return the statuses of twelve requests, which go to both clusters and into logs."""
    told = mesh.kubectl(
        cluster,
        f"exec -n sample -c {client} deploy/{client} -- curl -s -m 20 -o /dev/null"
        f" -H 'x-isthmus-verify: {client}' -w '%{{http_code}} '"
        f" 'http://helloworld.sample:5000{path}?n=[1-12]'",
    )
    return set(told.split())


def until_all(mesh, status, *, client="sleep", path="/hello"):
    for cluster in CLUSTERS:
        traffic.until(lambda c=cluster: statuses(mesh, c, client, path) == {status})


SERVERS = (("cluster1", "v1"), ("cluster2", "v2"))


def refusals(mesh, cluster, version):
    """Return who was refused, one after the other, by a server's log."""
    log = mesh.kubectl(cluster, f"logs -n sample deploy/helloworld-{version} -c istio-proxy")
    lines = [json.loads(line) for line in log.splitlines() if '"isthmus_verify"' in line]
    return [line["peer"] for line in lines if line["response_code"] == 403]


def test_only_one_account_may_call_in_whatever_network_it_is(mesh, strangers):
    until_all(mesh, "200", client=STRANGER)
    before = {one: len(refusals(mesh, *one)) for one in SERVERS}
    with in_force(mesh, ONLY_SLEEP):
        until_all(mesh, "403", client=STRANGER)
        until_all(mesh, "200")
        for one in SERVERS:
            refused = set(refusals(mesh, *one)[before[one] :])
            assert refused == {f"spiffe://cluster.local/ns/sample/sa/{STRANGER}"}
    until_all(mesh, "200", client=STRANGER)


def test_a_denied_path_is_refused_however_it_is_written(mesh):
    with in_force(mesh, NO_ADMIN):
        for path in ("/admin", "/%61dmin", "//admin", "/x/../admin", "/x;/../admin"):
            until_all(mesh, "403", path=path)
        until_all(mesh, "200")


def test_nobody_may_call_in_all_of_the_mesh_until_somebody_is_let_in(mesh, strangers):
    with in_force(mesh, NOBODY):
        until_all(mesh, "403")
        with in_force(mesh, ONLY_SLEEP):
            until_all(mesh, "200")
            until_all(mesh, "403", client=STRANGER)
    until_all(mesh, "200", client=STRANGER)


def test_policies_that_come_and_go_cost_no_allowed_request(mesh, strangers):
    with traffic.flowing(mesh, *CLUSTERS) as clients:
        for _ in range(3):
            with in_force(mesh, ONLY_SLEEP, NO_ADMIN):
                until_all(mesh, "403", client=STRANGER)
            until_all(mesh, "200", client=STRANGER)
        for client in clients:
            client.goes_on()

    assert [client.lost for client in clients] == [[], []]


def test_a_policy_that_is_not_understood_denies_and_says_so(mesh):
    with in_force(mesh, NOT_UNDERSTOOD):
        until_all(mesh, "403")
        told = mesh.attempt("isthmus findings --context cluster1").stdout
        assert "AuthorizationPolicy sample/not-understood" in told
        assert "colours" in told
    until_all(mesh, "200")
