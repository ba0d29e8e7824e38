"""Which Secrets make a certificate that a gateway may show."""

import base64

import pytest

from isthmus.ca import pem, refusals, served
from isthmus.testing import certificates

CHAIN = pem.written(certificates.root_certificate())
KEY = certificates.files(of="root")["ca-key.pem"]


def coded(**texts):
    names = {"crt": "tls.crt", "key": "tls.key", "ca": "ca.crt", "crl": "ca.crl"}
    return {
        names.get(name, name): base64.b64encode(text.encode()).decode()
        for name, text in texts.items()
    }


def own_pair():
    found = certificates.files("cluster1")
    return {"crt": found["ca-cert.pem"], "key": found["ca-key.pem"]}


def test_a_certificate_and_its_key_are_a_pair():
    pair = served.pair_of(coded(**own_pair()))

    assert pair.key_pem == own_pair()["key"]
    assert "PRIVATE" not in repr(pair)


def test_the_other_spelling_is_taken_as_well():
    usual = coded(**own_pair())
    other = {"cert": usual["tls.crt"], "key": usual["tls.key"]}

    assert served.pair_of(other) == served.pair_of(usual)


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({}, refusals.BundleIncomplete),
        ({"crt": CHAIN}, refusals.BundleIncomplete),
        ({"crt": CHAIN, "key": KEY}, refusals.KeyMismatch),
        ({"crt": "no", "key": KEY}, refusals.PemMalformed),
        ({"crt": CHAIN, "key": "no"}, refusals.PemMalformed),
    ],
)
def test_what_is_no_pair_is_refused(broken, why):
    with pytest.raises(why):
        served.pair_of(coded(**broken))


def test_what_is_no_base64_is_refused_and_not_repeated():
    with pytest.raises(refusals.PemMalformed) as caught:
        served.pair_of({"tls.crt": "c2VjcmV0", "tls.key": "§secret§"})

    assert "secret" not in f"{caught.value.happened}{caught.value.detail}"


def test_a_list_of_revoked_certificates_that_cannot_be_read_is_refused():
    assert served.authorities_of(coded(ca=CHAIN)).roots_pem == CHAIN
    with pytest.raises(refusals.PemMalformed):
        served.authorities_of(coded(ca=CHAIN, crl="no"))
    with pytest.raises(refusals.BundleIncomplete):
        served.authorities_of({})
