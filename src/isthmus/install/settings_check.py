"""What should be said before an installation: settings without effect, a missing authority.

Findings only; they never stop an installation.
"""

import base64
from collections.abc import Callable, Iterator, Mapping

from isthmus.base import errors
from isthmus.install import control_plane, operator, options
from isthmus.kube import client as kube_client
from isthmus.kube import kinds
from isthmus.mesh import trust

CODE_NO_EFFECT = "ISM-INST-003"
CODE_NO_AUTHORITY = "ISM-INST-004"
CODE_NO_CONFIG_CLUSTER = "ISM-INST-010"
CODE_RENAMED = "ISM-INST-011"
CLUSTER_ID = "CLUSTER_ID"


def warnings_for(chosen: options.Options) -> Iterator[errors.Finding]:
    """Yield a finding for each given field that this version does not obey."""
    said = set()
    for path, field in operator.given(chosen.spec):
        if not field.is_obeyed and path not in said:
            said.add(path)
            yield errors.Finding(
                CODE_NO_EFFECT,
                path,
                f"has no effect: {field.why}" if field.why else "has no effect in this version",
                hint="docs/reference/settings.md lists what is obeyed",
            )


async def renamed(
    client: kube_client.Client, chosen: options.Options
) -> tuple[errors.Finding, ...]:
    """Return a finding when the control plane that runs calls its cluster something else."""
    name = f"istiod{chosen.suffix}"
    runs = await client.find(kinds.DEPLOYMENT, name, namespace=chosen.namespace)
    if runs is None or not chosen.pilot or chosen.remote:
        return ()
    [container, *_] = runs["spec"]["template"]["spec"]["containers"]
    env = {one["name"]: one.get("value") for one in container.get("env") or ()}
    old, new = env.get(CLUSTER_ID), control_plane.environment(chosen)[CLUSTER_ID]
    if not old or old == new:
        return ()
    return (
        errors.Finding(
            CODE_RENAMED,
            f"cluster `{old}`",
            f"gets another name: `{new}`; nothing is kept of an earlier installation's options",
            hint="give all files and --set of that installation again, and what is to change",
        ),
    )


Judge = Callable[[Mapping[str, str]], errors.IsthmusError | None]
"""Says why the files of a certificate authority cannot be used; None when they can."""


async def authority(
    client: kube_client.Client,
    chosen: options.Options,
    *,
    judge: Judge,
    warn: Callable[[errors.Finding], None],
) -> None:
    """Warn when a control plane will wait for its certificate authority, and say why."""
    if not chosen.pilot or chosen.remote:
        return
    if chosen.runs_outside:
        await _config_cluster(client, chosen, warn=warn)
    secret = await client.find(kinds.SECRET, trust.SECRET, namespace=chosen.namespace)
    fault = None if secret is None else judge(_files(secret))
    if secret is not None and fault is None:
        return
    warn(
        errors.Finding(
            CODE_NO_AUTHORITY,
            f"Secret {chosen.namespace}/{trust.SECRET}",
            "is missing" if fault is None else "; ".join([fault.happened, fault.detail]),
            still_working="the control plane is installed, and waits for it",
            hint=(
                "isthmus ca root && isthmus ca intermediate CLUSTER && "
                "isthmus ca push --context CONTEXT CLUSTER"
            ),
        )
    )


async def _config_cluster(
    client: kube_client.Client,
    chosen: options.Options,
    *,
    warn: Callable[[errors.Finding], None],
) -> None:
    """Warn when a control plane outside of its mesh is not told where that is configured."""
    name = control_plane.KUBECONFIG_SECRET
    if await client.find(kinds.SECRET, name, namespace=chosen.namespace) is not None:
        return
    warn(
        errors.Finding(
            CODE_NO_CONFIG_CLUSTER,
            f"Secret {chosen.namespace}/{name}",
            "is missing: the control plane does not know where its mesh is configured",
            still_working="the control plane is installed, and waits for it",
            hint=(
                "isthmus create-remote-secret --context CONFIG_CLUSTER --type=config "
                f"--namespace={chosen.namespace} --service-account=istiod "
                "--create-service-account=false | kubectl apply -f -"
            ),
        )
    )


def _files(secret: kube_client.Obj) -> dict[str, str]:
    return {
        name: base64.b64decode(text).decode(errors="replace")
        for name, text in (secret.get("data") or {}).items()
    }
