"""Plans: what would be changed, why, and what stands in the way. Values only."""

from collections.abc import Mapping
from dataclasses import dataclass

from isthmus.base import errors
from isthmus.gke import clusters, wishes
from isthmus.gke import ports as port_sets


@dataclass(frozen=True, slots=True)
class Served:
    """The TCP ports that a cluster's pods serve.

    Attributes:
        ports: The ports.
        names: For each port that was found in the cluster, the services behind it.
        missing: Why nothing is known, or empty.
    """

    ports: port_sets.Ports = ()
    names: tuple[tuple[int, str], ...] = ()
    missing: str = ""


@dataclass(frozen=True, slots=True)
class CreateRule:
    """A firewall rule that there is none for yet."""

    rule: clusters.Rule
    sources: str
    why: str

    @property
    def title(self) -> str:
        """What it is about, in a few words."""
        return f"create firewall rule {self.rule.name}"


@dataclass(frozen=True, slots=True)
class ChangeRule:
    """A firewall rule of ours that says something else today."""

    before: clusters.Rule
    rule: clusters.Rule
    sources: str
    why: str

    @property
    def title(self) -> str:
        """What it is about, in a few words."""
        return f"change firewall rule {self.rule.name}"


@dataclass(frozen=True, slots=True)
class AddNetworks:
    """Networks that may call a cluster's API server from now on; those that may, stay."""

    cluster: clusters.Cluster
    added: tuple[clusters.Block, ...]
    why: str

    @property
    def title(self) -> str:
        """What it is about, in a few words."""
        return f"add authorized networks to {self.cluster.title}"

    @property
    def after(self) -> tuple[clusters.Block, ...]:
        """All that may call it then, those of today first and unchanged."""
        return (*self.cluster.authorized.blocks, *self.added)


@dataclass(frozen=True, slots=True)
class GlobalAccess:
    """A cluster's API server is to answer other regions on its private address."""

    cluster: clusters.Cluster
    why: str

    @property
    def title(self) -> str:
        """What it is about, in a few words."""
        return f"enable global access to {self.cluster.title}"


Step = CreateRule | ChangeRule | AddNetworks | GlobalAccess


@dataclass(frozen=True, slots=True)
class Kept:
    """Something that is already as it should be."""

    title: str
    why: str


@dataclass(frozen=True, slots=True)
class Check:
    """Something that a person should know before anything is changed.

    Attributes:
        stops: Whether nothing may be changed until it is settled.
    """

    finding: errors.Finding
    stops: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """All of it."""

    wishes: wishes.Wishes
    world: clusters.World
    served: Mapping[str, Served]
    steps: tuple[Step, ...]
    kept: tuple[Kept, ...]
    checks: tuple[Check, ...]

    @property
    def is_stopped(self) -> bool:
        """Whether something must be settled first."""
        return any(check.stops for check in self.checks)
