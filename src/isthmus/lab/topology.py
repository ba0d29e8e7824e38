"""What a lab should look like: its networks, clusters and nodes, with every address they get.

Decides addresses, once and from the description alone, so that everything else only looks them
up. Refuses to know how a network is made.

A description is YAML; only `clusters` is needed:

    name: two-shores
    clusters:
    - name: cluster1
      network: network1
      region: region1
      nodes: 2
    - name: cluster2
      network: network2

Addresses follow from the order: cluster number k (from 0) has pods in 10.(10+k).0.0/16, services
in 10.(110+k).0.0/16 and the 32 addresses from 172.30.0.0 + 32k of the transit network:
its API server is the second of them, its nodes follow, its load balancers come last. `pods` and
`services` of a cluster may be given, also overlapping those of a cluster of another network.

Error: `TopologyError` (ISM-LAB-201).
"""

import ipaddress
import json
import pathlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

import yaml

from isthmus.base import errors

TRANSIT = ipaddress.IPv4Network("172.30.0.0/21")
API_PORT = 6443
DNS_HOST = 10
_BLOCK = 32
_FIRST_NODE, _FIRST_BALANCER, _LAST_BALANCER = 2, 10, 30
_MOST_CLUSTERS = TRANSIT.num_addresses // _BLOCK
_MOST_STATIONS = 253
"""Control planes and nodes of one network: its addresses but for the first and the last two."""
_MOST_NODES = _FIRST_BALANCER - _FIRST_NODE
_OWN_SERVICES = "its own services"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,30}[a-z0-9])?")


class TopologyError(errors.IsthmusError):
    """A topology that cannot be built."""

    code = "ISM-LAB-201"


