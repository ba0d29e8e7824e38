"""A linked cluster's credential is rotated, it is switched off and on, its API server goes away.

In each story a client in cluster1 sends requests at a constant rate to `helloworld`, whose v1 is in
cluster1 and whose v2 is in cluster2. No request is lost.
"""

import contextlib
import json
import time

import pytest
import traffic
from test_traffic_under_change import (
    GONE_WITHIN_S,
    LONGEST_ABSENCE,
    absence_of,
    afterwards,
    connected,
    removals,
)

from isthmus.testing import pace

pytestmark = [pytest.mark.lab, pytest.mark.parametrize("mesh", ["ordinary"], indirect=True)]

SYSTEM = "istio-system"
SECRET = "istio-remote-secret-cluster2"  # noqa: S105, RUF100  # a name
ROTATE = "isthmus rotate-remote-secret --context=cluster2 --name=cluster2"


def seen(mesh):
    """Return what the control plane says of cluster2, or nothing while there is none."""
    ended = mesh.attempt("isthmus remote-clusters --context cluster1 -o json")
    rows = json.loads(ended.stdout) if ended.returncode == 0 else []
    return next((one for one in rows if one["id"] == "cluster2"), {})


def anchors(mesh):
    """Return the Secrets in cluster2 that tokens are bound to."""
    selector = "isthmus.dev/remote-token=cluster2"
    found = mesh.json_of("cluster2", f"secret -n {SYSTEM} -l {selector}")["items"]
    return [one["metadata"]["name"] for one in found]


def test_a_credential_is_rotated_again_and_again(mesh):
    with traffic.flowing(mesh, "cluster1", "cluster2") as clients:
        began = time.time()
        for _ in range(2):
            mesh.run(f"{ROTATE} --to-context=cluster1 --duration=1h")
        for client in clients:
            client.goes_on()

    assert all(client.lost == [] for client in clients), clients
    assert all(absence_of("v2", one.since(began)) < LONGEST_ABSENCE for one in clients)
    assert len(anchors(mesh)) == 1
    assert seen(mesh)["tokenExpires"]


def annotate(mesh, text):
    mesh.kubectl("cluster1", f"annotate secret -n {SYSTEM} {SECRET} {text} --overwrite")


def test_a_disabled_cluster_is_gone_within_5_s_and_comes_back(mesh):
    everybody = connected(mesh)
    with traffic.flowing(mesh, "cluster1") as client:
        with afterwards(lambda: annotate(mesh, "isthmus.dev/disabled-")):
            annotate(mesh, "isthmus.dev/disabled=true")
            client.until_answered_by({"v1"}, limit_s=pace.promised(GONE_WITHIN_S))
            status = seen(mesh)["syncStatus"]
            client.goes_on()
        client.until_answered_by({"v1", "v2"})
        traffic.until(lambda: connected(mesh) == everybody)

    assert client.lost == []
    assert status == "closed"


@contextlib.contextmanager
def api_server_away(mesh):
    """Let cluster2's API server take connections and never answer."""
    words = f"--cluster cluster2 --name {mesh.name}"
    with afterwards(lambda: mesh.run(f"isthmus lab api-server start {words}")):
        mesh.run(f"isthmus lab api-server stop {words} --mode hang")
        yield


def test_a_control_plane_that_starts_without_a_remote_api_server_knows_what_was_known(mesh):
    everybody, given_up = connected(mesh), removals(mesh)
    traffic.until(lambda: kept(mesh))
    with traffic.flowing(mesh, "cluster1") as client:
        began = time.time()
        with api_server_away(mesh):
            old = traffic.pod_of(mesh, "cluster1", SYSTEM, "istiod")
            mesh.kubectl("cluster1", f"delete pod -n {SYSTEM} {old} --wait=false")
            ours = {one for one in everybody if is_in(mesh, "cluster1", one)}
            traffic.until(lambda: connected(mesh) >= ours)
            shown = seen(mesh)
            client.goes_on()
        traffic.until(
            lambda: seen(mesh).get("syncStatus") == "synced" and connected(mesh) == everybody
        )

    assert (shown["known"], shown["fromSnapshot"], shown["ageSeconds"] > 0) == (True, True, True)
    assert client.lost == []
    assert absence_of("v2", client.since(began)) < LONGEST_ABSENCE
    assert removals(mesh) == given_up


def kept(mesh):
    """Whether a snapshot of cluster2 is there."""
    found = mesh.json_of("cluster1", f"configmap -n {SYSTEM} -l isthmus.dev/remote-snapshot=true")
    return [one for one in found["items"] if one.get("binaryData")]


def is_in(mesh, cluster, proxy):
    name, _, namespace = proxy.partition(".")
    return (
        mesh.attempt(
            f"{mesh.kubectl_program} --context {cluster} get pod -n {namespace} {name}"
        ).returncode
        == 0
    )
