"""Two clusters, two networks, one mesh: what the demo promises, on real Envoys."""

import pytest

pytestmark = pytest.mark.lab


def test_every_request_is_answered_by_both_clusters_over_mutual_tls(mesh):
    report = mesh.json("isthmus verify --requests 200 -o json")
    shares = {(row["source"], row["version"]): row["share"] for row in report["rows"]}

    assert report["is_well"], report["findings"]
    assert report["requests"] == 400
    assert set(shares) == {
        ("cluster1", "v1"), ("cluster1", "v2"), ("cluster2", "v1"), ("cluster2", "v2"),
    }  # fmt: skip
    assert all(0.35 <= share <= 0.65 for share in shares.values()), shares


def test_destinations_see_the_identity_of_the_caller_also_across_networks(mesh):
    report = mesh.json("isthmus verify --requests 20 -o json")

    assert {tuple(row["callers"]) for row in report["rows"]} == {
        ("spiffe://cluster.local/ns/sample/sa/sleep",)
    }
    assert all(row["encrypted"] for row in report["rows"])


def test_requests_to_another_network_go_through_its_gateway_and_others_go_directly(mesh):
    report = mesh.json("isthmus verify --requests 20 -o json")
    paths = {(row["source"], row["cluster"]): row["path"] for row in report["rows"]}

    assert paths["cluster1", "cluster1"] == paths["cluster2", "cluster2"] == "direct"
    assert paths["cluster1", "cluster2"].endswith(":15443")
    assert paths["cluster2", "cluster1"].endswith(":15443")


def test_gateways_refuse_plain_text(mesh):
    report = mesh.json("isthmus verify --requests 20 -o json")

    assert len(report["refused_plaintext"]) == 2


def test_every_proxy_has_accepted_what_it_was_sent(mesh):
    proxies = mesh.json("isthmus --context cluster1 proxy-status -o json")

    assert len(proxies) == 7
    for proxy in proxies:
        for type_, status in proxy["resources"].items():
            assert status["sent"] == status["acked"], (proxy["proxy"], type_, status)
            assert not status.get("lastError")
