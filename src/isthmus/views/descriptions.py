"""Who an endpoint is, as telemetry wants it: one text for all that it describes.

Source: spec section 3.4.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Final

from isthmus.mesh.identities import ClusterId
from isthmus.mesh.workloads import Labels, Likeness

CANONICAL_NAME: Final = ("service.istio.io/canonical-name", "app.kubernetes.io/name", "app")
CANONICAL_REVISION: Final = (
    "service.istio.io/canonical-revision",
    "app.kubernetes.io/version",
    "version",
)
TOLD: Final = frozenset((*CANONICAL_NAME, *CANONICAL_REVISION))
LATEST: Final = "latest"


def described(endpoint: Likeness) -> str:
    """Return `<workload>;<namespace>;<service>;<revision>;<cluster>`."""
    told = tuple([pair for pair in endpoint.own if pair[0] in TOLD and pair[1]])
    return _description(endpoint.workload, endpoint.namespace, endpoint.cluster, told)


@functools.lru_cache(maxsize=256)
def _description(workload: str, namespace: str, cluster: ClusterId, labels: Labels) -> str:
    told = dict(labels)
    name = _first(told, CANONICAL_NAME) or workload
    revision = _first(told, CANONICAL_REVISION)
    shown = "" if revision == LATEST else revision
    return f"{workload};{namespace};{name};{shown};{cluster}"


def _first(labels: Mapping[str, str], keys: Sequence[str]) -> str:
    for key in keys:
        if key in labels:
            return labels[key]
    return ""
