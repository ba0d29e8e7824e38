"""Other ways to join clusters, each by its walkthrough's own commands."""

import asyncio
import contextlib
import itertools
import json
import shutil

import echoes
import meshes
import naming
import pytest
import traffic
from drill import __main__ as program
from drill import plan, records, verdict

pytestmark = pytest.mark.lab


GUIDES = pytest.mark.skipif(
    any(shutil.which(name) is None for name in ("kubectl", "make")),
    reason="the guides' lines call kubectl and make",
)
ONE_NETWORK = ("network1", "network1")
TWO_NETWORKS = ("network1", "network2")


@contextlib.contextmanager
def joined(topology, *, clusters=2):
    lab = meshes.MeshLab(as_ordinary_user=True)
    try:
        lab.boot(topology, clusters=clusters)
        yield lab
    finally:
        lab.close()


def verified(lab, *, networks, namespace="sample"):
    """Hold what every topology ends with: answers, identities and encryption, near and far."""
    places = {f"cluster{number}": network for number, network in enumerate(networks, start=1)}
    words = f"--namespace {namespace} --contexts {','.join(places)} --requests 200"
    report = lab.json(f"isthmus verify {words} -o json")
    rows, fair = report["rows"], 1 / len(places)
    assert report["is_well"], report["findings"]
    pairs = [(row["source"], row["cluster"]) for row in rows]
    assert sorted(pairs) == sorted(itertools.product(places, places))
    assert all(0.6 * fair <= row["share"] <= 1.4 * fair for row in rows), rows
    assert all(row["encrypted"] for row in rows)
    callers = {caller for row in rows for caller in row["callers"]}
    assert callers == {f"spiffe://cluster.local/ns/{namespace}/sa/sleep"}
    for row in rows:
        is_near = places[row["source"]] == places[row["cluster"]]
        assert (row["path"] == "direct") == is_near, row


def everybody_watches_everybody(lab):
    """Hold that each of three control planes watches all three clusters."""
    names = {"cluster1", "cluster2", "cluster3"}
    for name in names:
        seen = lab.json(f"isthmus --context {name} remote-clusters -o json")
        assert {one["id"] for one in seen} == names


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


def test_three_control_planes_on_one_network_see_all_three_clusters():
    with joined("multi-primary", clusters=3) as lab:
        everybody_watches_everybody(lab)
        verified(lab, networks=("network1", "network1", "network1"))
        pods_of_another_cluster_are_called_by_their_own_names(lab)


@pytest.fixture(scope="module")
def three():
    """Three clusters on three networks, each with a control plane."""
    with joined("multi-primary-multi-network", clusters=3) as lab:
        yield lab


def test_three_control_planes_across_networks_see_all_three_clusters(three):
    everybody_watches_everybody(three)
    verified(three, networks=("network1", "network2", "network3"))


def test_clusters_of_three_zones_answer_calls_as_their_pods_are_many(three):
    echoes.deploy(three, [(1, 1, 0), (2, 1, 1), (1, 2, 3)])
    clusters = echoes.pods(three, 3)
    for at_once in (1, 16):
        counts, callers = echoes.calls(three, "cluster1", calls=1200, at_once=at_once)

        assert callers == [echoes.IDENTITY]
        for pods in clusters:
            share = sum(counts.get(pod, 0) for pod in pods) / 1200
            assert abs(share - len(pods) / 12) < 0.02, (at_once, clusters, counts)
        assert max(counts.values()) < 1.5 * 1200 / 12, (at_once, counts)
    echoes.remove(three, 3)


def test_no_request_and_no_endpoint_is_lost_in_the_life_of_clusters(three):
    record = asyncio.run(program.drilled(three.environment, three.name, plan=plan.SHORT, seed=1))

    assert verdict.violations(record) == []
    assert {kind: record.count(kind) > 1 for kind in records.KINDS} == dict.fromkeys(
        records.KINDS, True
    )
    everybody_watches_everybody(three)
    verified(three, networks=("network1", "network2", "network3"))


