"""Bad input to a running mesh: it is refused with its reason where a user looks; traffic goes on."""

import base64
import contextlib
import json

import pytest
import traffic
import yaml

pytestmark = pytest.mark.lab

NOT_OBEYED = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: odd, namespace: sample}
spec:
  hosts: [helloworld]
  http:
  - delegate: {name: other}
    route: [{destination: {host: helloworld}}]
"""
NOT_VALID = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: odd, namespace: sample}
spec:
  selector: {a: b}
  servers:
  - port: {number: many, name: x, protocol: HTTP}
    hosts: ["*"]
"""


def findings(mesh):
    """Return what `isthmus findings` says: reasons by code and subject."""
    ended = mesh.attempt("isthmus findings --context cluster1 -o json")
    found = json.loads(ended.stdout)
    assert ended.returncode == bool(found), ended.stderr
    return {(each["code"], each["subject"]): each["happened"] for each in found}


def well(mesh):
    return mesh.json("isthmus verify --requests 20 -o json")["is_well"]


def hostile(kubeconfig, name, change):
    """Return a remote secret whose kubeconfig was changed."""
    document = yaml.safe_load(kubeconfig)
    change(document)
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": f"istio-remote-secret-{name}",
            "namespace": "istio-system",
            "labels": {"istio/multiCluster": "true"},
        },
        "stringData": {name: yaml.safe_dump(document)},
    }


@contextlib.contextmanager
def applied(mesh, documents):
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    mesh.kubectl("cluster1", "apply -f -", stdin=text)
    try:
        yield
    finally:
        mesh.kubectl("cluster1", "delete -f -", stdin=text)


@pytest.fixture
def kubeconfig(mesh):
    text = mesh.run("isthmus create-remote-secret --context cluster2 --name spare")
    return next(filter(None, yaml.safe_load_all(text)))["stringData"]["spare"]


def user(**fields):
    return lambda document: document["users"][0].update(user=fields)


def cluster(**fields):
    return lambda document: document["clusters"][0]["cluster"].update(fields)


HOSTILE = {
    "exec": (user(exec={"command": "touch"}), "exec is not allowed"),
    "file": (user(tokenFile="/etc/passwd"), "tokenFile is not allowed"),
    "insecure": (cluster(**{"insecure-skip-tls-verify": True}), "anybody on the way"),
    "loopback": (cluster(server="https://127.0.0.1:6443"), "is loopback"),
    "metadata": (cluster(server="https://169.254.169.254"), "is link-local"),
    "plain": (cluster(server="http://10.0.0.1"), "must begin with https://"),
}


def test_a_hostile_kubeconfig_is_refused_with_its_reason_and_traffic_goes_on(mesh, kubeconfig):
    secrets = [hostile(kubeconfig, name, change) for name, (change, _) in HOSTILE.items()]
    subjects = {
        name: ("ISM-FLEET-014", f"Secret istio-system/istio-remote-secret-{name}, key {name}")
        for name in HOSTILE
    }

    with traffic.flowing(mesh, "cluster1") as client, applied(mesh, secrets):
        traffic.until(lambda: set(subjects.values()) <= set(findings(mesh)))
        found = findings(mesh)
        shown = mesh.attempt("isthmus remote-clusters --context cluster1")

    for name, (_, reason) in HOSTILE.items():
        assert reason in found[subjects[name]]
        assert f"key {name}: " in shown.stderr
    assert {line.split()[0] for line in shown.stdout.splitlines()[1:]} == {"cluster1", "cluster2"}
    assert client.lost == []
    traffic.until(lambda: findings(mesh) == {})


def test_of_two_secrets_for_one_cluster_the_older_is_used_and_the_other_named(mesh, kubeconfig):
    second = hostile(kubeconfig, "second", lambda document: None)
    second["stringData"] = {"cluster2": second["stringData"]["second"]}

    with applied(mesh, [second]):
        found = traffic.until(lambda: findings(mesh))
        assert well(mesh)

    [((code, subject), reason)] = found.items()
    assert (code, subject) == (
        "ISM-FLEET-013",
        "Secret istio-system/istio-remote-secret-second, key cluster2",
    )
    assert "older secret istio-system/istio-remote-secret-cluster2" in reason


