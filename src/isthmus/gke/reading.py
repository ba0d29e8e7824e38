"""Reads clusters, networks and firewall rules through Google's libraries.

Decides which questions are asked, and that only two of them must be answered: what the clusters
are, and which firewall rules their networks have. Where any other may not be asked, the world
says so. Refuses to judge what it reads.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from isthmus.base import errors
from isthmus.gke import clusters, google, problems, ranges, wishes
from isthmus.gke import ports as port_sets

NODE_LABEL: Final = "goog-k8s-cluster-name"
PLACE_LABEL: Final = "goog-k8s-cluster-location"
"""Labels that GKE gives to nodes' machines."""

PAGE: Final = 500
_FIREWALLS: Final = "FIREWALLS"


def world(
    cloud: google.Cloud,
    asked: wishes.Wishes,
    *,
    tell: Callable[[str], None] = lambda _: None,
) -> clusters.World:
    """Return all that a plan depends on.

    Raises:
        NoSuchCluster: A cluster is not where the file says (ISM-GKE-005).
        NotPermitted: Clusters or firewall rules may not be read (ISM-GKE-004).
    """
    unread: list[str] = []
    found = []
    for member in asked.members:
        tell(f"reading cluster {member.title} in {member.place.project}")
        found.append(cluster(cloud, member.title, member.place, unread=unread))
    networks = sorted({each.network for each in found})
    rules = {}
    for network in networks:
        tell(f"reading firewall rules of {network.project}/{network.name}")
        rules[network] = tuple(_rules(cloud, network))
    hosts, quotas, policies = {}, {}, {}
    for project in sorted({e.place.project for e in found if e.place.project != e.network.project}):
        with _optional(unread):
            hosts[project] = _host(cloud, project)
    for project in sorted({network.project for network in networks}):
        with _optional(unread):
            quotas.update(_quota(cloud, project))
    for network in networks:
        with _optional(unread):
            policies.update(_policies(cloud, network))
    return clusters.World(tuple(found), rules, hosts, quotas, policies, tuple(unread))


def cluster(
    cloud: google.Cloud, title: str, place: clusters.Place, *, unread: list[str] | None = None
) -> clusters.Cluster:
    """Return what is known about one cluster.

    Raises:
        NoSuchCluster: It is not there (ISM-GKE-005).
    """
    missed: list[str] = [] if unread is None else unread
    try:
        with google.asking(f"cluster {title}"):
            said = cloud.clusters.get_cluster(name=path_of(place), timeout=google.TIMEOUT_S)
    except errors.IsthmusError as error:
        if google.is_missing(error):
            raise problems.NoSuchCluster(
                f"there is no cluster `{place.name}` in `{place.location}` of project "
                f"`{place.project}`",
                detail=error.detail,
                hint=f"gcloud container clusters list --project={place.project}",
            ) from error
        raise
    nodes: tuple[frozenset[str], ...] = ()
    with _optional(missed):
        nodes = _nodes(cloud, place)
    pods: tuple[ranges.Range, ...] = ()
    with _optional(missed):
        pods = ranges.in_order(_pods(cloud, said, place))
    return _cluster(said, title, place, pods or _own_pods(said), nodes)


def path_of(place: clusters.Place) -> str:
    """Return a cluster's name, as its API has it."""
    return f"projects/{place.project}/locations/{place.location}/clusters/{place.name}"


