"""What a proxy refuses is said: which proxy, which resource, and why. Everything else goes on."""

import pytest
import traffic

pytestmark = pytest.mark.lab

LISTENERS = "type.googleapis.com/envoy.config.listener.v3.Listener"
TAKEN = """
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: taken, namespace: istio-system}
spec:
  selector: {istio: ingressgateway}
  servers:
  - port: {number: 15021, name: http, protocol: HTTP}
    hosts: ["*"]
"""
"""It does validate; but there the proxy answers the probes of its own health."""


def refusals(mesh):
    """Return what each proxy refuses, and why."""
    return {
        proxy["proxy"].removesuffix(".istio-system").rsplit("-", 2)[0]: (
            type_,
            status["refused"],
            status["lastError"],
        )
        for proxy in mesh.json("isthmus --context cluster1 proxy-status -o json")
        for type_, status in proxy["resources"].items()
        if "lastError" in status
    }


def test_an_object_that_no_proxy_can_use_is_reported_and_disturbs_nothing(mesh):
    with traffic.flowing(mesh, "cluster1") as client:
        mesh.kubectl("cluster1", "apply -f -", stdin=TAKEN)
        try:
            found = traffic.until(lambda: refusals(mesh))
            shown = mesh.attempt("isthmus --context cluster1 proxy-status")
        finally:
            mesh.kubectl("cluster1", "delete gateway -n istio-system taken")
        traffic.until(lambda: not refusals(mesh))

    [(proxy, (type_, names, reason))] = found.items()
    assert (proxy, type_, names) == ("istio-ingressgateway", LISTENERS, ["0.0.0.0_15021"])
    assert "duplicate address" in reason
    assert "istio-ingressgateway" in shown.stderr
    assert "0.0.0.0_15021" in shown.stderr
    assert client.lost == []
