"""How one API server is reached, as a value: address, authority, credential.

Three origins: the user's own kubeconfig, the service account mounted in a pod, and the kubeconfig
in a remote secret. The last is foreign text: it is read by a strict schema, and whatever could
run a command, read a file, disable verification or lead back to ourselves is refused by name.

Source: spec sections 2.1 and 2.3; security rules RS-2 and PY (reliability.md 5.1, 5.9).
"""

import base64
import ipaddress
import os
import pathlib
import urllib.parse
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from typing_extensions import override

from isthmus.kube import plugins, problems, yamltext

SERVICE_ACCOUNT_FOLDER = "/var/run/secrets/kubernetes.io/serviceaccount"
MOST_TOKEN_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Access:
    """Where an API server is, who vouches for it, and what we show it.

    Attributes:
        ca_pem: Certificates that may vouch for the server; empty for the machine's own.
        tls_server_name: Name that the certificate must bear if it is not the address's.
        name: How people call this access: the context or cluster.
        token_path: File that holds the token and is read again when it changes.
        namespace: Where objects without a namespace go.
        proxy_url: HTTP proxy on the way, from the user's own kubeconfig only.
        verify: False only if the user's own kubeconfig says so.
        confined: Foreign: the address must not resolve to this machine or its neighbours.
        warnings: What a person should be told about this access.
    """

    server: str
    ca_pem: str
    token: str = ""
    client_certificate_pem: str = ""
    client_key_pem: str = ""
    tls_server_name: str = ""
    name: str = ""
    token_path: str = ""
    namespace: str = ""
    proxy_url: str = ""
    verify: bool = True
    confined: bool = False
    warnings: tuple[str, ...] = ()

    @override
    def __repr__(self) -> str:
        return f"Access(server={self.server!r}, name={self.name!r})"


def in_cluster(folder: str = SERVICE_ACCOUNT_FOLDER) -> Access:
    """Return the access that the service account mounted in this pod gives.

    Raises:
        NotInCluster: None is mounted here (ISM-KUBE-010).
    """
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    port = os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    mounted = pathlib.Path(folder)
    if not host or not (mounted / "token").exists():
        raise problems.NotInCluster(
            "no service account is mounted here",
            hint="outside a cluster, pass a kubeconfig",
        )
    namespace = mounted / "namespace"
    return Access(
        server=f"https://{f'[{host}]' if ':' in host else host}:{port}",
        ca_pem=(mounted / "ca.crt").read_text(),
        name="in-cluster",
        token_path=str(mounted / "token"),
        namespace=namespace.read_text().strip() if namespace.exists() else "",
    )


# --- the user's own kubeconfig ------------------------------------------------------------------


def from_kubeconfig(path: str | None = None, *, context: str | None = None) -> Access:
    """Return the access that the user's own kubeconfig gives.

    Credential plugins named there are run, and files named there are read.

    Args:
        path: One file; None for those in `KUBECONFIG`, or `~/.kube/config`.
        context: Which context; None for the current one.

    Raises:
        KubeconfigBroken: A file, context, cluster or user is missing or malformed (ISM-KUBE-003).
        PluginFailed: The credential plugin gave nothing (ISM-KUBE-005).
    """
    paths = _paths(path)
    merged = _merged(paths)
    if not merged["contexts"] and path is None and context is None and _has_service_account():
        return in_cluster()
    name = context or merged["current-context"]
    shown = ", ".join(f"`{item}`" for item in sorted(merged["contexts"])) or "none"
    if not any(item.exists() for item in paths):
        raise problems.KubeconfigBroken(
            f"there is no kubeconfig at {', '.join(f'`{item}`' for item in paths)}",
            hint="pass `--kubeconfig`, or set KUBECONFIG to a file that exists",
        )
    if not name or name not in merged["contexts"]:
        raise problems.KubeconfigBroken(
            f"no context `{name}` in the kubeconfig" if name else "the kubeconfig names no context",
            detail=f"files: {', '.join(str(item) for item in paths)}\ncontexts: {shown}",
            hint="pass `--context`, or set KUBECONFIG to the file that holds it",
        )
    chosen, _ = merged["contexts"][name]
    cluster, cluster_base = _named(merged, "clusters", str(chosen.get("cluster", "")))
    user, user_base = _named(merged, "users", str(chosen.get("user", "")))
    return _assembled(
        name,
        namespace=str(chosen.get("namespace") or ""),
        cluster=_Part(cluster, cluster_base),
        user=_Part(user, user_base),
    )


