"""Which names a pod may ask its proxy for, what is answered, and where a call then lands."""

import pytest

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.node import names
from isthmus.resources import snapshot
from isthmus.testing import builders, envoys, shapes

WAYS = pytest.mark.parametrize("dns", ["captured", "allocated"])
HEADLESS = shapes.Shape(is_headless=True)


def two_networks():
    """Return two clusters behind gateways, each with a service that the other has not."""
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n2")
    east.gateway(external="172.30.0.10")
    west.gateway(external="172.30.0.20")
    mesh.expose_services()
    east.service("here", ready=["10.0.0.1"])
    west.service("there", ready=["10.1.0.1"], ports={"http": 80, "tcp-db": 9000, "what": 7000})
    return mesh


def one_network(*clusters):
    mesh = builders.Mesh()
    for name in clusters or ("east", "west"):
        mesh.cluster(name)
    return mesh


def client(mesh, dns, cluster="east"):
    pod = mesh.clusters[cluster].pod(f"client-{dns}", shape=shapes.Shape(dns=dns))
    return builders.Client(mesh, pod)


def told(mesh, dns="captured", cluster="east"):
    """Return addresses by host, as a pod with an agent is told them."""
    known = {pod.name: builders.Client(mesh, pod) for pod in mesh.pods if pod.cluster == cluster}
    source = known.get(f"client-{dns}") or client(mesh, dns, cluster)
    (table,) = mesh.snapshot_of(source.pod).of(snapshot.NAMES).values()
    entries = names.read(table.body, forms=names.Forms("default", "cluster.local")).entries
    return {
        host.removesuffix(".default.svc.cluster.local"): list(entry.ips)
        for host, entry in entries.items()
        if host.endswith(".default.svc.cluster.local")
    }


def test_without_capture_a_proxy_is_told_no_names():
    mesh = two_networks()

    assert not mesh.snapshot_of(mesh.proxy("east/client").pod).of(snapshot.NAMES)


@WAYS
@pytest.mark.parametrize("host", ["there", "there.default", "there.default.svc.cluster.local"])
@pytest.mark.parametrize("url", ["http://{}/", "tcp://{}:9000", "http://{}:7000", "tcp://{}:7000"])
def test_a_name_of_another_cluster_is_called_through_its_gateway_under_mutual_tls(dns, host, url):
    mesh = two_networks()

    call = client(mesh, dns).calls(url.format(host))

    assert call.arrives_at == "10.1.0.1"
    assert call.is_encrypted
    assert call.via_gateway == {"istio-eastwestgateway-0"}
    assert call.identities == {"spiffe://cluster.local/ns/default/sa/default"}


def test_without_capture_nobody_knows_the_name():
    call = two_networks().proxy("east/client").calls("http://there/")

    assert call.refused == {"unknown host"}


@WAYS
def test_the_own_clusters_address_counts_whatever_others_have(dns):
    mesh = two_networks()
    mesh.clusters["west"].service("here", ready=["10.1.0.2"])

    assert told(mesh, dns)["here"] != told(mesh, dns, "west")["here"]
    assert set(client(mesh, dns, "west").calls("http://here/").shares) == {"10.0.0.1", "10.1.0.2"}


def test_an_address_that_means_something_here_never_stands_for_a_foreign_service():
    mesh = one_network()
    east, west = mesh.clusters.values()
    east.service("here", ready=["10.0.0.1"], ports={"tcp": 9000})
    west.service("there", ready=["10.1.0.1"], ports={"tcp": 9000})

    # Both ranges of services begin alike, so that both have the same address.
    assert told(mesh, "captured", "west")["there"] == told(mesh)["here"]
    assert told(mesh)["there"] == told(mesh, "allocated")["there"]
    assert told(mesh)["there"][0].startswith("240.240.")
    assert client(mesh, "plain").calls("tcp://here:9000").arrives_at == "10.0.0.1"
    assert client(mesh, "allocated").calls("tcp://there:9000").arrives_at == "10.1.0.1"
    assert client(mesh, "allocated2").calls("tcp://here:9000").arrives_at == "10.0.0.1"


def test_of_two_foreign_services_with_one_address_only_the_first_has_that():
    mesh = one_network("east", "west", "north")
    mesh.clusters["west"].service("b", ready=["10.1.0.1"], ports={"tcp": 9000})
    mesh.clusters["north"].service("a", ready=["10.2.0.1"], ports={"tcp": 9000})

    assert told(mesh)["a"] == ["10.96.0.1"]
    assert told(mesh)["b"] == told(mesh, "allocated")["b"] != told(mesh, "allocated")["a"]
    for source in [pod for pod in mesh.pods if pod.dns]:
        calls = builders.Client(mesh, source).calls
        assert calls("tcp://a:9000").arrives_at == "10.2.0.1"
        assert calls("tcp://b:9000").arrives_at == "10.1.0.1"


def test_a_service_that_stays_in_its_cluster_has_no_name_elsewhere():
    mesh = two_networks()
    mesh.clusters["west"].service("local", namespace="kube-system", ready=["10.1.0.9"])

    source = client(mesh, "allocated")

    assert source.calls("http://local.kube-system/").refused == {"unknown host"}


def test_what_is_not_exported_has_no_name():
    mesh = two_networks()
    mesh.clusters["west"].service(
        "there", ready=["10.1.0.1"], shape=shapes.Shape(export_to="elsewhere")
    )

    assert "there" not in told(mesh)


