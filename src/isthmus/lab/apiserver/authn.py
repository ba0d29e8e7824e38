"""Who sends a request: a client certificate, a service account's token, or nobody.

It decides which proofs count. Tokens end with the objects that they name. It refuses to know what
a caller may do.
"""

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from isthmus.base import clock as clocks
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import errors, tokens
from isthmus.lab.apiserver.values import Obj, User

AUTHENTICATED = "system:authenticated"
ANONYMOUS = User("system:anonymous", groups=("system:unauthenticated",))

_SHORTEST_S = 600
_LONGEST_S = 1 << 32
_USUAL_S = 3600
_EXTRA = "authentication.kubernetes.io"


class Accounts:
    """Issues and checks the tokens of service accounts."""

    def __init__(self, api: apis.Api, *, signer: tokens.Signer, clock: clocks.Clock) -> None:
        self._api = api
        self._signer = signer
        self._clock = clock

    async def user_of(
        self, token: str, *, audiences: Sequence[str] = ()
    ) -> tuple[User, tuple[str, ...]]:
        """Return whose token this is and for which of `audiences` it counts.

        Raises:
            tokens.UnacceptableError: It is forged, has ended, or is for somebody else.
        """
        claims = self._signer.claims_of(token, now_s=self._clock.now().timestamp())
        wanted = tuple(audiences) or (tokens.ISSUER,)
        legacy = claims["iss"] == tokens.LEGACY_ISSUER
        granted = (tokens.ISSUER,) if legacy else tuple(claims.get("aud") or ())
        common = tuple(each for each in granted if each in wanted)
        if not common:
            raise tokens.UnacceptableError(
                f"token audiences {_quoted(granted)} is invalid for the target audiences"
                f" {_quoted(wanted)}"
            )
        user = await (self._legacy_user(claims, token) if legacy else self._bound_user(claims))
        return user, common

    async def issue(self, account: Obj, request: Obj) -> Obj:
        """Answer a TokenRequest for `account`."""
        spec = request.get("spec") or {}
        seconds = spec.get("expirationSeconds") or _USUAL_S
        _check_lifetime(seconds)
        reference = spec.get("boundObjectRef")
        bound = await self._bound(account, reference) if reference else None
        audiences = spec.get("audiences") or [tokens.ISSUER]
        begins = int(self._clock.now().timestamp())
        claims = tokens.bound_claims(
            namespace=account["metadata"]["namespace"],
            account=(account["metadata"]["name"], account["metadata"]["uid"]),
            audiences=audiences,
            lifetime=(begins, begins + seconds),
            token_id=str(uuid.uuid4()),
            bound=bound,
        )
        if bound is not None and bound.kind == "pod":
            claims["kubernetes.io"] |= await self._node_claims(account, bound.name)
        ends = clocks.Instant.fromtimestamp(begins + seconds, tz=self._clock.now().tzinfo)
        return {
            **request,
            "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
            "status": {
                "token": self._signer.sign(claims),
                "expirationTimestamp": ends.strftime("%Y-%m-%dT%H:%M:%SZ"),
            },
        }

    async def _bound(self, account: Obj, reference: Obj) -> tokens.Bound:
        namespace, name = account["metadata"]["namespace"], reference.get("name", "")
        kind = reference.get("kind", "")
        resource = {"Pod": "pods", "Secret": "secrets"}.get(kind)
        if resource is None:
            raise errors.bad_request(f"cannot bind token to object of type {kind}")
        found = await self._api.get(resource, name, namespace)
        uid = found["metadata"]["uid"]
        if kind == "Pod" and _account_name(found) != account["metadata"]["name"]:
            raise errors.bad_request(
                f'cannot bind token for serviceaccount "{account["metadata"]["name"]}" to pod'
                " running with different serviceaccount name."
            )
        if reference.get("uid") and reference["uid"] != uid:
            why = (
                f"the UID in the bound object reference ({reference['uid']}) does not match the"
                f" UID in record. The object might have been deleted and then recreated"
            )
            raise errors.conflict(resource, name=name, why=why)
        return tokens.Bound(kind.lower(), name, uid)

    async def _node_claims(self, account: Obj, pod_name: str) -> Obj:
        pod = await self._api.get("pods", pod_name, account["metadata"]["namespace"])
        name = pod["spec"].get("nodeName")
        if not name:
            return {}
        try:
            node = await self._api.get("nodes", name)
        except errors.ApiError:
            return {"node": {"name": name}}
        return {"node": {"name": name, "uid": node["metadata"]["uid"]}}

    async def _legacy_user(self, claims: tokens.Claims, token: str) -> User:
        namespace, name, uid, secret_name = (
            str(claims.get(f"{tokens.LEGACY_CLAIMS}/{field}", ""))
            for field in ("namespace", "service-account.name", "service-account.uid", "secret.name")
        )
        secret = await self._living("secrets", secret_name, namespace, uid="")
        if not _holds_token(secret, token):
            raise tokens.UnacceptableError("Token does not match server's copy")
        await self._living("serviceaccounts", name, namespace, uid=uid)
        return _user(namespace, name, uid, {})

    async def _bound_user(self, claims: tokens.Claims) -> User:
        inner: Mapping[str, Any] = claims.get("kubernetes.io") or {}
        namespace, account = str(inner.get("namespace", "")), inner.get("serviceaccount") or {}
        name, uid = str(account.get("name", "")), str(account.get("uid", ""))
        await self._living("serviceaccounts", name, namespace, uid=uid)
        extra = {f"{_EXTRA}/credential-id": (f"JTI={claims.get('jti')}",)}
        for kind, resource in (("pod", "pods"), ("secret", "secrets")):
            if bound := inner.get(kind):
                await self._living(resource, bound["name"], namespace, uid=bound["uid"])
        for kind in ("pod", "node"):
            if bound := inner.get(kind):
                for field in ("name", "uid"):
                    if value := bound.get(field):
                        extra[f"{_EXTRA}/{kind}-{field}"] = (value,)
        return _user(namespace, name, uid, extra)

    async def _living(self, resource: str, name: str, namespace: str, *, uid: str) -> Obj:
        """Return an object that a token names, unless it is gone or another one by now."""
        singular = {"pods": "pod", "secrets": "secret", "serviceaccounts": "service account"}
        try:
            found = await self._api.get(resource, name, namespace)
        except errors.ApiError as error:
            raise tokens.UnacceptableError(
                f"{singular[resource]} {namespace}/{name} has been deleted"
            ) from error
        if uid and found["metadata"]["uid"] != uid:
            raise tokens.UnacceptableError(
                f"{singular[resource]} UID ({found['metadata']['uid']}) does not match"
                f" claim ({uid})"
            )
        return found


