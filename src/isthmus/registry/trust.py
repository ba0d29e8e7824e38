"""Trust domains: which cluster has which, whose identities are accepted, and who signs for each.

Who signs for a trust domain is listed, one list each: in ConfigMaps of the control plane's own
namespace, and in the mesh's settings. Several lists for one domain add up. A list that breaks
stays as it last was.

Where our own domain is not listed, the roots of our own authority vouch for it, as in Istio. They
do so, too, where it is listed without all who are known to sign for it: what signs here, and
clusters that we follow and that share our domain. Their workloads would be shut out otherwise.

Source: spec section 1.2; security rule TD-1; decision 0030.
"""

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Final

from isthmus.base import errors
from isthmus.ca import anchors, refusals
from isthmus.engine import collections, graph, reader
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh import trust
from isthmus.mesh.identities import ClusterId, TrustDomain
from isthmus.mesh.settings import ListedAuthority, MeshSettings
from isthmus.mesh.trust import Bundle, OwnAuthority
from isthmus.registry import checked

BUNDLE_BROKEN: Final = "ISM-REG-040"
NOTHING_SKIPPED: Final = "ISM-REG-041"
HALF_LISTED: Final = "ISM-REG-044"
NOT_ACCEPTED: Final = "ISM-REG-045"
CLUSTER_LABEL: Final = "topology.istio.io/cluster"
KUBE_SYSTEM: Final = "kube-system"
OWN: Final = "own"
"""The key of our own authority."""

Listed = tuple[ClusterId, Bundle]
"""A list, and the cluster that it is of, if it says so."""

Domains = Iterable[tuple[ClusterId, TrustDomain]]
ByNamespace = Callable[[reader.Reader, sources.ObjectKey, objects.Namespace], Domains]


@dataclass(frozen=True, slots=True)
class Home:
    """Where lists are read, and how they count.

    Attributes:
        cluster: Whose ConfigMaps count.
        config_cluster: Where the mesh is configured: its workloads have what signs here.
        is_told_to_skip: Whether somebody wants trust domains not to be looked at.
    """

    cluster: ClusterId
    config_cluster: ClusterId
    system_namespace: str
    is_told_to_skip: bool = False


@dataclass(frozen=True, slots=True)
class Trusted:
    """Who is accepted.

    Attributes:
        bundles: Of each accepted trust domain, sorted.
        peers: Accepted beside our own domain and its aliases, sorted.
        is_listed: Whether anybody has listed anything.
        unlisted: Why our own roots vouch for our own domain although it is listed; else empty.
    """

    bundles: tuple[Bundle, ...] = ()
    peers: tuple[TrustDomain, ...] = ()
    is_listed: bool = False
    unlisted: str = ""


@dataclass(frozen=True, slots=True)
class Nodes:
    """What this module declares.

    Attributes:
        own: Our own authority, at `OWN`; filled from outside.
        domains: Of clusters that say so themselves.
        clusters: Of all known clusters.
        trusted: Who is accepted.
    """

    own: collections.Source[str, OwnAuthority]
    domains: collections.Collection[ClusterId, TrustDomain]
    clusters: collections.Collection[ClusterId, TrustDomain]
    trusted: collections.Single[Trusted]
    findings: tuple[checked.Findings, ...]


def declare(
    graph_: graph.Graph,
    sources_: sources.Sources,
    *,
    home: Home,
    said: collections.Single[MeshSettings],
    configured: collections.Collection[ClusterId, TrustDomain],
) -> Nodes:
    """Declare who is trusted in `graph_`.

    `said` are the settings without what is declared here, `configured` the domains that clusters'
    own settings name.
    """
    own: collections.Source[str, OwnAuthority] = graph_.source("trust.own")
    domains = graph_.join(
        "trust_domains",
        configured,
        graph_.derive("trust.labelled", sources_.namespaces, _labelled(home, configured)),
    )
    clusters = graph_.derive("trust.clusters", sources_.namespaces, _known(domains, said))
    checked_ = graph_.derive("trust.bundles.checked", sources_.trust_bundles, _checked(home))
    lists = checked.last_good_of(graph_, "trust.bundles", checked_)
    trusted = graph_.single(
        "trust.trusted",
        lambda read: trusted_of(
            read.value(said),
            own=read.get(own, OWN),
            lists=read.items(lists).values(),
            others=_others(read.items(clusters), home),
            skips=home.is_told_to_skip,
        ),
    )
    doubtful = graph_.derive("trust.doubtful", sources_.namespaces, _doubtful(home, trusted))
    refused = graph_.derive("trust.refused", clusters, _refused(said, trusted))
    return Nodes(
        own,
        domains,
        clusters,
        trusted,
        (checked.findings_of(graph_, "trust.bundles", checked_), doubtful, refused),
    )


