"""An intermediate is limited to trust domains; what it may not sign, it does not."""

import datetime

import pytest

from isthmus.ca import refusals, shapes, signing
from isthmus.mesh import identities
from isthmus.testing import certificates as material

HOUR = datetime.timedelta(hours=1)


def signed(domain, *, limits):
    return signing.workload(
        material.key("leaf").public_key(),
        identity=identities.SpiffeId(identities.TrustDomain(domain), "sample", "sleep"),
        signer=material.signer(trust_domains=limits),
        stamp=shapes.Stamp(material.NOW, 3),
        life=HOUR,
    )


@pytest.mark.parametrize(
    ("domain", "limits"),
    [("a.example", ()), ("a.example", ("a.example",)), ("b.example", ("a.example", "b.example"))],
)
def test_identities_of_permitted_trust_domains_are_signed(domain, limits):
    assert signed(domain, limits=limits).issuer == material.intermediate_certificate().subject


@pytest.mark.parametrize("domain", ["b.example", "sub.a.example", "example", "a.example.b"])
def test_identities_of_other_trust_domains_are_not_signed(domain):
    with pytest.raises(refusals.DomainNotPermitted, match=f"domain `{domain}`") as refused:
        signed(domain, limits=("a.example",))

    assert refused.value.detail == "permitted: a.example"
    assert f"--trust-domain {domain}" in refused.value.hint


def test_the_limit_is_critical_so_that_nobody_can_overlook_it():
    made = material.intermediate_certificate(trust_domains=("a.example",))

    assert shapes.limits_of(made) == {"a.example"}
    assert [each.oid._name for each in made.extensions if each.critical] == [
        "basicConstraints",
        "keyUsage",
        "nameConstraints",
    ]
