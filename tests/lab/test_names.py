"""Names that exist only in another cluster: unknown to its DNS, answered beside the proxy."""

import naming
import pytest
import traffic

pytestmark = pytest.mark.lab

UNRESOLVED = 6
"""Exit code of curl for a name that nobody knows."""

CALLER = f"spiffe://cluster.local/ns/{naming.NAMESPACE}/sa/{naming.CLIENT}"
FULL = f"{naming.SERVER}.{naming.NAMESPACE}.svc.cluster.local"
DECLARED = "far.machines.local"
"""A host of a ServiceEntry; no cluster has a Service of that name."""

FORMS = (naming.SERVER, f"{naming.SERVER}.{naming.NAMESPACE}", FULL, DECLARED)


@pytest.fixture(scope="module")
def far(mesh):
    """A server in the second cluster alone, and a client in the first that asks its DNS."""
    there = [
        *naming.server(),
        *naming.service(naming.HTTP, naming.TCP),
        *naming.service(naming.SAME, name="headless", clusterIP="None"),
    ]
    here = [*naming.client({}), naming.entry(DECLARED, naming.HTTP, naming.TCP)]
    with naming.there(mesh, {"cluster1": here, "cluster2": there}):
        yield mesh


def capture(mesh, metadata):
    """Have the client restarted with an agent that answers for names."""
    naming.apply(mesh, "cluster1", naming.client(metadata))
    mesh.kubectl(
        "cluster1", f"rollout status -n {naming.NAMESPACE} deploy/{naming.CLIENT} --timeout=300s"
    )
    traffic.until(lambda: naming.called(mesh, "http://far/hello")[0] == 0)


def test_a_name_of_another_cluster_is_known_only_with_an_agent_that_answers(far):
    assert naming.called(far, f"http://{FULL}/hello")[0] == UNRESOLVED

    for metadata in (naming.CAPTURED, naming.ALLOCATED):
        capture(far, metadata)
        mark = f"names-{len(metadata)}"
        urls = [f"http://{form}{port}/hello" for form in FORMS for port in ("", ":9000")]
        for url in urls:
            code, told = naming.called(far, url, mark=mark)
            assert (code, told[:18]) == (0, "Hello version: v2,"), (url, told)

        calls = naming.arrivals(far, "cluster2", mark, at_least=len(urls))
        assert len(calls) == len(urls)
        assert {call["peer"] for call in calls} == {CALLER}
        assert {call["tls_version"] for call in calls} == {"TLSv1.3"}
        assert {call["requested_server_name"] for call in calls} == {
            f"outbound_.{port}_._.{host}" for port in (80, 9000) for host in (FULL, DECLARED)
        }

    # Its pods are on another network: their addresses would lead nowhere.
    assert naming.called(far, "http://headless:5000/hello")[0] == UNRESOLVED
    # What only the cluster's own DNS knows, and what nobody knows.
    own = "http://nowhere.example.com/"
    assert naming.called(far, own)[0] == UNRESOLVED
    counted = naming.called(far, "http://127.0.0.1:15020/stats/prometheus")[1]
    figures = dict(
        line.split() for line in counted.splitlines() if line.startswith("istio_agent_dns")
    )
    assert float(figures["istio_agent_dns_requests_total"]) >= 12
    assert float(figures["istio_agent_dns_upstream_requests_total"]) > 0
    assert figures["istio_agent_dns_upstream_failures_total"] == "0"
