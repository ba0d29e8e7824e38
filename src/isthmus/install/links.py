"""Links between clusters: what one cluster must know of another, read from that one, as an object.

Nothing secret goes from one cluster to another: names, addresses, and which roots are trusted.

Source: spec section 7.7.

    IsthmusError
    ├── ClusterUnready
    └── PairRefused
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

from isthmus.base import errors
from isthmus.install import exposing
from isthmus.kube import client as kube_client
from isthmus.kube import kinds, problems
from isthmus.mesh import gateway_classes

CLASS: Final = "istio-remote"
CLUSTER_LABEL: Final = "topology.istio.io/cluster"
ACCOUNT: Final = "gateway.istio.io/service-account"
TRUST_DOMAIN: Final = "isthmus.dev/trust-domain"
ROOTS: Final = "istio-ca-root-cert"
BEGIN, END = "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----"
UNCHANGED: Final = "nothing was changed in any cluster"
CLASSES: Final = tuple(
    name for name, one in gateway_classes.CLASSES.items() if one is gateway_classes.EAST_WEST
)
PREFIX: Final = "istio-remote-"


class ClusterUnready(errors.IsthmusError):
    """A cluster lacks something that others must know to link to it."""

    code = "ISM-CLI-050"


class PairRefused(errors.IsthmusError):
    """Two clusters cannot be linked as they are."""

    code = "ISM-CLI-051"


@dataclass(frozen=True, slots=True)
class Described:
    """A cluster, as others must know it.

    Attributes:
        title: How a person calls it: its context.
        cluster: Its id in the mesh.
        namespace: Of its east-west gateway.
        service_account: As which that runs.
        addresses: At which others reach it.
        roots: Certificates that its workloads trust, each as PEM text.
    """

    title: str
    cluster: str
    network: str
    trust_domain: str
    namespace: str
    service_account: str = exposing.NAME
    addresses: tuple[str, ...] = ()
    tunnel_port: int = exposing.TUNNEL_PORT
    discovery_port: int = exposing.DISCOVERY_PORT
    roots: frozenset[str] = frozenset()


async def describe(
    reads: kube_client.Client, *, system: str, namespace: str, needs_gateway: bool = True
) -> Described:
    """Read what others must know of a cluster.

    Args:
        reads: The cluster.
        system: Namespace of its control plane.
        namespace: Of its east-west gateway.
        needs_gateway: Whether others are to reach it.

    Raises:
        ClusterUnready: It lacks something (ISM-CLI-050).
    """
    title = reads.access.name or "the cluster"
    found = await reads.find(kinds.NAMESPACE, system)
    labels = ((found or {}).get("metadata") or {}).get("labels") or {}
    network = str(labels.get(exposing.NETWORK_LABEL, ""))
    if not network:
        raise ClusterUnready(
            f"nobody has said in which network `{title}` is",
            still_working=UNCHANGED,
            hint=f"kubectl --context {title} label namespace {system} "
            f"{exposing.NETWORK_LABEL}=NETWORK",
        )
    gateway = await _gateway(reads, title, namespace) if needs_gateway else None
    return Described(
        title=title,
        cluster=await _cluster(reads, title, system),
        network=network,
        trust_domain=await _trust_domain(reads, system),
        namespace=namespace,
        service_account=gateway["metadata"]["name"] if gateway else exposing.NAME,
        addresses=exposing.addresses_of(gateway) if gateway else (),
        tunnel_port=_port(gateway, "HBONE", exposing.TUNNEL_PORT),
        discovery_port=_port(gateway, "TLS", exposing.DISCOVERY_PORT),
        roots=await _roots(reads, system),
    )


async def _cluster(reads: kube_client.Client, title: str, system: str) -> str:
    found = await reads.find(kinds.CONFIG_MAP, "istio-sidecar-injector", namespace=system)
    try:
        values = json.loads(((found or {}).get("data") or {}).get("values") or "{}")
        name = str(values["global"]["multiCluster"]["clusterName"])
    except (ValueError, KeyError, TypeError):
        name = ""
    if not name:
        raise ClusterUnready(
            f"`{title}` has no name in the mesh: no control plane there says one",
            still_working=UNCHANGED,
            hint=f"isthmus install --context {title} --set values.global.multiCluster."
            "clusterName=NAME",
        )
    return name


async def _trust_domain(reads: kube_client.Client, system: str) -> str:
    found = await reads.find(kinds.CONFIG_MAP, "istio", namespace=system)
    try:
        settings = yaml.safe_load(((found or {}).get("data") or {}).get("mesh") or "{}")
        domain = settings.get("trustDomain")
    except (yaml.YAMLError, AttributeError, RecursionError, ValueError):
        domain = None
    return str(domain or "cluster.local")


async def _roots(reads: kube_client.Client, system: str) -> frozenset[str]:
    found = await reads.find(kinds.CONFIG_MAP, ROOTS, namespace=system)
    return certificates(str(((found or {}).get("data") or {}).get("root-cert.pem") or ""))


def certificates(text: str) -> frozenset[str]:
    """Return the certificates in a text, each without what stands around it."""
    parts = (part.partition(END)[0] for part in text.split(BEGIN)[1:])
    return frozenset("".join(part.split()) for part in parts)


async def _gateway(reads: kube_client.Client, title: str, namespace: str) -> dict[str, Any]:
    try:
        listed = await reads.list_(kinds.KUBERNETES_GATEWAY, namespace=namespace)
    except problems.ApiError as error:
        if not error.is_missing:
            raise
        listed = []
    fitting = [one for one in listed if (one.get("spec") or {}).get("gatewayClassName") in CLASSES]
    hint = f"isthmus multicluster expose --context {title} --namespace {namespace}"
    if not fitting:
        raise ClusterUnready(
            f"`{title}` has no east-west gateway in namespace `{namespace}`",
            still_working=UNCHANGED,
            hint=hint,
        )
    reached = [one for one in fitting if exposing.addresses_of(one)]
    if not reached:
        lacks = exposing.lacks(fitting[0])
        raise ClusterUnready(
            f"the east-west gateway of `{title}` has no address yet",
            detail=lacks,
            still_working=UNCHANGED,
            hint=f"wait for it, or look at it: {hint}",
        )
    return dict(min(reached, key=lambda one: str(one["metadata"]["name"])))


def _port(gateway: Mapping[str, Any] | None, protocol: str, usual: int) -> int:
    listeners = ((gateway or {}).get("spec") or {}).get("listeners") or ()
    return next((int(one["port"]) for one in listeners if one.get("protocol") == protocol), usual)


def check(described: Iterable[Described]) -> None:
    """Make sure that clusters can be linked with each other.

    Raises:
        PairRefused: Two of them cannot (ISM-CLI-051).
    """
    known = list(described)
    for number, one in enumerate(known):
        for other in known[number + 1 :]:
            reason, hint = objection(one, other)
            if reason:
                raise PairRefused(
                    f"`{one.title}` and `{other.title}` cannot be linked: {reason}",
                    still_working=UNCHANGED,
                    hint=hint,
                )


def objection(one: Described, other: Described) -> tuple[str, str]:
    """Return why two clusters cannot be linked, and what helps; empty when they can."""
    if one.cluster == other.cluster:
        return (
            f"both are called `{one.cluster}`",
            "install one of them with another `global.multiCluster.clusterName`",
        )
    if not one.roots or not other.roots:
        missing = one if not one.roots else other
        return (
            f"`{missing.title}` has no ConfigMap `{ROOTS}` that says whom it trusts",
            f"isthmus verify-install --context {missing.title}",
        )
    if one.roots.isdisjoint(other.roots):
        return (
            "their certificates have different roots",
            "give both an intermediate of one root: isthmus ca intermediate, isthmus ca push",
        )
    return "", ""


def name_of(cluster: str) -> str:
    """Return what the link to a cluster is called."""
    return f"{PREFIX}{cluster}"


def manifests(target: Described) -> list[dict[str, Any]]:
    """Return all that describes a cluster for use in another one."""
    return [manifest(target)]


def manifest(target: Described) -> dict[str, Any]:
    """Return the Gateway that describes a cluster for use in another one."""
    passed = {"mode": "Passthrough"}
    return {
        "apiVersion": f"{gateway_classes.GROUP}/v1",
        "kind": "Gateway",
        "metadata": {
            "annotations": {
                ACCOUNT: target.service_account,
                TRUST_DOMAIN: target.trust_domain,
            },
            "labels": {
                CLUSTER_LABEL: target.cluster,
                exposing.NETWORK_LABEL: target.network,
            },
            "name": name_of(target.cluster),
            "namespace": target.namespace,
        },
        "spec": {
            "gatewayClassName": CLASS,
            "addresses": [{"type": _type_of(one), "value": one} for one in target.addresses],
            "listeners": [
                {
                    "name": "cross-network",
                    "port": target.tunnel_port,
                    "protocol": "HBONE",
                    "tls": dict(passed),
                },
                {
                    "name": "xds-tls",
                    "port": target.discovery_port,
                    "protocol": "TLS",
                    "tls": dict(passed),
                },
            ],
        },
    }


def _type_of(address: str) -> str:
    is_ip = ":" in address or address.replace(".", "").isdigit()
    return "IPAddress" if is_ip else "Hostname"


def lacks(gateway: Mapping[str, Any] | None) -> str:
    """Say what a link still lacks; empty once the other cluster is heard."""
    conditions = ((gateway or {}).get("status") or {}).get("conditions") or ()
    found = {one["type"]: one for one in conditions}
    connected = found.get("Connected", {})
    generation = ((gateway or {}).get("metadata") or {}).get("generation")
    is_old = (
        generation is not None and connected.get("observedGeneration", generation) != generation
    )
    if not connected or is_old:
        return "no control plane has looked at it yet"
    if connected.get("status") == "True":
        return ""
    return str(connected.get("message") or "the other cluster is not heard yet")
