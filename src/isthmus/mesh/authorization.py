"""Who may call what: AuthorizationPolicy, understood and checked.

A clause looks at one property of a call. Clauses of one list must all hold; of several lists one
must. What a clause means for a request is said here once; how a proxy finds it out is not.

Source: spec section 4.13; docs/reference/authorization.md.
"""

from dataclasses import dataclass

from isthmus.base import hashing


class Action(hashing.Word):
    """What becomes of calls that a policy matches."""

    ALLOW = "ALLOW"
    DENY = "DENY"


class Form(hashing.Word):
    """How a pattern compares with a text."""

    EXACT = "exact"
    PREFIX = "prefix"
    SUFFIX = "suffix"
    PRESENT = "present"


@dataclass(frozen=True, slots=True)
class Pattern:
    """A text, or how it begins or ends; PRESENT fits any."""

    form: Form
    text: str = ""


class Property(hashing.Word):
    """What a clause looks at.

    IDENTITY is the whole SPIFFE URI of the caller; TRUST_DOMAIN, PRINCIPAL, NAMESPACE and ACCOUNT
    are how users write of it, and depend on the trust domains of the mesh.
    """

    TRUST_DOMAIN = "trust domain"
    PRINCIPAL = "principal"
    NAMESPACE = "namespace"
    ACCOUNT = "account"
    IDENTITY = "identity"
    ADDRESS = "address"
    PORT = "port"
    HOST = "host"
    METHOD = "method"
    PATH = "path"
    HEADER = "header"
    REQUEST_PRINCIPAL = "request principal"
    CLAIM = "claim"

    @property
    def is_identity(self) -> bool:
        """Whether it says who calls."""
        return self in _IDENTITIES

    @property
    def needs_request(self) -> bool:
        """Whether only requests have it, and connections as such do not."""
        return self in _OF_REQUESTS


_IDENTITIES = frozenset(
    {
        Property.TRUST_DOMAIN,
        Property.PRINCIPAL,
        Property.NAMESPACE,
        Property.ACCOUNT,
        Property.IDENTITY,
    }
)
_OF_REQUESTS = frozenset(
    {
        Property.HOST,
        Property.METHOD,
        Property.PATH,
        Property.HEADER,
        Property.REQUEST_PRINCIPAL,
        Property.CLAIM,
    }
)


@dataclass(frozen=True, slots=True)
class Clause:
    """One of `patterns` must fit, or none of them where it is negated.

    Attributes:
        header: The name of a HEADER, in small letters; of a CLAIM where it stands, `[a][b]`.
    """

    property: Property
    patterns: tuple[Pattern, ...]
    is_negated: bool = False
    header: str = ""


Clauses = tuple[Clause, ...]


@dataclass(frozen=True, slots=True)
class Rule:
    """Calls from one of `sources` that do one of `operations` while all `conditions` hold.

    No sources stand for any, and no operations too.
    """

    sources: tuple[Clauses, ...] = ()
    operations: tuple[Clauses, ...] = ()
    conditions: Clauses = ()

    def clauses(self) -> Clauses:
        """Return all clauses."""
        parts = (*self.sources, *self.operations, self.conditions)
        return tuple(clause for part in parts for clause in part)


class TargetKind(hashing.Word):
    """What a policy may name instead of selecting workloads by labels."""

    GATEWAY = "Gateway"
    CLASS = "GatewayClass"
    SERVICE = "Service"
    ENTRY = "ServiceEntry"


@dataclass(frozen=True, slots=True)
class Target:
    """One object that a policy names, of its own namespace, or a class of gateways."""

    kind: TargetKind
    name: str


@dataclass(frozen=True, slots=True)
class AuthorizationPolicy:
    """One AuthorizationPolicy object; one that is not understood denies all calls.

    Attributes:
        selector: Labels that a workload must have; empty selects the namespace (or the mesh).
        targets: Gateways, and services at their waypoints, for which alone it holds; empty for
            one that holds at workloads.
        source_clusters: From which callers must come; None from any. Registries write it into
            the rules.
    """

    namespace: str
    name: str
    action: Action = Action.ALLOW
    rules: tuple[Rule, ...] = ()
    selector: tuple[tuple[str, str], ...] = ()
    targets: tuple[Target, ...] = ()
    source_clusters: tuple[str, ...] | None = None


ALL_CALLS = (Rule(),)
"""The rules of a policy that matches every call."""
