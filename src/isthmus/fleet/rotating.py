"""Makes a remote secret whose token is short-lived, and ends with an object that can be deleted.

It decides what the token is bound to, who may renew it, and which older tokens go. Where the
secret goes, and when the older ones may go, is its caller's matter.

    IsthmusError
    └── RotationUnfinished     no control plane has confirmed the new token

Source: security rule RS-3; docs/decisions/0011-who-renews-a-remote-token.md.
"""

import base64
import hashlib
import secrets
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import yaml

from isthmus.base import clock, errors
from isthmus.fleet import linking, statuses, tokens
from isthmus.kube import apply, client, kinds, problems

EXPIRES = "isthmus.dev/token-expires"
BOUND_TO = "isthmus.dev/token-bound-to"
RENEW = "isthmus.dev/renew"
OF_CLUSTER = "isthmus.dev/remote-token"
FOR_PRIMARY = "isthmus.dev/remote-token-for"
ROOT = "kube-root-ca.crt"
RENEWAL_ROLE = "istio-reader-renewal"
_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_RBAC = "rbac.authorization.k8s.io"


class RotationUnfinished(errors.IsthmusError):
    """No control plane has confirmed the new token, so that the older one was not revoked."""

    code = "ISM-FLEET-022"


@dataclass(frozen=True, slots=True)
class Life:
    """How a token lives.

    Attributes:
        duration_s: For how long it is asked for; the API server may give another time.
        renews: Whether the control plane that gets it may renew it.
        primary: Uid of the cluster that it is for; empty if that is not known.
    """

    duration_s: int = tokens.LONGEST_S
    renews: bool = True
    primary: str = ""


@dataclass(frozen=True, slots=True)
class Made:
    """A new remote secret.

    Attributes:
        bound_to: Name of the Secret in the remote cluster that the token ends with.
    """

    cluster: str
    secret: client.Obj
    token: tokens.Token
    bound_to: str


async def remote_secret(
    reads: client.Client, wanted: linking.Request, life: Life, *, on_note: Callable[[str], None]
) -> Made:
    """Return a remote secret with a bound token, after making what it needs in the cluster.

    Raises:
        linking.NameInvalid: The name is no DNS label (ISM-FLEET-001).
        linking.AccountMissing: There is no account, and none may be made (ISM-FLEET-002).
    """
    name = await linking.name_of(reads, wanted)
    await linking.ensure_account(reads, wanted, on_note=on_note)
    if life.renews:
        await apply.apply(
            reads, renewal_grant(wanted.account, namespace=wanted.namespace), force=True
        )
        on_note(f"granted in `{name}`: `{wanted.account}` may create tokens of itself")
    bound = await reads.create(kinds.SECRET, _anchor(name, wanted, life))
    metadata = bound["metadata"]
    text = await reads.token_request(
        wanted.namespace,
        wanted.account,
        seconds=life.duration_s,
        bound_to={
            "kind": "Secret",
            "apiVersion": "v1",
            "name": metadata["name"],
            "uid": metadata["uid"],
        },
    )
    token = tokens.read(text)
    server = wanted.server or await linking.server_of(reads, on_note=on_note)
    cluster = {"certificate-authority-data": await _authority(reads, wanted), "server": server}
    if wanted.tls_server_name:
        cluster["tls-server-name"] = wanted.tls_server_name
    secret = linking.secret_of(
        name, wanted, linking.kubeconfig_of(name, cluster=cluster, user={"token": text})
    )
    secret["metadata"]["annotations"] |= annotations(token, renews=life.renews)
    return Made(name, secret, token, metadata["name"])


def annotations(token: tokens.Token, *, renews: bool) -> dict[str, str]:
    """Return what a remote secret says of its token."""
    said = {BOUND_TO: f"{token.namespace}/{token.secret}", EXPIRES: shown(token.expires)}
    return {**said, RENEW: "true"} if renews else said


def shown(instant: clock.Instant | None) -> str:
    """Return a moment as Kubernetes writes it."""
    return instant.strftime("%Y-%m-%dT%H:%M:%SZ") if instant else "never"


def _anchor(name: str, wanted: linking.Request, life: Life) -> client.Obj:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "Opaque",
        "metadata": {
            "name": f"istio-remote-token-{name}-{secrets.token_hex(3)}",
            "namespace": wanted.namespace,
            "labels": {OF_CLUSTER: name, FOR_PRIMARY: life.primary},
            "annotations": {
                "isthmus.dev/purpose": "holds nothing: deleting it revokes the token bound to it"
            },
        },
    }


async def _authority(reads: client.Client, wanted: linking.Request) -> str:
    found = await reads.find(kinds.CONFIG_MAP, ROOT, namespace=wanted.namespace)
    pem = ((found or {}).get("data") or {}).get("ca.crt") or reads.access.ca_pem
    if not pem:
        raise linking.TokenIncomplete(
            'no "ca.crt" data found', detail=f"ConfigMap {wanted.namespace}/{ROOT}"
        )
    return base64.b64encode(str(pem).encode()).decode()


