"""Addresses that hosts were given before, as the status of ServiceEntries says.

Only the objects of the configuration cluster count, and of each host only that object which speaks
for it: the entry of a user in the namespace of the host's service, or the entry that we have made
for a shared service, which is in the system namespace. What is written there is a wish: whether
the address is one of our making, and whose it is, is judged where addresses are given.

Source: spec section 7.8.
"""

from collections.abc import Iterable, Mapping
from typing import Final

from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh.allocations import Recorded
from isthmus.mesh.services import ServiceKey
from isthmus.registry import naming, settings

OURS: Final = "isthmus.dev/derived-service"
"""Label of ServiceEntries that we write, for services that clusters share."""

MOST: Final = 256
Records = collections.Collection[ServiceKey, Recorded]


def declare(graph_: graph.Graph, sources_: sources.Sources, *, seat: settings.Seat) -> Records:
    """Declare in `graph_` which addresses services were given."""

    def record(
        _: reader.Reader, key: sources.ObjectKey, entry: objects.ServiceEntry
    ) -> Iterable[tuple[tuple[ServiceKey, sources.ObjectKey], Recorded]]:
        if key.cluster != seat.cluster:
            return
        is_ours = is_derived(entry) and key.namespace == seat.system_namespace
        for host, address in said_of(entry):
            shared = naming.split_derived(host) if is_ours else None
            namespace = shared.namespace if shared is not None else key.namespace
            if shared is not None or not is_ours:
                yield (ServiceKey(namespace, host), key), Recorded(host, address)

    every = graph_.derive("recorded.of_objects", sources_.service_entries, record)
    by_service = graph_.index_by_key("recorded.by_service", every, lambda key: (key[0],))

    def first(
        read: reader.Reader, key: tuple[ServiceKey, sources.ObjectKey], one: Recorded
    ) -> Iterable[tuple[ServiceKey, Recorded]]:
        if min(read.lookup(by_service, key[0])) == key:
            yield key[0], one

    return graph_.derive("recorded", every, first)


def is_derived(entry: objects.ServiceEntry) -> bool:
    """Say whether a ServiceEntry is one that we write."""
    return bool(entry.metadata.label(OURS))


def said_of(entry: objects.ServiceEntry) -> Iterable[tuple[str, str]]:
    """Yield each host of a ServiceEntry, with the first address of IPv4 that its status says."""
    found = dict[str, str]()
    for host, value in addresses_of(entry):
        if "." in value and ":" not in value:
            found.setdefault(host, value)
    hosts = (entry.spec or {}).get("hosts")
    named = {one for one in hosts if isinstance(one, str)} if isinstance(hosts, list) else set()
    return [(host, value) for host, value in found.items() if host in named]


def addresses_of(entry: objects.ServiceEntry) -> Iterable[tuple[str, str]]:
    """Yield hosts and addresses as the status of a ServiceEntry says; what is no such pair not."""
    listed = (entry.status or {}).get("addresses")
    for one in listed[:MOST] if isinstance(listed, list) else ():
        if isinstance(one, Mapping):
            host, value = one.get("host"), one.get("value")
            if isinstance(host, str) and isinstance(value, str):
                yield host, value
