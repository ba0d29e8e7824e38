"""The mesh's settings, from the ConfigMap `istio[-<revision>]` of the configuration cluster.

A control plane that runs outside its mesh has its settings with it; where they are silent, those
that the configuration cluster shares count.

A broken document keeps the last good settings and says so; its two keys break apart from each
other. Of other clusters' ConfigMaps only the trust domain counts, for their own workloads.

Source: spec sections 1.2, 3.2, 6.5, 8.3 and 8.8.
"""

import dataclasses
import functools
import ipaddress
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar

from isthmus.base import errors
from isthmus.ca import refusals
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh import allocations
from isthmus.mesh.allocations import Ranges
from isthmus.mesh.identities import ClusterId, NetworkId, TrustDomain
from isthmus.mesh.selectors import ScopeRule
from isthmus.mesh.settings import (
    ConfiguredGateway,
    ListedAuthority,
    MeshSettings,
    NetworkMember,
)
from isthmus.registry import (
    addresses,
    checked,
    documents,
    fields,
    locality_settings,
    naming,
    scope_settings,
    traffic_policies,
    trust,
)

P = TypeVar("P")

SETTINGS_BROKEN: Final = "ISM-REG-002"
MOST_PORT: Final = 65535


@dataclass(frozen=True, slots=True)
class Seat:
    """Where the mesh is configured.

    Attributes:
        cluster: The configuration cluster.
        revision: Of the control plane; empty for the default one.
        domain: The DNS suffix of services.
        is_external: Whether the control plane's own settings are not there, but with it.
        shared: Name of the ConfigMap there that fills in for them; empty for none.
        link_namespaces: Where links to other clusters count; empty for the usual ones.
        is_linked: Whether the control planes of linked clusters are talked to.
        skips_domains: Whether somebody wants trust domains not to be looked at.
        ranges: From where addresses of our making are given.
        most_tunnels: How many tunnels one caller may begin at a gateway in a second; 0 for any.
    """

    cluster: ClusterId
    system_namespace: str = "istio-system"
    revision: str = ""
    domain: str = "cluster.local"
    is_external: bool = False
    shared: str = ""
    link_namespaces: tuple[str, ...] = ()
    is_linked: bool = False
    skips_domains: bool = False
    ranges: Ranges = allocations.USUAL
    most_tunnels: int = 0

    @property
    def namespaces_of_links(self) -> tuple[str, ...]:
        """Where links to other clusters count."""
        return self.link_namespaces or (self.system_namespace, "istio-gateways")

    @property
    def config_map(self) -> str:
        """The name of the ConfigMap."""
        return f"istio-{self.revision}" if self.revision else "istio"

    def settings_map(self, name: str = "") -> sources.ObjectKey:
        """The key of a ConfigMap of the control plane's own; of its settings without a name."""
        cluster = sources.HOME if self.is_external else self.cluster
        return sources.ObjectKey(cluster, self.system_namespace, name or self.config_map)

    @property
    def shared_map(self) -> sources.ObjectKey | None:
        """The key of the ConfigMap that fills in for it."""
        if not self.shared:
            return None
        return sources.ObjectKey(self.cluster, self.system_namespace, self.shared)


