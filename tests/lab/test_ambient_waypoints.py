"""A waypoint in one of three clusters: its own clients pass it, and those of other networks do too."""

import json

import pytest
import test_ambient_mesh
import traffic
from test_ambient_mesh import HOST, LOCAL

pytestmark = pytest.mark.lab

POLICY = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "readers", "namespace": "sample"},
    "spec": {
        "targetRefs": [{"kind": "Service", "group": "", "name": "helloworld"}],
        "rules": [
            {
                "from": [{"source": {"principals": ["cluster.local/ns/sample/sa/sleep"]}}],
                "to": [{"operation": {"methods": ["GET"], "paths": ["/hello"]}}],
            }
        ],
    },
}


@pytest.fixture
def waypoint(ambient):
    """Put a waypoint before `helloworld` of cluster3."""
    ambient.kubectl("cluster3", "apply -f -", stdin=json.dumps(POLICY))
    ambient.run("isthmus waypoint apply --context cluster3 -n sample --wait")
    ambient.kubectl("cluster3", "-n sample label svc helloworld istio.io/use-waypoint=waypoint")
    yield
    ambient.kubectl("cluster3", "-n sample label svc helloworld istio.io/use-waypoint-")
    ambient.kubectl("cluster3", "delete -f - --wait=false", stdin=json.dumps(POLICY))
    ambient.run("isthmus waypoint delete --context cluster3 -n sample waypoint")
    traffic.until(lambda: status(ambient, "cluster3", HOST, "nope") == "404")


def status(ambient, cluster, host, path):
    """Return with what a client is answered."""
    ended = ambient.attempt(
        f"{ambient.kubectl_program} --context {cluster} exec -n sample -c sleep deploy/sleep --"
        f" curl -sS -m 20 -o /dev/null -w '%{{http_code}}' http://{host}:5000/{path}"
    )
    return ended.stdout.strip()


def test_requests_are_judged_at_the_waypoint_also_those_of_other_networks(ambient, waypoint):
    traffic.until(lambda: status(ambient, "cluster3", LOCAL, "nope") == "403")
    assert status(ambient, "cluster3", LOCAL, "hello") == "200"
    assert status(ambient, "cluster3", HOST, "nope") == "403"
    assert status(ambient, "cluster1", HOST, "nope") == "404"

    without = test_ambient_mesh.without_own_copy
    with without(ambient, "cluster1"), without(ambient, "cluster2"):
        traffic.until(lambda: status(ambient, "cluster1", HOST, "nope") == "403")
        assert status(ambient, "cluster1", HOST, "hello") == "200"
