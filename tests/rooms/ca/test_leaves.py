import datetime

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from isthmus.ca import der, leaves, shapes, signing
from isthmus.mesh import identities
from isthmus.testing import certificates as material

DAY = datetime.timedelta(days=1)
P384 = ec.generate_private_key(ec.SECP384R1())

ISSUER_KEYS = {"P-256": material.key("of-leaves"), "P-384": P384, "RSA": material.rsa_key(2048)}
LEAF_KEYS = {"P-256": material.key("leaf"), "P-384": P384, "RSA": material.rsa_key(2048)}

seconds = st.integers(-(20 * 365 - 30) * 86400, 160 * 365 * 86400)  # from 1950 to 2129
moments = st.builds(
    lambda since, fraction: datetime.datetime.fromtimestamp(since, datetime.UTC).replace(
        microsecond=fraction
    ),
    seconds,
    st.integers(0, 999_999),
)
words = st.text("abcxyz0189-é", min_size=1, max_size=40)
subjects = st.builds(lambda *said: shapes.name(*said), words, words)
domain_names = st.from_regex(r"[a-z]{1,20}(\.[a-z]{1,40}){0,4}", fullmatch=True)
names = st.one_of(
    st.builds(
        lambda domain, namespace: x509.UniformResourceIdentifier(
            str(identities.SpiffeId(identities.TrustDomain(domain), namespace, "a"))
        ),
        domain_names,
        domain_names,
    ),
    st.builds(x509.DNSName, domain_names),
    st.ip_addresses().map(x509.IPAddress),
)


def issuing(kind, subject, *, with_identifier):
    """Return a certificate that signs, with the key that it is for."""
    key = ISSUER_KEYS[kind]
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(material.NOW)
        .not_valid_after(material.NOW + DAY)
    )
    if with_identifier:
        digest = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        builder = builder.add_extension(digest, critical=False)
    return shapes.signed(builder, key=key), key


def of_the_library(issuer, by, *, key, serial, valid, listed, roles):
    """Return what the library's own builder writes for the same."""
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(issuer.subject)
        .add_extension(shapes.LEAF_LIMITS, critical=True)
        .add_extension(shapes.LEAF_USAGE, critical=True)
        .add_extension(shapes.issuer_identifier(issuer), critical=False)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(valid[0])
        .not_valid_after(valid[1])
        .add_extension(listed, critical=True)
        .add_extension(roles, critical=False)
    )
    return builder.sign(by, hashes.SHA256())


@given(
    kinds=st.tuples(st.sampled_from(sorted(ISSUER_KEYS)), st.sampled_from(sorted(LEAF_KEYS))),
    subject=subjects,
    serial=st.integers(1, 2**159 - 1) | st.integers(1, 300),
    dates=st.tuples(moments, moments).map(sorted),
    listed=st.lists(names, min_size=1, max_size=12).map(x509.SubjectAlternativeName),
    roles=st.sampled_from([signing.BOTH_ROLES, signing.SERVER_ROLE]),
    with_identifier=st.booleans(),
)
def test_a_leaf_is_byte_for_byte_what_the_librarys_builder_writes(
    kinds, subject, serial, dates, listed, roles, with_identifier
):
    issuer, by = issuing(kinds[0], subject, with_identifier=with_identifier)
    key, valid = LEAF_KEYS[kinds[1]].public_key(), tuple(dates)

    ours = leaves.signed(
        leaves.blank(issuer),
        key=key,
        serial=serial,
        valid=valid,
        extensions=leaves.extension(listed, critical=True)
        + leaves.extension(roles, critical=False),
        by=by,
    )

    theirs = of_the_library(
        issuer, by, key=key, serial=serial, valid=valid, listed=listed, roles=roles
    )
    assert ours.tbs_certificate_bytes == theirs.tbs_certificate_bytes
    # What is not signed differs in the signature alone, which is random for elliptic curves.
    assert without_signature(ours) == without_signature(theirs)
    ours.verify_directly_issued_by(issuer)
    assert leaves.is_signed(ours, leaves.blank(issuer))


def without_signature(certificate):
    whole = certificate.public_bytes(serialization.Encoding.DER)
    inside = der.content_of(whole)
    assert inside.endswith(certificate.signature)
    rest = inside.removeprefix(certificate.tbs_certificate_bytes)
    return rest[: rest.index(b"\x03")]  # all before the tag of its signature


@given(st.binary(max_size=70_000))
def test_a_value_of_any_length_is_read_as_it_was_written(content):
    assert der.content_of(der.tagged(der.OCTETS, content)) == content


@pytest.mark.parametrize("size", [0, 127, 128, 255, 256, 65_535, 65_536, 1 << 24])
def test_lengths_are_written_in_the_fewest_octets(size):
    written = der.tagged(der.OCTETS, bytes(size))

    header = written[: len(written) - size]
    assert int.from_bytes(header[2:] or header[1:], "big") == size
    assert len(header) == 2 + (0 if size < 128 else (size.bit_length() + 7) // 8)


def test_a_leaf_whose_signed_part_names_another_algorithm_is_no_leaf_of_its_issuer():
    signer = material.signer()
    forged = leaves.Blank(
        signer.blank.verified_by,
        signer.blank.algorithm_id,
        bytes.fromhex("300a06082a8648ce3d040303"),  # ECDSA with SHA-384
        signer.blank.issuer,
        signer.blank.extensions,
    )

    assert not leaves.is_signed(leaf_of(signer, forged), signer.blank)


def test_a_leaf_that_names_another_issuer_is_no_leaf_of_its_signer():
    signer, other = material.signer(), material.signer("cluster2")
    blank = leaves.Blank(
        signer.blank.verified_by,
        signer.blank.algorithm_id,
        signer.blank.algorithm,
        other.blank.issuer,
        signer.blank.extensions,
    )

    assert not leaves.is_signed(leaf_of(signer, blank), signer.blank)


def test_a_leaf_that_another_key_signed_is_no_leaf_of_its_issuer():
    signer = material.signer()
    forged = leaf_of(material.signer("cluster2"), signer.blank)

    assert forged.issuer == signer.issuer.certificate.subject
    assert not leaves.is_signed(forged, signer.blank)


def leaf_of(signer, common):
    """Return a leaf that is written as `common` says and signed with the key of `signer`."""
    return leaves.signed(
        common,
        key=material.key("leaf").public_key(),
        serial=7,
        valid=(material.NOW, material.NOW + DAY),
        extensions=b"",
        by=signer.issuer.key,
    )
