"""Several control planes beside each other in one cluster, told apart by revision."""

import json
import pathlib
import shlex

import meshes
import pytest

pytestmark = pytest.mark.lab

OPTIONS = """
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  profile: minimal
  values:
    global:
      meshID: mesh1
      multiCluster:
        clusterName: cluster1
      network: network1
"""
TRUST = "isthmus ca root && isthmus ca intermediate cluster1 && isthmus ca push cluster1"
SLEEP = pathlib.Path(__file__).parents[2] / "samples/sleep/sleep.yaml"


@pytest.fixture(scope="module")
def cluster():
    """One cluster with the default revision, one called canary, and one in a namespace of its own."""
    lab = meshes.MeshLab(as_ordinary_user=True)
    try:
        lab.boot_clusters("single")
        lab.run(TRUST)
        copy_trust(lab, "mesh-two")
        for flags in ("", "--set revision=canary", "--set revision=other --set namespace=mesh-two"):
            lab.run(f"isthmus install -y -f - {flags}", stdin=OPTIONS)
        yield lab
    finally:
        lab.close()


def copy_trust(lab, namespace):
    lab.run(f"isthmus kubectl create namespace {namespace}")
    secret = lab.json("isthmus kubectl get secret cacerts -n istio-system -o json")
    secret["metadata"] = {"name": "cacerts", "namespace": namespace}
    lab.run("isthmus kubectl apply -f -", stdin=json.dumps(secret))


def proxies(lab, system_namespace="istio-system"):
    """Return which control plane each proxy listens to."""
    lines = lab.run(f"isthmus proxy-status -i {system_namespace}").splitlines()[1:]
    return {line.split()[0].rpartition(".")[2]: line.split()[2] for line in lines}


def deploy(lab, namespace, label):
    lab.run(f"isthmus kubectl create namespace {namespace}")
    lab.run(f"isthmus kubectl label namespace {namespace} {shlex.quote(label)}")
    lab.run(f"isthmus kubectl apply -n {namespace} -f -", stdin=SLEEP.read_text())
    lab.run(f"isthmus kubectl -n {namespace} wait --for=condition=available deployment/sleep")


def test_a_namespace_chooses_its_control_plane_by_revision(cluster):
    deploy(cluster, "usual", "istio-injection=enabled")
    deploy(cluster, "early", "istio.io/rev=canary")
    deploy(cluster, "apart", "istio.io/rev=other")

    here, there = proxies(cluster), proxies(cluster, "mesh-two")

    assert here["early"].startswith("istiod-canary-")
    assert here["usual"].startswith("istiod-")
    assert not here["usual"].startswith("istiod-canary-")
    assert there["apart"].startswith("istiod-other-")


def test_each_service_leads_to_its_own_control_plane_alone(cluster):
    slices = cluster.json("isthmus kubectl get endpointslices -n istio-system -o json")["items"]
    pods = {
        one["metadata"]["labels"]["kubernetes.io/service-name"]: [
            endpoint["targetRef"]["name"] for endpoint in one["endpoints"]
        ]
        for one in slices
    }

    assert {name: len(found) for name, found in pods.items()} == {"istiod": 1, "istiod-canary": 1}


def test_removing_a_revision_leaves_the_others(cluster):
    cluster.run("isthmus uninstall -y --revision canary")

    left = cluster.json("isthmus kubectl get deployments -n istio-system -o json")["items"]
    account = "isthmus kubectl get serviceaccount istio-reader-service-account -n istio-system"

    assert [one["metadata"]["name"] for one in left] == ["istiod"]
    assert cluster.attempt(account).returncode == 0
    assert proxies(cluster)["usual"]
