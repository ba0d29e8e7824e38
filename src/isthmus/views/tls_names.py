"""Where TLS goes that sidecars do not decrypt, to hosts that have no address: by its server name.

All such hosts of a port share one listener at any address, with the port's HTTP if there is any.

Source: spec sections 4.8 and 8.5.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from isthmus.engine import collections, graph, reader
from isthmus.mesh.services import Protocol, Service, ServiceKey
from isthmus.views import addressing, facts, names, outbound, routing, view

Chains = tuple[view.NamedShares, ...]
Seen = tuple[view.OutboundScope, ServiceKey]
PortKey = tuple[view.OutboundScope, str]
HostKey = tuple[view.OutboundScope, str, str]
Sliced = Iterator[tuple[view.SliceKey, view.Slice]]
SplitOf = Callable[[reader.Reader, Service, view.OutboundScope], Mapping[int, outbound.Split]]


@dataclass(frozen=True, slots=True)
class Named:
    """Where TLS goes by name; ports are written as the routes of the port are called."""

    by_port: collections.Index[PortKey, HostKey, Chains]
    by_scope: collections.Index[view.OutboundScope, HostKey, Chains]

    def chains(self, read: reader.Reader, port: PortKey) -> Chains:
        """Return where TLS on a port goes, in the order of hosts."""
        found = read.lookup(self.by_port, port)
        return routing.distinct_names(found[key] for key in sorted(found, key=lambda one: one[2]))


def declare(
    graph_: graph.Graph,
    known: facts.Facts,
    *,
    visible: collections.Collection[Seen, Service],
    split_of: SplitOf,
) -> Named:
    """Declare the names; `split_of` returns what VirtualServices say of connections."""

    def named(read: reader.Reader, key: Seen, service: Service) -> Iterator[tuple[HostKey, Chains]]:
        scope, _ = key
        ports = [port for port in service.ports if port.protocol is Protocol.TLS]
        if service.entry is None or not ports:
            return
        if addressing.addresses_of(
            read, known, service, cluster=scope.cluster, naming=scope.naming
        ):
            return
        resolved = split_of(read, service, scope)
        for port in ports:
            own = view.RouteTarget(names.outbound(service.hostname, port=port.number))
            split = resolved.get(port.number, outbound.NOT_SPLIT)
            usual = view.NamedShares((service.hostname,), split.shares or (own,))
            yield (scope, str(port.number), service.hostname), (*split.by_name, usual)

    found = graph_.derive("views/names of TLS", visible, named)
    return Named(
        graph_.index_by_key("views/names of TLS by port", found, lambda key: (key[:2],)),
        graph_.index_by_key("views/names of TLS by scope", found, lambda key: (key[0],)),
    )


def listeners(
    graph_: graph.Graph,
    known: facts.Facts,
    named: Named,
    *,
    places: collections.Collection[view.OutboundScope, None],
    routed: collections.Collection[PortKey, tuple[view.VirtualHost, ...]],
) -> collections.Collection[view.SliceKey, view.Slice]:
    """Declare the listeners of ports where there is no HTTP, whose hosts are `routed`."""

    def ports(
        read: reader.Reader, scope: view.OutboundScope, _: None
    ) -> Iterator[tuple[PortKey, None]]:
        for port in sorted({port for _, port, _ in read.lookup(named.by_scope, scope)}):
            if read.get(routed, (scope, port)) is None:
                yield (scope, port), None

    def listener(read: reader.Reader, key: PortKey, _: None) -> Sliced:
        scope, port = key
        if int(port) in outbound.RESERVED:
            return
        yield view.keyed(
            scope,
            outbound.named_listener(
                int(port),
                by_name=named.chains(read, key),
                settings=read.value(known.model.settings),
            ),
        )

    alone = graph_.derive("views/ports of names", places, ports)
    return graph_.derive("views/listeners of names", alone, listener)
