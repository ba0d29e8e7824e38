"""The story of a call, as people read it."""

import pytest

from isthmus.cli import explain
from isthmus.runtime import explaining
from isthmus.testing import builders

ROOT = {
    "subject": "O=Istio,CN=Root CA",
    "sha256": "ab" * 32,
    "notAfter": "2036-01-01T00:00:00+00:00",
}


def told(mesh, call="web:80"):
    pod = mesh.proxy("east/client").pod
    scopes = mesh.scopes_of(pod)
    proxy = mesh.graph.get(mesh.views.proxies, pod.connection)
    explainer = explaining.Explainer(mesh, authority=lambda: None)
    return explainer.explained(proxy, scopes, call=call)


def two_networks():
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n2")
    west.gateway(external="172.30.0.9")
    mesh.expose_services()
    east.service("web", ready=["10.0.0.1"], unready=["10.0.0.3"])
    west.service("web", ready=["10.1.0.1", "10.1.0.2"])
    return mesh


def test_the_story_is_told_in_the_order_in_which_things_are_decided():
    document = told(two_networks())
    document["certificates"] |= {"roots": [ROOT], "own": None}

    assert (
        "\n".join(explain.story(document))
        == """\
client.default in east (n1) calls web:80

name         web.default.svc.cluster.local
address      10.96.0.1 here; 10.96.0.2 in west
listener     0.0.0.0_80 (HTTP)
route        80, web.default.svc.cluster.local:80

cluster      outbound|80||web.default.svc.cluster.local
             EDS, ROUND_ROBIN

ENDPOINT     CLUSTER  SHARE  WHY
10.0.0.1:80  east       34%  preferred
10.1.0.1:80  west       33%  hidden behind 172.30.0.9:15443 of n2
10.1.0.2:80  west       33%  hidden behind 172.30.0.9:15443 of n2
10.0.0.3:80  east         -  excluded: its cluster says that it is not ready

encryption   mutual TLS
sni          outbound_.80_._.web.default.svc.cluster.local
expects      spiffe://cluster.local/ns/default/sa/default
accepted     PERMISSIVE, by default
allowed      yes: no AuthorizationPolicy holds there

caller       spiffe://cluster.local/ns/default/sa/default
root         O=Istio,CN=Root CA
             sha256 abababababababab…, until 2036-01-01T00:00:00Z"""
    )


def test_no_line_is_longer_than_a_terminal():
    mesh = two_networks()
    mesh.clusters["east"].service("a-service-with-quite-a-long-name-for-a-test", ready=["10.0.0.9"])
    routes = [
        {"match": [{"uri": {"prefix": f"/{number}"}}], "route": [{"destination": {"host": "web"}}]}
        for number in range(3)
    ]
    mesh.virtual_service("split", {"hosts": ["web"], "http": routes})
    mesh.authorization_policy("nobody", {"action": "ALLOW"})

    for call in ("web", "a-service-with-quite-a-long-name-for-a-test.default.svc.cluster.local"):
        assert max(map(len, explain.story(told(mesh, call)))) <= 80


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ([1 / 3, 1 / 3, 1 / 3], [34, 33, 33]),
        ([0.5, 0.5], [50, 50]),
        ([0.004, 0.996], [0, 100]),
        ([0.0, 0.0], [0, 0]),
        ([], []),
    ],
)
def test_percents_add_up(shares, expected):
    assert explain.percents(shares) == expected


def test_a_call_that_nobody_would_answer_is_told_by_the_exit_status():
    mesh = two_networks()
    assert explain.is_answered(told(mesh))

    mesh.authorization_policy("nobody", {"action": "ALLOW"})
    assert not explain.is_answered(told(mesh))


def test_a_rule_that_leads_nowhere_is_told():
    mesh = two_networks()
    route = {"route": [{"destination": {"host": "web", "subset": "gone"}}]}
    mesh.virtual_service("split", {"hosts": ["web"], "http": [route]})
    document = told(mesh)

    text = "\n".join(explain.story(document))

    assert "by VirtualService split.default" in text
    assert "BlackHoleCluster" in text
    assert not explain.is_answered(document)


@pytest.mark.parametrize(
    ("tls", "trusts", "expects"),
    [
        ({}, "the operating system's authorities", "api.example.com"),
        ({"caCertificates": "/ca.pem", "subjectAltNames": ["a"]}, "/ca.pem", "a"),
        ({"insecureSkipVerify": True}, "anybody: the rule skips verifying", "any name"),
    ],
)
def test_tls_that_the_proxy_starts_is_told(tls, trusts, expects):
    mesh = two_networks()
    mesh.clusters["east"].pod("client")
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    entry = {"hosts": ["api.example.com"], "ports": ports, "resolution": "DNS"}
    mesh.service_entry("api", entry)
    policy = {"tls": {"mode": "SIMPLE", **tls}}
    mesh.destination_rule("api", {"host": "api.example.com", "trafficPolicy": policy})
    document = told(mesh, "api.example.com:80")
    document["certificates"] |= {"roots": [ROOT], "own": None}

    assert f"""\
encryption   TLS of the server's own, started by the proxy
sni          api.example.com
trusts       {trusts}
expects      {expects}""" in "\n".join(explain.story(document))
