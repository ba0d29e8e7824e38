"""Decides from the remote secrets which clusters belong to the mesh, and says what is wrong.

Pure: how a kubeconfig is judged is passed in. The same secrets give the same answer on every
replica: of several secrets that claim one cluster the oldest wins, whatever it holds; nobody can
claim the cluster that the control plane's own configuration comes from. A kubeconfig that is
refused leaves the one that this cluster is followed with in use. A secret can be switched off by
an annotation: it goes on holding its clusters' ids, and nobody follows them.

Source: spec section 2.3; security rules RS-1 and RS-6.
"""

import base64
import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from isthmus.base import errors
from isthmus.kube import objects, problems
from isthmus.mesh.identities import ClusterId

A = TypeVar("A")

ID_INVALID = "ISM-FLEET-011"
ID_OWN = "ISM-FLEET-012"
ID_TAKEN = "ISM-FLEET-013"
KUBECONFIG_REFUSED = "ISM-FLEET-014"
MOST_LABEL = 63
CONFIG_SECRET = "istio-kubeconfig"
"""Leads a control plane to where its mesh is configured: not to a cluster beside that one."""
DISABLED = "isthmus.dev/disabled"
"""Annotation of a remote secret: `true` takes its clusters out of the mesh while it is there."""


@dataclass(frozen=True, slots=True)
class Wanted(Generic[A]):
    """A cluster that belongs to the mesh.

    Attributes:
        secret: Namespace and name of the secret that says so, as `namespace/name`.
        digest: Fingerprint of the kubeconfig; another one means another generation.
        reached_by: How its API server is reached.
    """

    cluster: ClusterId
    secret: str
    digest: str
    reached_by: A


@dataclass(frozen=True, slots=True)
class Membership(Generic[A]):
    """Which clusters belong, and what is wrong with secrets.

    Attributes:
        disabled: Clusters that are switched off, with the secret that would bring them.
    """

    wanted: Mapping[ClusterId, Wanted[A]]
    findings: tuple[errors.Finding, ...]
    disabled: Mapping[ClusterId, str]


@dataclass(frozen=True, slots=True)
class _Claim:
    cluster: ClusterId
    secret: str
    encoded: str
    disabled: bool

    def finding(self, code: str, happened: str, *, working: str, hint: str) -> errors.Finding:
        subject = f"Secret {self.secret}, key {self.cluster[:80]}"
        return errors.Finding(code, subject, happened, still_working=working, hint=hint)


def of_secrets(
    secrets: Iterable[objects.Secret],
    *,
    own: ClusterId,
    parse: Callable[[str], A],
    in_use: Mapping[ClusterId, Wanted[A]],
) -> Membership[A]:
    """Decide which clusters belong to the mesh.

    Args:
        secrets: Those that bear the label; the one for the configuration cluster does, too.
        own: The cluster that no secret may claim.
        parse: Judges a kubeconfig; raises `problems.KubeconfigRefused`.
        in_use: What the clusters are followed with at present.
    """
    wanted: dict[ClusterId, Wanted[A]] = {}
    holders: dict[ClusterId, str] = {}
    findings: list[errors.Finding] = []
    disabled: dict[ClusterId, str] = {}
    for claim in _claims(secrets):
        refusal = _refusal(claim, own=own, holder=holders.get(claim.cluster))
        if refusal is not None:
            findings.append(refusal)
            continue
        holders[claim.cluster] = claim.secret
        if claim.disabled:
            disabled[claim.cluster] = claim.secret
            continue
        found, finding = _judged(claim, parse=parse, in_use=in_use.get(claim.cluster))
        if found is not None:
            wanted[claim.cluster] = found
        if finding is not None:
            findings.append(finding)
    return Membership(wanted, tuple(findings), disabled)


def is_cluster_id(text: str) -> bool:
    """Tell whether `text` may be a cluster's id: a DNS label."""
    letters = frozenset("abcdefghijklmnopqrstuvwxyz0123456789-")
    return (
        0 < len(text) <= MOST_LABEL and letters.issuperset(text) and "-" not in (text[0], text[-1])
    )


def _claims(secrets: Iterable[objects.Secret]) -> list[_Claim]:
    oldest_first = sorted(
        secrets, key=lambda secret: (secret.metadata.creation_timestamp, secret.metadata.name)
    )
    return [
        _Claim(
            ClusterId(key),
            f"{secret.metadata.namespace}/{secret.metadata.name}",
            encoded,
            disabled=secret.metadata.annotation(DISABLED).lower() == "true",
        )
        for secret in oldest_first
        if secret.metadata.name != CONFIG_SECRET
        for key, encoded in sorted((secret.data or {}).items())
    ]


def _refusal(claim: _Claim, *, own: ClusterId, holder: str | None) -> errors.Finding | None:
    if not is_cluster_id(claim.cluster):
        return claim.finding(
            ID_INVALID,
            "the key is no cluster id",
            working="the other keys are used",
            hint="name the key after the cluster: lower case letters, digits and `-`",
        )
    if claim.cluster == own:
        return claim.finding(
            ID_OWN,
            f"ignoring cluster as it would overwrite the config cluster `{own}`",
            working="the control plane's own cluster is followed as before",
            hint="give the remote cluster an id of its own",
        )
    if holder is not None:
        return claim.finding(
            ID_TAKEN,
            f"cluster has already been registered by the older secret {holder}",
            working=f"cluster `{claim.cluster}` is followed with {holder}",
            hint="delete one of the two secrets",
        )
    return None


def _judged(
    claim: _Claim, *, parse: Callable[[str], A], in_use: Wanted[A] | None
) -> tuple[Wanted[A] | None, errors.Finding | None]:
    kept = in_use if in_use is not None and in_use.secret == claim.secret else None
    try:
        content = base64.b64decode(claim.encoded, validate=True)
        digest = hashlib.sha256(content).hexdigest()
        if kept is not None and kept.digest == digest:
            return kept, None
        reached_by = parse(content.decode())
    except ValueError:  # Of any kind: one secret must not keep others from being judged.
        return kept, _unusable(claim, "kubeconfig is not valid: it is not a text", kept=bool(kept))
    except problems.KubeconfigRefused as error:
        return kept, _unusable(claim, error.happened, kept=bool(kept), hint=error.hint)
    return Wanted(claim.cluster, claim.secret, digest, reached_by), None


def _unusable(claim: _Claim, reason: str, *, kept: bool, hint: str = "") -> errors.Finding:
    working = f"cluster `{claim.cluster}` is followed as before" if kept else "all other clusters"
    return claim.finding(KUBECONFIG_REFUSED, reason, working=working, hint=hint)
