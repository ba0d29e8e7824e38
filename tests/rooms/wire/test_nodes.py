"""What a proxy says of itself."""

import pytest

from isthmus.mesh.identities import ClusterId
from isthmus.mesh.proxies import ProxyKind
from isthmus.wire import callers, nodes

ID = "router~10.0.0.1~gw-1.istio-system~istio-system.svc.cluster.local"


def claim(node_id=ID, **metadata):
    return nodes.Claim(node_id, metadata)


def test_a_node_is_read_from_its_id_and_metadata():
    node = nodes.parse(
        claim(
            CLUSTER_ID="c1",
            NETWORK="n1",
            SERVICE_ACCOUNT="gw",
            NODE_NAME="host",
            INSTANCE_IPS="10.0.0.1,fd00::1",
            LABELS={"app": "gw", "odd": 1.0},
            REQUESTED_NETWORK_VIEW="n1,n2",
            ISTIO_VERSION="1.30.3",
        )
    )

    assert node.kind is ProxyKind.ROUTER
    assert (node.pod, node.namespace, node.name) == ("gw-1", "istio-system", "gw-1.istio-system")
    assert node.addresses == ("10.0.0.1", "fd00::1")
    assert node.labels == (("app", "gw"),)
    assert node.requested_networks == ("n1", "n2")
    assert (node.cluster, node.network, node.host) == ("c1", "n1", "host")
    assert not node.has_metadata_exchange


def test_istios_own_envoy_is_recognised_by_what_only_it_has():
    node = nodes.parse(nodes.Claim(ID, {}, extensions=frozenset({"istio.metadata_exchange"})))

    assert node.has_metadata_exchange


@pytest.mark.parametrize(
    ("metadata", "captures", "allocates"),
    [
        ({}, False, False),
        ({"DNS_CAPTURE": "true"}, True, False),
        ({"DNS_CAPTURE": True, "DNS_AUTO_ALLOCATE": "TRUE"}, True, True),
        ({"DNS_CAPTURE": "ALL"}, True, False),
        ({"DNS_CAPTURE": "no", "DNS_AUTO_ALLOCATE": 1.0}, False, False),
    ],
)
def test_an_agent_says_whether_it_answers_for_names(metadata, captures, allocates):
    node = nodes.parse(claim(**metadata))

    assert (node.captures_dns, node.allocates_addresses) == (captures, allocates)


def test_an_odd_list_of_addresses_gives_way_to_the_id():
    assert nodes.parse(claim(INSTANCE_IPS="10.0.0.2,odd")).addresses == ("10.0.0.1",)


@pytest.mark.parametrize(
    "node_id",
    [
        "sidecar~10.0.0.1~a.b",
        "sidecar~10.0.0.1~a.b~b.svc~more",
        "pirate~10.0.0.1~a.b~b.svc.cluster.local",
        "sidecar~nowhere~a.b~b.svc.cluster.local",
        "sidecar~10.0.0.1~a.c~b.svc.cluster.local",
        "sidecar~10.0.0.1~a~b.svc.cluster.local",
        "sidecar~10.0.0.1~a.~",
    ],
)
def test_a_malformed_id_is_refused(node_id):
    with pytest.raises(nodes.NodeRefused) as caught:
        nodes.parse(claim(node_id))

    assert caught.value.status == "INVALID_ARGUMENT"


def test_an_odd_type_of_metadata_counts_as_absent():
    node = nodes.parse(claim(CLUSTER_ID=7.0, LABELS="none"))

    assert (node.cluster, node.labels) == ("", ())


def test_a_claim_may_say_less_than_the_proof_but_nothing_else():
    caller = callers.Caller(ClusterId("c1"), "istio-system", "gw")

    nodes.check(nodes.parse(claim()), caller=caller)
    with pytest.raises(nodes.NodeRefused, match="authorization failed"):
        nodes.check(nodes.parse(claim(CLUSTER_ID="c2")), caller=caller)


@pytest.mark.parametrize(
    ("metadata", "ends", "begins"),
    [
        ({}, False, False),
        ({"ENABLE_HBONE": "true"}, True, True),
        ({"ENABLE_HBONE": "true", "DISABLE_HBONE_SEND": "true"}, True, False),
        ({"DISABLE_HBONE_SEND": "false"}, False, False),
    ],
)
def test_a_proxy_says_whether_it_speaks_hbone(metadata, ends, begins):
    node = nodes.parse(claim(**metadata))

    assert (node.ends_tunnels, node.begins_tunnels) == (ends, begins)