def _cluster(
    said: Any,  # noqa: ANN401  # a library's message
    title: str,
    place: clusters.Place,
    pods: tuple[ranges.Range, ...],
    nodes: tuple[frozenset[str], ...],
) -> clusters.Cluster:
    private = said.private_cluster_config
    own = said.control_plane_endpoints_config.ip_endpoints_config
    has_public = not private.enable_private_endpoint
    if "enable_public_endpoint" in own:
        has_public = own.enable_public_endpoint
    public = own.public_endpoint or private.public_endpoint or said.endpoint
    authorized = own.authorized_networks_config
    if "authorized_networks_config" not in own:
        authorized = said.master_authorized_networks_config
    return clusters.Cluster(
        title,
        place,
        network_of(said.network_config.network or said.network, place.project),
        subnetwork=(said.network_config.subnetwork or said.subnetwork).rpartition("/")[2],
        status=said.status.name,
        pods=pods,
        services=_ranges(said.services_ipv4_cidr),
        control_planes=_ranges(private.master_ipv4_cidr_block),
        private_endpoint=own.private_endpoint or private.private_endpoint,
        public_endpoint=public if has_public else "",
        has_private_nodes=private.enable_private_nodes
        or said.network_config.default_enable_private_nodes
        or any(pool.network_config.enable_private_nodes for pool in said.node_pools),
        has_global_access=own.global_access or private.master_global_access_config.enabled,
        is_vpc_native=said.ip_allocation_policy.use_ip_aliases,
        is_autopilot=said.autopilot.enabled,
        authorized=_authorized(authorized),
        nodes=nodes,
        etag=said.etag,
    )


def _authorized(said: Any) -> clusters.AuthorizedNetworks:  # noqa: ANN401  # a library's message
    google_too = "gcp_public_cidrs_access_enabled"
    private_too = "private_endpoint_enforcement_enabled"
    return clusters.AuthorizedNetworks(
        said.enabled,
        tuple(
            clusters.Block(ranges.range_of(block.cidr_block), block.display_name)
            for block in said.cidr_blocks
        ),
        said.gcp_public_cidrs_access_enabled if google_too in said else None,
        said.private_endpoint_enforcement_enabled if private_too in said else None,
    )


def network_of(text: str, project: str) -> clusters.Network:
    """Return the network that a URL, a path or a bare name is about."""
    parts = text.split("/")
    if "projects" in parts[:-1]:
        project = parts[parts.index("projects") + 1]
    return clusters.Network(project, parts[-1])


def _own_pods(said: Any) -> tuple[ranges.Range, ...]:  # noqa: ANN401  # a library's message
    texts = {
        said.cluster_ipv4_cidr,
        said.ip_allocation_policy.cluster_ipv4_cidr_block,
        *(pool.network_config.pod_ipv4_cidr_block for pool in said.node_pools),
    }
    return ranges.in_order(ranges.range_of(text) for text in texts if "/" in text)


def _pods(cloud: google.Cloud, said: Any, place: clusters.Place) -> Iterator[ranges.Range]:  # noqa: ANN401  # a library's message
    """Yield the ranges of pods, those that only have a name in a subnetwork, too."""
    yield from _own_pods(said)
    known = {pool.network_config.pod_range for pool in said.node_pools}
    known.add(said.ip_allocation_policy.cluster_secondary_range_name)
    extra = said.ip_allocation_policy.additional_pod_ranges_config
    names = {*extra.pod_range_names, *(each.range_name for each in extra.pod_range_info)} - known
    own = said.network_config.subnetwork or said.subnetwork
    wanted = {own: names} if names else {}
    for more in said.ip_allocation_policy.additional_ip_ranges_configs:
        wanted.setdefault(more.subnetwork, set()).update(more.pod_ipv4_range_names)
    network = network_of(said.network_config.network or said.network, place.project)
    for subnetwork, named in wanted.items():
        yield from _secondary(cloud, subnetwork, named, network=network, region=place.region)


def _secondary(
    cloud: google.Cloud, path: str, names: set[str], *, network: clusters.Network, region: str
) -> Iterator[ranges.Range]:
    parts = path.split("/")
    project = parts[parts.index("projects") + 1] if "projects" in parts else network.project
    with google.asking(f"subnetwork {parts[-1]}"):
        said = cloud.subnetworks.get(
            project=project,
            region=parts[parts.index("regions") + 1] if "regions" in parts else region,
            subnetwork=parts[-1],
            timeout=google.TIMEOUT_S,
        )
    for each in said.secondary_ip_ranges:
        if each.range_name in names:
            yield ranges.range_of(each.ip_cidr_range)