def _others(
    clusters: Mapping[ClusterId, TrustDomain], home: Home
) -> Mapping[ClusterId, TrustDomain]:
    return {one: domain for one, domain in clusters.items() if one != home.config_cluster}


# --- which cluster has which


def _labelled(
    home: Home, configured: collections.Collection[ClusterId, TrustDomain]
) -> ByNamespace:
    def labelled(
        read: reader.Reader, key: sources.ObjectKey, namespace: objects.Namespace
    ) -> Domains:
        label = namespace.metadata.label(trust.DOMAIN_LABEL)
        is_system = key.name == home.system_namespace
        if is_system and trust.is_domain(label) and read.get(configured, key.cluster) is None:
            yield key.cluster, TrustDomain(label)

    return labelled


def _known(
    domains: collections.Collection[ClusterId, TrustDomain],
    said: collections.Single[MeshSettings],
) -> ByNamespace:
    def known(read: reader.Reader, key: sources.ObjectKey, _: objects.Namespace) -> Domains:
        if key.name == KUBE_SYSTEM:
            yield key.cluster, read.get(domains, key.cluster) or read.value(said).trust_domain

    return known


# --- who signs


def _checked(
    home: Home,
) -> Callable[
    [reader.Reader, sources.ObjectKey, objects.ConfigMap],
    Iterable[tuple[sources.ObjectKey, checked.Checked[Listed]]],
]:
    def check(
        _: reader.Reader, key: sources.ObjectKey, config_map: objects.ConfigMap
    ) -> Iterable[tuple[sources.ObjectKey, checked.Checked[Listed]]]:
        if (key.cluster, key.namespace) != (home.cluster, home.system_namespace):
            return
        try:
            cluster = ClusterId(config_map.metadata.label(CLUSTER_LABEL))
            yield key, checked.Checked((cluster, read_bundle(config_map)))
        except refusals.CaRefusal as error:
            yield key, checked.Checked(None, (_finding(key, error),), is_broken=True)

    return check


def read_bundle(config_map: objects.ConfigMap) -> Bundle:
    """Read who signs for the trust domain that a ConfigMap is labelled with.

    Raises:
        CaRefusal: It cannot be used.
    """
    domain = config_map.metadata.label(trust.DOMAIN_LABEL)
    if not trust.is_domain(domain):
        raise refusals.PemMalformed(f"its label names no trust domain: `{domain[:64]}`")
    held: Mapping[str, str] = config_map.data or {}
    key = next((one for one in trust.BUNDLE_KEYS if held.get(one, "").strip()), "")
    if not key:
        raise refusals.PemMalformed(f"`{trust.BUNDLE}` is missing: it should list who signs")
    return Bundle(TrustDomain(domain), anchors.of(anchors.listed(held[key], file=key)))


def _finding(key: sources.ObjectKey, error: errors.IsthmusError) -> errors.Finding:
    return errors.Finding(
        BUNDLE_BROKEN,
        subject=f"ConfigMap {key.namespace}/{key.name}",
        happened="; ".join([error.happened, *error.detail.splitlines()]),
        still_working="what it last said, if that was good; all other trust domains",
        hint=error.hint or "isthmus multicluster trust --context PEER prints one",
    )


def trusted_of(
    said: MeshSettings,
    *,
    own: OwnAuthority | None,
    lists: Iterable[Listed],
    others: Mapping[ClusterId, TrustDomain],
    skips: bool = False,
) -> Trusted:
    """Return who is accepted.

    `others` are the trust domains of clusters that we follow besides the one that configures us.
    For whoever wants none looked at, they are accepted without any list if our own roots vouch for
    them; with one only what is listed counts.
    """
    found: dict[TrustDomain, set[str]] = {}
    whose = list(lists)
    for bundle in (*(one for _, one in whose), *_configured(said)):
        found.setdefault(bundle.domain, set()).update(bundle.anchors)
    is_listed = bool(found)
    ours = dict.fromkeys((said.trust_domain, *said.trust_domain_aliases))
    listed = frozenset(found.get(said.trust_domain, ()))
    sharing = {one for one, domain in others.items() if domain in ours}
    unlisted = _unlisted(listed, own, sharing - {cluster for cluster, _ in whose})
    roots = own.roots if own is not None and (unlisted or not listed) else ()
    for domain in ours:
        found.setdefault(domain, set()).update(listed, roots)
    if skips and not is_listed and own is not None:
        for domain in others.values():
            found.setdefault(domain, set()).update(own.roots)
    bundles = (Bundle(domain, tuple(sorted(held))) for domain, held in found.items() if held)
    peers = (domain for domain in found if domain not in ours)
    return Trusted(tuple(sorted(bundles)), tuple(sorted(peers)), is_listed, unlisted)


