"""Links: which other clusters this one uses, as Gateways of class `istio-remote` say.

Only those in namespaces that are meant for it count: whoever may write a Gateway elsewhere cannot
take another cluster in. One whose network has other clusters in it that are known here is set apart:
what is behind its gateway is then a network by itself. Of several that name one cluster the oldest counts, on every replica the
same. One that cannot be used is a finding, and touches no other.

Source: spec section 7.7.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import gateway_api
from isthmus.mesh import peering
from isthmus.mesh.identities import ClusterId, NetworkId, TrustDomain
from isthmus.registry import addresses, checked, settings, texts, topology, trust

CLASS: Final = "istio-remote"
ACCOUNT: Final = "gateway.istio.io/service-account"
TRUST_DOMAIN: Final = "isthmus.dev/trust-domain"
NAMESPACES: Final = "isthmus.dev/namespaces"
"""Annotation of a link: the namespaces of which its cluster may tell, with commas; else all."""

USUAL_ACCOUNT: Final = "istio-eastwest"
LINK_UNUSABLE: Final = "ISM-REG-030"
MOST_LABEL: Final = 63

Key = sources.ObjectKey
Links = collections.Collection[ClusterId, peering.Link]


@dataclass(frozen=True, slots=True)
class Claim:
    """A link that could be used, and since when it is there."""

    created: str
    link: peering.Link


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares.

    Attributes:
        links: Those that are used, by the cluster that they lead to.
    """

    links: Links
    findings: checked.Findings


def declare(
    graph_: graph.Graph,
    sources_: sources.Sources,
    *,
    seat: settings.Seat,
    places: topology.Nodes,
    settings_: settings.Nodes,
) -> Nodes:
    """Declare the links in `graph_`."""

    def check(
        read: reader.Reader, key: Key, found: gateway_api.Gateway
    ) -> Iterable[tuple[Key, checked.Checked[Claim]]]:
        if key.cluster != seat.cluster or found.spec.gateway_class_name != CLASS:
            return
        yield key, claim_of(found, seat=seat, own_domain=settings_.domain_of(read, seat.cluster))

    both = graph_.derive("links.checked", sources_.kubernetes_gateways, check)
    claims = checked.values_of(graph_, "links.claims", both)
    by_peer = graph_.index("links.claims.by_peer", claims, lambda _, one: (one.link.peer,))

    def chosen(
        read: reader.Reader, key: Key, claim: Claim
    ) -> Iterable[tuple[ClusterId, peering.Link]]:
        if _first(read.lookup(by_peer, claim.link.peer).items()) == key:
            yield claim.link.peer, claim.link

    def second(
        read: reader.Reader, key: Key, claim: Claim
    ) -> Iterable[tuple[checked.FindingKey, errors.Finding]]:
        first = _first(read.lookup(by_peer, claim.link.peer).items())
        if first != key:
            text = (
                f"cluster `{claim.link.peer}` is linked by the older {first.namespace}/{first.name}"
            )
            yield checked.FindingKey("links.second", key, 0), _finding(key, text)

    def refused(
        read: reader.Reader, key: Key, claim: Claim
    ) -> Iterable[tuple[checked.FindingKey, errors.Finding]]:
        peer, domain = claim.link.peer, claim.link.trust_domain
        said = read.value(settings_.settings)
        if domain not in {said.trust_domain, *said.trust_domain_aliases, *said.peer_domains}:
            yield checked.FindingKey("links.refused", key, 0), trust.not_accepted(peer, domain)

    return Nodes(
        _set_apart(graph_, graph_.derive("links.chosen", claims, chosen), places=places),
        graph_.join(
            "links.all_findings",
            checked.findings_of(graph_, "links", both),
            graph_.derive("links.refused", claims, refused),
            graph_.derive("links.second", claims, second),
        ),
    )