@contextlib.contextmanager
def other_authority(mesh, **changed):
    """Install changed files of the certificate authority; put the good ones back."""
    secret = json.loads(mesh.kubectl("cluster1", "get secret -n istio-system cacerts -o json"))
    good = secret["data"]
    secret["metadata"] = {"name": "cacerts", "namespace": "istio-system"}
    replace = "replace -f -"
    try:
        secret["data"] = {**good, **changed}
        mesh.kubectl("cluster1", replace, stdin=json.dumps(secret))
        yield
    finally:
        secret["data"] = good
        mesh.kubectl("cluster1", replace, stdin=json.dumps(secret))
        traffic.until(lambda: findings(mesh) == {})


@pytest.mark.parametrize(
    ("changed", "code", "reason"),
    [
        ({"root-cert.pem": ""}, "ISM-CA-001", "incomplete; missing or empty: `root-cert.pem`"),
        (
            {"ca-cert.pem": base64.b64encode(b"junk").decode()},
            "ISM-CA-002",
            "cannot read the certificates in `ca-cert.pem`",
        ),
    ],
)
def test_a_broken_authority_is_named_and_the_last_good_one_signs_on(mesh, changed, code, reason):
    with traffic.flowing(mesh, "cluster1") as client, other_authority(mesh, **changed):
        found = traffic.until(lambda: findings(mesh))

    assert reason in found[code, "Secret istio-system/cacerts"]
    assert client.lost == []


def test_an_object_that_is_not_obeyed_is_named_with_its_field(mesh):
    mesh.kubectl("cluster1", "apply -f -", stdin=NOT_OBEYED)
    try:
        found = traffic.until(lambda: findings(mesh))
        assert well(mesh)
    finally:
        mesh.kubectl("cluster1", "delete -f -", stdin=NOT_OBEYED)

    assert "`spec.http[0].delegate`" in found["ISM-REG-013", "VirtualService sample/odd"]


def test_an_object_that_does_not_validate_is_refused_with_its_field(mesh):
    with pytest.raises(AssertionError, match=r"spec\.servers\[0\]\.port\.number") as refused:
        mesh.kubectl("cluster1", "apply -f -", stdin=NOT_VALID)

    assert "must be of type integer" in str(refused.value)
    assert findings(mesh) == {}


def test_a_broken_installation_file_changes_nothing(mesh):
    before = mesh.kubectl("cluster1", "get deploy -n istio-system -o json")

    for text, reason in (
        ("kind: [", "is not YAML"),
        ("kind: Service\napiVersion: v1\n", "is of kind `Service`"),
        (operator_file({"global": {"netwrok": "n"}}), "did you mean `network`?"),
        (operator_file({"pilot": {"replicaCount": "many"}}), "must hold a whole number"),
    ):
        ended = mesh.attempt("isthmus install -y --context cluster1 -f -", stdin=text)
        assert ended.returncode == 1
        assert reason in ended.stderr
        assert "error[ISM-INST-001]" in ended.stderr

    after = mesh.kubectl("cluster1", "get deploy -n istio-system -o json")
    assert generations(before) == generations(after)


def operator_file(values):
    return json.dumps(
        {
            "apiVersion": "install.istio.io/v1alpha1",
            "kind": "IstioOperator",
            "spec": {"values": values},
        }
    )


def generations(text):
    return {
        item["metadata"]["name"]: item["metadata"]["generation"]
        for item in json.loads(text)["items"]
    }


def test_a_gateway_that_loses_its_address_is_named(mesh):
    def typed(kind):
        patch = json.dumps({"spec": {"type": kind}})
        words = f"patch svc -n istio-system istio-eastwestgateway --type merge -p '{patch}'"
        mesh.kubectl("cluster2", words)

    typed("ClusterIP")
    try:
        found = traffic.until(lambda: findings(mesh))
    finally:
        typed("LoadBalancer")
    traffic.until(lambda: findings(mesh) == {})

    subject = "Service istio-system/istio-eastwestgateway in cluster `cluster2`"
    assert "no external address" in found["ISM-REG-012", subject]
    assert well(mesh)