@dataclass(frozen=True, slots=True)
class Node:
    """One worker node.

    Attributes:
        address: Its address in its network.
        transit: Its address on the transit network.
        pods: The addresses of its pods.
    """

    name: str
    address: str
    transit: str
    pods: str
    region: str
    zone: str


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster.

    Attributes:
        control_address: The control plane's address in the cluster's network.
        api_address: Where pods and other clusters reach its API server, on transit.
        balancers: Transit addresses for its Services of type LoadBalancer.
    """

    name: str
    network: str
    pods: str
    services: str
    control_address: str
    api_address: str
    balancers: tuple[str, ...]
    nodes: tuple[Node, ...]

    @property
    def api_service(self) -> str:
        """The address of the Service `kubernetes`."""
        return str(ipaddress.IPv4Network(self.services)[1])

    @property
    def dns_service(self) -> str:
        """The address of the cluster's DNS."""
        return str(ipaddress.IPv4Network(self.services)[DNS_HOST])


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole lab.

    Attributes:
        networks: Name to the range of its nodes' addresses.
    """

    name: str
    networks: Mapping[str, str]
    clusters: tuple[Cluster, ...]

    def cluster(self, name: str) -> Cluster:
        """Return one cluster by name."""
        for cluster in self.clusters:
            if cluster.name == name:
                return cluster
        raise TopologyError(f"the lab has no cluster `{name}`", hint=self._known())

    def on_network(self, network: str) -> tuple[Cluster, ...]:
        """Return the clusters that share a network."""
        return tuple(each for each in self.clusters if each.network == network)

    def _known(self) -> str:
        return "its clusters: " + ", ".join(each.name for each in self.clusters)


def _clusters(*networks: str, nodes: int = 2) -> list[dict[str, object]]:
    return [
        {"name": f"cluster{n}", "network": network, "region": f"region{n}", "nodes": nodes}
        for n, network in enumerate(networks, start=1)
    ]


def _halves(half: int) -> list[dict[str, object]]:
    """Return so many clusters on one network and as many on another, with one node each."""
    return _clusters(*["network1"] * half, *["network2"] * half, nodes=1)


BUILT_IN: Mapping[str, Mapping[str, object]] = {
    "single": {"clusters": _clusters("network1")},
    "primary-remote": {"clusters": _clusters("network1", "network2")},
    "multi-primary": {"clusters": _clusters("network1", "network2")},
    "shared-network": {"clusters": _clusters("network1", "network1")},
    "three-clusters": {"clusters": _clusters("network1", "network1", "network1", nodes=3)},
    "three-networks": {"clusters": _clusters("network1", "network2", "network3", nodes=3)},
    "ambient": {
        "clusters": [
            *_clusters("network1"),
            *_clusters("network1", "network2", "network3", nodes=1)[1:],
        ]
    },
    "fifty": {"clusters": _halves(25)},
    "twelve": {"clusters": _halves(6)},
    "external-control-plane": {
        "clusters": [
            {"name": "external", "network": "network0", "region": "region0", "nodes": 1},
            *_clusters("network1", "network2"),
        ]
    },
}
"""Topologies by name. Each cluster is a region, and each of its nodes a zone."""


def load(name_or_path: str) -> Topology:
    """Return a built-in topology, or the one described in a YAML file.

    Raises:
        TopologyError: There is no such name or file, or it does not make sense.
    """
    if name_or_path in BUILT_IN:
        return parse({"name": name_or_path, **BUILT_IN[name_or_path]})
    path = pathlib.Path(name_or_path)
    if not path.is_file():
        raise TopologyError(
            f"no topology `{name_or_path}`",
            detail="it is neither a built-in name nor a file",
            hint="built in: " + ", ".join(BUILT_IN),
        )
    try:
        document = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise TopologyError(
            f"`{path}` is not YAML",
            detail=str(error).replace("<unicode string>", str(path)),
            hint="check indentation at the line that is named above",
        ) from error
    if not isinstance(document, dict):
        raise TopologyError(f"`{path}` does not describe a lab", hint="begin with `clusters:`")
    return parse({"name": path.stem, **document})


def parse(document: Mapping[str, object]) -> Topology:
    """Turn a description into a topology with all addresses.

    Raises:
        TopologyError: A field is unknown, missing or wrong.
    """
    _only(document, {"name", "clusters"}, "the topology")
    described = document.get("clusters")
    if not isinstance(described, list) or not described:
        raise TopologyError("the topology has no clusters", hint="list them below `clusters:`")
    if len(described) > _MOST_CLUSTERS:
        raise TopologyError(f"a lab has at most {_MOST_CLUSTERS} clusters")
    entries = [_entry(each, number) for number, each in enumerate(described)]
    _distinct([each["name"] for each in entries])
    networks = _networks(entries)
    hosts = dict.fromkeys(networks, 1)
    clusters = []
    for number, entry in enumerate(entries):
        clusters.append(_cluster(entry, number, networks, hosts))
    _no_overlap(clusters)
    for cluster in clusters:
        _no_confusion(cluster, networks)
    return Topology(_name(document.get("name", "lab"), "topology"), networks, tuple(clusters))


def _only(entry: Mapping[str, object], known: set[str], what: str) -> None:
    for field in entry:
        if field not in known:
            raise TopologyError(
                f"{what} has an unknown field `{field}`",
                hint=f"known fields: {', '.join(sorted(known))}",
            )


def _name(value: object, what: str) -> str:
    if not isinstance(value, str) or not _NAME.fullmatch(value):
        raise TopologyError(f"`{value}` is no name for a {what}", hint="use a-z, 0-9 and -")
    return value


_FIELDS = {"name", "network", "region", "nodes", "pods", "services"}


def _entry(value: object, number: int) -> dict[str, str]:
    if not isinstance(value, dict):
        raise TopologyError(f"cluster number {number + 1} is not a mapping")
    _only(value, _FIELDS, f"cluster number {number + 1}")
    nodes = value.get("nodes", 2)
    if not isinstance(nodes, int) or isinstance(nodes, bool) or not 1 <= nodes <= _MOST_NODES:
        raise TopologyError(f"`nodes: {nodes}` is not a number from 1 to {_MOST_NODES}")
    return {
        "name": _name(value.get("name"), "cluster"),
        "network": _name(value.get("network", "network1"), "network"),
        "region": _name(value.get("region", f"region{number + 1}"), "region"),
        "nodes": str(nodes),
        "pods": _range(value.get("pods", f"10.{10 + number}.0.0/16"), 16),
        "services": _range(value.get("services", f"10.{110 + number}.0.0/16"), 24),
    }


def _range(value: object, longest: int) -> str:
    try:
        network = ipaddress.IPv4Network(str(value))
    except ValueError as error:
        raise TopologyError(f"`{value}` is no range of addresses", detail=str(error)) from error
    if network.prefixlen > longest:
        raise TopologyError(f"`{value}` is too small", hint=f"a prefix of at most {longest}")
    return str(network)


def _distinct(names: list[str]) -> None:
    if len(set(names)) != len(names):
        raise TopologyError("two clusters have the same name")


def _networks(entries: list[dict[str, str]]) -> dict[str, str]:
    names = dict.fromkeys(each["network"] for each in entries)
    return {name: f"192.168.{index + 1}.0/24" for index, name in enumerate(names)}


def _cluster(
    entry: dict[str, str], number: int, networks: dict[str, str], hosts: dict[str, int]
) -> Cluster:
    network = ipaddress.IPv4Network(networks[entry["network"]])
    stations = hosts[entry["network"]] + 1 + int(entry["nodes"])
    if stations > _MOST_STATIONS:
        raise TopologyError(
            f"network `{entry['network']}` has too many nodes for its addresses",
            detail=f"{network} holds {_MOST_STATIONS - 1} control planes and nodes",
            hint="give the clusters fewer nodes, or spread them over more networks",
        )
    pods = ipaddress.IPv4Network(entry["pods"])
    block = number * _BLOCK

    def next_host() -> str:
        hosts[entry["network"]] += 1
        return str(network[hosts[entry["network"]]])

    control = next_host()
    ranges = pods.subnets(new_prefix=24)
    next(ranges)
    nodes = tuple(
        Node(
            name=f"{entry['name']}-node{index + 1}",
            address=next_host(),
            transit=str(TRANSIT[block + _FIRST_NODE + index]),
            pods=str(next(ranges)),
            region=entry["region"],
            zone=f"{entry['region']}-zone{index + 1}",
        )
        for index in range(int(entry["nodes"]))
    )
    return Cluster(
        name=entry["name"],
        network=entry["network"],
        pods=entry["pods"],
        services=entry["services"],
        control_address=control,
        api_address=str(TRANSIT[block + 1]),
        balancers=tuple(
            str(TRANSIT[block + host]) for host in range(_FIRST_BALANCER, _LAST_BALANCER + 1)
        ),
        nodes=nodes,
    )


def _no_overlap(clusters: list[Cluster]) -> None:
    pods = [ipaddress.IPv4Network(each.pods) for each in clusters]
    for index, one in enumerate(clusters):
        for number, other in enumerate(clusters[:index]):
            if one.network == other.network and pods[index].overlaps(pods[number]):
                raise TopologyError(
                    f"`{one.name}` and `{other.name}` share a network and pod addresses",
                    hint="give one of them other `pods`",
                )


def _no_confusion(cluster: Cluster, networks: Mapping[str, str]) -> None:
    """Refuse ranges of a cluster that are something else already, as seen from its pods."""
    others = {
        _OWN_SERVICES: cluster.services,
        "the transit network": str(TRANSIT),
        "the nodes of its network": networks[cluster.network],
        "this machine itself": "127.0.0.0/8",
        "the way to its node": "169.254.0.0/16",
    }
    for ours, field in ((cluster.pods, "pods"), (cluster.services, "services")):
        for what, theirs in others.items():
            if field == "services" and what == _OWN_SERVICES:
                continue
            if ipaddress.IPv4Network(ours).overlaps(ipaddress.IPv4Network(theirs)):
                raise TopologyError(
                    f"`{cluster.name}` cannot have {field} in {ours}",
                    detail=f"{theirs} is {what}",
                    hint=f"give it other `{field}`, or leave them out",
                )


def to_json(topology: Topology) -> str:
    """Write a topology as the description that `parse` reads."""
    clusters = [
        {
            "name": each.name,
            "network": each.network,
            "region": each.nodes[0].region,
            "nodes": len(each.nodes),
            "pods": each.pods,
            "services": each.services,
        }
        for each in topology.clusters
    ]
    return json.dumps({"name": topology.name, "clusters": clusters})