@dataclass(frozen=True, slots=True)
class _Part:
    """A section of a kubeconfig and the folder to which its paths belong."""

    fields: Mapping[str, Any]
    base: pathlib.Path

    def text(self, key: str) -> str:
        return str(self.fields.get(key) or "")

    def pem(self, key: str) -> str:
        """Return what `<key>-data` or the file at `key` holds."""
        inline = self.text(f"{key}-data")
        if inline:
            return _decoded(inline, what=f"{key}-data")
        path = self.text(key)
        return _read(self.base / path) if path else ""


def _assembled(name: str, *, namespace: str, cluster: _Part, user: _Part) -> Access:
    for unsupported in ("auth-provider", "username", "as"):
        if user.text(unsupported):
            raise problems.KubeconfigBroken(
                f"context `{name}` uses `{unsupported}`, which is not supported",
                hint="use a token, a client certificate or a credential plugin (`exec`)",
            )
    certificate, key = user.pem("client-certificate"), user.pem("client-key")
    token, token_path = user.text("token"), user.text("tokenFile")
    if user.fields.get("exec"):
        told = {
            "server": cluster.text("server"),
            "certificate-authority-data": cluster.text("certificate-authority-data"),
            "tls-server-name": cluster.text("tls-server-name"),
        }
        gained = plugins.run(user.fields["exec"], cluster=told, base=user.base)
        token = gained.token or token
        certificate = gained.client_certificate_pem or certificate
        key = gained.client_key_pem or key
    insecure = cluster.fields.get("insecure-skip-tls-verify") is True
    return Access(
        server=_own_server(cluster.text("server"), name=name),
        ca_pem=cluster.pem("certificate-authority"),
        token=token,
        client_certificate_pem=certificate,
        client_key_pem=key,
        tls_server_name=cluster.text("tls-server-name"),
        name=name,
        token_path=str(user.base / token_path) if token_path and not token else "",
        namespace=namespace,
        proxy_url=cluster.text("proxy-url"),
        verify=not insecure,
        warnings=(f"context `{name}` does not verify its API server's certificate",)
        if insecure
        else (),
    )


def _own_server(server: str, *, name: str) -> str:
    if not server.startswith(("https://", "http://")):
        raise problems.KubeconfigBroken(f"context `{name}` has no server address: `{server}`")
    return server.rstrip("/")


def _paths(path: str | None) -> tuple[pathlib.Path, ...]:
    if path:
        return (pathlib.Path(path).expanduser(),)
    listed = [item for item in os.environ.get("KUBECONFIG", "").split(os.pathsep) if item]
    if listed:
        return tuple(pathlib.Path(item).expanduser() for item in listed)
    return (pathlib.Path("~/.kube/config").expanduser(),)


def _merged(paths: Iterable[pathlib.Path]) -> dict[str, Any]:
    """Merge files as kubectl does: whoever names something first defines it."""
    merged: dict[str, Any] = {"current-context": "", "clusters": {}, "contexts": {}, "users": {}}
    for path in paths:
        if not path.exists():
            continue
        document = _own_document(path)
        merged["current-context"] = merged["current-context"] or str(
            document.get("current-context") or ""
        )
        for section, single in (
            ("clusters", "cluster"),
            ("contexts", "context"),
            ("users", "user"),
        ):
            for item in document.get(section) or []:
                merged[section].setdefault(str(item["name"]), (item.get(single) or {}, path.parent))
    return merged


