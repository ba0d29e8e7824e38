"""Pods and slices become workloads, endpoints and identities."""

import pytest

from isthmus.kube import objects
from isthmus.mesh.localities import Locality
from isthmus.mesh.workloads import Health

# --- workloads


def test_a_workload_carries_where_it_is_in_its_labels(world):
    world.network("c1", "n1")
    world.node("c1", "node-1", region="eu", zone="eu-1")
    world.pod(labels={"app": "web"})

    workload = world.workload()
    assert workload.locality == Locality("eu", "eu-1")
    assert workload.network == "n1"
    assert dict(workload.labels) == {
        "app": "web",
        "security.istio.io/tlsMode": "istio",
        "topology.kubernetes.io/region": "eu",
        "topology.kubernetes.io/zone": "eu-1",
        "topology.istio.io/cluster": "c1",
        "topology.istio.io/network": "n1",
        "kubernetes.io/hostname": "node-1",
    }


def test_pods_of_a_node_that_moves_are_found_without_going_through_all(world, monkeypatch):
    world.node("c1", "node-1", region="eu", zone="eu-1")
    world.pod()
    world.pod(name="other", ip="10.1.0.2", node_name="node-2")
    monkeypatch.setattr(
        type(world.sources.pods.content),
        "__iter__",
        lambda _: pytest.fail("somebody goes through all pods"),
    )

    world.node("c1", "node-1", region="eu", zone="eu-2")

    assert world.workload().locality == Locality("eu", "eu-2")


def test_a_pods_own_label_says_its_network_before_its_cluster_does(world):
    world.network("c1", "n1")
    world.pod(labels={"topology.istio.io/network": "n9"})

    assert world.workload().network == "n9"
    assert dict(world.workload().labels)["topology.istio.io/network"] == "n9"


@pytest.mark.parametrize(
    ("ip", "network"), [("10.1.0.1", ""), ("192.168.7.1", "wide"), ("192.168.0.1", "narrow")]
)
def test_the_settings_say_the_network_of_an_address(world, ip, network):
    world.settings(
        networks="""
        networks:
          wide: {endpoints: [{fromCidr: 192.168.0.0/16}]}
          narrow: {endpoints: [{fromCidr: 192.168.0.0/24}]}
        """
    )
    world.pod(ip=ip)

    assert world.workload().network == network


def test_the_settings_say_the_network_of_a_cluster_before_that_of_an_address(world):
    world.settings(
        networks="""
        networks:
          by-address: {endpoints: [{fromCidr: 10.0.0.0/8}]}
          by-cluster: {endpoints: [{fromRegistry: c1}]}
        """
    )
    world.pod()

    assert world.workload().network == "by-cluster"


def test_a_new_network_label_moves_all_pods_of_that_cluster_only(world):
    world.pod("c1")
    world.pod("c2")

    world.network("c2", "n2")

    assert world.workload(cluster="c1").network == ""
    assert world.workload(cluster="c2").network == "n2"


@pytest.mark.parametrize("label", ["topology.istio.io/locality", "istio-locality"])
def test_a_pods_own_label_says_its_locality_before_its_node_does(world, label):
    world.node("c1", "node-1", region="eu")
    world.pod(labels={label: "us.us-1.a"})

    assert world.workload().locality == Locality("us", "us-1", "a")


def test_a_workload_is_named_after_its_deployment(world):
    owner = objects.OwnerReference(kind="ReplicaSet", name="web-5f7", controller=True)
    world.pod(labels={"pod-template-hash": "5f7"}, owners=(owner,))

    assert world.workload().name == "web"


def test_a_pod_without_an_owner_is_named_after_itself(world):
    world.pod()

    assert world.workload().name == "web-1"


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_is_no_workload(world, phase):
    world.pod(phase=phase)

    assert world.workload() is None


def test_a_pod_that_is_going_is_marked(world):
    world.pod(deletion_timestamp="2026-01-01T00:00:00Z")

    assert world.workload().is_terminating is True


def test_a_pod_without_the_label_of_the_injector_has_no_proxy(world):
    world.pod(labels={"security.istio.io/tlsMode": "disabled"})

    assert world.workload().has_proxy is False


# --- endpoints


def test_endpoints_of_all_clusters_belong_to_the_service(world):
    world.service("c1")
    world.service("c2")
    world.network("c2", "n2")
    world.serving("c2", ip="10.2.0.1")
    world.serving("c1", ip="10.1.0.1")

    assert [(e.cluster, e.address, e.port, e.network) for e in world.endpoints()] == [
        ("c1", "10.1.0.1", 8080, ""),
        ("c2", "10.2.0.1", 8080, "n2"),
    ]


def test_an_endpoint_has_the_identity_and_place_of_its_pod(world):
    world.service()
    world.node("c1", "node-1", region="eu", zone="eu-1")
    world.serving(service_account_name="web-account")

    [endpoint] = world.endpoints()
    assert (endpoint.port_name, endpoint.namespace) == ("http", "default")
    assert (endpoint.service_account, endpoint.accepts_mtls) == ("web-account", True)
    assert (endpoint.locality, endpoint.node) == (Locality("eu", "eu-1"), "node-1")
    assert endpoint.labels == world.workload().labels


def test_a_service_without_endpoints_has_an_empty_answer(world):
    world.service()

    assert world.endpoints() == ()
    assert world.accounts() == ()


def test_an_endpoint_waits_for_its_pod(world, member):
    world.service()
    world.slice(members=[member("10.1.0.1", pod="web-1")])
    assert world.endpoints() == ()

    world.pod()

    assert world.addresses() == ["10.1.0.1"]


def test_an_endpoint_goes_with_its_pod(world):
    world.service()
    world.serving()

    world.delete(world.sources.pods, "c1", "web-1")

    assert world.endpoints() == ()