def _unlisted(listed: frozenset[str], own: OwnAuthority | None, unlisted: Set[ClusterId]) -> str:
    """Say who of our own domain is missing where that is listed, or nothing."""
    if not listed or own is None:
        return ""
    if not listed.issuperset(own.issuer):
        return "what signs here is not among what is listed for our own trust domain"
    return (
        f"cluster `{min(unlisted)}` has our own trust domain, and is not listed" if unlisted else ""
    )


def _configured(said: MeshSettings) -> Iterable[Bundle]:
    for one in said.authorities:
        for domain in one.domains or (said.trust_domain,):
            yield Bundle(domain, one.anchors)


def authority_of(text: str, domains: tuple[TrustDomain, ...]) -> ListedAuthority:
    """Read one of the settings' `caCertificates`.

    Raises:
        CaRefusal: It cannot be used.
    """
    return ListedAuthority(domains, anchors.of(anchors.listed(text, file="pem")))


# --- what is not as somebody may think


def _doubtful(
    home: Home, trusted: collections.Single[Trusted]
) -> Callable[
    [reader.Reader, sources.ObjectKey, objects.Namespace],
    Iterable[tuple[checked.FindingKey, errors.Finding]],
]:
    def doubtful(
        read: reader.Reader, key: sources.ObjectKey, _: objects.Namespace
    ) -> Iterable[tuple[checked.FindingKey, errors.Finding]]:
        if (key.cluster, key.name) != (home.cluster, home.system_namespace):
            return
        found = read.value(trusted)
        if home.is_told_to_skip:
            yield checked.FindingKey("trust.skipped", key, 0), _skipped(is_listed=found.is_listed)
        if found.unlisted:
            yield checked.FindingKey("trust.unlisted", key, 0), _half_listed(found.unlisted)

    return doubtful


def _refused(
    said: collections.Single[MeshSettings], trusted: collections.Single[Trusted]
) -> Callable[
    [reader.Reader, ClusterId, TrustDomain], Iterable[tuple[checked.FindingKey, errors.Finding]]
]:
    def refused(
        read: reader.Reader, cluster: ClusterId, domain: TrustDomain
    ) -> Iterable[tuple[checked.FindingKey, errors.Finding]]:
        ours = read.value(said)
        accepted = {ours.trust_domain, *ours.trust_domain_aliases, *read.value(trusted).peers}
        if domain not in accepted:
            yield checked.FindingKey("trust.refused", cluster, 0), not_accepted(cluster, domain)

    return refused


def not_accepted(cluster: ClusterId, domain: TrustDomain) -> errors.Finding:
    """Say that nobody of a cluster is believed."""
    return errors.Finding(
        NOT_ACCEPTED,
        subject=f"cluster {cluster}",
        happened=f"has trust domain `{domain}`, which is not accepted: calls from and to its "
        "workloads are refused",
        still_working="calls within every trust domain that is accepted",
        hint="isthmus multicluster trust --contexts=..., with the contexts of both clusters",
    )


def _half_listed(happened: str) -> errors.Finding:
    return errors.Finding(
        HALF_LISTED,
        subject="our own trust domain",
        happened=happened,
        still_working="our own roots vouch for our own trust domain; peers that list us may refuse us",
        hint="isthmus multicluster trust --contexts=..., which adds what signs now",
    )


def _skipped(*, is_listed: bool) -> errors.Finding:
    return errors.Finding(
        NOTHING_SKIPPED,
        subject="PILOT_SKIP_VALIDATE_TRUST_DOMAIN",
        happened="has no effect: trust domains are listed, and only those are accepted"
        if is_listed
        else "no trust domain is listed, so that those of all clusters known here are "
        "accepted if our own roots vouch for them",
        still_working="all calls between trust domains that are accepted",
        hint="leave it out"
        if is_listed
        else "list them, each with who signs for it: isthmus multicluster trust",
    )