def _own_document(path: pathlib.Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(_read(path)) or {}
        for section in ("clusters", "contexts", "users"):
            for item in document.get(section) or []:
                if not isinstance(item["name"], str | int):
                    raise TypeError(f"a name in `{section}` is no text")
                if not isinstance(item.get(section[:-1]) or {}, dict):
                    raise TypeError(f"`{item['name']}` in `{section}` has no fields")
    # A date that the calendar does not have is a `ValueError` of the library's.
    except (
        yaml.YAMLError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
        RecursionError,
    ) as error:
        said = str(error).replace("<unicode string>", str(path))
        raise problems.KubeconfigBroken(
            f"not a kubeconfig: `{path}`",
            detail=f"{type(error).__name__}: {said}",
            hint="correct that, or pass another with `--kubeconfig`",
        ) from error
    assert isinstance(document, dict)
    return document


def _named(merged: Mapping[str, Any], section: str, name: str) -> tuple[Any, pathlib.Path]:
    if name not in merged[section]:
        raise problems.KubeconfigBroken(
            f"the kubeconfig has no `{name}` among its {section}",
            hint="the context names it; add it or correct the context",
        )
    fields, base = merged[section][name]
    return fields, base


def _has_service_account() -> bool:
    return (
        bool(os.environ.get("KUBERNETES_SERVICE_HOST"))
        and pathlib.Path(SERVICE_ACCOUNT_FOLDER, "token").exists()
    )


def _read(path: pathlib.Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        raise problems.KubeconfigBroken(
            f"cannot read `{path}`", detail=error.strerror or str(error)
        ) from error
    except UnicodeDecodeError as error:
        raise problems.KubeconfigBroken(f"`{path}` is not a text", detail=str(error)) from error


def _decoded(text: str, *, what: str) -> str:
    try:
        return base64.b64decode("".join(text.split()), validate=True).decode()
    except ValueError as error:  # Of any kind: no base64, letters of no alphabet, no text.
        raise problems.KubeconfigBroken(f"`{what}` is not base64 of a text") from error


# --- a kubeconfig of foreign origin -------------------------------------------------------------

_TOP = frozenset({"apiVersion", "kind", "clusters", "contexts", "users", "current-context"})
# Older command lines emitted these, always empty.
_EMPTY = frozenset({"preferences", "creationTimestamp", "extensions"})
_CLUSTER = frozenset({"server", "certificate-authority-data", "tls-server-name"})
_CONTEXT = frozenset({"cluster", "user", "namespace"})
_USER = frozenset({"token", "client-certificate-data", "client-key-data"})
_REASONS = {
    "exec": "exec is not allowed: it would run a command here",
    "auth-provider": "auth-provider is not allowed: it would run a login here",
    "tokenFile": "tokenFile is not allowed: it would read a file here",
    "client-certificate": "clientCertificate is not allowed: it would read a file here",
    "client-key": "clientKey is not allowed: it would read a file here",
    "certificate-authority": "certificate-authority is not allowed: it would read a file here",
    "insecure-skip-tls-verify": "insecure-skip-tls-verify is not allowed: "
    "anybody on the way could pose as the cluster",
    "proxy-url": "proxy-url is not allowed: it would send our requests elsewhere",
    "username": "username is not allowed: use a token",
    "password": "password is not allowed: use a token",
    "as": "impersonation is not allowed",
    "as-uid": "impersonation is not allowed",
    "as-groups": "impersonation is not allowed",
    "as-user-extra": "impersonation is not allowed",
}
_HINT = "make it with `isthmus create-remote-secret`, which writes what is accepted"
_LOOPBACK_HINT = (
    "from inside a cluster that address is the pod itself; "
    "pass `--server` with an address that other clusters can reach"
)
_METADATA_HOSTS = frozenset({"metadata", "metadata.google.internal", "100.100.100.200"})


def parse_untrusted(text: str) -> Access:
    """Return the access that a kubeconfig of foreign origin gives, without touching anything.

    Accepted are one cluster with its authority, one context, and one user with a token or an
    inline client certificate.

    Raises:
        KubeconfigRefused: It holds anything else; the message is the reason (ISM-KUBE-004).
    """
    if not text.strip():
        raise _refusal("kubeconfig is empty")
    try:
        document = yamltext.read(text)
    except yamltext.RefusedError as error:
        raise _refusal(f"kubeconfig cannot be loaded: {error}") from error
    top = _mapping(document, "the kubeconfig")
    _only(top, _TOP | _EMPTY, "the kubeconfig")
    if any(top.get(key) for key in _EMPTY):
        raise _refusal("kubeconfig is not allowed: preferences and extensions must be empty")
    if top.get("apiVersion", "v1") != "v1" or top.get("kind", "Config") != "Config":
        raise _refusal("kubeconfig is not valid: it is not a `v1` `Config`")
    cluster_name, cluster = _sole(top, "clusters", "cluster", _CLUSTER)
    context_name, context = _sole(top, "contexts", "context", _CONTEXT)
    user_name, user = _sole(top, "users", "user", _USER)
    if top.get("current-context", context_name) not in ("", context_name):
        raise _refusal("kubeconfig is not valid: current-context names no context")
    if (_text(context, "cluster"), _text(context, "user")) != (cluster_name, user_name):
        raise _refusal("kubeconfig is not valid: the context names another cluster or user")
    return _confined(cluster_name, cluster=cluster, user=user)


def _confined(name: str, *, cluster: dict[str, str], user: dict[str, str]) -> Access:
    certificate = _pem(user, "client-certificate-data")
    key = _pem(user, "client-key-data")
    token = user.get("token", "").strip()
    if bool(certificate) != bool(key):
        raise _refusal("kubeconfig is not valid: a client certificate and its key belong together")
    if not token and not certificate:
        raise _refusal("kubeconfig is not valid: it holds no token and no client certificate")
    if len(token) > MOST_TOKEN_BYTES or not all("!" <= letter <= "~" for letter in token):
        raise _refusal("kubeconfig is not valid: the token is not one line of plain text")
    authority = _pem(cluster, "certificate-authority-data")
    if not authority:
        raise _refusal("kubeconfig is not valid: certificate-authority-data is missing")
    _check_pem(authority, certificate=certificate, key=key)
    return Access(
        server=_foreign_server(cluster.get("server", "")),
        ca_pem=authority,
        token=token,
        client_certificate_pem=certificate,
        client_key_pem=key,
        tls_server_name=cluster.get("tls-server-name", ""),
        name=name,
        confined=True,
    )


def _foreign_server(server: str) -> str:
    try:
        parts = urllib.parse.urlsplit(server)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise _refusal("kubeconfig is not valid: the server's address is malformed") from error
    if parts.scheme != "https" or not host:
        raise _refusal("kubeconfig is not allowed: the server's address must begin with https://")
    if parts.username is not None or parts.query or parts.fragment:
        raise _refusal("kubeconfig is not allowed: the server's address holds more than a place")
    if not server.isascii() or any(letter.isspace() for letter in server):
        raise _refusal("kubeconfig is not valid: the server's address is malformed")
    reason = forbidden_host(host)
    if reason:
        raise _refusal(
            f"kubeconfig is not allowed: server `{host}` is {reason}",
            hint=_LOOPBACK_HINT if reason == "loopback" else _HINT,
        )
    return server.rstrip("/")


def forbidden_host(host: str) -> str:
    """Return why a foreign kubeconfig may not lead to `host`, or nothing."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith((".localhost", ".localdomain")):
        return "loopback"
    if name in _METADATA_HOSTS:
        return "a metadata service"
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        # Resolvers read `127.1`, `0x7f000001` and `2130706433` as addresses; we do not argue.
        last = name.rpartition(".")[2]
        return "an address in an unusual spelling" if last.isdigit() or last[:2] == "0x" else ""
    mapped = getattr(address, "ipv4_mapped", None)
    return forbidden_address(mapped or address)


def forbidden_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """Return why a foreign kubeconfig may not lead to `address`, or nothing."""
    if address.is_loopback:
        return "loopback"
    if address.is_unspecified:
        return "no address"
    if address.is_link_local:
        return "link-local"
    return "multicast" if address.is_multicast else ""


def _check_pem(authority: str, *, certificate: str, key: str) -> None:
    # Only for remote secrets: commands read kubeconfigs of their users, and must start fast.
    from cryptography import x509
    from cryptography.hazmat.primitives import serialization

    try:
        x509.load_pem_x509_certificates(authority.encode())
        if certificate:
            x509.load_pem_x509_certificates(certificate.encode())
            serialization.load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise _refusal("kubeconfig is not valid: a certificate or key is malformed") from error


def _sole(
    top: dict[str, yamltext.Node], section: str, single: str, allowed: frozenset[str]
) -> tuple[str, dict[str, str]]:
    listed = top.get(section)
    if not isinstance(listed, list) or len(listed) != 1:
        raise _refusal(f"kubeconfig is not allowed: it must hold exactly one of {section}")
    item = _mapping(listed[0], section)
    _only(item, frozenset({"name", single}), section)
    fields = _mapping(item.get(single, ""), single)
    if single == "cluster" and fields.get("insecure-skip-tls-verify") == "false":
        fields = {key: value for key, value in fields.items() if key != "insecure-skip-tls-verify"}
    _only(fields, allowed, single)
    return _text(item, "name"), {key: _text(fields, key) for key in fields}


def _mapping(node: yamltext.Node, what: str) -> dict[str, yamltext.Node]:
    if not isinstance(node, dict):
        raise _refusal(f"kubeconfig is not valid: {what} is not a mapping")
    return node


def _only(fields: Mapping[str, object], allowed: frozenset[str], what: str) -> None:
    for key in fields:
        if key not in allowed:
            reason = _REASONS.get(key, f"unknown field `{key[:60]}` in {what}")
            raise _refusal(f"kubeconfig is not allowed: {reason}")


def _text(fields: Mapping[str, yamltext.Node], key: str) -> str:
    value = fields.get(key, "")
    if not isinstance(value, str):
        raise _refusal(f"kubeconfig is not valid: `{key}` is not a text")
    return value


def _pem(fields: Mapping[str, str], key: str) -> str:
    try:
        raw = "".join(fields.get(key, "").split())
        return base64.b64decode(raw, validate=True).decode("ascii")
    except ValueError as error:  # Of any kind: no base64, letters of no alphabet, no text.
        raise _refusal(f"kubeconfig is not valid: {key} is not base64 of a text") from error


def _refusal(reason: str, *, hint: str = _HINT) -> problems.KubeconfigRefused:
    return problems.KubeconfigRefused(
        reason, still_working="an earlier kubeconfig of this cluster stays in use", hint=hint
    )
