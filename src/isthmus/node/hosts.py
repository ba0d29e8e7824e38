"""Which names pods of a node may ask for: the hosts of services that the control plane tells.

Of several services of one host a pod means that of its own namespace, else the one that is
everybody's, else the first. Addresses are those of this network, or any where it has none; of IPv6
there are none, since pods are not called at these. A service without an address is for the
cluster's own servers to answer for.

Source: spec section 7.8.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from typing_extensions import override

from isthmus.engine import collections
from isthmus.mesh.identities import NetworkId
from isthmus.node import names
from isthmus.views import wds

OTHERS: Final = "External"


@dataclass(frozen=True, slots=True)
class Entry:
    """What a host stands for, in the shape of a table of names."""

    ips: tuple[str, ...]
    registry: str


@dataclass(slots=True)
class Hosts:
    """All services by host.

    Attributes:
        network: Our own.
        domain: Of the cluster: names below it may be shortened.
    """

    network: NetworkId
    domain: str
    _by_host: dict[str, dict[str, wds.ServiceSlice]] = field(default_factory=dict)

    def change(self, changed: Iterable[collections.Change[wds.ServiceSlice]]) -> None:
        """Take in services as they were and are."""
        for old, new in changed:
            if old is not None:
                held = self._by_host.get(old.host.lower(), {})
                held.pop(old.resource_name, None)
                if not held:
                    self._by_host.pop(old.host.lower(), None)
            if new is not None:
                self._by_host.setdefault(new.host.lower(), {})[new.resource_name] = new

    def find(self, host: str, *, namespace: str) -> Entry | None:
        """Return what pods of a namespace mean by a host."""
        services = self._by_host.get(host, {}).values()
        known = [one for one in services if not one.is_private or one.namespace == namespace]
        if not known:
            return None
        meant = min(
            known, key=lambda one: (one.namespace != namespace, not one.is_canonical, one.namespace)
        )
        usable = [one for one in meant.addresses if ":" not in one.address]
        near = [one.address for one in usable if one.network in ("", self.network)]
        addresses = near or [one.address for one in usable]
        is_ours = host.endswith(f".svc.{self.domain}")
        registry = names.KUBERNETES if is_ours else OTHERS
        return Entry(tuple(addresses), registry) if addresses else None


@dataclass(frozen=True, slots=True)
class Seen(names.Entries):
    """All hosts as pods of one namespace see them."""

    hosts: Hosts
    namespace: str

    @override
    def get(self, host: str, /) -> Entry | None:
        return self.hosts.find(host, namespace=self.namespace)


def names_of(hosts: Hosts, *, namespace: str) -> names.Names:
    """Return all names that pods of a namespace may ask for, as they are at any moment."""
    domain = hosts.domain
    search = (f"{namespace}.svc.{domain}", f"svc.{domain}", domain)
    forms = names.forms_of(namespace=namespace, domain=f"{namespace}.svc.{domain}", search=search)
    return names.Names(Seen(hosts, namespace), forms)
