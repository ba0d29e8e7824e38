import base64
import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from isthmus.ca import keys, pem, refusals, renewal, shapes, signing
from isthmus.testing import certificates as material

DAY = datetime.timedelta(days=1)
STAMP = shapes.Stamp(material.NOW, 77)


def signed(**changed):
    signer = changed.pop("signer", None) or material.signer()
    wanted = {"identity": material.SLEEP, "stamp": STAMP, "life": DAY} | changed
    return signing.workload(material.key("leaf").public_key(), signer=signer, **wanted)


def test_a_leaf_carries_the_proven_identity_and_nothing_else():
    leaf = signed()

    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.critical
    assert list(names.value) == [
        x509.UniformResourceIdentifier("spiffe://cluster.local/ns/sample/sa/sleep")
    ]
    assert not leaf.subject.rdns
    assert leaf.serial_number == 77
    assert leaf.version is x509.Version.v3


def test_a_leaf_is_backdated_and_lives_as_long_as_asked():
    leaf = signed()

    assert material.NOW - leaf.not_valid_before_utc == datetime.timedelta(minutes=2)
    assert leaf.not_valid_after_utc == material.NOW + DAY


def test_a_leaf_ends_no_later_than_its_issuer():
    assert signed(life=1000 * DAY).not_valid_after_utc == material.signer().ends


def test_an_expired_issuer_signs_nothing():
    with pytest.raises(refusals.AuthorityExpired):
        signed(stamp=shapes.Stamp(material.NOW + 91 * DAY, 1))


def test_only_the_key_of_a_request_counts():
    request = material.request(
        extensions=[
            x509.SubjectAlternativeName(
                [x509.UniformResourceIdentifier("spiffe://cluster.local/ns/other/sa/admin")]
            ),
            x509.BasicConstraints(ca=True, path_length=None),
        ],
        subject=x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "cluster.local")]),
    )

    key = signing.requested_key(request)

    assert key == material.key("leaf").public_key()


def test_a_request_that_another_key_signed_is_refused():
    genuine = x509.load_pem_x509_csr(material.request().encode())
    der = bytearray(genuine.public_bytes(serialization.Encoding.DER))
    der[-1] ^= 1
    forged = to_pem(bytes(der))

    with pytest.raises(refusals.RequestRefused, match="not signed by its own key"):
        signing.requested_key(forged)


@pytest.mark.parametrize(
    "text", ["", "nonsense", "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE"]
)
def test_a_request_that_cannot_be_read_is_refused(text):
    with pytest.raises(refusals.RequestRefused, match="cannot read"):
        signing.requested_key(text)


def test_a_request_of_more_than_16_kib_is_refused_unread():
    with pytest.raises(refusals.RequestRefused, match="larger than 16384"):
        signing.requested_key("x" * 16385)


@pytest.mark.parametrize(
    ("key", "named"),
    [
        (ec.generate_private_key(ec.SECP256K1()), "EC secp256k1"),
        (ec.generate_private_key(ec.SECP224R1()), "EC secp224r1"),
        (material.rsa_key(1024), "RSA 1024 bits"),
        (ed25519.Ed25519PrivateKey.generate(), "Ed25519"),
    ],
)
def test_weak_and_unusual_keys_are_refused(key, named):
    with pytest.raises(refusals.KeyRefused, match=named):
        keys.accepted(key.public_key())


@pytest.mark.parametrize("algorithm", [hashes.SHA256(), hashes.SHA384(), hashes.SHA512()])
@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1()])
def test_requests_of_accepted_curves_are_judged_by_their_signature(curve, algorithm):
    key = ec.generate_private_key(curve)
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    der = builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)
    forged = der[:-1] + bytes((der[-1] ^ 1,))

    assert signing.requested_key(to_pem(der)) == key.public_key()
    with pytest.raises(refusals.RequestRefused, match="not signed by its own key"):
        signing.requested_key(to_pem(forged))


def test_a_request_whose_key_was_exchanged_is_refused():
    der = x509.load_pem_x509_csr(material.request().encode()).public_bytes(
        serialization.Encoding.DER
    )
    own, others = (
        material.key(name)
        .public_key()
        .public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)
        for name in ("leaf", "other")
    )
    assert own in der

    with pytest.raises(refusals.RequestRefused, match="not signed by its own key"):
        signing.requested_key(to_pem(der.replace(own, others)))