def _nodes(cloud: google.Cloud, place: clusters.Place) -> tuple[frozenset[str], ...]:
    with google.asking(f"machines of cluster {place.name}"):
        request = cloud.compute.AggregatedListInstancesRequest(
            project=place.project,
            filter=f'labels.{NODE_LABEL}="{place.name}"',
            max_results=PAGE,
        )
        pages = cloud.instances.aggregated_list(request=request, timeout=google.TIMEOUT_S)
        found = {
            frozenset(machine.tags.items)
            for _, scope in pages
            for machine in scope.instances
            if machine.labels.get(PLACE_LABEL, place.location) == place.location
        }
    return tuple(sorted(found, key=sorted))


def _rules(cloud: google.Cloud, network: clusters.Network) -> Iterator[clusters.Rule]:
    with google.asking(f"firewall rules of project {network.project}"):
        request = cloud.compute.ListFirewallsRequest(project=network.project, max_results=PAGE)
        found = list(cloud.firewalls.list(request=request, timeout=google.TIMEOUT_S))
    for said in found:
        read = rule_of(said, network.project)
        if read.network == network:
            yield read


def rule_of(said: Any, project: str) -> clusters.Rule:  # noqa: ANN401  # a library's message
    """Return the firewall rule that a message of the API describes."""
    allows = not said.denied
    return clusters.Rule(
        said.name,
        network_of(said.network, project),
        allows=allows,
        is_ingress=said.direction != "EGRESS",
        is_enabled=not said.disabled,
        priority=said.priority if "priority" in said else 1000,
        traffic=tuple(
            clusters.Traffic(
                each.I_p_protocol.lower(),
                port_sets.united(map(port_sets.span_of, each.ports)) or port_sets.EVERY,
            )
            for each in (said.allowed if allows else said.denied)
        ),
        sources=_ranges(*said.source_ranges),
        destinations=_ranges(*said.destination_ranges),
        target_tags=tuple(said.target_tags),
        names_sources=bool(said.source_tags or said.source_service_accounts),
        names_accounts=bool(said.target_service_accounts),
        description=said.description,
    )


def _host(cloud: google.Cloud, project: str) -> str:
    with google.asking(f"host project of {project}"):
        said = cloud.projects.get_xpn_host(project=project, timeout=google.TIMEOUT_S)
    return str(said.name)


def _quota(cloud: google.Cloud, project: str) -> dict[str, clusters.Quota]:
    with google.asking(f"quotas of project {project}"):
        said = cloud.projects.get(project=project, timeout=google.TIMEOUT_S)
    found = [each for each in said.quotas if each.metric == _FIREWALLS]
    return {project: clusters.Quota(int(found[0].limit), int(found[0].usage))} if found else {}


def _policies(
    cloud: google.Cloud, network: clusters.Network
) -> dict[clusters.Network, tuple[str, ...]]:
    with google.asking(f"firewall policies of network {network.name}"):
        said = cloud.networks.get_effective_firewalls(
            project=network.project, network=network.name, timeout=google.TIMEOUT_S
        )
    denying = [
        policy.short_name or policy.display_name or policy.name
        for policy in said.firewall_policys
        if any(each.direction == "INGRESS" and each.action == "deny" for each in policy.rules)
    ]
    return {network: tuple(denying)} if denying else {}


def _ranges(*texts: str) -> tuple[ranges.Range, ...]:
    return tuple(ranges.range_of(text) for text in texts if text)


@contextlib.contextmanager
def _optional(unread: list[str]) -> Iterator[None]:
    """Go on without an answer to a question that need not be answered."""
    try:
        yield
    except (problems.NotPermitted, problems.CloudFailed) as error:
        unread.append(error.happened)
