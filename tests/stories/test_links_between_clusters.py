"""What a cluster tells those that link to it, and what it believes of what it is told.

here (n1) is the cluster whose control plane this is; beta (n2) is linked.
"""

import dataclasses

import msgspec
import pytest

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import gateway_api
from isthmus.mesh import identities, peering
from isthmus.mesh.ambient import Scope
from isthmus.mesh.localities import Locality
from isthmus.mesh.services import Protocol, ServiceKey, ServicePort, derived_host
from isthmus.testing import builders

PORTS = {"http": 5000}
HELLO = ServiceKey("sample", "helloworld")
CAPTURED = builders.Shape(proxy=None, is_captured=True, is_global=True)
BETA = identities.ClusterId("beta")


@pytest.fixture
def mesh():
    mesh = builders.Mesh()
    mesh.cluster("here", network="n1")
    return mesh


def link(mesh, name="istio-remote-beta", *, namespace="istio-gateways", **changes):
    labels = {"topology.istio.io/network": "n2", "topology.istio.io/cluster": "beta"}
    annotations = {
        "gateway.istio.io/service-account": "istio-eastwest",
        "isthmus.dev/trust-domain": "beta.local",
    }
    written = {
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": labels | changes.pop("labels", {}),
            "annotations": annotations | changes.pop("annotations", {}),
            "creationTimestamp": changes.pop("created", "2026-01-01T00:00:00Z"),
        },
        "spec": {
            "gatewayClassName": "istio-remote",
            "addresses": [{"type": "IPAddress", "value": "203.0.113.2"}],
            "listeners": [
                {"name": "cross-network", "port": 15008, "protocol": "HBONE"},
                {"name": "xds-tls", "port": 15012, "protocol": "TLS"},
            ],
        }
        | changes,
    }
    key = ObjectKey(mesh.clusters["here"].id, namespace, name)
    mesh.put(mesh.sources.kubernetes_gateways, key, msgspec.convert(written, gateway_api.Gateway))


def links(mesh):
    return dict(mesh.graph.items(mesh.model.peers.links))


def imports(mesh):
    return dict(mesh.graph.items(mesh.model.peers.imports))


def reasons(mesh):
    return [one.happened for one in mesh.graph.items(mesh.model.findings).values()]


EXPORT = peering.Export(
    service=HELLO,
    scope=Scope(derives=True),
    hosts=(derived_host(HELLO),),
    ports=(ServicePort("http", 5000, Protocol.HTTP),),
    capacity=(peering.Capacity(identities.NetworkId("n2"), Locality("r", "z"), 2),),
    identities=("spiffe://beta.local/ns/sample/sa/default",),
)


def tell(mesh, export=EXPORT, *, peer=BETA):
    key = peering.ImportKey(peer, export.service.namespace, export.service.name)
    mesh.put(mesh.model.peers.told, key, export)


# --- what is told


def test_only_shared_services_are_told_of_and_their_pods_by_place_alone(mesh):
    here = mesh.clusters["here"]
    here.node("one", region="r", zone="z")
    shared = dataclasses.replace(CAPTURED, node="one")
    here.service(
        "helloworld",
        namespace="sample",
        ready=["10.1.0.1", "10.1.0.2"],
        unready=["10.1.0.3"],
        ports=PORTS,
        shape=shared,
    )
    here.service("secret", namespace="sample", ready=["10.1.0.9"], ports=PORTS)

    assert mesh.graph.items(mesh.model.peers.exports) == {
        HELLO: peering.Export(
            HELLO,
            Scope(takes_over=True),
            hosts=(identities.Hostname("helloworld.sample.svc.cluster.local"),),
            ports=(ServicePort("http", 5000, Protocol.HTTP),),
            capacity=(peering.Capacity(identities.NetworkId("n1"), Locality("r", "z"), 2),),
            identities=("spiffe://cluster.local/ns/sample/sa/default",),
        )
    }


def test_a_cluster_speaks_of_its_own_pods_alone(mesh):
    mesh.clusters["here"].service("helloworld", namespace="sample", ports=PORTS, shape=CAPTURED)
    other = mesh.cluster("other", network="n1")
    other.service("helloworld", namespace="sample", ready=["10.2.0.1"], ports=PORTS, shape=CAPTURED)

    (export,) = mesh.graph.items(mesh.model.peers.exports).values()
    assert (export.capacity, export.identities) == ((), ())


# --- links


