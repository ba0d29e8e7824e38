"""Who asks, and what they may do: the API server's security as one object.

It decides which proof of a request counts first, and joins the parts. It refuses to know the
rules themselves: they are in `authn`, `rbac`, `reviews` and `admission`.

What the assembly of a cluster needs::

    security = security.ClusterSecurity(api, authority=authority, nursery=nursery, clock=clock,
                                        connect=connect)
    app = http.application(api, security, streams)

`connect(host, port) -> (StreamReader, StreamWriter)` opens a connection from the API server into
the cluster's network (to a pod address of a webhook); by default the process' own network is used.
`security.signer` signs tokens. Constructing it sets the API's `admission`, `review` and
`issue_token` hooks. `security.key_set()` is the answer of `/openid/v1/jwks`.
"""

from collections.abc import Iterable, Sequence

from aiohttp import web

from isthmus.base import clock as clocks
from isthmus.base import tasks
from isthmus.lab.apiserver import (
    admission,
    audit,
    authn,
    errors,
    mirrors,
    pki,
    rbac,
    reviews,
    store,
    tokens,
)
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver.values import Attributes, Obj, User
from isthmus.lab.apiserver.webhooks import Connect

_GROUP = "rbac.authorization.k8s.io"
_OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz", "/version"})


class StoredRoles:
    """Roles and bindings as they are stored at this moment; nobody may change them."""

    def __init__(self, objects: store.Store) -> None:
        self._objects = objects

    def role(self, kind: str, name: str, namespace: str) -> Obj | None:
        """Return a Role of `namespace` or a ClusterRole."""
        resource, home = ("clusterroles", "") if kind == "ClusterRole" else ("roles", namespace)
        entry = self._objects.get(f"{resource}.{_GROUP}", name=name, namespace=home)
        return entry.obj if entry else None

    def bindings(self, namespace: str) -> Iterable[Obj]:
        """Yield the RoleBindings of `namespace`; for an empty one the ClusterRoleBindings."""
        resource = "rolebindings" if namespace else "clusterrolebindings"
        for entry in self._objects.entries(f"{resource}.{_GROUP}", namespace):
            yield entry.obj


class ClusterSecurity:
    """Authenticates, authorizes and admits requests to one cluster."""

    def __init__(
        self,
        api: apis.Api,
        *,
        authority: pki.Authority,
        nursery: tasks.Nursery,
        clock: clocks.Clock | None = None,
        connect: Connect | None = None,
        log: audit.Audit | None = None,
    ) -> None:
        self.audit = log or audit.Audit()
        self.signer = tokens.Signer(authority.token_key_pem)
        follow = mirrors.Mirrors(api, nursery)
        self._roles = StoredRoles(api.state.store)
        self.accounts = authn.Accounts(api, signer=self.signer, clock=clock or clocks.SystemClock())
        self._reviews = reviews.Reviews(self.accounts, self._roles)
        self._admission = admission.Admission(api, follow, connect=connect)
        api.admission = self._admission.admit
        api.issue_token = self.accounts.issue
        api.review = self._reviews.answer

    def key_set(self) -> Obj:
        """Return the key that checks tokens, as `/openid/v1/jwks` shows it."""
        return self.signer.key_set()

    async def authenticate(self, request: web.Request) -> User:
        """Return who sends `request`, or raise a 401."""
        user = await self._sender(request)
        wanted = request.headers.get("Impersonate-User")
        if wanted is None:
            return user
        return await self._impersonated(
            user, wanted, request.headers.getall("Impersonate-Group", ())
        )

    async def authorize(self, user: User, attributes: Attributes) -> None:
        """Return when `user` may, or raise a 403."""
        allowed = rbac.is_allowed(user, attributes, self._roles)
        self.audit.note(user, attributes, allowed=allowed)
        if not allowed:
            raise rbac.refusal(user, attributes)

    async def _sender(self, request: web.Request) -> User:
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport else None
        if certificate:
            return authn.user_of_certificate(certificate)
        token = _bearer(request)
        if token is not None:
            try:
                user, _ = await self.accounts.user_of(token)
            except tokens.UnacceptableError as error:
                raise errors.unauthorized() from error
            return user
        if request.path.rstrip("/") in _OPEN_PATHS:
            return authn.ANONYMOUS
        raise errors.unauthorized()

    async def _impersonated(self, user: User, name: str, groups: Sequence[str]) -> User:
        prefix, _, account = name.partition("system:serviceaccount:")
        home, _, short = account.partition(":")
        if not prefix and short:
            attributes = Attributes(
                verb="impersonate", resource="serviceaccounts", namespace=home, name=short
            )
            implied: tuple[str, ...] = (
                "system:serviceaccounts",
                f"system:serviceaccounts:{home}",
            )
        else:
            attributes = Attributes(verb="impersonate", resource="users", name=name)
            implied = ()
        await self.authorize(user, attributes)
        for group in groups:
            await self.authorize(
                user, Attributes(verb="impersonate", resource="groups", name=group)
            )
        everyone = (*(groups or implied), authn.AUTHENTICATED)
        return User(name, groups=tuple(dict.fromkeys(everyone)))


def _bearer(request: web.Request) -> str | None:
    """Return the token of a request, or None."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()
    return None
