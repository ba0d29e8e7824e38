"""Which endpoints of a service are near to a client: what its traffic distribution says.

The field of the Service counts before its annotation, and that before the annotation of its
namespace. Values are what a client and its endpoints should have in common, the most important
first: as labels, since that is how policies say the same.

Source: spec section 7.5.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from isthmus.base import errors
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.registry import topology

ANNOTATION: Final = "networking.istio.io/traffic-distribution"
DISTRIBUTION_UNKNOWN: Final = "ISM-REG-021"

ANY: Final[tuple[str, ...]] = ()
SAME_NETWORK: Final = (topology.NETWORK_LABEL,)
SAME_REGION: Final = (*SAME_NETWORK, topology.REGION_LABEL)
SAME_ZONE: Final = (*SAME_REGION, topology.ZONE_LABEL)
SAME_NODE: Final = (*SAME_ZONE, topology.SUBZONE_LABEL, topology.HOSTNAME_LABEL)
VALUES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "any": ANY,
        "prefernetwork": SAME_NETWORK,
        "preferregion": SAME_REGION,
        "preferclose": SAME_ZONE,
        "prefersamezone": SAME_ZONE,
        "prefersamenode": SAME_NODE,
    }
)


def said_of(service: objects.Service, namespace: objects.Namespace | None) -> str:
    """Return the value that counts for a Service; empty where nobody says anything."""
    return (
        service.spec.traffic_distribution
        or service.metadata.annotation(ANNOTATION)
        or (namespace.metadata.annotation(ANNOTATION) if namespace is not None else "")
    )


def nearness_of(said: str, *, usual: tuple[str, ...] = ANY) -> tuple[str, ...]:
    """Return the labels that a client and near endpoints share; `usual` where nothing is said."""
    return VALUES.get(said.strip().lower(), ANY) if said else usual


def findings_of(
    service: objects.Service, said: str, key: sources.ObjectKey
) -> tuple[errors.Finding, ...]:
    """Say that a value is one that nobody knows."""
    if not said or said.strip().lower() in VALUES:
        return ()
    is_own = said in {service.spec.traffic_distribution, service.metadata.annotation(ANNOTATION)}
    where = f"Service {key.namespace}/{key.name}" if is_own else f"Namespace {key.namespace}"
    return (
        errors.Finding(
            code=DISTRIBUTION_UNKNOWN,
            subject=f"{where} in cluster `{key.cluster}`",
            happened=f"has an unknown traffic distribution: `{said[:63]}`",
            still_working=f"traffic for Service {key.namespace}/{key.name} goes to all endpoints "
            "alike, as with `Any`",
            hint="one of Any, PreferNetwork, PreferRegion, PreferClose, PreferSameZone and "
            "PreferSameNode",
        ),
    )
