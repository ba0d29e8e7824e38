"""Whose tokens are believed: RequestAuthentication, understood and checked.

Source: Istio's API for RequestAuthentication.
"""

from dataclasses import dataclass

from isthmus.mesh.authorization import Target


@dataclass(frozen=True, slots=True, order=True)
class KeySource:
    """Where the keys of an issuer are had.

    Attributes:
        uri: Of the set of keys; empty where the issuer says it, as OpenID Connect describes.
        timeout_s: How long all that may take.
    """

    issuer: str
    uri: str = ""
    timeout_s: float = 5.0


@dataclass(frozen=True, slots=True)
class JwtRule:
    """Tokens of one issuer, where they are found, and what becomes of them.

    Attributes:
        name: Unlike that of any other rule.
        keys: As a JSON Web Key Set; empty where they are not known, so that no token is valid.
        headers: Names, each with what stands there before the token.
        params: Of the query.
        forwards: Whether the server is sent the token, too.
        payload_header: In which the server is told what the token says; empty for none.
        claim_headers: In which the server is told claims: header and claim.
        source: Where the keys are had, if nobody wrote them down.
    """

    name: str
    issuer: str
    keys: str
    audiences: tuple[str, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    params: tuple[str, ...] = ()
    forwards: bool = False
    payload_header: str = ""
    claim_headers: tuple[tuple[str, str], ...] = ()
    source: KeySource | None = None


@dataclass(frozen=True, slots=True)
class RequestAuthentication:
    """One RequestAuthentication object.

    Attributes:
        selector: Labels that a workload must have; empty selects the namespace (or the mesh).
        targets: Gateways, and services at their waypoints, for which alone it holds.
    """

    namespace: str
    name: str
    rules: tuple[JwtRule, ...]
    selector: tuple[tuple[str, str], ...] = ()
    targets: tuple[Target, ...] = ()
