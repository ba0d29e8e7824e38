"""Links between clusters without sidecars, under load: nothing that could be answered is lost."""

import contextlib

import pytest
import traffic

pytestmark = pytest.mark.lab

HOST = "helloworld.sample.mesh.internal"
LINK = "gateways.gateway.networking.k8s.io -n istio-gateways istio-remote-cluster2"


def connected(ambient):
    """Return what cluster1 says of how it hears cluster2."""
    found = ambient.json_of("cluster1", LINK).get("status", {}).get("conditions", ())
    return next((one for one in found if one["type"] == "Connected"), {"status": ""})


def until_heard(ambient):
    traffic.until(lambda: connected(ambient)["status"] == "True")


def restarted(ambient, cluster):
    """Start the control plane of a cluster anew, and wait until it knows who is linked."""
    ambient.kubectl(cluster, "-n istio-system delete pod -l app=istiod")
    ambient.kubectl(cluster, "-n istio-system rollout status deploy istiod --timeout=300s")
    rows = "isthmus remote-clusters -o json --context"
    traffic.until(lambda: any(one.get("fromSnapshot") for one in ambient.json(f"{rows} {cluster}")))


@contextlib.contextmanager
def without_own_copy(ambient):
    """Let others answer cluster1."""
    scale = "-n sample scale deploy helloworld-v1 --replicas"
    ambient.kubectl("cluster1", f"{scale}=0")
    try:
        yield
    finally:
        ambient.kubectl("cluster1", f"{scale}=1")
        pods = "-n sample rollout status deploy helloworld-v1 --timeout=300s"
        ambient.kubectl("cluster1", pods)


@contextlib.contextmanager
def silent(ambient, cluster):
    """Let a cluster have no control plane."""
    istiod = "-n istio-system scale deploy istiod --replicas"
    ambient.kubectl(cluster, f"{istiod}=0")
    try:
        traffic.until(lambda: connected(ambient)["status"] == "False")
        yield
    finally:
        ambient.kubectl(cluster, f"{istiod}=1")
        until_heard(ambient)


def test_nothing_is_lost_while_control_planes_come_and_go(ambient):
    with (
        without_own_copy(ambient),
        traffic.flowing(ambient, "cluster1", host=HOST, by=["v1", "v2"]) as client,
    ):
        with silent(ambient, "cluster2"):
            assert "which goes on counting: 1 services" in connected(ambient)["message"]
            client.until_answered_by(["v1", "v2"], on_new_connections=True)

            restarted(ambient, "cluster1")
            assert "which goes on counting: 1 services" in connected(ambient)["message"]
            client.goes_on(requests=100)
            client.until_answered_by(["v1", "v2"], on_new_connections=True)

        for cluster in ("cluster1", "cluster2"):
            ambient.kubectl(cluster, "-n istio-system delete pod -l app=istiod --wait=false")
        ambient.kubectl("cluster1", "-n istio-system rollout status deploy istiod --timeout=300s")
        client.goes_on(requests=200)
        until_heard(ambient)
        client.until_answered_by(["v1", "v2"], on_new_connections=True)

    assert not client.lost, client


def test_links_come_and_go_without_a_loss(ambient):
    pair = "--from cluster1 --to cluster2"
    with (
        without_own_copy(ambient),
        traffic.flowing(ambient, "cluster1", host=HOST, by=["v1", "v2"]) as client,
    ):
        ambient.run(f"isthmus multicluster unlink {pair}")
        client.until_answered_by(["v1"], on_new_connections=True)  # That of cluster3.
        said = ambient.run(f"isthmus multicluster link {pair}")
        client.until_answered_by(["v1", "v2"])
        again = ambient.run("isthmus multicluster link --contexts=cluster1,cluster2,cluster3")

    assert said == "✔ cluster1 hears cluster2\n"
    assert len(again.splitlines()) == 6
    assert not client.lost, client


def test_links_are_listed_with_how_well_they_are_heard(ambient):
    rows = ambient.json("isthmus remote-clusters --context cluster1 -o json")
    found = {one["id"]: (one["syncStatus"], one.get("link", "")) for one in rows}

    assert found == {
        "cluster1": ("synced", ""),
        "cluster2": ("linked", "istio-gateways/istio-remote-cluster2"),
        "cluster3": ("linked", "istio-gateways/istio-remote-cluster3"),
    }
