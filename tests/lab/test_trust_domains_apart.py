"""Two clusters with a trust domain each, in a lab: who is listed is believed, and nobody else."""

import json
import re
import time

import meshes
import pytest

from isthmus.testing import pace

pytestmark = pytest.mark.lab

DOMAINS = {"cluster1": "a.local", "cluster2": "b.local"}
FROM_CLUSTER2 = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {
        "name": "from-cluster2",
        "namespace": "sample",
        "annotations": {"isthmus.dev/source-clusters": "cluster2"},
    },
    "spec": {"selector": {"matchLabels": {"version": "v1"}}, "rules": [{}]},
}
BOTH, V1, V2 = {"v1", "v2"}, {"v1"}, {"v2"}
LIMIT_S = pace.patience(30.0)
IN_A_ROW = 3


def install(lab, cluster, number):
    """Type what the walkthrough of several primaries says, with a trust domain of its own."""
    network, domain = f"network{number}", DOMAINS[cluster]
    lab.run(f"isthmus ca intermediate {cluster} --trust-domain {domain}")
    lab.run(f"isthmus ca push --context {cluster} {cluster}")
    lab.kubectl(cluster, f"label namespace istio-system topology.istio.io/network={network}")
    lab.run(
        f"isthmus install --context {cluster} -y --set profile=minimal "
        f"--set meshConfig.trustDomain={domain} --set values.global.meshID=mesh1 "
        f"--set values.global.multiCluster.clusterName={cluster} "
        f"--set values.global.network={network}"
    )
    samples = meshes.ROOT / "samples"
    lab.run(
        f"{samples}/multicluster/gen-eastwest-gateway.sh --mesh mesh1 --cluster {cluster} "
        f"--network {network} | isthmus --context {cluster} install -y -f -"
    )
    lab.kubectl(cluster, f"apply -n istio-system -f {samples}/multicluster/expose-services.yaml")
    lab.kubectl(cluster, "create namespace sample")
    lab.kubectl(cluster, "label namespace sample istio-injection=enabled")
    hello = f"{samples}/helloworld/helloworld.yaml"
    for what in ("-l service=helloworld", f"-l version=v{number}"):
        lab.kubectl(cluster, f"apply -n sample {what} -f {hello}")
    lab.kubectl(cluster, f"apply -n sample -f {samples}/sleep/sleep.yaml")


@pytest.fixture(scope="module")
def lab():
    lab = meshes.MeshLab(as_ordinary_user=True)
    try:
        lab.boot_clusters("multi-primary")
        lab.run("isthmus ca root")
        for number, cluster in enumerate(DOMAINS, start=1):
            install(lab, cluster, number)
        for one, other in (("cluster1", "cluster2"), ("cluster2", "cluster1")):
            lab.run(
                f"isthmus create-remote-secret --context {one} --name {one} "
                f"| {lab.kubectl_program} --context {other} apply -f -"
            )
        for cluster in DOMAINS:
            words = "-n sample wait --for=condition=Ready pod --all --timeout=300s"
            lab.kubectl(cluster, words)
        yield lab
    finally:
        lab.close()


def answering(lab, cluster):
    """Return which versions answer a few calls from a cluster."""
    curl = "curl -s -m 20 helloworld.sample:5000/hello?n=[1-8]"
    said = lab.attempt(
        f"{lab.kubectl_program} --context {cluster} exec -n sample -c sleep deploy/sleep -- "
        f"sh -c '{curl}'"
    ).stdout
    return {version for version in BOTH if f"version: {version}" in said}


def until(lab, **expected):
    """Wait until exactly the expected versions answer in each cluster, several times in a row."""
    deadline, found, row = time.monotonic() + LIMIT_S, None, 0
    while row < IN_A_ROW and time.monotonic() < deadline:
        found = {cluster: answering(lab, cluster) for cluster in expected}
        row = row + 1 if found == expected else 0
    assert found == expected


def findings(lab, cluster):
    found = lab.attempt(f"isthmus findings --context {cluster} -o json").stdout
    return set(re.findall(r"ISM-[A-Z]+-\d+", found))


def test_clusters_believe_each_other_from_when_they_are_listed_until_they_are_not(lab):
    until(lab, cluster1=V1, cluster2=V2)

    lab.run("isthmus multicluster trust --contexts=cluster1,cluster2")
    until(lab, cluster1=BOTH, cluster2=BOTH)
    assert findings(lab, "cluster1") == set()

    lab.kubectl("cluster1", "apply -f -", stdin=json.dumps(FROM_CLUSTER2))
    until(lab, cluster1=V2, cluster2=BOTH)
    lab.kubectl("cluster1", "delete -n sample authorizationpolicy from-cluster2")
    until(lab, cluster1=BOTH)

    lab.kubectl("cluster2", "delete -n istio-system configmap isthmus-trust-cluster1")
    until(lab, cluster1=V1, cluster2=V2)
    assert findings(lab, "cluster2") == {"ISM-REG-045"}
