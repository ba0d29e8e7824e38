"""Questions about users: TokenReview, the access reviews, SelfSubjectReview, rules reviews.

It decides how an answer is written. What is true comes from `authn` and `rbac`.
"""

from typing import TYPE_CHECKING, Any

from isthmus.lab.apiserver import authn, errors, rbac, tokens
from isthmus.lab.apiserver.values import Attributes, Obj, User

if TYPE_CHECKING:
    from collections.abc import Mapping


class Reviews:
    """Answers reviews."""

    def __init__(self, accounts: authn.Accounts, roles: rbac.Roles) -> None:
        self._accounts = accounts
        self._roles = roles

    async def answer(self, user: User, review: Obj) -> Obj:
        """Return `review` with its status."""
        spec = review.get("spec") or {}
        match review.get("kind"):
            case "TokenReview":
                status = await self._token(spec)
            case "SelfSubjectReview":
                status = {"userInfo": user_info(user)}
            case "SelfSubjectAccessReview":
                status = self._access(user, spec)
            case "SubjectAccessReview" | "LocalSubjectAccessReview":
                status = self._access(_subject(spec), spec)
            case "SelfSubjectRulesReview":
                status = self._rules(user, spec.get("namespace", ""))
            case kind:
                raise errors.bad_request(f"no review of kind {kind}")
        return {**review, "metadata": review.get("metadata") or {}, "status": status}

    async def _token(self, spec: Obj) -> Obj:
        token = spec.get("token", "")
        if not token:
            raise errors.bad_request("token is required for TokenReview in authentication")
        try:
            user, audiences = await self._accounts.user_of(
                token, audiences=spec.get("audiences") or ()
            )
        except tokens.UnacceptableError as error:
            return {"authenticated": False, "user": {}, "error": f"[{error}]"}
        return {"authenticated": True, "user": user_info(user), "audiences": list(audiences)}

    def _access(self, user: User, spec: Obj) -> Obj:
        attributes = _attributes(spec)
        if rbac.is_allowed(user, attributes, self._roles):
            return {"allowed": True, "reason": ""}
        return {"allowed": False}

    def _rules(self, user: User, namespace: str) -> Obj:
        masters = [
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
            {"nonResourceURLs": ["*"], "verbs": ["*"]},
        ]
        found = (
            masters
            if rbac.MASTERS in user.groups
            else list(rbac.rules_of(user, namespace, self._roles))
        )
        return {
            "resourceRules": [rule for rule in found if rule.get("resources")],
            "nonResourceRules": [rule for rule in found if rule.get("nonResourceURLs")],
            "incomplete": False,
        }


def user_info(user: User) -> Obj:
    """Write a user as reviews and webhooks show it."""
    shown: Obj = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        shown["uid"] = user.uid
    if user.extra:
        shown["extra"] = {key: list(values) for key, values in user.extra.items()}
    return shown


def _subject(spec: Obj) -> User:
    extra: Mapping[str, Any] = spec.get("extra") or {}
    return User(
        spec.get("user", ""),
        uid=spec.get("uid", ""),
        groups=tuple(spec.get("groups") or ()),
        extra={key: tuple(values) for key, values in extra.items()},
    )


def _attributes(spec: Obj) -> Attributes:
    if wanted := spec.get("resourceAttributes"):
        return Attributes(
            verb=wanted.get("verb", ""),
            group=wanted.get("group", ""),
            version=wanted.get("version", ""),
            resource=wanted.get("resource", ""),
            subresource=wanted.get("subresource", ""),
            namespace=wanted.get("namespace", ""),
            name=wanted.get("name", ""),
        )
    wanted = spec.get("nonResourceAttributes")
    if not wanted:
        raise errors.bad_request(
            "spec.resourceAttributes: Invalid value: exactly one of nonResourceAttributes or"
            " resourceAttributes must be specified"
        )
    return Attributes(verb=wanted.get("verb", ""), path=wanted.get("path", ""))