GKE_GUIDE = """\
kubectl delete ns sample --context ${CTX_1}
kubectl delete ns sample --context ${CTX_2}
isthmus x create-remote-secret --context=${CTX_1} --name=${CLUSTER_1} > ${CTX_1}.secret
isthmus x create-remote-secret --context=${CTX_2} --name=${CLUSTER_2} \
    --server=https://${PRIV_IP} > ${CTX_2}.secret
kubectl apply -f ${CTX_1}.secret --context=${CTX_2}
kubectl apply -f ${CTX_2}.secret --context=${CTX_1}
for CTX in ${CTX_1} ${CTX_2}
do
  kubectl create --context=${CTX} namespace sample
  kubectl label --context=${CTX} namespace sample \
      istio-injection- istio.io/rev=default --overwrite
  kubectl create --context=${CTX} \
      -f ${PROJECT_DIR}/samples/helloworld/helloworld.yaml -l service=helloworld -n sample
  kubectl apply --context=${CTX} -f ${PROJECT_DIR}/samples/sleep/sleep.yaml -n sample
done
kubectl create --context=${CTX_1} \
    -f ${PROJECT_DIR}/samples/helloworld/helloworld.yaml -l version=v1 -n sample
kubectl create --context=${CTX_2} \
    -f ${PROJECT_DIR}/samples/helloworld/helloworld.yaml -l version=v2 -n sample
for CTX in ${CTX_1} ${CTX_2}
do kubectl wait --context=${CTX} --for=condition=Ready pod --all -n sample
done
kubectl exec --context="${CTX_1}" -n sample -c sleep \
    "$(kubectl get pod --context="${CTX_1}" -n sample -l app=sleep \
    -o jsonpath='{.items[0].metadata.name}')" \
    -- curl -sS helloworld.sample:5000/hello
"""


@GUIDES
def test_the_guide_for_gke_runs_as_written_with_revision_labels():
    with joined("multi-primary") as lab:
        names = {"CTX_1": "cluster1", "CTX_2": "cluster2", "PROJECT_DIR": str(meshes.ROOT)}
        names |= {"CLUSTER_1": "cluster1", "CLUSTER_2": "cluster2"}
        slices = "endpointslices -n default -l kubernetes.io/service-name=kubernetes"
        [private] = lab.json_of("cluster2", slices)["items"]
        address = private["endpoints"][0]["addresses"][0]
        names["PRIV_IP"] = f"{address}:{private['ports'][0]['port']}"
        exports = "".join(f"export {key}={value}\n" for key, value in names.items())

        assert lab.run(f"set -e\n{exports}{GKE_GUIDE}").splitlines()[-1].startswith("Hello version")
        verified(lab, networks=ONE_NETWORK)


@GUIDES
def test_a_cluster_that_injects_by_itself_discovers_through_the_ingress_gateway_of_another():
    with joined("primary-remote-shared-network") as lab:
        [slice_] = lab.json_of(
            "cluster2", "endpointslices -n istio-system -l kubernetes.io/service-name=istiod-remote"
        )["items"]
        ingress = lab.json_of("cluster1", "svc istio-ingressgateway -n istio-system")
        proxies = lab.run("isthmus --context=cluster1 proxy-status")
        signing = lab.kubectl("cluster2", "logs -n istio-system deploy/istiod").splitlines()

        verified(lab, networks=ONE_NETWORK)
    [address] = ingress["status"]["loadBalancer"]["ingress"]
    assert slice_["endpoints"][0]["addresses"] == [address["ip"]]
    assert {line.split()[1] for line in proxies.splitlines()[1:]} == {"cluster1", "cluster2"}
    assert any("/sa/sleep" in line and 'issuer="L=cluster2,' in line for line in signing)


@GUIDES
def test_gateways_named_in_the_settings_split_the_horizon_and_edits_hold_at_once():
    with joined("split-horizon") as lab:
        verified(lab, networks=TWO_NETWORKS, namespace="app1")
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


def test_a_control_plane_outside_of_the_mesh_serves_it_and_may_little_where_it_runs():
    with joined("external-control-plane") as lab:
        asked = "isthmus --context external -i external-istiod"
        clusters = lab.json(f"{asked} remote-clusters -o json")
        roots = {
            lab.json_of(cluster, "configmap istio-ca-root-cert -n sample")["data"]["root-cert.pem"]
            for cluster in ("cluster1", "cluster2")
        }
        beside = lab.json_of("external", "deployment istiod -n istio-system")["status"]
        audit = f"$ISTHMUS_LAB_HOME/{lab.name}/audit-external.jsonl"
        lines = [json.loads(line) for line in lab.run(f"cat {audit}").splitlines()]

        verified(lab, networks=TWO_NETWORKS)
    assert [(one["id"], one["syncStatus"]) for one in clusters] == [
        ("cluster1", "synced"), ("cluster2", "synced")
    ]  # fmt: skip
    assert len(roots) == 1
    assert beside["readyReplicas"] == 1
    account = "system:serviceaccount:external-istiod:istiod"
    ours = [line for line in lines if line["user"] == account]
    assert {(one["resource"], one["namespace"], one["allowed"]) for one in ours} == {
        ("configmaps", "external-istiod", True), ("secrets", "external-istiod", True)
    }  # fmt: skip
