"""Decides where a control plane's mesh is configured: in its own cluster, or in another one.

A kubeconfig mounted into its pod names the other one. Then the control plane runs outside of its
mesh: its own settings, and the remote secrets if it is told so, stay where it runs. When that
file changes the program ends, to be started again with the new one.

Source: spec sections 2.3 and 6.5.

    IsthmusError
    └── ConfigClusterUnknown
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from isthmus.base import errors, logs
from isthmus.fleet import membership, supervisor
from isthmus.kube import access, problems
from isthmus.runtime import settings

_LOG = logs.Log("isthmus.seating")

LOOK_EVERY_S = 2.0


class ConfigClusterUnknown(errors.IsthmusError):
    """A control plane outside of its mesh cannot tell where the mesh is configured."""

    code = "ISM-RUN-010"


@dataclass(frozen=True, slots=True)
class Seats:
    """Which API servers are asked.

    Attributes:
        config: Of the cluster where the mesh is configured.
        home: Of the one where the control plane runs, if that is another.
        text: The kubeconfig; empty where there is none.
    """

    config: access.Access
    home: supervisor.Home | None = None
    text: str = ""


def seats(chosen: settings.Settings, *, mounted: str = access.SERVICE_ACCOUNT_FOLDER) -> Seats:
    """Return the API servers of a control plane whose own account is mounted at `mounted`.

    Raises:
        ConfigClusterUnknown: The kubeconfig is missing or cannot be used (ISM-RUN-010).
    """
    text = _read(chosen.kubeconfig)
    if not text:
        if chosen.has_secrets_at_home:
            raise _unknown(chosen, "is missing or empty")
        return Seats(access.in_cluster(mounted))
    try:
        own = access.in_cluster(mounted)
    except problems.NotInCluster:
        # Started by hand: the file is the user's own.
        return Seats(access.from_kubeconfig(chosen.kubeconfig, context=None))
    try:
        config = access.parse_untrusted(text)
    except problems.KubeconfigRefused as error:
        raise _unknown(chosen, f"cannot be used: {error.happened}") from error
    return Seats(config, supervisor.Home(own, has_secrets=chosen.has_secrets_at_home), text)


async def changed(
    chosen: settings.Settings, found: Seats, *, sleep: Callable[[float], Awaitable[None]]
) -> None:
    """Return when the kubeconfig is another than `found` was made of; never if there was none."""
    while not found.text or _read(chosen.kubeconfig) in ("", found.text):
        await sleep(LOOK_EVERY_S)
    _LOG.warning("another kubeconfig for the configuration cluster: starting again")


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip() if path else ""
    except (OSError, UnicodeDecodeError):
        return ""


def _unknown(chosen: settings.Settings, why: str) -> ConfigClusterUnknown:
    return ConfigClusterUnknown(
        f"Secret `{membership.CONFIG_SECRET}` in namespace `{chosen.namespace}` {why}",
        detail=f"it should be mounted at {chosen.kubeconfig or 'the path in KUBECONFIG'}",
        still_working="proxies keep their last configuration; nothing is served to new ones",
        hint=(
            "isthmus create-remote-secret --context CONFIG_CLUSTER --type=config "
            f"--namespace={chosen.namespace} --service-account=istiod "
            "--create-service-account=false | kubectl apply -f -"
        ),
    )
