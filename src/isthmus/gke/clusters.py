"""What Google's APIs say about clusters and networks, as far as a mesh depends on it.

Values only: who reads them is in `reading`, what follows from them in `planning`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from isthmus.gke import ports as port_sets
from isthmus.gke import ranges


@dataclass(frozen=True, slots=True, order=True)
class Network:
    """A VPC network: the project that owns it, and its name."""

    project: str
    name: str


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where a cluster is, as the API addresses it."""

    project: str
    location: str
    name: str

    @property
    def region(self) -> str:
        """The region: of `us-central1-a` it is `us-central1`."""
        head, _, tail = self.location.rpartition("-")
        return head if len(tail) == 1 and tail.isalpha() else self.location


@dataclass(frozen=True, slots=True)
class Block:
    """One entry of the authorized networks."""

    cidr: ranges.Range
    title: str = ""


@dataclass(frozen=True, slots=True)
class AuthorizedNetworks:
    """Who may call an API server, by address.

    Attributes:
        for_google: Whether addresses of Google's own machines may; None where nobody said.
        for_private: Whether the list holds for the private address, too; None likewise.
    """

    enabled: bool = False
    blocks: tuple[Block, ...] = ()
    for_google: bool | None = None
    for_private: bool | None = None

    @property
    def cidrs(self) -> tuple[ranges.Range, ...]:
        """The ranges alone."""
        return tuple(block.cidr for block in self.blocks)


@dataclass(frozen=True, slots=True)
class Cluster:
    """One cluster.

    Attributes:
        title: How it is called here: its name, or more of its place where that is ambiguous.
        pods: Every range that its pods have addresses of.
        control_planes: The range of the control plane's own machines, empty if unknown.
        nodes: The network tags of each node, each set once.
        etag: Changes with the cluster.
    """

    title: str
    place: Place
    network: Network
    subnetwork: str = ""
    status: str = "RUNNING"
    pods: tuple[ranges.Range, ...] = ()
    services: tuple[ranges.Range, ...] = ()
    control_planes: tuple[ranges.Range, ...] = ()
    private_endpoint: str = ""
    public_endpoint: str = ""
    has_private_nodes: bool = False
    has_global_access: bool = False
    is_vpc_native: bool = True
    is_autopilot: bool = False
    authorized: AuthorizedNetworks = AuthorizedNetworks()
    nodes: tuple[frozenset[str], ...] = ()
    etag: str = ""


@dataclass(frozen=True, slots=True)
class Traffic:
    """A protocol and its ports, as a rule names them; `all` is every protocol."""

    protocol: str
    ports: port_sets.Ports = port_sets.EVERY

    @property
    def tcp(self) -> port_sets.Ports:
        """The TCP ports among it."""
        return self.ports if self.protocol in {"tcp", "all", "6"} else ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One firewall rule of a network.

    Attributes:
        sources: Empty: everybody, unless `names_sources`.
        destinations: Empty: every address of the targets.
        names_sources: Whether it also names senders by tag or account, which pods have not.
        names_accounts: Whether it names its targets by account, which we do not see.
    """

    name: str
    network: Network
    allows: bool = True
    is_ingress: bool = True
    is_enabled: bool = True
    priority: int = 1000
    traffic: tuple[Traffic, ...] = ()
    sources: tuple[ranges.Range, ...] = ()
    destinations: tuple[ranges.Range, ...] = ()
    target_tags: tuple[str, ...] = ()
    names_sources: bool = False
    names_accounts: bool = False
    description: str = ""

    @property
    def tcp(self) -> port_sets.Ports:
        """The TCP ports that it is about."""
        return port_sets.united(span for each in self.traffic for span in each.tcp)


@dataclass(frozen=True, slots=True)
class Quota:
    """How many firewall rules a project may have, and has."""

    limit: int
    used: int


@dataclass(frozen=True, slots=True)
class World:
    """All that was read.

    Attributes:
        hosts: For each project whose clusters use another project's network: the project whose
            shared network it is attached to, empty for none; absent where we may not know.
        policies: For each network the firewall policies above it that deny anything inbound.
        unread: What could not be read, and why, one line each.
    """

    clusters: tuple[Cluster, ...]
    rules: Mapping[Network, tuple[Rule, ...]] = field(default_factory=dict)
    hosts: Mapping[str, str] = field(default_factory=dict)
    quotas: Mapping[str, Quota] = field(default_factory=dict)
    policies: Mapping[Network, tuple[str, ...]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
