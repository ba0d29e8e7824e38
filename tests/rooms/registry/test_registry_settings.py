"""The mesh's settings: what they say, and that broken ones harm nobody."""

import pytest

from isthmus.engine import graph
from isthmus.fleet import sources
from isthmus.kube import objects
from isthmus.mesh import traffic
from isthmus.registry import documents, settings

SEAT = settings.Seat("c1")


def test_without_a_config_map_the_defaults_hold(world):
    assert world.mesh.trust_domain == "cluster.local"
    assert world.mesh.cluster == "c1"
    assert world.mesh.root_namespace == "istio-system"
    assert world.mesh.auto_mtls is True


def test_the_fields_that_matter_are_read(world):
    world.settings(
        """
        trustDomain: td@example.org
        trustDomainAliases: [old.example.org]
        rootNamespace: root
        enableAutoMtls: false
        outboundTrafficPolicy: {mode: REGISTRY_ONLY}
        accessLogFile: /dev/stdout
        connectTimeout: 1m30s
        defaultConfig: {meshId: mesh1, discoveryAddress: "istiod.istio-system.svc:15012"}
        """
    )

    mesh = world.mesh
    assert (mesh.trust_domain, mesh.trust_domain_aliases) == (
        "td.example.org",
        ("old.example.org",),
    )
    assert (mesh.root_namespace, mesh.auto_mtls, mesh.mesh_id) == ("root", False, "mesh1")
    assert (mesh.allows_any_outbound, mesh.access_log_path) == (False, "/dev/stdout")
    assert mesh.connect_timeout_s == 90
    assert world.findings == []


def test_a_revision_reads_the_config_map_of_its_own_name(make_world):
    world = make_world(revision="canary")
    world.settings("trustDomain: default.example", name="istio")
    world.settings("trustDomain: canary.example", name="istio-canary")

    assert world.mesh.trust_domain == "canary.example"


def test_another_clusters_settings_do_not_count(world):
    world.settings("rootNamespace: theirs", cluster="c2")

    assert world.mesh.root_namespace == "istio-system"


@pytest.mark.parametrize(
    "broken",
    [
        "trustDomain: [",
        "trustDomain: {a: b}",
        "- a list",
        "trustDomain: !!python/object/apply:os.system [id]",
        "trustDomain: other\nconnectTimeout: soon",
        "a: &a [x]\nb: *a",
        "x: " + "[" * 60_000,
        "x: " + "y" * 200_000,
        "trustDomain: other\nenableAutoMtls: maybe",
        "x: 2026-99-99",
    ],
)
def test_broken_settings_keep_the_last_good_ones_and_say_so(world, broken):
    world.settings("trustDomain: good.example")

    world.settings(broken)

    assert world.mesh.trust_domain == "good.example"
    [finding] = world.findings
    assert finding.startswith("ISM-REG-002 ConfigMap istio-system/istio in cluster `c1`: `mesh")


def test_settings_that_were_never_good_are_used_as_far_as_they_can_be_read(world):
    world.settings("trustDomain: some.example\nconnectTimeout: soon")

    assert world.mesh.trust_domain == "some.example"
    assert world.mesh.connect_timeout_s == 10
    assert len(world.findings) == 1


def test_broken_settings_recover(world):
    world.settings("trustDomain: [")

    world.settings("trustDomain: fixed.example")

    assert world.mesh.trust_domain == "fixed.example"
    assert world.findings == []


def test_broken_networks_leave_the_rest_of_the_settings_alone(world):
    world.settings("trustDomain: one", "networks: {n1: {endpoints: [{fromRegistry: c1}]}}")

    world.settings("trustDomain: two", "networks: [")

    assert world.mesh.trust_domain == "two"
    assert [member.network for member in world.mesh.network_members] == ["n1"]


def test_a_document_within_the_limits_is_read():
    deep = "{a: " * 20 + "1" + "}" * 20

    assert documents.parse(deep) is not None
    assert documents.parse("") is None


def test_a_malformed_document_says_where():
    with pytest.raises(documents.DocumentBroken, match="line 2"):
        documents.parse("a: 1\nb: [1, }")


# --- networks


def test_networks_are_read_and_placeholders_are_not_known_yet(world):
    world.settings(
        networks="""
        networks:
          n1:
            endpoints: [{fromRegistry: c1}]
            gateways: [{address: 0.0.0.0, port: 443}]
          n2:
            endpoints: [{fromCidr: 192.168.0.0/16}]
            gateways:
            - {address: 1.2.3.4, port: 443}
            - {address: lb.example.org, port: 15443}
            - {registryServiceName: ew.istio-system.svc.cluster.local, port: 15443}
        """
    )

    assert [(m.network, m.from_registry, m.from_cidr) for m in world.mesh.network_members] == [
        ("n1", "c1", ""),
        ("n2", "", "192.168.0.0/16"),
    ]
    assert [(one.address, one.is_known) for one in world.mesh.configured_gateways] == [
        ("0.0.0.0", False),
        ("1.2.3.4", True),
        ("lb.example.org", True),
        ("", True),
    ]
    assert world.findings == []


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "127.1", "localhost"])
def test_a_configured_gateway_that_no_traffic_may_go_to_is_refused(world, address):
    world.settings(
        networks=f"networks: {{n2: {{gateways: [{{address: '{address}', port: 443}}]}}}}"
    )

    assert world.mesh.configured_gateways == ()
    assert "gateways[0].address" in world.findings[0]


