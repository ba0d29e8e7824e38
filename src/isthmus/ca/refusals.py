"""Why certificate material or a request for a certificate is refused.

IsthmusError
└── CaRefusal
    ├── BundleIncomplete
    ├── PemMalformed
    ├── KeyMismatch
    ├── NotAnAuthority
    ├── ChainBroken
    ├── AuthorityExpired
    ├── SampleMaterial
    ├── KeyRefused
    ├── RequestRefused
    ├── LifetimeRefused
    └── LeafUnfit
"""

from isthmus.base import errors


class CaRefusal(errors.IsthmusError):
    """Root of this room's errors; never raised itself."""


class BundleIncomplete(CaRefusal):
    """Some of the files that make a signing authority are missing or empty."""

    code = "ISM-CA-001"


class PemMalformed(CaRefusal):
    """A file holds something else than the PEM that belongs there."""

    code = "ISM-CA-002"


class KeyMismatch(CaRefusal):
    """The private key belongs to another certificate."""

    code = "ISM-CA-003"


class NotAnAuthority(CaRefusal):
    """A certificate in the chain may not sign others."""

    code = "ISM-CA-004"


class ChainBroken(CaRefusal):
    """The signing certificate does not lead to a root through the chain."""

    code = "ISM-CA-005"


class AuthorityExpired(CaRefusal):
    """A certificate of the chain is not valid now."""

    code = "ISM-CA-006"


class SampleMaterial(CaRefusal):
    """The material is published with its private key, so anybody can sign with it."""

    code = "ISM-CA-007"


class KeyRefused(CaRefusal):
    """A key is too weak, or of a kind that proxies do not accept."""

    code = "ISM-CA-008"


class RequestRefused(CaRefusal):
    """A signing request cannot be read, or is not signed by its own key."""

    code = "ISM-CA-009"


class LifetimeRefused(CaRefusal):
    """A requested lifetime is longer than allowed."""

    code = "ISM-CA-010"


class LeafUnfit(CaRefusal):
    """A certificate that was just signed breaks its own profile; it is not released."""

    code = "ISM-CA-011"


class DomainNotPermitted(CaRefusal):
    """The signing certificate is limited to other trust domains than the mesh's."""

    code = "ISM-CA-015"
