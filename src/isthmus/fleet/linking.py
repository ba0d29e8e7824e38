"""Makes the secret by which one cluster lets a control plane elsewhere watch it.

It grants what `install.reader` says, obtains the token, and says the kubeconfig in the shape that
every reader of remote secrets knows. Where the secret goes is its caller's matter.

    IsthmusError
    ├── NameInvalid        the cluster's name is no DNS label
    ├── AccountMissing     the service account does not exist and may not be made
    └── TokenIncomplete    the service account's token lacks a part

Source: spec section 2.1.
"""

import base64
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import yaml

from isthmus.base import errors
from isthmus.fleet import membership
from isthmus.install import labels, reader
from isthmus.kube import access, apply, client, kinds, problems, waiting

LABEL = "istio/multiCluster"
CLUSTER_ANNOTATION = "networking.istio.io/cluster"
_ACCOUNT_ANNOTATION = "kubernetes.io/service-account.name"
_TOKEN_TYPE = "kubernetes.io/service-account-token"


class NameInvalid(errors.IsthmusError):
    """The cluster's name is no DNS label."""

    code = "ISM-FLEET-001"


class AccountMissing(errors.IsthmusError):
    """The service account does not exist and may not be made."""

    code = "ISM-FLEET-002"


class TokenIncomplete(errors.IsthmusError):
    """The service account's token lacks a part."""

    code = "ISM-FLEET-003"


@dataclass(frozen=True, slots=True)
class Request:
    """What the secret should be.

    Attributes:
        name: The cluster's id; empty for the UID of its `kube-system` namespace.
        server: Address for the kubeconfig; empty for the one that we use ourselves.
        kind: `config` makes the secret by which a control plane reaches its own configuration.
        secret_name: Which token secret to use; empty to find or make one.
        plugin: Name and settings of a login plugin instead of a token.
        token_timeout_s: How long the cluster may take to fill a token secret.
    """

    name: str = ""
    namespace: str = "istio-system"
    server: str = ""
    tls_server_name: str = ""
    kind: Literal["remote", "config"] = "remote"
    service_account: str = ""
    create_service_account: bool = True
    secret_name: str = ""
    plugin: tuple[str, Mapping[str, str]] | None = None
    token_timeout_s: float = 10.0

    @property
    def account(self) -> str:
        """The service account whose token goes into the secret."""
        default = reader.SERVICE_ACCOUNT if self.kind == "remote" else "istiod"
        return self.service_account or default


async def remote_secret(
    reads: client.Client, wanted: Request, *, on_note: Callable[[str], None]
) -> client.Obj:
    """Return the secret, after making what it needs in the cluster.

    Args:
        reads: The cluster that is to be watched.
        wanted: What the secret should be.
        on_note: Called with remarks for a person.

    Raises:
        NameInvalid: The name is no DNS label (ISM-FLEET-001).
        AccountMissing: There is no service account and none may be made (ISM-FLEET-002).
        TokenIncomplete: The token secret lacks a part (ISM-FLEET-003).
    """
    name = await name_of(reads, wanted)
    await ensure_account(reads, wanted, on_note=on_note)
    token = await _token_secret(reads, wanted)
    server = wanted.server or await server_of(reads, on_note=on_note)
    user: client.Obj = {"token": _part(token, "token")}
    if wanted.plugin:
        plugin, settings = wanted.plugin
        user = {"auth-provider": {"name": plugin, "config": dict(settings)}}
        on_note(f"warning: `auth-provider: {plugin}` is refused by Isthmus' own control plane")
    cluster = {
        "certificate-authority-data": base64.b64encode(_part(token, "ca.crt").encode()).decode(),
        "server": server,
    }
    if wanted.tls_server_name:
        cluster["tls-server-name"] = wanted.tls_server_name
    return secret_of(name, wanted, kubeconfig_of(name, cluster=cluster, user=user))


async def name_of(reads: client.Client, wanted: Request) -> str:
    """Return the id that the cluster is to have.

    Raises:
        NameInvalid: It is no DNS label (ISM-FLEET-001).
    """
    name = wanted.name or str((await reads.get(kinds.NAMESPACE, "kube-system"))["metadata"]["uid"])
    if not membership.is_cluster_id(name):
        raise NameInvalid(
            f"{name} is not a valid DNS 1123 label",
            hint="use lower case letters, digits and `-`, at most 63 of them",
        )
    return name


def secret_of(name: str, wanted: Request, kubeconfig: client.Obj) -> client.Obj:
    """Return a secret that holds a kubeconfig, in Istio's shape."""
    is_remote = wanted.kind == "remote"
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "annotations": {CLUSTER_ANNOTATION: name},
            "labels": {LABEL: "true"},
            "name": f"istio-remote-secret-{name}" if is_remote else "istio-kubeconfig",
            "namespace": wanted.namespace,
        },
        "stringData": {name if is_remote else "config": _Block(_dumped(kubeconfig))},
    }


def kubeconfig_of(name: str, *, cluster: Mapping[str, str], user: client.Obj) -> client.Obj:
    """Return a kubeconfig with one cluster and one user, all called `name`."""
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"cluster": dict(cluster), "name": name}],
        "contexts": [{"context": {"cluster": name, "user": name}, "name": name}],
        "current-context": name,
        "users": [{"name": name, "user": user}],
    }


# --- what the cluster must hold -------------------------------------------------------------------