# --- who may renew --------------------------------------------------------------------------------


def renewal_grant(account: str, *, namespace: str) -> list[client.Obj]:
    """Return what lets an account in the remote cluster ask for tokens of itself."""
    rule = {
        "apiGroups": [""],
        "resources": ["serviceaccounts/token"],
        "resourceNames": [account],
        "verbs": ["create"],
    }
    return _role(RENEWAL_ROLE, rule, namespace=namespace, accounts=(account,))


def writing_grant(cluster: str, secret: client.Obj, *, accounts: Iterable[str]) -> list[client.Obj]:
    """Return what lets a control plane write a renewed token into that one secret."""
    metadata = secret["metadata"]
    rule = {
        "apiGroups": [""],
        "resources": ["secrets"],
        "resourceNames": [metadata["name"]],
        "verbs": ["update"],
    }
    return _role(
        f"istiod-renewal-{cluster}",
        rule,
        namespace=metadata["namespace"],
        accounts=tuple(accounts),
    )


def _role(
    name: str, rule: Mapping[str, object], *, namespace: str, accounts: tuple[str, ...]
) -> list[client.Obj]:
    metadata = {"name": name, "namespace": namespace, "labels": {"release": "istio"}}
    return [
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "Role",
            "metadata": dict(metadata),
            "rules": [dict(rule)],
        },
        {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": dict(metadata),
            "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": name},
            "subjects": [
                {"kind": "ServiceAccount", "name": account, "namespace": namespace}
                for account in accounts
            ],
        },
    ]


# --- exchanging -----------------------------------------------------------------------------------


def token_in(secret: client.Obj | None, cluster: str) -> tokens.Token:
    """Return what the token in a stored remote secret says; one that cannot be read says nothing."""
    encoded = ((secret or {}).get("data") or {}).get(cluster, "")
    try:
        document = yaml.safe_load(base64.b64decode(encoded).decode())
        return tokens.read(str(document["users"][0]["user"]["token"]))
    except (ValueError, yaml.YAMLError, KeyError, IndexError, TypeError):
        return tokens.Token()


def digest_of(secret: client.Obj, cluster: str) -> str:
    """Return by what a control plane names the kubeconfig that it uses, once it does."""
    content = base64.b64decode(secret["data"][cluster])
    return hashlib.sha256(content).hexdigest()[: statuses.SHOWN_DIGITS]


async def holder_of(primary: client.Client, cluster: str, *, namespace: str) -> client.Obj | None:
    """Return the secret by which a primary follows a cluster: of several the oldest."""
    found = [
        one
        for one in await primary.list_(
            kinds.SECRET, namespace=namespace, labels=f"{linking.LABEL}=true"
        )
        if cluster in (one.get("data") or {})
    ]
    return min(
        found,
        key=lambda one: (one["metadata"].get("creationTimestamp", ""), one["metadata"]["name"]),
        default=None,
    )


async def exchange(
    primary: client.Client, made: Made, *, instead_of: client.Obj | None
) -> client.Obj:
    """Write a new remote secret into a primary, in place of the one that it uses."""
    fresh = made.secret
    text = str(fresh["stringData"][made.cluster])
    content = {made.cluster: base64.b64encode(text.encode()).decode()}
    if instead_of is None:
        kept = {key: value for key, value in fresh.items() if key != "stringData"}
        return await primary.create(kinds.SECRET, {**kept, "data": content})
    old = instead_of["metadata"]
    # What kubectl noted of an earlier apply holds the older token.
    told = {RENEW: None, _APPLIED: None, **fresh["metadata"]["annotations"]}
    metadata = {"annotations": told, "resourceVersion": old["resourceVersion"]}
    return await primary.patch(
        kinds.SECRET,
        old["name"],
        {"metadata": metadata, "data": content},
        namespace=old["namespace"],
        patch="merge",
    )


async def revoke(
    remote: client.Client, made: Made, old: tokens.Token, life: Life, *, namespace: str
) -> list[str]:
    """Delete what the older bound tokens of one primary end with; return the names."""
    doomed: dict[str, str] = {}
    if old.expires is not None and old.secret and old.secret != made.bound_to:
        doomed[old.secret] = old.secret_uid
    if life.primary:
        labels = f"{OF_CLUSTER}={made.cluster},{FOR_PRIMARY}={life.primary}"
        for one in await remote.list_(kinds.SECRET, namespace=namespace, labels=labels):
            if one["metadata"]["name"] != made.bound_to:
                doomed[one["metadata"]["name"]] = one["metadata"]["uid"]
    for name, uid in doomed.items():
        await forget(remote, name, uid=uid, namespace=namespace)
    return sorted(doomed)


async def forget(remote: client.Client, name: str, *, uid: str = "", namespace: str) -> None:
    """Delete a Secret in the remote cluster, which revokes what is bound to it."""
    try:
        await remote.delete(kinds.SECRET, name, namespace=namespace, uid=uid)
    except problems.ApiError as error:
        if not error.is_missing:
            raise
