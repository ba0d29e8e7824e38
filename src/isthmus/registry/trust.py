"""Trust domains: which cluster has which, whose identities are accepted, and who signs for each.

Who signs for a trust domain is listed, one list each: in ConfigMaps of the control plane's own
namespace, and in the mesh's settings. Several lists for one domain add up. A list that breaks
stays as it last was. Where our own domain is not listed, the roots of our own authority vouch for
it, as in Istio.

Source: spec section 1.2; security rule TD-1; decision 0030.
"""

from collections.abc import Callable, Iterable, Mapping
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
KUBE_SYSTEM: Final = "kube-system"
OWN: Final = "own"
"""The key of our own authority."""

Domains = Iterable[tuple[ClusterId, TrustDomain]]
ByNamespace = Callable[[reader.Reader, sources.ObjectKey, objects.Namespace], Domains]


@dataclass(frozen=True, slots=True)
class Home:
    """Where lists are read, and how they count.

    Attributes:
        cluster: Whose ConfigMaps count.
        is_told_to_skip: Whether somebody wants trust domains not to be looked at.
    """

    cluster: ClusterId
    system_namespace: str
    is_told_to_skip: bool = False


@dataclass(frozen=True, slots=True)
class Trusted:
    """Who is accepted.

    Attributes:
        bundles: Of each accepted trust domain, sorted.
        peers: Accepted beside our own domain and its aliases, sorted.
        is_listed: Whether anybody has listed anything.
    """

    bundles: tuple[Bundle, ...] = ()
    peers: tuple[TrustDomain, ...] = ()
    is_listed: bool = False


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
            known=read.items(clusters).values() if home.is_told_to_skip else (),
        ),
    )
    skipped = graph_.derive("trust.skipped", sources_.namespaces, _skipped(home, trusted))
    return Nodes(
        own,
        domains,
        clusters,
        trusted,
        (checked.findings_of(graph_, "trust.bundles", checked_), skipped),
    )


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
    Iterable[tuple[sources.ObjectKey, checked.Checked[Bundle]]],
]:
    def check(
        _: reader.Reader, key: sources.ObjectKey, config_map: objects.ConfigMap
    ) -> Iterable[tuple[sources.ObjectKey, checked.Checked[Bundle]]]:
        if (key.cluster, key.namespace) != (home.cluster, home.system_namespace):
            return
        try:
            yield key, checked.Checked(read_bundle(config_map))
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
    lists: Iterable[Bundle],
    known: Iterable[TrustDomain] = (),
) -> Trusted:
    """Return who is accepted.

    `known` are domains of clusters of this mesh, for whoever wants none looked at: without any
    list they are accepted if our own roots vouch for them, with one only what is listed counts.
    """
    found: dict[TrustDomain, set[str]] = {}
    for bundle in (*lists, *_configured(said)):
        found.setdefault(bundle.domain, set()).update(bundle.anchors)
    is_listed = bool(found)
    ours = dict.fromkeys((said.trust_domain, *said.trust_domain_aliases))
    own_anchors = _own(found.get(said.trust_domain), own)
    for domain in ours:
        found.setdefault(domain, set()).update(own_anchors)
    if not is_listed and own is not None:
        for domain in known:
            found.setdefault(domain, set()).update(own.roots)
    bundles = (Bundle(domain, tuple(sorted(held))) for domain, held in found.items() if held)
    peers = (domain for domain in found if domain not in ours)
    return Trusted(tuple(sorted(bundles)), tuple(sorted(peers)), is_listed)


def _own(listed: set[str] | None, own: OwnAuthority | None) -> frozenset[str]:
    """Return who vouches for our own domain; what signs now always does."""
    if own is None:
        return frozenset(listed or ())
    return frozenset({*listed, *own.issuer} if listed else own.roots)


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


# --- what is not done


def _skipped(
    home: Home, trusted: collections.Single[Trusted]
) -> Callable[
    [reader.Reader, sources.ObjectKey, objects.Namespace],
    Iterable[tuple[checked.FindingKey, errors.Finding]],
]:
    def skipped(
        read: reader.Reader, key: sources.ObjectKey, _: objects.Namespace
    ) -> Iterable[tuple[checked.FindingKey, errors.Finding]]:
        is_ours = (key.cluster, key.name) == (home.cluster, home.system_namespace)
        if not (is_ours and home.is_told_to_skip):
            return
        is_listed = read.value(trusted).is_listed
        yield (
            checked.FindingKey("trust.skipped", key, 0),
            errors.Finding(
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
            ),
        )

    return skipped
