"""Runs a credential plugin that the user's own kubeconfig names.

Only the command line comes here: a kubeconfig of foreign origin never does.

Source: Kubernetes' `client.authentication.k8s.io/v1` and `v1beta1`.
"""

import os
import pathlib
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import msgspec
from typing_extensions import override

from isthmus.kube import problems

VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
# People may have to log in in a browser meanwhile.
LONGEST_RUN_S = 300.0


@dataclass(frozen=True, slots=True)
class Credential:
    """What a plugin gave."""

    token: str = ""
    client_certificate_pem: str = ""
    client_key_pem: str = ""

    @override
    def __repr__(self) -> str:
        return "Credential(...)"


def run(plugin: dict[str, Any], *, cluster: dict[str, Any], base: pathlib.Path) -> Credential:
    """Run `plugin` and return its credential.

    Args:
        plugin: The `exec` section of the kubeconfig's user.
        cluster: What the plugin is told of the cluster if it asks for that.
        base: Folder of the kubeconfig, to which a relative command path belongs.

    Raises:
        PluginFailed: It is missing, failed, or answered something else (ISM-KUBE-005).
    """
    version = str(plugin.get("apiVersion", ""))
    command = str(plugin.get("command", ""))
    if version not in VERSIONS:
        raise problems.PluginFailed(
            f"credential plugin `{command}` speaks an unknown version: `{version}`",
            hint=f"supported: {', '.join(VERSIONS)}",
        )
    argv = [_located(command, base), *(str(item) for item in plugin.get("args") or [])]
    try:
        finished = subprocess.run(
            argv,
            env=_environment(plugin, version=version, cluster=cluster),
            stdout=subprocess.PIPE,
            timeout=LONGEST_RUN_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise problems.PluginFailed(
            f"credential plugin `{command}` failed",
            detail=str(error),
            hint=str(plugin.get("installHint") or "run it by hand to see why"),
        ) from error
    return _credential(finished.stdout, command=command, version=version)


def _located(command: str, base: pathlib.Path) -> str:
    return str(base / command) if os.sep in command else command


def _environment(
    plugin: dict[str, Any], *, version: str, cluster: dict[str, Any]
) -> dict[str, str]:
    interactive = plugin.get("interactiveMode") != "Never" and sys.stdin.isatty()
    spec: dict[str, Any] = {"interactive": interactive}
    if plugin.get("provideClusterInfo"):
        spec["cluster"] = cluster
    told = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    own = {str(item["name"]): str(item["value"]) for item in plugin.get("env") or []}
    return {**os.environ, **own, "KUBERNETES_EXEC_INFO": msgspec.json.encode(told).decode()}


def _credential(output: bytes, *, command: str, version: str) -> Credential:
    try:
        answer = msgspec.json.decode(output)
        status = answer["status"]
        if answer["kind"] != "ExecCredential" or answer["apiVersion"] != version:
            raise ValueError("not an ExecCredential of the version asked for")
        credential = Credential(
            token=str(status.get("token") or ""),
            client_certificate_pem=str(status.get("clientCertificateData") or ""),
            client_key_pem=str(status.get("clientKeyData") or ""),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise problems.PluginFailed(
            f"credential plugin `{command}` answered something else than a credential",
            detail=f"{type(error).__name__}: {error}",
        ) from error
    if not credential.token and not credential.client_certificate_pem:
        raise problems.PluginFailed(f"credential plugin `{command}` gave an empty credential")
    return credential
