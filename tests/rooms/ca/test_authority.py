import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from isthmus.ca import authority, intermediate, keys, pem, refusals, root, shapes, signing
from isthmus.testing import certificates as material

YEAR = datetime.timedelta(days=365)


def test_root_has_the_makefiles_shape():
    made = material.root_certificate()

    assert pem.subject(made) == "CN=Root CA,O=Istio"
    assert made.not_valid_after_utc - material.NOW == datetime.timedelta(days=3650)
    constraints = made.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (
        True,
        True,
        1,
    )
    made.verify_directly_issued_by(made)


def test_intermediate_has_the_makefiles_shape():
    made = material.intermediate_certificate()

    assert pem.subject(made) == "L=cluster1,CN=Intermediate CA,O=Istio"
    constraints = made.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.path_length) == (True, 0)
    usage = made.extensions.get_extension_for_class(x509.KeyUsage)
    assert usage.critical
    assert usage.value == shapes.AUTHORITY_USAGE
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["istiod.istio-system.svc"]
    made.verify_directly_issued_by(material.root_certificate())


def test_intermediate_ends_no_later_than_its_root():
    made = material.intermediate_certificate(lifetime=20 * YEAR)

    assert made.not_valid_after_utc == material.root_certificate().not_valid_after_utc


def test_an_expired_root_makes_no_intermediate():
    issuer = shapes.Issuer(material.root_certificate(), material.key("root"))

    with pytest.raises(refusals.AuthorityExpired):
        intermediate.build(
            material.key("cluster1").public_key(),
            cluster="cluster1",
            issuer=issuer,
            stamp=shapes.Stamp(material.NOW + 11 * YEAR, 3),
        )


def test_complete_files_make_an_authority():
    made = authority.load(material.files(), now=material.NOW)

    assert made.issuer.key.public_key() == material.key("cluster1").public_key()
    assert [pem.subject(each) for each in made.chain] == [
        "L=cluster1,CN=Intermediate CA,O=Istio",
        "CN=Root CA,O=Istio",
    ]
    assert made.roots_pem == material.files()[authority.ROOTS]
    assert "key=" not in repr(made)


@pytest.mark.parametrize("missing", [*authority.FILES])
def test_a_missing_file_is_named(missing):
    files = {name: text for name, text in material.files().items() if name != missing}

    with pytest.raises(refusals.BundleIncomplete, match="incomplete") as refused:
        authority.load(files, now=material.NOW)

    assert refused.value.detail == f"missing or empty: `{missing}`"
    assert refused.value.code == "ISM-CA-001"


def test_no_files_at_all_is_no_authority_and_never_a_root_of_our_own():
    with pytest.raises(refusals.BundleIncomplete, match="no signing certificate"):
        authority.load({}, now=material.NOW)


def test_an_empty_file_counts_as_missing():
    files = material.files() | {authority.ROOTS: "\n"}

    with pytest.raises(refusals.BundleIncomplete):
        authority.load(files, now=material.NOW)


@pytest.mark.parametrize(
    "name", [authority.CERTIFICATE, authority.ROOTS, authority.CHAIN, authority.KEY]
)
def test_what_is_no_pem_is_refused(name):
    files = material.files() | {name: "not PEM"}

    with pytest.raises(refusals.PemMalformed, match=name):
        authority.load(files, now=material.NOW)


def test_an_encrypted_key_is_refused_and_never_quoted():
    encrypted = (
        material.key("cluster1")
        .private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
        .decode()
    )

    with pytest.raises(refusals.PemMalformed) as refused:
        authority.load(material.files() | {authority.KEY: encrypted}, now=material.NOW)

    assert refused.value.__cause__ is None


def test_another_clusters_key_is_refused():
    files = material.files() | {authority.KEY: keys.private_pem(material.key("cluster2"))}

    with pytest.raises(refusals.KeyMismatch, match=r"ca-key\.pem"):
        authority.load(files, now=material.NOW)


def test_a_root_that_did_not_sign_is_refused():
    files = material.files() | {authority.ROOTS: pem.written(material.root_certificate("other"))}
    files[authority.CHAIN] = files[authority.CERTIFICATE]

    with pytest.raises(refusals.ChainBroken, match="does not lead to a root"):
        authority.load(files, now=material.NOW)


def test_a_chain_without_the_signing_certificate_is_refused():
    files = material.files() | {authority.CHAIN: pem.written(material.root_certificate())}

    with pytest.raises(refusals.ChainBroken, match="does not begin with"):
        authority.load(files, now=material.NOW)


def test_a_chain_that_never_ends_is_refused():
    # Ten authorities, each signed by the next: more than any mesh has.
    names = [f"link{position}" for position in range(10)]
    chain = []
    for lower, upper in zip(names, [*names[1:], "top"], strict=True):
        builder = shapes.authority(
            shapes.name("Istio", lower),
            issuer=shapes.name("Istio", upper),
            key=material.key(lower).public_key(),
            serial=9,
            valid=(material.NOW, material.NOW + YEAR),
            depth=20,
        )
        chain.append(shapes.signed(builder, key=material.key(upper)))
    files = {
        authority.CERTIFICATE: pem.written(chain[0]),
        authority.KEY: keys.private_pem(material.key("link0")),
        authority.ROOTS: pem.written(material.root_certificate()),
        authority.CHAIN: pem.joined(chain),
    }

    with pytest.raises(refusals.ChainBroken, match="does not lead to a root"):
        authority.load(files, now=material.NOW)


