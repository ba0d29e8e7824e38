"""Installing, changing and removing a control plane in a real cluster."""

import meshes
import pytest
import yaml

pytestmark = pytest.mark.lab

OPTIONS = """
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  values:
    global:
      meshID: mesh1
      multiCluster:
        clusterName: cluster1
      network: network1
"""
TRUST = "isthmus ca root && isthmus ca intermediate cluster1 && isthmus ca push cluster1"


@pytest.fixture(scope="module")
def cluster():
    """One cluster with a control plane, as an ordinary user sees it."""
    lab = meshes.MeshLab(as_ordinary_user=True)
    try:
        lab.boot_clusters("single")
        lab.run(TRUST)
        install(lab, OPTIONS)
        yield lab
    finally:
        lab.close()


def install(lab, text, flags=""):
    ended = lab.attempt(f"isthmus install -y -f - {flags}", stdin=text)
    assert ended.returncode == 0, ended.stderr
    return ended.stderr


def versions(lab):
    listed = lab.json("isthmus kubectl get deployments -n istio-system -o json")["items"]
    return {item["metadata"]["name"]: item["metadata"]["generation"] for item in listed}


def test_installing_again_changes_nothing(cluster):
    before = versions(cluster)

    said = install(cluster, OPTIONS)

    assert "create " not in said
    assert "change " not in said
    assert "✔ Installation complete" in said
    assert versions(cluster) == before


def test_what_manifest_generate_prints_is_what_is_installed(cluster):
    printed = cluster.run("isthmus manifest generate -f -", stdin=OPTIONS)
    objects = [one for one in yaml.safe_load_all(printed) if one]

    assert len(objects) > 20
    for one in objects:
        if one["kind"] in {"Deployment", "Service", "ConfigMap", "ServiceAccount"}:
            metadata = one["metadata"]
            cluster.run(
                f"isthmus kubectl get {one['kind'].lower()} {metadata['name']} "
                f"-n {metadata['namespace']} -o name"
            )


def test_a_dry_run_shows_the_change_and_makes_none(cluster):
    before = versions(cluster)

    said = install(cluster, OPTIONS, "--dry-run --set values.pilot.env.MAX_WORKLOAD_CERT_TTL=48h")

    assert "change Deployment istio-system/istiod" in said
    assert versions(cluster) == before


def test_a_change_is_applied_and_waited_for(cluster):
    before = versions(cluster)

    said = install(cluster, OPTIONS, "--set values.pilot.env.MAX_WORKLOAD_CERT_TTL=48h")

    assert "change Deployment istio-system/istiod" in said
    assert versions(cluster)["istiod"] == before["istiod"] + 1
    env = cluster.run(
        "isthmus kubectl get deployment istiod -n istio-system "
        "-o jsonpath='{.spec.template.spec.containers[0].env}'"
    )
    assert "MAX_WORKLOAD_CERT_TTL" in env


def test_what_is_wanted_no_more_is_removed_and_gateways_of_other_files_stay(cluster):
    cluster.run("isthmus gen-eastwest-gateway --network network1 | isthmus install -y -f -")
    install(cluster, OPTIONS, "--set values.global.meshExpansion.enabled=true")
    exposed = "isthmus kubectl get gateways.networking.istio.io -n istio-system -o name"
    assert "meshexpansion-gateway" in cluster.run(exposed)

    said = install(cluster, OPTIONS)

    assert "delete Gateway istio-system/meshexpansion-gateway" in said
    assert "meshexpansion-gateway" not in cluster.run(exposed)
    assert "istio-eastwestgateway" in versions(cluster)


def test_uninstall_removes_just_what_install_brought(cluster):
    cluster.run(
        "isthmus kubectl apply -n istio-system -f -",
        stdin="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: mine}\ndata: {a: b}\n",
    )

    cluster.run("isthmus uninstall -y")

    left = cluster.json("isthmus kubectl get configmaps -n istio-system -o json")["items"]
    names = {item["metadata"]["name"] for item in left}
    assert "mine" in names
    assert not {"istio", "istio-sidecar-injector"} & names
    assert cluster.json("isthmus kubectl get deployments -n istio-system -o json")["items"] == []
    cluster.run("isthmus kubectl get secret cacerts -n istio-system -o name")
    cluster.run("isthmus kubectl get customresourcedefinition gateways.networking.istio.io -o name")


def test_after_uninstall_it_can_be_installed_again(cluster):
    said = install(cluster, OPTIONS)

    assert "create Deployment istio-system/istiod" in said
    assert cluster.run("isthmus remote-clusters").split()[5:7] == ["cluster1", "synced"]