def user_of_certificate(certificate: Mapping[str, Any]) -> User:
    """Return who a verified client certificate names: CN is the user, each O a group.

    Args:
        certificate: As the TLS library shows a peer's certificate.
    """
    pairs = [pair for name in certificate.get("subject", ()) for pair in name]
    names = [value for key, value in pairs if key == "commonName"]
    groups = [value for key, value in pairs if key == "organizationName"]
    return User(names[0] if names else "", groups=(*groups, AUTHENTICATED))


def _user(namespace: str, name: str, uid: str, extra: Mapping[str, tuple[str, ...]]) -> User:
    groups = ("system:serviceaccounts", f"system:serviceaccounts:{namespace}", AUTHENTICATED)
    return User(f"system:serviceaccount:{namespace}:{name}", uid=uid, groups=groups, extra=extra)


def _account_name(pod: Obj) -> str:
    return str(pod["spec"].get("serviceAccountName") or "default")


def _holds_token(secret: Obj, token: str) -> bool:
    return bool(tokens.decoded_field(secret, "token") == token)


def _check_lifetime(seconds: int) -> None:
    if _SHORTEST_S <= seconds <= _LONGEST_S:
        return
    if seconds < _SHORTEST_S:
        message = "may not specify a duration less than 10 minutes"
    else:
        message = "may not specify a duration larger than 2^32 seconds"
    cause = errors.Cause("spec.expirationSeconds", f"Invalid value: {seconds}: {message}")
    raise errors.invalid("TokenRequest", name="", causes=[cause], group="authentication.k8s.io")


def _quoted(audiences: Sequence[str]) -> str:
    return "[" + " ".join(f'"{each}"' for each in audiences) + "]"
