"""Where things are: the locality of nodes, and the network of clusters, pods and addresses.

Source: spec sections 2.5 and 3.1.
"""

import functools
import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh import localities, workloads
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.localities import Locality
from isthmus.mesh.settings import NetworkMember
from isthmus.registry import addresses, settings

NETWORK_LABEL: Final = workloads.NETWORK_LABEL
CLUSTER_LABEL: Final = workloads.CLUSTER_LABEL
SUBZONE_LABEL: Final = workloads.SUBZONE_LABEL
REGION_LABEL: Final = workloads.REGION_LABEL
ZONE_LABEL: Final = workloads.ZONE_LABEL
OLD_REGION_LABEL: Final = "failure-domain.beta.kubernetes.io/region"
OLD_ZONE_LABEL: Final = "failure-domain.beta.kubernetes.io/zone"
HOSTNAME_LABEL: Final = workloads.HOSTNAME_LABEL
LOCALITY_LABELS: Final = ("topology.istio.io/locality", "istio-locality")

Labels = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares.

    Attributes:
        places: Of nodes.
        networks: That a cluster's system namespace names.
        members: Of networks, as the settings name them.
    """

    places: collections.Collection[sources.ObjectKey, Locality]
    networks: collections.Collection[ClusterId, NetworkId]
    members: collections.Single[tuple[NetworkMember, ...]]

    def place_of(self, read: reader.Reader, *, cluster: ClusterId, node: str) -> Locality:
        """Return the locality of a node."""
        if not node:
            return localities.NOWHERE
        return read.get(self.places, sources.ObjectKey(cluster, "", node)) or localities.NOWHERE

    def network_of(
        self, read: reader.Reader, *, cluster: ClusterId, labels: Labels, address: str
    ) -> NetworkId:
        """Return the network of something: by label, by its cluster, or by the settings."""
        if labels.get(NETWORK_LABEL):
            return network_by_label(labels)
        return self.around(read, cluster).network_of(address)

    def around(self, read: reader.Reader, cluster: ClusterId) -> "Around":
        """Return in which networks things of a cluster are that do not say it themselves."""
        by_cluster = read.get(self.networks, cluster)
        if by_cluster:
            return Around(by_cluster)
        return configured(read.value(self.members), cluster)


class Around(NamedTuple):
    """In which networks things of one cluster are.

    Attributes:
        network: That of all of them, if it is known.
        ranges: Of addresses, each with its network, if it is not.
    """

    network: NetworkId = NetworkId("")
    ranges: tuple[NetworkMember, ...] = ()

    def network_of(self, address: str) -> NetworkId:
        """Return the network of an address: of ranges that it is in the narrowest counts."""
        # As a rule there is none, and to take an address apart costs more than all else here.
        ip = addresses.parsed(address) if self.ranges else None
        if ip is None:
            return self.network
        fitting = [
            (_range(member.from_cidr).prefixlen, member.network)
            for member in self.ranges
            if ip in _range(member.from_cidr)
        ]
        return max(fitting, key=lambda found: found[0])[1] if fitting else NetworkId("")


def declare(
    graph_: graph.Graph,
    sources_: sources.Sources,
    *,
    seat: settings.Seat,
    members: collections.Single[tuple[NetworkMember, ...]],
) -> Nodes:
    """Declare localities and networks in `graph_`."""

    def place(
        _: reader.Reader, key: sources.ObjectKey, node: objects.Node
    ) -> Iterable[tuple[sources.ObjectKey, Locality]]:
        yield key, locality_of_node(node.metadata.labels or {})

    def network(
        _: reader.Reader, key: sources.ObjectKey, namespace: objects.Namespace
    ) -> Iterable[tuple[ClusterId, NetworkId]]:
        label = namespace.metadata.label(NETWORK_LABEL)
        if key.name == seat.system_namespace and label:
            yield key.cluster, NetworkId(label)

    return Nodes(
        places=graph_.derive("places", sources_.nodes, place),
        networks=graph_.derive("cluster_networks", sources_.namespaces, network),
        members=members,
    )


def locality_of_node(labels: Labels) -> Locality:
    """Return where a node is, by its labels."""
    return Locality(
        labels.get(REGION_LABEL) or labels.get(OLD_REGION_LABEL, ""),
        labels.get(ZONE_LABEL) or labels.get(OLD_ZONE_LABEL, ""),
        labels.get(SUBZONE_LABEL, ""),
    )


def locality_by_label(labels: Labels) -> Locality | None:
    """Return the locality that a pod's own labels say, or None."""
    text = next((labels[name] for name in LOCALITY_LABELS if labels.get(name)), "")
    return localities.parse(text) if text else None


def network_by_label(labels: Labels) -> NetworkId:
    """Return the network that something's own labels say; empty if they do not."""
    return NetworkId(labels.get(NETWORK_LABEL, ""))


def configured(members: tuple[NetworkMember, ...], cluster: ClusterId) -> Around:
    """Return what the settings say of a cluster: its network, or else those of addresses."""
    for member in members:
        if member.from_registry == cluster:
            return Around(member.network)
    return Around(ranges=tuple([member for member in members if member.from_cidr]))


def own_labels(labels: Labels) -> workloads.Labels:
    """Return labels sorted; those that have the same share them."""
    return _shared(tuple(sorted(labels.items())))


@functools.lru_cache(maxsize=16384)
def _shared(labels: workloads.Labels) -> workloads.Labels:
    return labels


@functools.lru_cache(maxsize=4096)
def _range(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(cidr, strict=False)