@pytest.mark.parametrize(
    ("later", "word"),
    [(datetime.timedelta(days=91), "has expired"), (-YEAR, "is not valid yet")],
)
def test_a_certificate_outside_its_time_is_refused(later, word):
    with pytest.raises(refusals.AuthorityExpired, match=word):
        authority.load(material.files(), now=material.NOW + later)


def test_a_leaf_may_not_sign():
    leaf = signing.workload(
        material.key("leaf").public_key(),
        identity=material.SLEEP,
        signer=material.signer(),
        stamp=shapes.Stamp(material.NOW, 3),
        life=YEAR,
    )
    files = material.files() | {
        authority.CERTIFICATE: pem.written(leaf),
        authority.KEY: keys.private_pem(material.key("leaf")),
    }
    files[authority.CHAIN] = files[authority.CERTIFICATE] + material.files()[authority.CHAIN]

    with pytest.raises(refusals.NotAnAuthority, match="not authorized to sign"):
        authority.load(files, now=material.NOW)


def test_an_authority_below_an_intermediate_is_refused():
    issuer = shapes.Issuer(material.intermediate_certificate(), material.key("cluster1"))
    below = intermediate.build(
        material.key("below").public_key(),
        cluster="below",
        issuer=issuer,
        stamp=shapes.Stamp(material.NOW, 4),
    )
    files = material.files() | {
        authority.CERTIFICATE: pem.written(below),
        authority.KEY: keys.private_pem(material.key("below")),
        authority.CHAIN: pem.joined((below, issuer.certificate)),
    }

    with pytest.raises(refusals.NotAnAuthority) as refused:
        authority.load(files, now=material.NOW)

    assert "path length: 0, authorities below it here: 1" in refused.value.detail


def test_a_certificate_without_constraints_is_no_authority():
    plain = (
        x509.CertificateBuilder()
        .subject_name(shapes.name("Istio", "old"))
        .issuer_name(shapes.name("Istio", "old"))
        .public_key(material.key("old").public_key())
        .serial_number(5)
        .not_valid_before(material.NOW)
        .not_valid_after(material.NOW + YEAR)
    )
    made = shapes.signed(plain, key=material.key("old"))
    files = {
        authority.CERTIFICATE: pem.written(made),
        authority.KEY: keys.private_pem(material.key("old")),
        authority.ROOTS: pem.written(made),
        authority.CHAIN: "",
    }

    with pytest.raises(refusals.NotAnAuthority, match="CN=old"):
        authority.load(files, now=material.NOW)


def test_a_root_may_sign_by_itself_with_an_empty_chain():
    top = material.root_certificate()
    files = {
        authority.CERTIFICATE: pem.written(top),
        authority.KEY: keys.private_pem(material.key("root")),
        authority.ROOTS: pem.written(top),
        authority.CHAIN: "",
    }

    made = authority.load(files, now=material.NOW)

    assert made.chain == ()
    assert made.ends == top.not_valid_after_utc


def test_the_layout_of_tls_secrets_is_read_first():
    below, top = material.intermediate_certificate(), material.root_certificate()
    files = {
        authority.TLS_CERTIFICATE: pem.written(below),
        authority.TLS_KEY: keys.private_pem(material.key("cluster1")),
        authority.TLS_ROOTS: pem.written(top),
        authority.CERTIFICATE: "ignored",
    }

    made = authority.load(files, now=material.NOW)

    assert made.chain == (below, top)


def test_the_layout_of_tls_secrets_can_be_incomplete_too():
    with pytest.raises(refusals.BundleIncomplete, match="incomplete"):
        authority.load({authority.TLS_CERTIFICATE: "x"}, now=material.NOW)


def test_published_sample_material_is_refused(monkeypatch):
    # The real samples carry somebody else's text; a root of our own stands for them here.
    top = pem.fingerprint(material.signer().roots[0])
    monkeypatch.setattr(authority, "SAMPLES", frozenset({top}))
    files = material.files()

    with pytest.raises(refusals.SampleMaterial, match="anybody can sign"):
        authority.load(files, now=material.NOW)


def test_the_published_samples_are_known_by_their_fingerprints():
    assert {len(bytes.fromhex(each.replace(":", ""))) for each in authority.SAMPLES} == {32}
    assert len(authority.SAMPLES) == 2


def test_an_rsa_authority_works():
    key = material.rsa_key(2048)
    top = root.build(key, stamp=shapes.Stamp(material.NOW, 1))
    files = {
        authority.CERTIFICATE: pem.written(top),
        authority.KEY: keys.private_pem(key),
        authority.ROOTS: pem.written(top),
        authority.CHAIN: pem.written(top),
    }

    assert authority.load(files, now=material.NOW).issuer.certificate == top


def test_a_weak_authority_is_refused():
    files = material.files() | {authority.KEY: keys.private_pem(material.rsa_key(1024))}

    with pytest.raises(refusals.KeyRefused, match="RSA 1024 bits"):
        authority.load(files, now=material.NOW)
