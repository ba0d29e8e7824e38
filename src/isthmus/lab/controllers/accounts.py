"""What every namespace is given: an account, the root certificate, and tokens kept in Secrets.

It decides when these objects exist and what is in them. It refuses to know who uses them.
"""

import base64
import contextlib

from isthmus.base import tasks
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import mirrors, tokens
from isthmus.lab.apiserver.errors import ApiError
from isthmus.lab.apiserver.values import Obj
from isthmus.lab.controllers import reconciling

ROOT_CONFIGMAP = "kube-root-ca.crt"
"""The ConfigMap with the cluster's root certificate, in every namespace."""

_TOKEN_TYPE = "kubernetes.io/service-account-token"  # a type of Secret, no secret
_ACCOUNT_NAME = "kubernetes.io/service-account.name"
_ACCOUNT_UID = "kubernetes.io/service-account.uid"


class Namespaces:
    """Keeps the default account and the root certificate in every namespace."""

    def __init__(self, api: apis.Api, follow: mirrors.Mirrors, *, ca_pem: str) -> None:
        self._api = api
        self._ca_pem = ca_pem
        self._namespaces = follow.of("namespaces")
        self._accounts = follow.of("serviceaccounts")
        self._loop = reconciling.Reconciler("namespace objects", self._reconcile)
        self._namespaces.listen(self._on_namespace)
        self._accounts.listen(self._on_lost)
        follow.of("configmaps").listen(self._on_configmap)

    def start(self, nursery: tasks.Nursery) -> None:
        """Run in `nursery`."""
        self._loop.start(nursery)

    def _on_namespace(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None:
            self._loop.touch(new["metadata"]["name"])

    def _on_lost(self, old: Obj | None, new: Obj | None) -> None:
        if new is None and old is not None:
            self._loop.touch(old["metadata"]["namespace"])

    def _on_configmap(self, old: Obj | None, new: Obj | None) -> None:
        found = new or old
        if old is not None and found is not None and found["metadata"]["name"] == ROOT_CONFIGMAP:
            self._loop.touch(found["metadata"]["namespace"])

    async def _reconcile(self, namespace: str) -> None:
        found = self._namespaces.get(namespace)
        if found is None or "deletionTimestamp" in found["metadata"]:
            return
        await self._ensure_account(namespace)
        await self._ensure_root(namespace)

    async def _ensure_account(self, namespace: str) -> None:
        account = {
            "apiVersion": "v1",
            "kind": "ServiceAccount",
            "metadata": {"name": "default", "namespace": namespace},
        }
        if not await _exists(self._api, "serviceaccounts", "default", namespace):
            await self._api.create("serviceaccounts", account)

    async def _ensure_root(self, namespace: str) -> None:
        wanted = {"ca.crt": self._ca_pem}
        try:
            found = await self._api.get("configmaps", ROOT_CONFIGMAP, namespace)
        except ApiError as error:
            if error.code != 404:
                raise
            configmap = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {
                    "name": ROOT_CONFIGMAP,
                    "namespace": namespace,
                    "annotations": {
                        "kubernetes.io/description": "Contains a CA bundle that can be used to"
                        " verify the kube-apiserver when using internal endpoints such as the"
                        " internal service IP or kubernetes.default.svc."
                    },
                },
                "data": wanted,
            }
            await self._api.create("configmaps", configmap)
            return
        if found.get("data") != wanted:
            await self._api.update("configmaps", {**found, "data": wanted})


class TokenSecrets:
    """Fills Secrets that ask for an account's token, and removes them with the account."""

    def __init__(
        self, api: apis.Api, follow: mirrors.Mirrors, *, signer: tokens.Signer, ca_pem: str
    ) -> None:
        self._api = api
        self._signer = signer
        self._ca_pem = ca_pem
        self._secrets = follow.of("secrets")
        self._accounts = follow.of("serviceaccounts")
        self._loop = reconciling.Reconciler("token secrets", self._reconcile)
        self._secrets.listen(self._on_secret)
        self._accounts.listen(self._on_account)

    def start(self, nursery: tasks.Nursery) -> None:
        """Run in `nursery`."""
        self._loop.start(nursery)

    def _on_secret(self, old: Obj | None, new: Obj | None) -> None:
        if new is not None and new.get("type") == _TOKEN_TYPE:
            self._loop.touch(mirrors.key_of(new))

    def _on_account(self, old: Obj | None, new: Obj | None) -> None:
        found = new or old
        if found is None:
            return
        namespace, name = mirrors.key_of(found)
        for secret in self._secrets.items(namespace):
            if secret.get("type") == _TOKEN_TYPE and _account_of(secret) == name:
                self._loop.touch(mirrors.key_of(secret))

    async def _reconcile(self, key: mirrors.Key) -> None:
        await self._accounts.synced()
        namespace, name = key
        secret = self._secrets.get(name, namespace)
        if secret is None or "deletionTimestamp" in secret["metadata"]:
            return
        annotations = secret["metadata"].get("annotations") or {}
        account = self._accounts.get(_account_of(secret), namespace)
        uid = annotations.get(_ACCOUNT_UID)
        if account is None or (uid and uid != account["metadata"]["uid"]):
            await self._orphaned(secret, uid)
            return
        wanted = self._contents(secret, account)
        missing = {field: text for field, text in wanted.items() if _lacks(secret, field, text)}
        if not missing and uid:
            return
        patch = {
            "metadata": {"annotations": {_ACCOUNT_UID: account["metadata"]["uid"]}},
            "data": missing,
        }
        await self._api.patch("secrets", name, patch, namespace=namespace)

    def _contents(self, secret: Obj, account: Obj) -> dict[str, str]:
        namespace, name = mirrors.key_of(secret)
        identity = (account["metadata"]["name"], account["metadata"]["uid"])
        claims = tokens.legacy_claims(namespace=namespace, account=identity, secret=name)
        return {
            "ca.crt": _base64(self._ca_pem),
            "namespace": _base64(namespace),
            "token": _base64(self._signer.sign(claims)),
        }

    async def _orphaned(self, secret: Obj, uid: str | None) -> None:
        """A Secret that once had a token goes with its account; a new one waits for it."""
        if not uid:
            return
        namespace, name = mirrors.key_of(secret)
        with contextlib.suppress(ApiError):
            await self._api.delete("secrets", name, namespace)


def _lacks(secret: Obj, field: str, text: str) -> bool:
    found = (secret.get("data") or {}).get(field)
    # A signature differs every time, so a token that is there is kept.
    return not found or (field != "token" and found != text)


def _account_of(secret: Obj) -> str:
    return str((secret["metadata"].get("annotations") or {}).get(_ACCOUNT_NAME, ""))


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


async def _exists(api: apis.Api, resource: str, name: str, namespace: str) -> bool:
    try:
        await api.get(resource, name, namespace)
    except ApiError as error:
        if error.code == 404:
            return False
        raise
    return True
