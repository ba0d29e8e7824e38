"""Other ways to join clusters, each by its walkthrough's own commands."""

import json
import shutil

import features
import meshes
import naming
import pytest
import traffic
from tools import guides

pytestmark = pytest.mark.lab


GUIDES = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("kubectl", "make")),
    reason="the guides' lines call kubectl and make",
)
ONE_NETWORK = {"cluster1": "network1", "cluster2": "network1"}


def verified(lab, *, networks, namespace="sample"):
    """Hold what every topology ends with: answers, identities and encryption, near and far."""
    seen = features.Seen(lab, features.Row(networks, namespace=namespace))
    for promise in (
        features.all_answered,
        features.shared_fairly,
        features.identities,
        features.paths,
    ):
        promise(seen)


def pods_of_another_cluster_are_called_by_their_own_names(lab):
    """Hold that a headless service that only one cluster has is known in another, pod by pod."""
    server = [
        *naming.server(kind="StatefulSet"),
        *naming.service(naming.PLAIN, clusterIP="None"),
    ]
    forms = ("far", "far-0.far", "far-0.far.names.svc.cluster.local")
    urls = [f"http://{form}:{naming.PORT}/hello" for form in forms]
    with naming.there(lab, {"cluster1": naming.client(naming.CAPTURED), "cluster2": server}):
        for url in urls:
            traffic.until(lambda url=url: naming.called(lab, url, mark="pods")[0] == 0)
        lab.kubectl("cluster2", "delete pod -n names far-0")
        # The name follows the pod to its new address.
        for url in urls:
            traffic.until(lambda url=url: naming.called(lab, url, mark="again")[0] == 0)
        calls = naming.arrivals(lab, "cluster2", "again", of="far-0", at_least=len(urls))
    assert {call["peer"] for call in calls} == {"spiffe://cluster.local/ns/names/sa/near"}
    assert {call["tls_version"] for call in calls} == {"TLSv1.3"}


@pytest.mark.topology
def test_three_control_planes_on_one_network_see_all_three_clusters(record_property):
    with meshes.joined("multi-primary", clusters=3) as lab:
        features.held(lab, "multi-primary", record_property)
        pods_of_another_cluster_are_called_by_their_own_names(lab)


def gke_swaps(lab):
    """Return what stands in this lab for names of a cloud's clusters, and for their addresses."""
    swaps = {"export PROJECT_DIR=YOUR_WORKING_FOLDER": f"export PROJECT_DIR={meshes.ROOT}"}
    for number in (1, 2):
        name, ids = f"cluster{number}", f"${{PROJECT_{number}}}_${{LOCATION_{number}}}"
        guide = f"export PROJECT_{number}=PROJECT_ID_{number} export LOCATION_{number}="
        guide += f"CLUSTER_LOCATION_{number} export CLUSTER_{number}=CLUSTER_NAME_{number} "
        guide += f'export CTX_{number}="gke_{ids}_${{CLUSTER_{number}}}"'
        swaps[guide] = f"export CLUSTER_{number}={name} CTX_{number}={name}"
        private = f"istioctl x create-remote-secret --context=${{CTX_{number}}} "
        private += f"--name=${{CLUSTER_{number}}} --server=https://${{PRIV_IP}} "
        private += f"> ${{CTX_{number}}}.secret"
        swaps[private] = f"PRIV_IP={private_address(lab, name)}\n{private}"
    return swaps


def private_address(lab, cluster):
    """Return where an API server answers to pods, which is no address of this machine."""
    slices = "endpointslices -n default -l kubernetes.io/service-name=kubernetes"
    [found] = lab.json_of(cluster, slices)["items"]
    return f"{found['endpoints'][0]['addresses'][0]}:{found['ports'][0]['port']}"


