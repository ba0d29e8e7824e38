"""The certificate that a whole mesh trusts.

Same subject, lifetime and key usage as the seeds' Makefile makes. One thing is stricter: an
intermediate below it may not make further authorities (path length 1).

It carries no name constraint: in the topologies supported so far all clusters share one trust
domain, so a constraint would forbid nothing.

Source: spec section 1.1.1; security rule CA-2.
"""

import datetime

from cryptography import x509

from isthmus.ca import keys, shapes

LIFETIME = datetime.timedelta(days=3650)
ORGANIZATION = "Istio"
COMMON_NAME = "Root CA"


def build(
    key: keys.PrivateKey,
    *,
    stamp: shapes.Stamp,
    organization: str = ORGANIZATION,
    common_name: str = COMMON_NAME,
    lifetime: datetime.timedelta = LIFETIME,
) -> x509.Certificate:
    """Build a root that signs itself."""
    subject = shapes.name(organization, common_name)
    builder = shapes.authority(
        subject,
        issuer=subject,
        key=key.public_key(),
        serial=stamp.serial,
        valid=(stamp.now - shapes.BACKDATED, stamp.now + lifetime),
        depth=1,
    )
    return shapes.signed(builder, key=key)
