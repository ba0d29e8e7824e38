"""Whose identities are accepted, and who signs for each trust domain."""

import pytest
from cryptography import x509

from isthmus.ca import anchors, pem
from isthmus.kube import objects
from isthmus.mesh import trust as words
from isthmus.mesh.trust import Bundle, OwnAuthority
from isthmus.registry import trust
from isthmus.testing import certificates as material

SYSTEM = "istio-system"


def below(name):
    return material.intermediate_certificate(name)


def anchor(*certificates):
    return anchors.of(certificates)


def listed(world, domain, *certificates, name="peer", key=words.BUNDLE, namespace=SYSTEM, **of):
    labels = {words.DOMAIN_LABEL: domain, trust.CLUSTER_LABEL: of.get("cluster", "")}
    world.put(
        world.sources.trust_bundles,
        "c1",
        objects.ConfigMap(
            objects.Metadata(name, namespace, labels=labels), data={key: pem.joined(certificates)}
        ),
    )


@pytest.fixture
def own(world):
    world.settings("trustDomain: a.local")
    authority = OwnAuthority(anchor(material.root_certificate()), anchor(below("a")))
    with world.graph.transaction() as change:
        change.put(world.model.trust.own, trust.OWN, authority)
    return world


def trusted(world):
    return world.graph.value(world.model.trust.trusted)


def bundle(world, domain):
    return next((one.anchors for one in trusted(world).bundles if one.domain == domain), ())


def codes(world):
    return [finding.split()[0] for finding in world.findings]


def test_without_lists_our_own_roots_vouch_for_our_own_domain_and_nobody_for_others(own):
    assert trusted(own).bundles == (Bundle("a.local", anchor(material.root_certificate())),)
    assert (own.mesh.peer_domains, own.mesh.lists_domains) == ((), False)


def test_a_listed_domain_is_accepted_and_vouched_for_by_what_is_listed_alone(own):
    listed(own, "b.local", below("b"))

    assert bundle(own, "b.local") == anchor(below("b"))
    assert (own.mesh.peer_domains, own.mesh.lists_domains) == (("b.local",), True)


def test_our_own_domain_is_vouched_for_by_what_is_listed_if_that_is_what_signs_here(own):
    listed(own, "a.local", below("old"), below("a"), name="own")

    assert bundle(own, "a.local") == anchor(below("old"), below("a"))
    assert own.mesh.peer_domains == ()


def test_nobody_is_shut_out_where_what_signs_here_is_not_listed(own):
    namespace(own, "c1", SYSTEM)
    listed(own, "a.local", below("old"), name="own")

    assert bundle(own, "a.local") == anchor(below("old"), material.root_certificate())
    assert codes(own) == [trust.HALF_LISTED]


def test_nor_are_clusters_that_we_follow_and_that_share_our_domain(own):
    for name in (SYSTEM, trust.KUBE_SYSTEM):
        namespace(own, "c1", name)
        namespace(own, "c2", name)
    listed(own, "a.local", below("a"), name="own")
    assert bundle(own, "a.local") == anchor(below("a"), material.root_certificate())
    assert codes(own) == [trust.HALF_LISTED]

    listed(own, "a.local", below("c2"), name="c2", cluster="c2")
    assert bundle(own, "a.local") == anchor(below("a"), below("c2"))
    assert codes(own) == []


def test_lists_of_one_domain_add_up_so_that_an_authority_can_be_renewed(own):
    listed(own, "b.local", below("b"), name="old", key=words.ROOTS)
    listed(own, "b.local", below("b2"), name="new")

    assert bundle(own, "b.local") == anchor(below("b"), below("b2"))


def test_removing_the_list_ends_the_trust(own):
    listed(own, "b.local", below("b"))
    own.delete(own.sources.trust_bundles, "c1", "peer", namespace=SYSTEM)

    assert bundle(own, "b.local") == ()
    assert own.mesh.peer_domains == ()


