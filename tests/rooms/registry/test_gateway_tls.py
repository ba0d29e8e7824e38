"""What a Gateway object may say of TLS that ends at a gateway: never more is let in than it says."""

import pytest

from isthmus.kube import objects
from isthmus.mesh.policies import ServerTls, TlsVersion
from isthmus.registry import config, fields, gateway_objects

ORIGIN = config.Origin("Gateway", "ns", "g", "cluster.local")


def read(**tls):
    server = objects.GatewayServer(
        port=objects.GatewayPort(number=443, name="https", protocol="HTTPS"),
        hosts=("a.example.com",),
        tls=objects.GatewayTls(**{"mode": "SIMPLE", "credential_name": "shop", **tls}),
    )
    problems = fields.Problems()
    found = objects.Gateway(objects.Metadata(name="g"), objects.GatewaySpec(servers=(server,)))
    gateway = gateway_objects.read(ORIGIN, found, problems)
    return (gateway.servers[0] if gateway else None), problems.texts()


def test_all_that_is_understood_is_kept():
    server, problems = read(
        mode="MUTUAL",
        credential_name="kubernetes://shop",
        min_protocol_version="TLS_AUTO",
        max_protocol_version="TLSV1_2",
        cipher_suites=["ECDHE-RSA-AES256-GCM-SHA384"],
    )

    assert (server.tls, server.credential) == (ServerTls.MUTUAL, "shop")
    assert (server.limits.lowest, server.limits.highest) == (TlsVersion.TLSV1_2,) * 2
    assert server.limits.ciphers == ("ECDHE-RSA-AES256-GCM-SHA384",)
    assert problems == ()


@pytest.mark.parametrize(
    ("tls", "field"),
    [
        ({"credential_name": None}, "credentialName"),
        ({"credential_name": ""}, "credentialName"),
        ({"credential_name": {"a": 1}}, "credentialName"),
        ({"credential_name": "other/shop"}, "credentialName"),
        ({"credential_name": "../shop"}, "credentialName"),
        ({"min_protocol_version": "TLSV9"}, "minProtocolVersion"),
        ({"min_protocol_version": ["TLSV1_2"]}, "minProtocolVersion"),
        ({"min_protocol_version": "TLSV1_3", "max_protocol_version": "TLSV1_2"}, "minProtocol"),
        ({"cipher_suites": ["NONE"]}, "cipherSuites"),
        ({"cipher_suites": "ECDHE-RSA-AES256-GCM-SHA384"}, "cipherSuites"),
        ({"subject_alt_names": ["a"]}, "more clients"),
        ({"verify_certificate_hash": ["a"]}, "more clients"),
        ({"ca_crl": "/etc/crl"}, "more clients"),
    ],
)
def test_what_is_not_understood_takes_the_server_away(tls, field):
    server, problems = read(**tls)

    assert server is None
    assert any(field in one for one in problems)


def test_a_cipher_that_proxies_do_not_know_would_cost_the_listener_and_is_left_out():
    server, problems = read(cipher_suites=["AES128-SHA", "RC4", 7, "AES128-SHA"])

    assert server.limits.ciphers == ("AES128-SHA",)
    assert [one.partition("do not know")[2][:5] for one in problems] == [" `RC4", " `7`:"]