async def ensure_account(
    reads: client.Client, wanted: Request, *, on_note: Callable[[str], None]
) -> None:
    """Make the reader's account with its rights if it is not there.

    Raises:
        AccountMissing: It may not be made (ISM-FLEET-002).
    """
    account, namespace = wanted.account, wanted.namespace
    if await reads.find(kinds.SERVICE_ACCOUNT, account, namespace=namespace) is not None:
        return
    if not wanted.create_service_account or account != reader.SERVICE_ACCOUNT:
        raise AccountMissing(
            f"service account `{namespace}/{account}` does not exist",
            hint=f"make it with `kubectl create serviceaccount -n {namespace} {account}` "
            "and grant it what a reader needs",
        )
    if await reads.find(kinds.NAMESPACE, namespace) is None:
        await reads.create(
            kinds.NAMESPACE,
            {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}},
        )
    # As the installer: whoever installs here later finds nothing that somebody else set.
    made = await apply.apply(
        reads,
        reader.objects(namespace=namespace),
        field_manager=labels.FIELD_MANAGER,
        force=True,
    )
    on_note(f"made {', '.join(change.title for change in made)}")


async def _token_secret(reads: client.Client, wanted: Request) -> client.Obj:
    name = wanted.secret_name or await _token_secret_name(reads, wanted)
    try:
        return await waiting.until(
            reads,
            kinds.SECRET,
            name,
            namespace=wanted.namespace,
            missing=_token_lacks,
            timeout_s=wanted.token_timeout_s,
        )
    except problems.WaitEnded as error:
        raise TokenIncomplete(
            error.detail or f"secret `{wanted.namespace}/{name}` does not exist",
            detail=f"secret: {wanted.namespace}/{name}",
            hint="the cluster's token controller fills it; is the service account there?",
        ) from error


async def _token_secret_name(reads: client.Client, wanted: Request) -> str:
    for secret in await reads.list_(kinds.SECRET, namespace=wanted.namespace):
        annotations = secret["metadata"].get("annotations") or {}
        if (
            secret.get("type") == _TOKEN_TYPE
            and annotations.get(_ACCOUNT_ANNOTATION) == wanted.account
        ):
            return str(secret["metadata"]["name"])
    name = f"{wanted.account}-istio-remote-secret-token"
    await reads.create(
        kinds.SECRET,
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "type": _TOKEN_TYPE,
            "metadata": {
                "name": name,
                "namespace": wanted.namespace,
                "annotations": {_ACCOUNT_ANNOTATION: wanted.account},
            },
        },
    )
    return name


def _token_lacks(secret: client.Obj | None) -> str:
    for part in ("ca.crt", "token"):
        if not ((secret or {}).get("data") or {}).get(part):
            return f'no "{part}" data found'
    return ""


def _part(secret: client.Obj, name: str) -> str:
    return base64.b64decode(secret["data"][name]).decode()


# --- the server's address -------------------------------------------------------------------------


async def server_of(reads: client.Client, *, on_note: Callable[[str], None]) -> str:
    """Return our own address of the server, or the one it advertises if ours is of no use."""
    own = reads.access.server
    host = urllib.parse.urlsplit(own).hostname or ""
    if access.forbidden_host(host) not in ("loopback", "no address"):
        return own
    advertised = await _advertised(reads)
    if advertised:
        on_note(
            f"note: the kubeconfig's server `{own}` is reachable from this machine only; "
            f"using `{advertised}`, which the API server advertises (pass --server for another)"
        )
        return advertised
    on_note(
        f"warning: the API server's address is `{own}`. This is likely not reachable from inside "
        "the cluster; if the cluster runs in containers, pass --server with the address of the "
        "API server's container"
    )
    return own


async def _advertised(reads: client.Client) -> str:
    try:
        slices = await reads.list_(
            kinds.ENDPOINT_SLICE,
            namespace="default",
            labels="kubernetes.io/service-name=kubernetes",
        )
    except errors.IsthmusError:
        return ""
    for found in slices:
        ports = [item["port"] for item in found.get("ports") or [] if item.get("port")]
        for endpoint in found.get("endpoints") or []:
            for address in endpoint.get("addresses") or []:
                if ports and not access.forbidden_host(address):
                    shown = f"[{address}]" if ":" in address else address
                    return f"https://{shown}:{ports[0]}"
    return ""


# --- text -----------------------------------------------------------------------------------------


class _Block(str):
    """A text of several lines, written as such."""

    __slots__ = ()


class _Dumper(yaml.SafeDumper):
    """Writes YAML as Kubernetes' own tools do."""


def _represent(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    tag = "tag:yaml.org,2002:str"
    if isinstance(text, _Block):
        return dumper.represent_scalar(tag, str(text), style="|")
    resolved = dumper.resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # the stubs lack it
    plain = resolved == tag
    return dumper.represent_scalar(tag, text, style=None if plain else '"')


_Dumper.add_representer(str, _represent)
_Dumper.add_representer(_Block, _represent)


def _dumped(document: client.Obj) -> str:
    text = yaml.dump(document, Dumper=_Dumper, sort_keys=True, width=2**31 - 1)
    assert isinstance(text, str)
    return text


def text_of(*objects: client.Obj) -> str:
    """Return a secret, and what belongs to it, as the text that `kubectl apply` takes."""
    documents = "".join(f"{_dumped(one)}---\n" for one in objects)
    return f"# This file is autogenerated, do not edit.\n{documents}"
