"""Clouds to plan for, as the APIs describe them."""

import ipaddress

HASHES = {"cluster-1": "0a1b2c3d", "cluster-2": "4e5f6071", "cluster-3": "8293a4b5"}


def tag_of(name):
    return f"gke-{name}-{HASHES[name]}-node"


def cluster(
    cloud,
    name,
    *,
    project="project-1",
    location="us-central1",
    pods,
    masters,
    network="projects/project-1/global/networks/vpc",
    authorized=("10.0.0.0/24",),
    **more,
):
    """Add a private, VPC-native cluster with GKE's own firewall rules and one node."""
    endpoint = str(ipaddress.ip_network(masters)[2])
    document = {
        "name": name,
        "id": HASHES[name] + "0" * 56,
        "location": location,
        "status": "RUNNING",
        "etag": "etag-1",
        "network": network.rpartition("/")[2],
        "subnetwork": "nodes",
        "networkConfig": {
            "network": network,
            "subnetwork": f"{network.partition('/global')[0]}/regions/{location[:11]}/subnetworks/nodes",
        },
        "clusterIpv4Cidr": pods,
        "servicesIpv4Cidr": "34.118.224.0/20",
        "ipAllocationPolicy": {
            "useIpAliases": True,
            "clusterIpv4CidrBlock": pods,
            "clusterSecondaryRangeName": "pods",
        },
        "endpoint": endpoint,
        "nodePools": [{"name": "default-pool", "networkConfig": {"podRange": "pods"}}],
        "privateClusterConfig": {
            "enablePrivateNodes": True,
            "enablePrivateEndpoint": True,
            "masterIpv4CidrBlock": masters,
            "privateEndpoint": endpoint,
        },
        "masterAuthorizedNetworksConfig": {
            "enabled": True,
            "cidrBlocks": [{"displayName": "office", "cidrBlock": each} for each in authorized],
        },
        **more,
    }
    cloud.state.clusters[project, location, name] = document
    host = network.split("/")[1]
    url = f"https://www.googleapis.com/compute/v1/{network}"
    begin, target = f"gke-{name}-{HASHES[name]}", [tag_of(name)]
    rule(cloud, f"{begin}-all", host, url, pods, "tcp,udp,icmp,esp,ah,sctp", target)
    rule(cloud, f"{begin}-master", host, url, masters, "tcp:443,tcp:10250", target)
    node(cloud, name, project=project, location=location)
    return document


def node(cloud, name, *, project, location):
    """Add the one node of a cluster."""
    cloud.state.instances.setdefault(project, []).append(
        {
            "name": f"gke-{name}-default-pool-1",
            "zone": f"zones/{location[:11]}-a",
            "tags": {"items": ["allow-ssh", tag_of(name)]},
            "labels": {
                "goog-k8s-cluster-name": name,
                "goog-k8s-cluster-location": location,
            },
        }
    )


def rule(cloud, name, project, network, sources, allowed, target, **more):
    """Add a firewall rule."""
    document = {
        "name": name,
        "network": network,
        "direction": "INGRESS",
        "priority": 1000,
        "sourceRanges": sources.split(","),
        "targetTags": list(target),
        **more,
    }
    if allowed:
        document["allowed"] = traffic(allowed)
    cloud.state.firewalls.setdefault(project, {})[name] = document
    return document


def traffic(text):
    found = []
    for each in text.split(","):
        protocol, _, ports = each.partition(":")
        found.append({"IPProtocol": protocol, **({"ports": [ports]} if ports else {})})
    return found


VPC = "https://www.googleapis.com/compute/v1/projects/project-1/global/networks/vpc"


def two_regions(cloud):
    """Add two private clusters in one VPC, in two regions, with authorized networks."""
    cluster(cloud, "cluster-1", pods="10.4.0.0/14", masters="172.16.0.0/28")
    cluster(
        cloud,
        "cluster-2",
        location="europe-west1",
        pods="10.8.0.0/14",
        masters="172.16.0.16/28",
    )


def shared_vpc(cloud):
    """Add two clusters of two projects in the shared VPC of a third."""
    network = "projects/host-project/global/networks/shared"
    cloud.state.hosts.update({"project-1": "host-project", "project-2": "host-project"})
    cluster(cloud, "cluster-1", pods="10.4.0.0/14", masters="172.16.0.0/28", network=network)
    cluster(
        cloud,
        "cluster-2",
        project="project-2",
        pods="10.8.0.0/14",
        masters="172.16.0.16/28",
        network=network,
    )