def test_the_mesh_says_what_holds_where_no_rule_says_anything(world):
    world.settings(
        """
        localityLbSetting: {failover: [{from: us, to: eu}]}
        defaultTrafficPolicy: {outlierDetection: {interval: 3s}}
        """
    )

    assert world.mesh.locality == traffic.LocalityPreference(failover=(("us", "eu"),))
    assert world.mesh.traffic.outlier == traffic.OutlierDetection(interval_s=3.0)
    assert world.findings == []


def test_without_settings_near_endpoints_count_and_nothing_is_noticed(world):
    world.settings("{}")

    assert world.mesh.locality == traffic.USUAL_PLACES
    assert world.mesh.traffic == traffic.UNSAID


# --- cluster-local hosts


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("kube-dns.kube-system.svc.cluster.local", True),
        ("kubernetes.default.svc.cluster.local", True),
        ("istiod.istio-system.svc.cluster.local", True),
        ("web.default.svc.cluster.local", False),
    ],
)
def test_some_hosts_are_cluster_local_by_themselves(host, is_local):
    assert local(host, "") is is_local


@pytest.mark.parametrize(
    ("host", "is_local"),
    [
        ("a.bank.svc.cluster.local", True),
        ("open.bank.svc.cluster.local", False),
        ("b.other.svc.cluster.local", False),
    ],
)
def test_the_most_specific_rule_says_what_is_cluster_local(host, is_local):
    text = """
    serviceSettings:
    - {settings: {clusterLocal: true}, hosts: ["*.bank.svc.cluster.local"]}
    - {settings: {clusterLocal: false}, hosts: ["open.bank.svc.cluster.local"]}
    """

    assert local(host, text) is is_local


def test_exempting_one_host_of_a_built_in_range_drops_the_range():
    text = """
    serviceSettings:
    - {settings: {clusterLocal: false}, hosts: ["dns.kube-system.svc.cluster.local"]}
    """

    assert local("other.kube-system.svc.cluster.local", text) is False
    assert local("kubernetes.default.svc.cluster.local", text) is True


def test_the_discovery_host_is_cluster_local_whatever_it_is():
    text = "defaultConfig: {discoveryAddress: 'istiod-x.control.svc:15012'}"

    assert local("istiod-x.control.svc.cluster.local", text) is True


def local(host, text):
    mesh, problems = settings.read_mesh(text, seat=SEAT)
    assert problems == ()
    return settings.is_cluster_local(
        host, local=mesh.cluster_local_hosts, mesh_wide=mesh.mesh_wide_hosts
    )


EXTERNAL = settings.Seat("c1", "mesh", is_external=True, shared="istio")


def outside(**texts):
    """Return the settings of a control plane outside of its mesh: its own, and shared ones."""
    graph_ = graph.Graph()
    sources_ = sources.declare(graph_)
    nodes = settings.declare(graph_, sources_, seat=EXTERNAL)
    keys = {"own": EXTERNAL.settings_map(), "shared": EXTERNAL.shared_map}
    with graph_.transaction() as change:
        for where, text in texts.items():
            metadata = objects.Metadata(name="istio", namespace="mesh")
            found = objects.ConfigMap(metadata, {"mesh": text})
            change.put(sources_.config_maps, keys[where], found)
    findings = [value for each in nodes.findings for value in graph_.items(each).values()]
    return graph_.value(nodes.settings), findings


def test_what_its_own_settings_leave_open_the_shared_ones_say():
    own = "{trustDomain: own, defaultConfig: {discoveryAddress: 'x:15012'}}"
    shared = "{trustDomain: theirs, rootNamespace: root, defaultConfig: {meshId: m}}"

    found, findings = outside(own=own, shared=shared)

    assert (found.trust_domain, found.root_namespace, found.mesh_id) == ("own", "root", "m")
    assert not any(findings)


def test_shared_settings_alone_are_none_and_broken_ones_are_a_finding():
    alone, _ = outside(shared="trustDomain: theirs")
    broken, findings = outside(own="trustDomain: own", shared="{")

    assert alone.trust_domain == "cluster.local"
    assert broken.trust_domain == "cluster.local"
    assert any("where the control plane runs" in str(each) for each in findings)


def test_a_service_learns_that_it_is_cluster_local(world):
    world.service()
    assert world.the_service().is_cluster_local is False

    world.settings(
        "serviceSettings: [{settings: {clusterLocal: true}, hosts: ['web.default.svc.cluster.local']}]"
    )

    assert world.the_service().is_cluster_local is True
