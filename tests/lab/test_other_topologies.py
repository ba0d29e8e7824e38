"""Other ways to join clusters, each by its walkthrough's own commands."""

import contextlib

import meshes
import pytest

pytestmark = pytest.mark.lab


EVERY_PAIR = {
    ("cluster1", "cluster1"), ("cluster1", "cluster2"),
    ("cluster2", "cluster1"), ("cluster2", "cluster2"),
}  # fmt: skip


@contextlib.contextmanager
def joined(topology):
    lab = meshes.MeshLab(as_ordinary_user=True)
    try:
        lab.boot(topology)
        yield lab
    finally:
        lab.close()


def verified(lab, *, is_direct):
    """Hold what every topology ends with: answers, identities and encryption, near and far."""
    report = lab.json("isthmus verify --requests 100 -o json")
    assert report["is_well"], report["findings"]
    assert {(row["source"], row["cluster"]) for row in report["rows"]} == EVERY_PAIR
    assert all(0.3 <= row["share"] <= 0.7 for row in report["rows"])
    assert all(row["encrypted"] for row in report["rows"])
    callers = {caller for row in report["rows"] for caller in row["callers"]}
    assert callers == {"spiffe://cluster.local/ns/sample/sa/sleep"}
    across = [row["path"] for row in report["rows"] if row["source"] != row["cluster"]]
    assert all((path == "direct") == is_direct for path in across), across


@pytest.mark.parametrize(
    ("topology", "is_direct"), [("multi-primary", True), ("multi-primary-multi-network", False)]
)
def test_two_control_planes_see_both_clusters(topology, is_direct):
    with joined(topology) as lab:
        clusters = lab.json("isthmus --context cluster2 remote-clusters -o json")

        verified(lab, is_direct=is_direct)
    assert {one["id"] for one in clusters} == {"cluster1", "cluster2"}


def test_a_cluster_that_injects_by_itself_discovers_through_the_ingress_gateway_of_another():
    with joined("primary-remote-shared-network") as lab:
        [slice_] = lab.json_of(
            "cluster2", "endpointslices -n istio-system -l kubernetes.io/service-name=istiod-remote"
        )["items"]
        ingress = lab.json_of("cluster1", "svc istio-ingressgateway -n istio-system")
        proxies = lab.run("isthmus --context=cluster1 proxy-status")

        verified(lab, is_direct=True)
    [address] = ingress["status"]["loadBalancer"]["ingress"]
    assert slice_["endpoints"][0]["addresses"] == [address["ip"]]
    assert {line.split()[1] for line in proxies.splitlines()[1:]} == {"cluster1", "cluster2"}