def test_a_request_with_an_rsa_key_is_accepted():
    request = material.request(material.rsa_key(2048))

    assert signing.requested_key(request) == material.rsa_key(2048).public_key()


@pytest.mark.parametrize(
    ("requested_s", "given"), [(0, DAY), (-5, DAY), (3600, DAY / 24), (7776000, 90 * DAY)]
)
def test_a_lifetime_is_as_asked_or_usual(requested_s, given):
    assert signing.lifetime(requested_s, limits=signing.Lifetimes()) == given


@pytest.mark.parametrize("requested_s", [7776001, 2**63 - 1])
def test_a_lifetime_beyond_the_longest_is_refused(requested_s):
    with pytest.raises(refusals.LifetimeRefused, match="greater than the max allowed 7776000 s"):
        signing.lifetime(requested_s, limits=signing.Lifetimes())


def test_an_answer_has_one_element_per_certificate_and_the_roots_last():
    leaf, signer = signed(), material.signer()

    answer = signing.answer(leaf, signer=signer)

    assert answer == (
        pem.written(leaf),
        pem.written(signer.chain[0]),
        pem.written(signer.chain[1]),
        signer.roots_pem,
    )
    assert all(each.endswith("-----END CERTIFICATE-----\n") for each in answer)


def test_a_serving_certificate_has_all_names_and_only_serves():
    made = signing.serving(
        material.key("istiod").public_key(),
        names=signing.serving_names("istio-system"),
        signer=material.signer(),
        stamp=STAMP,
        life=DAY,
    )

    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [
        "istiod.istio-system.svc",
        "istiod-remote.istio-system.svc",
        "istio-pilot.istio-system.svc",
    ]
    roles = made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert roles == signing.SERVER_ROLE


def test_serving_names_hold_revision_discovery_host_and_custom_hosts_once():
    names = signing.serving_names(
        "mesh",
        revision="canary",
        discovery_host="istiod-canary.mesh.svc",
        custom_hosts=("istiod.example.com",),
    )

    assert names == (
        "istiod-canary.mesh.svc",
        "istiod.example.com",
        "istiod.mesh.svc",
        "istiod-remote.mesh.svc",
        "istio-pilot.mesh.svc",
    )


def test_a_leaf_that_breaks_the_profile_is_not_released():
    serving = signing.serving(
        material.key("leaf").public_key(),
        names=("example.com",),
        signer=material.signer(),
        stamp=STAMP,
        life=DAY,
    )

    with pytest.raises(refusals.LeafUnfit) as refused:
        signing.check(
            serving,
            identity=material.SLEEP,
            signer=material.signer(),
        )

    assert "its only name is the identity" in refused.value.detail
    assert "it is for servers and clients" in refused.value.detail


def test_a_leaf_of_another_issuer_is_not_released():
    with pytest.raises(refusals.LeafUnfit, match="breaks its profile") as refused:
        signing.check(signed(), identity=material.SLEEP, signer=material.signer("cluster2"))

    assert "its issuer is named and signed it" in refused.value.detail


def test_an_issuer_without_key_identifier_is_named_by_its_key():
    bare = shapes.signed(
        x509.CertificateBuilder()
        .subject_name(shapes.name("Istio", "bare"))
        .issuer_name(shapes.name("Istio", "bare"))
        .public_key(material.key("bare").public_key())
        .serial_number(1)
        .not_valid_before(material.NOW)
        .not_valid_after(material.NOW + DAY),
        key=material.key("bare"),
    )

    found = shapes.issuer_identifier(bare)

    made = x509.SubjectKeyIdentifier.from_public_key(material.key("bare").public_key())
    assert found.key_identifier == made.digest


def test_a_certificate_without_subject_is_named_by_its_serial_number():
    assert pem.subject(signed()) == "serial 4d"


@pytest.mark.parametrize(("chance", "hours"), [(0.0, 11.76), (0.5, 12.0), (1.0, 12.24)])
def test_renewal_comes_at_half_of_the_life_a_little_scattered(chance, hours):
    when = renewal.renewal_time(material.NOW, ends=material.NOW + DAY, chance=chance)

    assert (when - material.NOW).total_seconds() == pytest.approx(hours * 3600)


def to_pem(der: bytes) -> str:
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE REQUEST-----\n{body}-----END CERTIFICATE REQUEST-----\n"
