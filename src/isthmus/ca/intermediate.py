"""The certificate with which one cluster signs its workloads' certificates.

Same subject, key usage and DNS name as the seeds' Makefile makes. Its default lifetime is shorter:
90 days instead of ten years, because its key lies in a cluster.

Source: spec section 1.1.1; security rule CA-2.
"""

import datetime

from cryptography import x509

from isthmus.ca import keys, pem, refusals, shapes

LIFETIME = datetime.timedelta(days=90)
ORGANIZATION = "Istio"
COMMON_NAME = "Intermediate CA"
DNS_NAMES = ("istiod.istio-system.svc",)


def build(
    key: keys.PublicKey,
    *,
    cluster: str,
    issuer: shapes.Issuer,
    stamp: shapes.Stamp,
    lifetime: datetime.timedelta = LIFETIME,
    trust_domains: tuple[str, ...] = (),
) -> x509.Certificate:
    """Build the intermediate of `cluster`; it ends no later than the root.

    Identities of other trust domains than `trust_domains` would be refused by whoever checks a
    certificate, should its key fall into wrong hands; without any it may sign all.

    Raises:
        AuthorityExpired: The root has ended (ISM-CA-006).
    """
    root = issuer.certificate
    if root.not_valid_after_utc <= stamp.now:
        raise refusals.AuthorityExpired(
            f"the root has expired: {pem.subject(root)}",
            detail=f"it ended at {root.not_valid_after_utc:%Y-%m-%d %H:%M} UTC",
            hint="make a new root, and keep the old one in `root-cert.pem` until all have the new",
        )
    builder = shapes.authority(
        shapes.name(ORGANIZATION, COMMON_NAME, locality=cluster),
        issuer=root.subject,
        key=key,
        serial=stamp.serial,
        valid=(stamp.now - shapes.BACKDATED, min(stamp.now + lifetime, root.not_valid_after_utc)),
        depth=0,
    )
    names = x509.SubjectAlternativeName([x509.DNSName(name) for name in DNS_NAMES])
    builder = builder.add_extension(names, critical=False)
    builder = builder.add_extension(shapes.issuer_identifier(root), critical=False)
    if trust_domains:
        builder = builder.add_extension(shapes.limited_to(trust_domains), critical=True)
    return shapes.signed(builder, key=issuer.key)