@dataclass(frozen=True, slots=True)
class Networks:
    """The key `meshNetworks`."""

    members: tuple[NetworkMember, ...] = ()
    gateways: tuple[ConfiguredGateway, ...] = ()


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares: all settings, and parts that few changes touch.

    Attributes:
        trust: Who is accepted, and which cluster has which trust domain.
        domains: Those of clusters that have another one than the settings say; for whoever asks
            for all clusters at once.
        locality_rules: Host patterns that are cluster-local, and those that are not.
        shared: Which Services other clusters may reach under their own name.
    """

    settings: collections.Single[MeshSettings]
    trust: trust.Nodes
    domains: collections.Single[Mapping[ClusterId, TrustDomain]]
    members: collections.Single[tuple[NetworkMember, ...]]
    gateways: collections.Single[tuple[ConfiguredGateway, ...]]
    locality_rules: collections.Single[tuple[tuple[str, ...], tuple[str, ...]]]
    trust_domain: collections.Single[TrustDomain]
    shared: collections.Single[tuple[ScopeRule, ...]]
    findings: tuple[checked.Findings, ...]

    def domain_of(self, read: reader.Reader, cluster: ClusterId) -> TrustDomain:
        """Return the trust domain whose identities the workloads of a cluster have."""
        return read.get(self.trust.domains, cluster) or read.value(self.trust_domain)


def declare(graph_: graph.Graph, sources_: sources.Sources, *, seat: Seat) -> Nodes:
    """Declare the settings in `graph_`."""
    mesh = _part(graph_, sources_, seat, "mesh", functools.partial(read_mesh, seat=seat))
    networks = _part(graph_, sources_, seat, "meshNetworks", read_networks)
    good_mesh = checked.last_good_of(graph_, "settings.mesh", mesh)
    good_networks = checked.last_good_of(graph_, "settings.meshNetworks", networks)
    home = seat.settings_map()
    said = graph_.single("settings.said", lambda read: read.get(good_mesh, home) or defaults(seat))
    trust_ = trust.declare(
        graph_,
        sources_,
        home=trust.Home(
            home.cluster,
            seat.cluster,
            seat.system_namespace,
            is_told_to_skip=seat.skips_domains,
        ),
        said=said,
        configured=graph_.derive("trust.configured", good_mesh, _trust_domain_of),
    )

    def settings(read: reader.Reader) -> MeshSettings:
        found = read.get(good_networks, home) or Networks()
        trusted = read.value(trust_.trusted)
        return dataclasses.replace(
            read.value(said),
            network_members=found.members,
            configured_gateways=found.gateways,
            peer_domains=trusted.peers,
            lists_domains=trusted.is_listed,
            most_tunnels=seat.most_tunnels,
        )

    single = graph_.single("settings", settings)
    return Nodes(
        settings=single,
        trust=trust_,
        domains=graph_.single("trust_domains.all", lambda read: dict(read.items(trust_.domains))),
        members=graph_.single("network_members", lambda read: read.value(single).network_members),
        gateways=graph_.single(
            "configured_gateways", lambda read: read.value(single).configured_gateways
        ),
        locality_rules=graph_.single("locality_rules", lambda read: _rules(read.value(single))),
        trust_domain=graph_.single("trust_domain", lambda read: read.value(said).trust_domain),
        shared=graph_.single("shared_services", lambda read: read.value(single).shared),
        findings=(
            *trust_.findings,
            checked.findings_of(graph_, "settings.mesh", mesh),
            checked.findings_of(graph_, "settings.meshNetworks", networks),
        ),
    )


def defaults(seat: Seat) -> MeshSettings:
    """Return what holds where the ConfigMap says nothing."""
    return MeshSettings(
        cluster=seat.cluster,
        root_namespace=seat.system_namespace,
        system_namespace=seat.system_namespace,
        domain=seat.domain,
        cluster_local_hosts=_built_in_local(seat, discovery=""),
    )


def read_mesh(text: str, shared: str = "", *, seat: Seat) -> tuple[MeshSettings, tuple[str, ...]]:
    """Read the key `mesh`, over the one that is shared, and say what is wrong with it.

    Raises:
        DocumentBroken: It is no YAML that we read (ISM-REG-001).
    """
    problems = fields.Problems()
    document = documents.layered(text, below=shared)
    mesh = fields.Fields(document, path="mesh", problems=problems)
    own = defaults(seat)
    proxy = mesh.part("defaultConfig")
    local, mesh_wide = _locality(mesh, seat, discovery=proxy.text("discoveryAddress"))
    outbound = mesh.part("outboundTrafficPolicy").text("mode", "ALLOW_ANY")
    if outbound not in {"ALLOW_ANY", "REGISTRY_ONLY"}:
        mesh.problem("outboundTrafficPolicy.mode", f"is unknown: `{outbound[:40]}`")
    found = dataclasses.replace(
        own,
        trust_domain=_trust_domain(mesh.text("trustDomain") or own.trust_domain),
        trust_domain_aliases=tuple(map(_trust_domain, mesh.texts("trustDomainAliases"))),
        authorities=tuple(_authorities(mesh)),
        root_namespace=mesh.text("rootNamespace") or own.root_namespace,
        mesh_id=proxy.text("meshId"),
        auto_mtls=mesh.flag("enableAutoMtls", default=True),
        allows_any_outbound=outbound == "ALLOW_ANY",
        access_log_path=mesh.text("accessLogFile"),
        connect_timeout_s=mesh.seconds("connectTimeout", default=own.connect_timeout_s),
        cluster_local_hosts=local,
        mesh_wide_hosts=mesh_wide,
        locality=locality_settings.read(mesh.part("localityLbSetting")),
        traffic=traffic_policies.read(mesh.part("defaultTrafficPolicy")),
        shared=scope_settings.read(mesh.parts("serviceScopeConfigs")),
    )
    return found, problems.texts()


def read_networks(text: str, shared: str = "") -> tuple[Networks, tuple[str, ...]]:
    """Read the key `meshNetworks`, over the one that is shared, and say what is wrong with it.

    Raises:
        DocumentBroken: It is no YAML that we read (ISM-REG-001).
    """
    problems = fields.Problems()
    layered = documents.layered(text, below=shared)
    document = fields.Fields(layered, path="meshNetworks", problems=problems)
    networks = document.part("networks")
    members: list[NetworkMember] = []
    gateways: list[ConfiguredGateway] = []
    for name in networks.names():
        network = networks.part(name)
        members.extend(_members(NetworkId(name), network))
        gateways.extend(_gateways(NetworkId(name), network))
    return Networks(tuple(members), tuple(gateways)), problems.texts()


def is_cluster_local(host: str, *, local: tuple[str, ...], mesh_wide: tuple[str, ...]) -> bool:
    """Whether each cluster keeps to its own endpoints of `host`: the most specific rule says."""
    fitting = [(naming.specificity(rule), True) for rule in local if naming.matches(rule, host)]
    fitting += [
        (naming.specificity(rule), False) for rule in mesh_wide if naming.matches(rule, host)
    ]
    return max(fitting)[1] if fitting else False


def _part(
    graph_: graph.Graph,
    sources_: sources.Sources,
    seat: Seat,
    name: str,
    parse: Callable[[str, str], tuple[P, tuple[str, ...]]],
) -> collections.Collection[sources.ObjectKey, checked.Checked[P]]:
    """Declare one key of the ConfigMaps that hold settings, checked."""

    def check(
        read: reader.Reader, key: sources.ObjectKey, config_map: objects.ConfigMap
    ) -> Iterable[tuple[sources.ObjectKey, checked.Checked[P]]]:
        if (key.namespace, key.name) != (seat.system_namespace, seat.config_map):
            return
        value: P | None = None
        try:
            shared = shared_text(read, sources_, seat, name) if key.cluster == sources.HOME else ""
            value, problems = parse((config_map.data or {}).get(name, ""), shared)
        except documents.DocumentBroken as error:
            problems = (f"`{name}` {error.happened}",)
        findings = tuple(_finding(key, problem) for problem in problems)
        yield key, checked.Checked(value, findings, is_broken=bool(problems))

    return graph_.derive(f"settings.{name}.checked", sources_.config_maps, check)


def shared_text(read: reader.Reader, sources_: sources.Sources, seat: Seat, name: str) -> str:
    """Return what the shared ConfigMap says at a key; empty where there is none."""
    shared = read.get(sources_.config_maps, seat.shared_map) if seat.shared_map else None
    return ((shared.data or {}) if shared else {}).get(name, "")


def _finding(key: sources.ObjectKey, happened: str) -> errors.Finding:
    return errors.Finding(
        code=SETTINGS_BROKEN,
        subject=f"ConfigMap {key.namespace}/{key.name} {place(key)}",
        happened=happened,
        still_working="the last good settings stay in force",
        hint=f"correct it: `kubectl -n {key.namespace} edit configmap {key.name}`",
    )


def place(key: sources.ObjectKey) -> str:
    """Say for a person which cluster a key names."""
    at_home = key.cluster == sources.HOME
    return "where the control plane runs" if at_home else f"in cluster `{key.cluster}`"


def _authorities(mesh: fields.Fields) -> Iterable[ListedAuthority]:
    for one in mesh.parts("caCertificates"):
        if "spiffeBundleUrl" in one:
            one.problem("spiffeBundleUrl", "is not fetched: write the certificates into `pem`")
        domains = tuple(map(_trust_domain, one.texts("trustDomains")))
        text = one.text("pem", most=documents.MOST_CHARACTERS)
        try:
            if text:
                yield trust.authority_of(text, domains)
        except refusals.CaRefusal as error:
            one.problem("pem", f"cannot be used: {error.happened}")


def _trust_domain_of(
    _: reader.Reader, key: sources.ObjectKey, found: MeshSettings
) -> Iterable[tuple[ClusterId, TrustDomain]]:
    yield key.cluster, found.trust_domain


def _trust_domain(text: str) -> TrustDomain:
    return TrustDomain(text.replace("@", "."))


def _rules(settings: MeshSettings) -> tuple[tuple[str, ...], tuple[str, ...]]:
    return settings.cluster_local_hosts, settings.mesh_wide_hosts


def _built_in_local(seat: Seat, *, discovery: str) -> tuple[str, ...]:
    host = discovery.split(":", 1)[0] or f"istiod.{seat.system_namespace}.svc"
    full = host if host.endswith(f".{seat.domain}") else f"{host}.{seat.domain}"
    return (f"*.kube-system.svc.{seat.domain}", f"kubernetes.default.svc.{seat.domain}", full)


def _locality(
    mesh: fields.Fields, seat: Seat, *, discovery: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the patterns of cluster-local hosts, and of those that are not.

    A user's "not local" for a built-in host, or for one below a built-in wildcard, drops that
    built-in as a whole.
    """
    local: list[str] = []
    mesh_wide: list[str] = []
    for entry in mesh.parts("serviceSettings"):
        is_local = entry.part("settings").flag("clusterLocal", default=False)
        (local if is_local else mesh_wide).extend(host.lower() for host in entry.texts("hosts"))
    kept = [
        rule
        for rule in _built_in_local(seat, discovery=discovery)
        if not any(_drops(host, rule) for host in mesh_wide)
    ]
    return tuple(dict.fromkeys([*kept, *local])), tuple(dict.fromkeys(mesh_wide))


