"""What should be said before an installation: settings without effect, a missing authority.

Findings only; they never stop an installation.
"""

from collections.abc import Callable, Iterator, Mapping

from isthmus.base import errors
from isthmus.install import options
from isthmus.kube import client as kube_client
from isthmus.kube import kinds
from isthmus.mesh import trust

CODE_NO_EFFECT = "ISM-INST-003"
CODE_NO_AUTHORITY = "ISM-INST-004"

WITHOUT_EFFECT: Mapping[tuple[str, ...], str] = {
    ("cni",): "capture is set up by the init container in this version",
    ("ztunnel",): "ambient mode is not part of this version",
    ("telemetry",): "proxies export Envoy's own statistics only",
    ("global", "configCluster"): "an external control plane is not part of this version",
    ("istiodRemote", "enabledLocalInjectorIstiod"): "a local injector is not part of this version",
}


def warnings_for(chosen: options.Options) -> Iterator[errors.Finding]:
    """Yield a finding for each given setting that this version does not obey."""
    for path, reason in WITHOUT_EFFECT.items():
        value: object = chosen.values
        for part in path:
            value = value.get(part) if isinstance(value, Mapping) else None
        if value:
            yield errors.Finding(
                CODE_NO_EFFECT,
                f"spec.values.{'.'.join(path)}",
                f"has no effect: {reason}",
                hint="see docs/explanation/known-limits.md",
            )


async def authority(
    client: kube_client.Client,
    chosen: options.Options,
    warn: Callable[[errors.Finding], None],
) -> None:
    """Warn when a control plane will wait for its certificate authority."""
    if not chosen.pilot or chosen.remote:
        return
    secret = await client.find(kinds.SECRET, trust.SECRET, namespace=chosen.namespace)
    present = set((secret or {}).get("data") or {})
    missing = [name for name in trust.FILES if name not in present]
    if missing and trust.TLS_CERTIFICATE not in present:
        warn(
            errors.Finding(
                CODE_NO_AUTHORITY,
                f"Secret {chosen.namespace}/cacerts",
                "is missing" if secret is None else f"lacks {', '.join(missing)}",
                still_working="the control plane is installed, and waits for it",
                hint=(
                    "isthmus ca root && isthmus ca intermediate CLUSTER && "
                    "isthmus ca push --context CONTEXT CLUSTER"
                ),
            )
        )