@GUIDES
def test_the_guide_for_gke_runs_as_written_with_revision_labels():
    lab = meshes.MeshLab(as_ordinary_user=True)
    try:
        lab.boot_clusters("shared-network")
        rows = guides.sections()["Two control planes in one network, on GKE"]
        swaps = gke_swaps(lab)
        assert set(swaps) <= {line for row in rows for line in row.typed}
        said = lab.follow(rows[:-2], swaps | {"istio.io/rev=REVISION": "istio.io/rev=asm-173-3"})
        verified(lab, networks=ONE_NETWORK)
        ended = lab.run("kubectl --context cluster1 delete ns sample")
    finally:
        lab.close()
    assert [line for line in said.splitlines() if line.startswith("Hello version")]
    assert "app=istiod,istio.io/rev=asm-173-3" in said
    assert [row.typed[0] for row in rows[-2:]] == [
        f"kubectl delete ns sample --context ${{CTX_{number}}}" for number in (1, 2)
    ]
    assert "deleted" in ended


@pytest.mark.topology
@GUIDES
def test_a_cluster_that_injects_by_itself_discovers_through_the_ingress_gateway_of_another(
    record_property,
):
    with meshes.joined("primary-remote-shared-network") as lab:
        [slice_] = lab.json_of(
            "cluster2", "endpointslices -n istio-system -l kubernetes.io/service-name=istiod-remote"
        )["items"]
        ingress = lab.json_of("cluster1", "svc istio-ingressgateway -n istio-system")
        proxies = lab.run("isthmus --context=cluster1 proxy-status")
        signing = lab.kubectl("cluster2", "logs -n istio-system deploy/istiod").splitlines()

        features.held(lab, "primary-remote-shared-network", record_property)
    [address] = ingress["status"]["loadBalancer"]["ingress"]
    assert slice_["endpoints"][0]["addresses"] == [address["ip"]]
    assert {line.split()[1] for line in proxies.splitlines()[1:]} == {"cluster1", "cluster2"}
    assert any("/sa/sleep" in line and 'issuer="L=cluster2,' in line for line in signing)


@pytest.mark.topology
@GUIDES
def test_gateways_named_in_the_settings_split_the_horizon_and_edits_hold_at_once(record_property):
    with meshes.joined("split-horizon") as lab:
        features.held(lab, "split-horizon", record_property)
        far = gateway_of_network2(lab)

        edited(lab, far, "0.0.0.0")
        traffic.until(lambda: answered(lab) == {"v1"})
        edited(lab, "0.0.0.0", far)
        traffic.until(lambda: answered(lab) == {"v1", "v2"})


def gateway_of_network2(lab):
    service = lab.json_of("cluster2", "svc istio-ingressgateway -n istio-system")
    return service["status"]["loadBalancer"]["ingress"][0]["ip"]


def edited(lab, old, new):
    """Edit the settings in cluster1 as a person with an editor would."""
    held = lab.json_of("cluster1", "configmap istio -n istio-system")
    assert f"address: {old}" in held["data"]["meshNetworks"]
    networks = held["data"]["meshNetworks"].replace(f"address: {old}", f"address: {new}")
    wanted = {**held, "data": {**held["data"], "meshNetworks": networks}}
    lab.kubectl("cluster1", "replace -f -", stdin=json.dumps(wanted))


def answered(lab):
    """Return the versions that answer a client in cluster1; none may be lost."""
    command = "exec -n app1 -c sleep deploy/sleep -- curl -sS helloworld.app1:5000/hello?n=[1-20]"
    answers = lab.kubectl("cluster1", command).splitlines()
    assert [answer.split()[0] for answer in answers] == ["Hello"] * 20
    return {answer.split()[2].rstrip(",") for answer in answers}


@pytest.mark.topology
def test_a_control_plane_outside_of_the_mesh_serves_it_and_may_little_where_it_runs(
    record_property,
):
    with meshes.joined("external-control-plane") as lab:
        beside = lab.json_of("external", "deployment istiod -n istio-system")["status"]
        audit = f"$ISTHMUS_LAB_HOME/{lab.name}/audit-external.jsonl"
        lines = [json.loads(line) for line in lab.run(f"cat {audit}").splitlines()]

        features.held(lab, "external-control-plane", record_property)
    assert beside["readyReplicas"] == 1
    account = "system:serviceaccount:external-istiod:istiod"
    ours = [line for line in lines if line["user"] == account]
    assert {(one["resource"], one["namespace"], one["allowed"]) for one in ours} == {
        ("configmaps", "external-istiod", True), ("secrets", "external-istiod", True)
    }  # fmt: skip
