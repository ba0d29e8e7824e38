"""Linked clusters: what leads to them, what they are told, and what of their word counts.

Only wiring: see `links`, `exports` and `imports`.

Source: spec section 7.7.
"""

from dataclasses import dataclass

from isthmus.engine import collections, graph
from isthmus.fleet import sources
from isthmus.mesh import peering
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.services import ServiceKey
from isthmus.registry import checked, exports, imports, links, settings


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares.

    Attributes:
        network: Of this cluster; empty where it has no name.
        links: The clusters that this one uses without following their API servers.
        exports: What those that link to this one are told.
        told: What linked clusters tell, as it came; filled from outside.
        imports: What of it counts.
        imports_by_service: The same, by the service that it is about.
    """

    network: collections.Single[NetworkId]
    links: collections.Collection[ClusterId, peering.Link]
    exports: collections.Collection[ServiceKey, peering.Export]
    told: collections.Source[peering.ImportKey, peering.Export]
    imports: collections.Collection[peering.ImportKey, peering.Import]
    imports_by_service: collections.Index[ServiceKey, peering.ImportKey, peering.Import]
    findings: checked.Findings


def declare(
    graph_: graph.Graph,
    sources_: sources.Sources,
    *,
    seat: settings.Seat,
    links_: links.Nodes,
    imports_: imports.Nodes,
    known: exports.Known,
) -> Nodes:
    """Declare in `graph_` what is between this cluster and those linked to it."""
    networks = known.places.networks
    return Nodes(
        graph_.single(
            "peers.network", lambda read: read.get(networks, seat.cluster) or NetworkId("")
        ),
        links_.links,
        exports.declare(graph_, sources_, seat=seat, known=known),
        imports_.told,
        imports_.imports,
        imports_.by_service,
        graph_.join("peers.findings", links_.findings, imports_.findings),
    )
