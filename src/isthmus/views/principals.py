"""Whom clauses about callers mean, by trust domain.

The mesh's own trust domain means its aliases, too; any other means itself alone. Namespaces and
accounts are those of every trust domain that is accepted. `cluster.local` is a name like any
other: where nobody bears it, it fits nobody in what allows, and in what denies it also means us,
for its author has meant somebody.

Source: spec section 1.2; decisions 0007 and 0030.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from isthmus.mesh.authorization import Action, Clause, Form, Pattern, Property
from isthmus.mesh.identities import TrustDomain
from isthmus.mesh.settings import DEFAULT_TRUST_DOMAIN, MeshSettings

SCHEME: Final = "spiffe://"
NOBODY: Final = Pattern(Form.EXACT, "*/ns/*/sa/*")
"""A principal that nobody can have."""


@dataclass(frozen=True, slots=True)
class Domains:
    """Whose identities may come in.

    Attributes:
        own: The names of the mesh's own trust domain, the one in use first.
        peers: The others.
    """

    own: tuple[TrustDomain, ...]
    peers: tuple[TrustDomain, ...] = ()

    @property
    def accepted(self) -> tuple[TrustDomain, ...]:
        """All of them, the mesh's own first."""
        return tuple(dict.fromkeys((*self.own, *self.peers)))

    def meant_by(self, domain: str, *, is_narrow: bool) -> tuple[str, ...]:
        """Return the trust domains that a name means."""
        if domain in self.own:
            return self.own
        if domain == DEFAULT_TRUST_DOMAIN and domain not in self.peers and not is_narrow:
            return (domain, *self.own)
        return (domain,)

    def fitting(self, pattern: Pattern, *, is_narrow: bool) -> tuple[Pattern, ...]:
        """Return principals that say the same as a pattern of trust domains."""
        match pattern.form:
            case Form.EXACT:
                meant = self.meant_by(pattern.text, is_narrow=is_narrow)
            case Form.SUFFIX:
                meant = tuple(one for one in self.accepted if one.endswith(pattern.text))
            case _:
                return (pattern,)
        return tuple(Pattern(Form.PREFIX, f"{one}/") for one in meant) or (NOBODY,)


def domains_of(settings: MeshSettings) -> Domains:
    """Return whose identities may call."""
    own = dict.fromkeys((settings.trust_domain, *settings.trust_domain_aliases))
    return Domains(tuple(own), settings.peer_domains)


def is_narrow(clause: Clause, action: Action) -> bool:
    """Say whether a clause must fit only without doubt; else it must also fit in doubt."""
    return (action is Action.ALLOW) is not clause.is_negated


def principals_of(pattern: Pattern, domains: Domains, *, is_narrow: bool) -> Iterator[Pattern]:
    """Yield a principal in each trust domain that it means."""
    if pattern.form in {Form.PRESENT, Form.SUFFIX}:
        yield pattern
        return
    domain, _, rest = pattern.text.partition("/")
    for one in domains.meant_by(domain, is_narrow=is_narrow):
        yield Pattern(pattern.form, f"{one}/{rest}")


def with_identities(clause: Clause, domains: Domains, action: Action) -> Clause:
    """Return a clause about callers that looks at their whole identities."""
    narrow = is_narrow(clause, action)
    patterns = [
        identity
        for pattern in clause.patterns
        for identity in _identities(clause.property, pattern, domains, is_narrow=narrow)
    ]
    return dataclasses.replace(
        clause, property=Property.IDENTITY, patterns=tuple(dict.fromkeys(patterns))
    )


def _identities(
    property_: Property, pattern: Pattern, domains: Domains, *, is_narrow: bool
) -> Iterator[Pattern]:
    match property_:
        case Property.TRUST_DOMAIN:
            yield from map(_whole, domains.fitting(pattern, is_narrow=is_narrow))
        case Property.PRINCIPAL:
            yield from map(_whole, principals_of(pattern, domains, is_narrow=is_narrow))
        case Property.NAMESPACE if pattern.form is not Form.PRESENT:
            end = "/" if pattern.form is Form.EXACT else ""
            for one in domains.accepted:
                yield Pattern(Form.PREFIX, f"{SCHEME}{one}/ns/{pattern.text}{end}")
        case Property.ACCOUNT:
            namespace, _, account = pattern.text.partition("/")
            for one in domains.accepted:
                yield Pattern(Form.EXACT, f"{SCHEME}{one}/ns/{namespace}/sa/{account}")
        case _:
            yield pattern


def _whole(principal: Pattern) -> Pattern:
    """Return how the identity of a principal is written."""
    if principal.form in {Form.PRESENT, Form.SUFFIX}:
        return principal
    return Pattern(principal.form, f"{SCHEME}{principal.text}")


# --- both at once


def within(principal: Pattern, domain: Pattern, *, is_narrow: bool) -> Pattern | None:
    """Return what fits a principal and a trust domain alike; None if nothing does.

    `domain` is what `Domains.fitting` gives. What cannot be said as one pattern is left out of
    what is narrow, and said without the trust domain in what is not.
    """
    if domain.form is Form.PRESENT or domain == NOBODY:
        return principal if domain.form is Form.PRESENT else None
    if principal.form is Form.PRESENT:
        return domain
    if principal.form is not Form.SUFFIX:
        return principal if principal.text.startswith(domain.text) else None
    if domain.text.endswith("/") and principal.text.startswith("/ns/"):
        return Pattern(Form.EXACT, f"{domain.text.removesuffix('/')}{principal.text}")
    return None if is_narrow else principal