def test_a_gateway_of_its_class_is_a_link(mesh):
    link(mesh)

    assert links(mesh) == {
        BETA: peering.Link(
            "istio-gateways",
            "istio-remote-beta",
            BETA,
            identities.NetworkId("n2"),
            ("203.0.113.2",),
            "istio-eastwest",
            identities.TrustDomain("beta.local"),
        )
    }
    (gateway,) = mesh.graph.value(mesh.model.network_gateways)
    assert (gateway.network, gateway.hbone_port, gateway.port) == ("n2", 15008, 0)
    assert gateway.trust_domain == "beta.local"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"namespace": "sample"}, "where links do not count"),
        ({"labels": {"topology.istio.io/cluster": "here"}}, "two clusters have one name"),
        ({"labels": {"topology.istio.io/cluster": "Beta_1"}}, "names no cluster"),
        ({"labels": {"topology.istio.io/network": ""}}, "has no label"),
        ({"addresses": []}, "has no address"),
        ({"addresses": [{"value": "127.0.0.1"}]}, "no address that can be sent to"),
        ({"annotations": {"isthmus.dev/trust-domain": "a/b"}}, "no trust domain"),
        ({"annotations": {"gateway.istio.io/service-account": "a/b"}}, "names no account"),
        ({"listeners": []}, "neither a listener"),
    ],
)
def test_a_link_that_cannot_be_used_is_a_finding_and_touches_no_other(mesh, changes, reason):
    link(mesh, "gamma", labels={"topology.istio.io/cluster": "gamma"})
    link(mesh, **changes)

    assert list(links(mesh)) == ["gamma"]
    assert [one for one in reasons(mesh) if reason in one]


def test_of_two_links_to_one_cluster_the_older_counts(mesh):
    link(mesh, "a-younger", created="2026-02-01T00:00:00Z")
    link(mesh, "z-older")

    assert links(mesh)[BETA].name == "z-older"
    assert "cluster `beta` is linked by the older istio-gateways/z-older" in reasons(mesh)


# --- what is believed


def test_what_a_linked_cluster_tells_of_its_own_counts(mesh):
    link(mesh)
    tell(mesh)

    (found,) = imports(mesh).values()
    assert (found.network, found.trust_domain, found.pods) == ("n2", "beta.local", 2)


def test_without_a_link_nothing_that_is_told_counts(mesh):
    tell(mesh)
    assert imports(mesh) == {}


def changed(**changes):
    return dataclasses.replace(EXPORT, **changes)


FOREIGN = peering.Capacity(identities.NetworkId("n1"))


@pytest.mark.parametrize(
    ("export", "reason"),
    [
        (changed(capacity=(FOREIGN,)), "pods in network `n1`, which is not its own"),
        (changed(capacity=(dataclasses.replace(FOREIGN, network="n2", pods=0),)), "cannot be"),
        (changed(identities=("spiffe://cluster.local/ns/sample/sa/x",)), "of trust domain"),
        (changed(identities=("spiffe://beta.local/ns/bank/sa/x",)), "of namespace `bank`"),
        (changed(identities=("beta.local/ns/sample/sa/x",)), "an identity that is none"),
        (changed(hosts=("bank.bank.svc.cluster.local",)), "which is not the service's"),
        (changed(hosts=()), "no host"),
        (changed(ports=(ServicePort("http", 70000, Protocol.HTTP),)), "a port that is none"),
        (changed(ports=EXPORT.ports * 2), "one twice"),
    ],
)
def test_a_record_that_oversteps_is_a_finding_and_touches_no_other(mesh, export, reason):
    link(mesh)
    tell(mesh, export)
    fine = ServiceKey("sample", "fine")
    tell(mesh, changed(service=fine, hosts=(derived_host(fine),)))

    assert [key.name for key in imports(mesh)] == ["fine"]
    assert [one for one in reasons(mesh) if reason in one]


def test_a_link_can_grant_some_namespaces_alone(mesh):
    link(mesh, annotations={"isthmus.dev/namespaces": "shop, bank"})
    tell(mesh)

    assert imports(mesh) == {}
    assert "the link grants it no word on namespace `sample`" in reasons(mesh)


def test_a_cluster_that_is_followed_itself_counts_once(mesh):
    link(mesh)
    tell(mesh)
    mesh.cluster("beta", network="n2")

    assert imports(mesh) == {}
    mesh.drop("beta")
    assert len(imports(mesh)) == 1