def test_an_endpoint_that_names_a_pod_waits_until_the_pod_has_its_address(world, member):
    world.service()
    world.pod(ip="10.1.0.1", service_account_name="trusted")
    world.slice(members=[member("10.1.0.66", pod="web-1")])
    before = world.endpoints()
    # As a StatefulSet's pod does: another follows under the same name.
    world.pod(ip="10.1.0.66", service_account_name="trusted")

    assert before == ()
    [endpoint] = world.endpoints()
    assert endpoint.service_account == "trusted"


def test_an_endpoint_without_a_pod_is_placed_by_its_slice(world, member):
    world.service()
    world.network("c1", "n1")
    world.slice(members=[member("10.1.0.7", zone="eu-2")])

    [endpoint] = world.endpoints()
    assert (endpoint.network, endpoint.locality.zone) == ("n1", "eu-2")
    assert dict(endpoint.labels)["topology.istio.io/cluster"] == "c1"


def test_terminating_and_unready_endpoints_get_no_traffic(world, member):
    world.service()
    world.slice(
        members=[
            member("10.1.0.1", ready=True),
            member("10.1.0.2", ready=False),
            member("10.1.0.3", ready=False, terminating=True),
            member("10.1.0.4"),
        ]
    )

    assert world.addresses() == ["10.1.0.1", "10.1.0.4"]


@pytest.mark.parametrize(("mark", "called"), [("pending", []), ("enabled", ["10.1.0.1"])])
def test_a_pod_that_is_captured_and_not_served_yet_gets_no_traffic(world, member, mark, called):
    """It may be ready sooner; who called it then would call it in plain text, and wait."""
    world.service()
    world.pod(annotations={"ambient.istio.io/redirection": mark})
    world.slice(members=[member("10.1.0.1", pod="web-1", ready=True)])

    assert world.addresses() == called


def test_a_service_that_publishes_unready_endpoints_has_them_called(world, member):
    world.service(publish_not_ready_addresses=True)
    world.slice(
        members=[
            member("10.1.0.1", ready=False),
            member("10.1.0.2", ready=True, terminating=True),
            member("10.1.0.3", ready=False, terminating=True),
        ]
    )

    assert world.addresses() == ["10.1.0.1", "10.1.0.2"]
    assert {endpoint.health for endpoint in world.endpoints()} == {Health.HEALTHY}


def test_an_endpoint_in_two_slices_counts_once_and_the_ready_one_wins(world, member):
    world.service(publish_not_ready_addresses=True)
    world.slice(name="old", members=[member("10.1.0.1", ready=False)])
    world.slice(name="new", members=[member("10.1.0.1", ready=True)])

    assert [endpoint.health for endpoint in world.endpoints()] == [Health.HEALTHY]


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # An address to refuse.
        "0.1.2.3",
        "127.0.0.1",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "ff02::1",
        "::ffff:127.0.0.1",
        "example.org",
        "",
    ],
)
def test_an_address_that_no_traffic_may_go_to_is_dropped_with_a_finding(world, member, address):
    world.service()
    world.slice(members=[member(address), member("10.1.0.1")])

    assert world.addresses() == ["10.1.0.1"]
    [finding] = world.findings
    assert finding.startswith("ISM-REG-011 EndpointSlice default/web-x in cluster `c1`")


def test_many_bad_addresses_make_one_finding(world, member):
    world.slice(members=[member("127.0.0.1") for _ in range(100)])

    [finding] = world.findings
    assert finding.endswith("and 97 more")


def test_udp_and_impossible_ports_are_left_out(world, member):
    world.service()
    world.slice(
        members=[member("10.1.0.1")],
        ports=(
            objects.EndpointPort(port=53, name="dns", protocol="UDP"),
            objects.EndpointPort(port=None, name="all"),
            objects.EndpointPort(port=70000, name="far"),
            objects.EndpointPort(port=80, name="http"),
        ),
    )

    assert [endpoint.port_name for endpoint in world.endpoints()] == ["http"]


def test_a_slice_of_another_namespace_is_another_service(world, member):
    world.service()
    world.slice(namespace="elsewhere", members=[member("10.1.0.1")])

    assert world.endpoints() == ()


def test_one_changed_slice_computes_its_own_service_only(world, member):
    for n in range(50):
        world.service(name=f"s{n}")
        world.slice(name=f"s{n}-x", service=f"s{n}", members=[member("10.1.0.1")])

    world.slice(name="s7-x", service="s7", members=[member("10.1.0.2")])

    # The slice's shard, findings and ports; the service's endpoints and identities.
    assert world.graph.recomputed() == 5


# --- identities


def test_identities_of_all_clusters_are_the_services(world):
    world.service("c1")
    world.serving("c1", service_account_name="one")
    world.serving("c2", ip="10.2.0.1", service_account_name="two")

    assert world.accounts() == (
        "spiffe://cluster.local/ns/default/sa/one",
        "spiffe://cluster.local/ns/default/sa/two",
    )


def test_a_clusters_own_trust_domain_names_its_identities(world):
    world.settings("trustDomain: home.example")
    world.settings("trustDomain: away.example", cluster="c2")
    world.service("c1")
    world.serving("c1")
    world.serving("c2", ip="10.2.0.1")

    assert world.accounts() == (
        "spiffe://away.example/ns/default/sa/default",
        "spiffe://home.example/ns/default/sa/default",
    )


def test_an_identity_stays_while_its_last_endpoint_is_not_ready(world, member):
    world.service()
    world.serving()

    world.slice(members=[member("10.1.0.1", pod="web-1", ready=False)])

    assert world.endpoints() == ()
    assert len(world.accounts()) == 1
