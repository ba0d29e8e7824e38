"""What proxies start from is a certificate's name, key and limits, whoever had signed it."""

import pytest
from cryptography import x509

from isthmus.ca import anchors, pem, refusals, shapes, signing
from isthmus.testing import certificates as material

BELOW = material.intermediate_certificate(trust_domains=("a.local",))


def anchored(certificate):
    (text,) = anchors.of([certificate])
    return x509.load_pem_x509_certificate(text.encode())


def test_an_intermediate_names_itself_and_keeps_name_key_and_limits():
    found = anchored(BELOW)

    assert found.issuer == found.subject == BELOW.subject
    assert found.public_key() == BELOW.public_key()
    assert shapes.limits_of(found) == {"a.local"}
    assert found.not_valid_after_utc == BELOW.not_valid_after_utc


def test_a_root_stays_as_it_is():
    root = material.root_certificate()

    assert anchored(root) == root


def test_equal_certificates_give_equal_bytes_in_any_order():
    both = [BELOW, material.root_certificate()]

    assert anchors.of(both) == anchors.of([*reversed(both), BELOW])


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN CERTIFICATE-----\nAAAA\n"])
def test_what_holds_no_certificate_is_refused(text):
    with pytest.raises(refusals.PemMalformed, match="`file`"):
        anchors.listed(text, file="file")


def test_the_certificate_of_a_workload_vouches_for_nobody():
    signer = material.signer()
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier("spiffe://a/ns/b/sa/c")])
    leaf = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(signer.issuer.certificate.subject)
        .public_key(material.key("leaf").public_key())
        .serial_number(7)
        .not_valid_before(signer.issuer.certificate.not_valid_before_utc)
        .not_valid_after(signer.issuer.certificate.not_valid_after_utc)
        .add_extension(names, critical=True)
    )

    with pytest.raises(refusals.NotAnAuthority, match="serial 7"):
        anchors.listed(pem.written(shapes.signed(leaf, key=signer.issuer.key)), file="f")


def test_a_bundle_is_no_store_of_all_authorities():
    many = [material.root_certificate(f"root{number}") for number in range(anchors.MOST + 1)]

    with pytest.raises(refusals.PemMalformed, match="more than 20"):
        anchors.listed(pem.joined(many), file="f")


# --- chains that others have verified


def chain(by, *, of="root"):
    signer = material.signer(by, of=of)
    leaf = signing.workload(
        material.key("leaf").public_key(),
        identity=material.SLEEP,
        signer=signer,
        stamp=shapes.Stamp(material.NOW, 3),
        life=signing.Lifetimes().usual,
    )
    return (leaf, *signer.chain)


@pytest.mark.parametrize(
    ("listed", "vouches"),
    [
        (material.intermediate_certificate("a"), True),
        (material.root_certificate(), True),
        (material.intermediate_certificate("b"), False),
        (material.root_certificate("other"), False),
    ],
)
def test_an_anchor_vouches_for_what_it_has_signed_itself_or_by_others(listed, vouches):
    assert anchors.vouch(anchors.of([listed]), chain("a")) is vouches


def test_a_leaf_in_a_chain_signs_nothing():
    leaf, *above = chain("a")

    assert not anchors.vouch(anchors.of([material.root_certificate()]), [leaf, leaf])
    assert not anchors.vouch([], [leaf, *above])
    assert not anchors.vouch([anchors.nobody()], [leaf, *above])