def test_a_headless_name_stands_for_all_endpoints_in_reach_the_own_first():
    mesh = one_network()
    mesh.clusters["west"].service("db", ready=["10.0.0.3"], ports={"tcp": 9000}, shape=HEADLESS)
    mesh.clusters["east"].service("db", ready=["10.0.0.7"], ports={"tcp": 9000}, shape=HEADLESS)

    assert told(mesh)["db"] == ["10.0.0.7", "10.0.0.3"]
    assert set(client(mesh, "captured2").calls("tcp://db:9000").shares) == {"10.0.0.7", "10.0.0.3"}


def test_endpoints_of_another_network_cannot_be_dialled_and_have_no_name():
    mesh = two_networks()
    mesh.clusters["west"].service("db", ready=["10.1.0.3"], ports={"tcp": 9000}, shape=HEADLESS)

    assert "db" not in told(mesh)
    assert told(mesh, "captured", "west")["db"] == ["10.1.0.3"]


def test_each_pod_of_a_headless_service_has_a_name_and_the_own_clusters_pod_counts():
    mesh = one_network()
    for name, addresses in (("west", ["10.1.0.1", "10.1.0.2"]), ("east", ["10.0.0.1"])):
        cluster = mesh.clusters[name]
        cluster.service("db", ready=addresses, ports={"tcp": 9000}, shape=HEADLESS)
        with_hostnames(mesh, cluster, addresses, ports={"tcp": 9000})

    found = told(mesh)

    assert found["db-0.db"] == ["10.0.0.1"]
    assert found["db-1.db"] == ["10.1.0.2"]
    assert client(mesh, "captured2").calls("tcp://db-1.db:9000").arrives_at == "10.1.0.2"


def with_hostnames(mesh, cluster, addresses, *, ports):
    """Number the pods of `db` as a StatefulSet does."""
    members = [
        objects.SliceEndpoint(
            addresses=(address,),
            hostname=f"db-{number}",
            target_ref=objects.ObjectReference(
                kind="Pod", name=f"db-{address.replace('.', '-')}", namespace="default"
            ),
        )
        for number, address in enumerate(addresses)
    ]
    meta = shapes.metadata("db-1", "default", {"kubernetes.io/service-name": "db"})
    slice_ = shapes.slice_of(meta, members=members, ports=ports)
    mesh.put(mesh.sources.endpoint_slices, ObjectKey(cluster.id, "default", "db-1"), slice_)


@pytest.mark.parametrize("form", ["", ".default", ".default.svc", ".default.svc.cluster.local"])
def test_requests_to_one_pod_are_encrypted_however_its_name_is_written(form):
    mesh = one_network()
    east = mesh.clusters["east"]
    east.service("db", ready=["10.0.0.1"], shape=HEADLESS)
    with_hostnames(mesh, east, ["10.0.0.1"], ports={"http": 80})

    call = client(mesh, "captured").calls(f"http://db-0.db{form}/")

    assert call.arrives_at == "10.0.0.1"
    assert call.is_encrypted


def test_unready_pods_have_a_name_only_where_the_service_publishes_them():
    mesh = one_network()
    east = mesh.clusters["east"]
    east.service("db", ready=["10.0.0.1"], unready=["10.0.0.2"], shape=HEADLESS)
    assert told(mesh)["db"] == ["10.0.0.1"]

    key = ObjectKey(east.id, "default", "db")
    known = mesh.graph.get(mesh.sources.services, key)
    spec = objects.ServiceSpec(
        cluster_ip="None", ports=known.spec.ports, publish_not_ready_addresses=True
    )
    mesh.put(mesh.sources.services, key, objects.Service(known.metadata, spec=spec))

    assert told(mesh)["db"] == ["10.0.0.1", "10.0.0.2"]


def test_the_first_call_to_the_first_endpoint_is_not_in_plain_text():
    mesh = one_network()
    mesh.clusters["west"].service("db", ports={"http": 80}, shape=HEADLESS)
    source = client(mesh, "captured")
    before = told_cluster(mesh, source, "outbound|80||db.default.svc.cluster.local")
    mesh.clusters["west"].service("db", ready=["10.1.0.1"], ports={"http": 80}, shape=HEADLESS)

    assert before.HasField("transport_socket")
    assert source.calls("http://db/").is_encrypted


def test_pods_that_refuse_mutual_tls_are_called_without_it_by_their_own_addresses():
    mesh = one_network()
    mesh.clusters["west"].service("db", ready=["10.1.0.1"], ports={"http": 80}, shape=HEADLESS)
    mesh.peer_authentication("default", "DISABLE")

    call = client(mesh, "captured").calls("http://db/")

    assert call.arrives_at == "10.1.0.1"
    assert not call.is_encrypted


def told_cluster(mesh, source, name):
    return envoys.decoded(mesh.snapshot_of(source.pod).of(snapshot.CLUSTERS)[name])


def test_a_table_follows_what_comes_and_goes():
    mesh = two_networks()
    before = told(mesh)
    mesh.clusters["west"].service("more", ready=["10.1.0.5"])
    during = told(mesh)
    mesh.drop("west")

    assert set(during) - set(before) == {"more"}
    assert set(told(mesh)) == {"here"}


@pytest.mark.parametrize("size", [20, 200])
def test_endpoints_of_a_service_with_an_address_touch_no_table(size):
    mesh = two_networks()
    east = mesh.clusters["east"]
    for index in range(size):
        east.service(f"s{index}", ready=[f"10.0.1.{index + 1}", f"10.0.2.{index + 1}"])
    told(mesh, "allocated")
    seen = []
    mesh.graph.listen(seen.append)

    east.endpoints("s7", ready=["10.0.2.8"], ports={"http": 80})
    (batch,) = seen

    assert {key.kind.value for key in batch.of(mesh.views.slices)} == {"endpoints"}
    assert mesh.graph.recomputed() < 15
