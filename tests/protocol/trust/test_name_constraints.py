"""A real Envoy refuses identities that an intermediate may not sign, however it came to sign them.

The signing code is left out on purpose: here somebody has stolen an intermediate's key.
"""

import re
import socket
import ssl

import pytest
from cryptography import x509

from isthmus.base import clock
from isthmus.ca import keys, pem, shapes, signing
from isthmus.mesh import identities
from isthmus.testing import certificates as material
from isthmus.testing import envoys

NOW = clock.SystemClock().now()
OWN, FOREIGN = "one.example", "two.example"
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext"


def identity(domain):
    return identities.SpiffeId(identities.TrustDomain(domain), "sample", "sleep")


def forged(domain, *, limits):
    """Sign a leaf as who holds the intermediate's key could, whatever it is limited to."""
    signer = material.signer(now=NOW, trust_domains=limits)
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(identity(domain)))])
    leaf = signing._leaf(  # around the check that the product makes
        material.key("leaf").public_key(),
        names=names,
        roles=signing.BOTH_ROLES,
        signer=signer,
        stamp=shapes.Stamp(NOW, 7),
        life=signing.Lifetimes().usual,
    )
    return pem.joined((leaf, *signer.chain))


def written(folder, name, text):
    path = folder / name
    path.write_text(text)
    return str(path)


def bootstrap(folder, root):
    key = keys.private_pem(material.key("leaf"))
    certificate = {
        "certificate_chain": {"inline_string": forged(OWN, limits=(OWN,))},
        "private_key": {"inline_string": key},
    }
    tls = {
        "@type": TLS,
        "require_client_certificate": True,
        "common_tls_context": {
            "tls_certificates": [certificate],
            "validation_context": {"trusted_ca": {"inline_string": root}},
        },
    }
    return {
        "admin": {"address": {"pipe": {"path": str(folder / "admin")}}},
        "static_resources": {
            "listeners": [
                {
                    "name": "tls",
                    "address": {"pipe": {"path": str(folder / "tls")}},
                    "filter_chains": [
                        {
                            "filters": [envoys.answering()],
                            "transport_socket": {"name": "tls", "typed_config": tls},
                        }
                    ],
                }
            ]
        },
    }


@pytest.fixture(scope="module")
def envoy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trust")
    root = material.files(now=NOW)["root-cert.pem"]
    with envoys.running(bootstrap(folder, root), directory=folder):
        yield folder


def answer_to(folder, chain):
    """Return the first line that Envoy answers over TLS to who shows a chain of certificates."""
    context = ssl.create_default_context(cadata=material.files(now=NOW)["root-cert.pem"])
    context.check_hostname = False
    context.load_cert_chain(
        written(folder, "chain.pem", chain),
        written(folder, "key.pem", keys.private_pem(material.key("leaf"))),
    )
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(str(folder / "tls"))
        with context.wrap_socket(raw) as wire:
            wire.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            return wire.recv(100).split(b"\r\n")[0].decode()


def unverified(folder):
    """Return how many handshakes Envoy has ended because a certificate cannot be trusted."""
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(folder / "admin"))
        raw.sendall(
            b"GET /stats?filter=fail_verify_error HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        told = b"".join(iter(lambda: raw.recv(4096), b"")).decode()
    return sum(int(each) for each in re.findall(r"ssl\.fail_verify_error: (\d+)", told))


def test_an_identity_of_the_permitted_trust_domain_gets_in(envoy):
    assert answer_to(envoy, forged(OWN, limits=(OWN,))) == "HTTP/1.1 200 OK"


def test_without_a_limit_any_identity_gets_in(envoy):
    """So that the refusal below is the limit's doing and nothing else's."""
    assert answer_to(envoy, forged(FOREIGN, limits=())) == "HTTP/1.1 200 OK"


@pytest.mark.parametrize("domain", [FOREIGN, f"sub.{OWN}", "example"])
def test_an_identity_of_another_trust_domain_is_refused(envoy, domain):
    before = unverified(envoy)

    with pytest.raises((ssl.SSLError, ConnectionError)):
        answer_to(envoy, forged(domain, limits=(OWN,)))

    assert unverified(envoy) == before + 1