@pytest.mark.parametrize("text", ["", "nonsense"])
def test_a_list_that_breaks_stays_as_it_was_and_says_so(own, text):
    listed(own, "b.local", below("b"))
    broken = objects.Metadata("peer", SYSTEM, labels={words.DOMAIN_LABEL: "b.local"})
    own.put(own.sources.trust_bundles, "c1", objects.ConfigMap(broken, {words.BUNDLE: text}))

    assert bundle(own, "b.local") == anchor(below("b"))
    assert codes(own) == [trust.BUNDLE_BROKEN]


def test_a_list_for_no_trust_domain_admits_nobody(own):
    listed(own, "B local", below("b"))

    assert own.mesh.peer_domains == ()
    assert codes(own) == [trust.BUNDLE_BROKEN]


def test_lists_count_in_our_own_namespace_alone(own):
    listed(own, "b.local", below("b"), namespace="elsewhere")

    assert own.mesh.peer_domains == ()


def test_the_settings_may_list_authorities_as_istio_does(own):
    text = pem.written(below("b")).replace("\n", "\n      ")
    own.settings(
        f"trustDomain: a.local\ncaCertificates:\n- pem: |\n      {text}\n"
        "  trustDomains: [b.local, c.local]"
    )
    assert codes(own) == []
    own.settings("trustDomain: a.local\ncaCertificates: [{pem: nonsense}]")

    assert own.mesh.peer_domains == ("b.local", "c.local")
    assert bundle(own, "c.local") == anchor(below("b"))
    assert codes(own) == ["ISM-REG-002"]


def test_an_alias_is_vouched_for_as_our_own_domain(own):
    own.settings("trustDomain: a.local\ntrustDomainAliases: [old.local]")

    assert bundle(own, "old.local") == bundle(own, "a.local") != ()


# --- clusters


def namespace(world, cluster, name, domain=""):
    labels = {words.DOMAIN_LABEL: domain} if domain else {}
    world.put(
        world.sources.namespaces, cluster, objects.Namespace(objects.Metadata(name, labels=labels))
    )


def test_a_cluster_says_its_domain_by_a_label_of_its_system_namespace(own):
    namespace(own, "c2", SYSTEM, "b.local")
    namespace(own, "c2", "elsewhere", "x.local")
    own.service("c2")
    own.serving("c2", "10.2.0.1")

    assert own.graph.items(own.model.trust.domains) == {"c1": "a.local", "c2": "b.local"}
    assert own.accounts() == ("spiffe://b.local/ns/default/sa/default",)


def test_our_own_settings_count_more_than_a_label(own):
    namespace(own, "c1", SYSTEM, "x.local")

    assert own.graph.items(own.model.trust.domains) == {"c1": "a.local"}


# --- who wants nothing looked at


@pytest.fixture
def skipping(make_world):
    world = make_world(skips_domains=True)
    world.settings("trustDomain: a.local")
    authority = OwnAuthority(anchor(material.root_certificate()), anchor(below("a")))
    with world.graph.transaction() as change:
        change.put(world.model.trust.own, trust.OWN, authority)
    for cluster, domain in (("c1", ""), ("c2", "b.local")):
        namespace(world, cluster, SYSTEM, domain)
        namespace(world, cluster, trust.KUBE_SYSTEM)
    return world


def test_without_lists_our_own_roots_vouch_for_the_clusters_that_are_known(skipping):
    assert skipping.mesh.peer_domains == ("b.local",)
    assert bundle(skipping, "b.local") == anchor(material.root_certificate())
    assert codes(skipping) == [trust.NOTHING_SKIPPED]


def test_with_lists_nothing_is_skipped(skipping):
    listed(skipping, "c.local", below("c"))

    assert skipping.mesh.peer_domains == ("c.local",)
    assert codes(skipping) == [trust.NOTHING_SKIPPED, trust.NOT_ACCEPTED]
    assert "has no effect" in skipping.findings[0]


def test_anchors_are_certificates_that_envoy_can_start_from():
    (text,) = anchor(below("a"))

    assert x509.load_pem_x509_certificate(text.encode()).issuer == below("a").subject


def test_a_cluster_whose_domain_is_not_accepted_is_named(own):
    namespace(own, "c2", SYSTEM, "b.local")
    namespace(own, "c2", trust.KUBE_SYSTEM)
    assert codes(own) == [trust.NOT_ACCEPTED]

    listed(own, "b.local", below("b"))
    assert codes(own) == []
