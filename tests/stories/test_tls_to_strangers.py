"""Rules make proxies start TLS to servers outside of the mesh: YAML goes in, decisions come out."""

import pytest

from isthmus.resources import snapshot
from isthmus.testing import builders, envoys, shapes

SOCKET = "envoy.transport_sockets.tls"


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    mesh.cluster("east", network="n1").pod("client")
    outside = mesh.cluster("outside", network="internet")
    outside.pod("api", shape=shapes.Shape(proxy=None), external=("203.0.113.7", "api.example.com"))
    ports = [
        {"number": 80, "name": "http", "protocol": "HTTP", "targetPort": 443},
        {"number": 443, "name": "tls", "protocol": "TLS"},
    ]
    mesh.service_entry("api", {"hosts": ["api.example.com"], "ports": ports, "resolution": "DNS"})
    return mesh


def rule(mesh, tls, **more):
    mesh.destination_rule("api", {"host": "api.example.com", "trafficPolicy": {"tls": tls, **more}})


def only_landing(mesh, url):
    (landing,) = mesh.proxy("east/client").calls(url).landings
    return landing


def test_calls_of_plain_http_leave_as_tls_that_asks_for_the_host(mesh):
    assert not only_landing(mesh, "http://api.example.com/").starts_tls

    rule(mesh, {"mode": "SIMPLE"})

    found = only_landing(mesh, "http://api.example.com/")
    assert (found.starts_tls, found.sni) == (True, "api.example.com")


def test_ports_differ_by_their_own_settings(mesh):
    one = {"port": {"number": 80}, "tls": {"mode": "SIMPLE"}}
    rule(mesh, {"mode": "DISABLE"}, portLevelSettings=[one])

    assert only_landing(mesh, "http://api.example.com/").starts_tls
    assert not only_landing(mesh, "tls://api.example.com:443").starts_tls


@pytest.mark.parametrize("mode", ["SIMPLE", "MUTUAL"])
def test_no_rule_whose_files_are_wrong_sends_plain_text(mesh, mode):
    rule(mesh, {"mode": mode, "clientCertificate": "/a", "caCertificates": "a~b", "sni": "\0"})

    assert only_landing(mesh, "http://api.example.com/").starts_tls


def test_proxies_are_told_names_of_files_and_never_what_is_in_them(mesh):
    files = {"clientCertificate": "/c", "privateKey": "/k", "caCertificates": "/r"}
    rule(mesh, {"mode": "MUTUAL", **files})

    told = mesh.snapshot_of(mesh.proxy("east/client").pod).of(snapshot.CLUSTERS)
    said = str(envoys.as_json(envoys.decoded(told["outbound|80||api.example.com"])))
    assert "'file-cert:/c~/k'" in said
    assert "'file-root:/r'" in said


def test_a_service_of_the_mesh_may_be_asked_in_tls_of_its_own(mesh):
    east = mesh.clusters["east"]
    east.service("web", ready=["10.0.0.1"], shape=shapes.Shape(proxy=None))
    mesh.destination_rule("web", {"host": "web", "trafficPolicy": {"tls": {"mode": "SIMPLE"}}})

    found = only_landing(mesh, "http://web.default/")
    assert (found.starts_tls, found.is_encrypted) == (True, False)