def _set_apart(graph_: graph.Graph, found: Links, *, places: topology.Nodes) -> Links:
    """Declare the links, each set apart in whose network other known clusters are as well."""
    by_network = graph_.index("links.by_network", found, lambda _, link: (link.network,))

    def apart(
        read: reader.Reader, peer: ClusterId, link: peering.Link
    ) -> Iterable[tuple[ClusterId, peering.Link]]:
        is_shared = any(
            network == link.network and cluster != peer
            for cluster, network in read.items(places.networks).items()
        )
        is_apart = is_shared or len(read.lookup(by_network, link.network)) > 1
        yield peer, dataclasses.replace(link, is_apart=is_apart)

    return graph_.derive("links", found, apart)


def _first(claims: Iterable[tuple[Key, Claim]]) -> Key:
    return min(claims, key=lambda item: (item[1].created, item[0]))[0]


def claim_of(
    found: gateway_api.Gateway,
    *,
    seat: settings.Seat,
    own_domain: TrustDomain,
) -> checked.Checked[Claim]:
    """Return the link that a Gateway is, and what is wrong with it."""
    metadata = found.metadata
    link = peering.Link(
        namespace=metadata.namespace,
        name=metadata.name,
        peer=ClusterId(metadata.label(topology.CLUSTER_LABEL)),
        network=NetworkId(metadata.label(topology.NETWORK_LABEL)),
        addresses=tuple(
            one.value
            for one in found.spec.addresses or ()
            if not addresses.fault_of_reachable(one.value)
        ),
        service_account=metadata.annotation(ACCOUNT) or USUAL_ACCOUNT,
        trust_domain=TrustDomain(metadata.annotation(TRUST_DOMAIN) or own_domain),
        tunnel_port=_port(found, "HBONE"),
        discovery_port=_port(found, "TLS"),
        namespaces=_words(metadata.annotation(NAMESPACES)),
    )
    faults = tuple(_faults(link, found, seat=seat))
    key = Key(seat.cluster, metadata.namespace, metadata.name)
    return checked.Checked(
        None if faults else Claim(metadata.creation_timestamp, link),
        tuple(_finding(key, text) for text in faults),
    )


def _faults(
    link: peering.Link,
    found: gateway_api.Gateway,
    *,
    seat: settings.Seat,
) -> Iterator[str]:
    if link.namespace not in seat.namespaces_of_links:
        yield f"is in namespace `{link.namespace}`, where links do not count"
    if not is_cluster(link.peer):
        yield f"label `{topology.CLUSTER_LABEL}` names no cluster: `{link.peer[:80]}`"
    elif link.peer == seat.cluster:
        yield f"leads to cluster `{link.peer}`, which is this one: two clusters have one name"
    if not link.network:
        yield f"has no label `{topology.NETWORK_LABEL}`"
    if not link.addresses:
        said = ", ".join(one.value for one in found.spec.addresses or ())
        yield f"has no address that can be sent to: `{said[:80]}`" if said else "has no address"
    if not texts.is_object_name(link.service_account):
        yield f"annotation `{ACCOUNT}` names no account: `{link.service_account[:80]}`"
    if not is_domain(link.trust_domain):
        yield f"annotation `{TRUST_DOMAIN}` is no trust domain: `{link.trust_domain[:80]}`"
    if not link.tunnel_port and not link.discovery_port:
        yield "has neither a listener of protocol HBONE nor one of protocol TLS"


def is_cluster(text: str) -> bool:
    """Say whether a text can be the name of a cluster: a DNS label in lower case."""
    return addresses.is_label(text) and "_" not in text and text == text.lower()


def is_domain(text: str) -> bool:
    """Say whether a text can be a trust domain that a certificate's server name ends with."""
    return addresses.is_hostname(text) and not text.endswith(".") and text == text.lower()


def _port(found: gateway_api.Gateway, protocol: str) -> int:
    return next((one.port for one in found.spec.listeners if one.protocol == protocol), 0)


def _words(text: str) -> tuple[str, ...]:
    return tuple(sorted({word.strip() for word in text.split(",") if word.strip()}))


def _finding(key: Key, happened: str) -> errors.Finding:
    return errors.Finding(
        code=LINK_UNUSABLE,
        subject=f"Gateway {key.namespace}/{key.name}",
        happened=happened,
        still_working="all other links; what this cluster has itself",
        hint="write it with `isthmus multicluster link`, which names what is missing",
    )