def _drops(host: str, rule: str) -> bool:
    return host == rule or (rule.startswith("*") and host.endswith(rule[1:]))


def _members(network: NetworkId, part: fields.Fields) -> Iterable[NetworkMember]:
    for endpoints in part.parts("endpoints"):
        registry, cidr = endpoints.text("fromRegistry"), endpoints.text("fromCidr")
        if registry:
            yield NetworkMember(network, from_registry=registry)
        elif cidr and _is_cidr(cidr):
            yield NetworkMember(network, from_cidr=cidr)
        else:
            endpoints.problem("fromCidr" if cidr else "fromRegistry", "must say what belongs here")


def _gateways(network: NetworkId, part: fields.Fields) -> Iterable[ConfiguredGateway]:
    for gateway in part.parts("gateways"):
        address, service = gateway.text("address"), gateway.text("registryServiceName")
        port = gateway.number("port", default=15443, least=1, most=MOST_PORT)
        if service:
            yield ConfiguredGateway(network, registry_service_name=service, port=port)
        elif addresses.is_unspecified(address):
            # A placeholder: what is behind it cannot be reached yet, neither is it near.
            yield ConfiguredGateway(network, address=address, port=port, is_known=False)
        elif fault := addresses.fault_of_reachable(address):
            gateway.problem("address", f"cannot be sent to, it is {fault}: `{address[:64]}`")
        else:
            yield ConfiguredGateway(network, address=address, port=port)


def _is_cidr(text: str) -> bool:
    try:
        ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    return True
