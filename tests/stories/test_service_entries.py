"""ServiceEntries: YAML of users goes in, and calls land where it says."""

import pytest
import yaml

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.resources import snapshot
from isthmus.testing import builders, envoys, shapes

OUTSIDE = shapes.Shape(proxy=None)
PUBLIC = "203.0.113.7"


def world(*, mode="REGISTRY_ONLY"):
    """Return two networks of one mesh, and servers of the outside in a third."""
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n2")
    east.gateway(external="172.30.0.10")
    west.gateway(external="172.30.0.20")
    mesh.expose_services()
    mesh.configure(outboundTrafficPolicy={"mode": mode})
    outside = mesh.cluster("outside", network="internet")
    outside.pod("api", shape=OUTSIDE, external=(PUBLIC, "api.example.com", "other.example.com"))
    return mesh


def applied(mesh, text, *, name="entry", namespace="default", labels=None, created=""):
    meta = objects.Metadata(name, namespace=namespace, labels=labels, creation_timestamp=created)
    key = ObjectKey("east", namespace, name)
    entry = objects.FreeForm(meta, spec=yaml.safe_load(text))
    mesh.put(mesh.sources.service_entries, key, entry)


def found(mesh):
    return sorted(
        f"{one.subject} {one.happened}" for one in mesh.graph.items(mesh.model.findings).values()
    )


def client(mesh, dns="", path="east"):
    pod = mesh.clusters[path].pod(f"client-{dns or 'plain'}", shape=shapes.Shape(dns=dns))
    return builders.Client(mesh, pod)


EXTERNAL = """
hosts: [api.example.com]
location: MESH_EXTERNAL
ports:
- {number: 80, name: http, protocol: HTTP}
- {number: 443, name: https, protocol: HTTPS}
"""


@pytest.mark.parametrize("url", ["http://api.example.com/", "tls://api.example.com:443"])
@pytest.mark.parametrize("resolution", ["NONE", "DNS", "DNS_ROUND_ROBIN"])
@pytest.mark.parametrize("dns", ["", "captured", "allocated"])
def test_an_external_host_is_called_in_plain_text_of_the_mesh(url, resolution, dns):
    mesh = world()
    caller = client(mesh, dns)
    assert caller.calls(url).refused

    applied(mesh, f"{EXTERNAL}\nresolution: {resolution}")

    call = caller.calls(url)
    (server,) = (pod for pod in mesh.pods if pod.name == "api")
    assert (call.arrives_at, call.is_encrypted) == (server.address, False)
    assert found(mesh) == []


@pytest.mark.parametrize("url", ["http://other.example.com/", "tls://other.example.com:443"])
def test_what_no_entry_names_stays_closed(url):
    mesh = world()
    applied(mesh, f"{EXTERNAL}\nresolution: DNS")

    assert client(mesh).calls(url).refused


def test_a_pattern_of_hosts_covers_them_all():
    mesh = world()
    applied(mesh, EXTERNAL.replace("api.", '"*.').replace("com]", 'com"]') + "resolution: NONE")

    for url in ("http://other.example.com/", "tls://api.example.com:443"):
        assert client(mesh).calls(url).arrives_at


@pytest.mark.parametrize(
    "host", ["*.cluster.local", "*.default.svc.cluster.local", "nodot", "*", "127.0.0.1", "a*.b.c"]
)
def test_hosts_that_nobody_may_have_are_reported_and_left_out(host):
    mesh = world()
    applied(mesh, EXTERNAL.replace("api.example.com", f"api.example.com, '{host}'"))

    assert [f"`{host}` is left out" in one for one in found(mesh)] == [True]
    assert client(mesh).calls("http://api.example.com/").arrives_at


def test_addresses_stand_for_ports_of_plain_tcp():
    mesh = world()
    applied(
        mesh,
        f"""
        hosts: [db.example.com]
        addresses: [192.0.2.10]
        ports: [{{number: 5432, name: tcp, protocol: TCP, targetPort: 6432}}]
        resolution: STATIC
        endpoints: [{{address: {PUBLIC}}}]
        """,
    )

    call = client(mesh).calls("tcp://192.0.2.10:5432")

    assert not call.refused
    assert call.arrives_at
    assert found(mesh) == []


@pytest.mark.parametrize("dns", ["captured", "allocated"])
def test_without_an_address_agents_give_one_to_ports_of_plain_tcp(dns):
    mesh = world()
    applied(
        mesh,
        f"""
        hosts: [db.example.com]
        ports: [{{number: 5432, name: tcp, protocol: TCP}}]
        resolution: STATIC
        endpoints: [{{address: {PUBLIC}}}]
        """,
    )

    assert client(mesh, dns).calls("tcp://db.example.com:5432").arrives_at
    assert client(mesh).calls("tcp://db.example.com:5432").refused
    assert ["ISTIO_META_DNS_CAPTURE" in one for one in found(mesh)] == [True]


def test_a_label_keeps_addresses_of_our_making_away():
    mesh = world()
    labels = {"networking.istio.io/enable-autoallocate-ip": "false"}
    applied(mesh, f"{EXTERNAL}\nresolution: DNS", labels=labels)
    (table,) = mesh.snapshot_of(client(mesh, "allocated").pod).of(snapshot.NAMES).values()

    assert "api.example.com" not in envoys.decoded(table).table


MACHINES = """
hosts: [vm.shop.local]
location: MESH_INTERNAL
addresses: [192.0.2.20]
ports:
- {number: 80, name: http, protocol: HTTP, targetPort: 8080}
- {number: 9000, name: tcp, protocol: TCP}
resolution: STATIC
"""


def machines(mesh):
    """Return a virtual machine in each network: pods that no Service selects."""
    return [
        mesh.clusters[name].pod("vm", namespace="vms", labels={"app": "vm"})
        for name in ("east", "west")
    ]


@pytest.mark.parametrize("url", ["http://192.0.2.20/", "tcp://192.0.2.20:9000"])
def test_endpoints_of_the_mesh_speak_mutual_tls_through_gateways_by_weight(url):
    mesh = world()
    near, far = machines(mesh)
    applied(
        mesh,
        f"""{MACHINES}
endpoints:
- {{address: {near.address}, network: n1, serviceAccount: default, weight: 1}}
- {{address: {far.address}, network: n2, serviceAccount: default, weight: 3}}
""",
        namespace="vms",
    )

    caller = client(mesh)
    (cluster,) = (
        envoys.decoded(one)
        for name, one in mesh.snapshot_of(caller.pod).of(snapshot.ENDPOINTS).items()
        if name == "outbound|80||vm.shop.local"
    )
    told = {
        one.endpoint.address.socket_address.address: one.load_balancing_weight.value
        for group in cluster.endpoints
        for one in group.lb_endpoints
    }
    assert told == {near.address: 1, "172.30.0.20": 3}
    assert caller.calls(url).is_encrypted


def selecting(mesh):
    applied(mesh, f"{MACHINES}workloadSelector: {{labels: {{app: vm}}}}", namespace="vms")


@pytest.mark.parametrize("url", ["http://192.0.2.20/", "tcp://192.0.2.20:9000"])
def test_pods_of_all_clusters_are_selected(url):
    mesh = world()
    near, far = machines(mesh)
    mesh.clusters["east"].pod("vm", namespace="elsewhere", labels={"app": "vm"})
    selecting(mesh)

    call = client(mesh).calls(url)

    assert set(call.shares) == {near.address, far.address}
    assert call.is_encrypted
    assert not call.refused


def test_selected_pods_come_and_go_with_their_readiness():
    mesh = world()
    near, far = machines(mesh)
    selecting(mesh)
    caller = client(mesh)
    pod_key = ObjectKey("east", "vms", "vm")
    pod = mesh.graph.get(mesh.sources.pods, pod_key)

    for is_ready, expected in (("False", {far.address}), ("True", {near.address, far.address})):
        status = objects.PodStatus(
            "Running", near.address, conditions=(objects.PodCondition("Ready", is_ready),)
        )
        mesh.put(
            mesh.sources.pods, pod_key, objects.Pod(pod.metadata, spec=pod.spec, status=status)
        )
        assert set(caller.calls("http://192.0.2.20/").shares) == expected


def test_identities_that_an_entry_names_may_answer():
    mesh = world()
    machines(mesh)
    selecting(mesh)
    sans = "[spiffe://cluster.local/ns/vms/sa/special]"
    applied(
        mesh,
        f"{MACHINES}workloadSelector: {{labels: {{app: vm}}}}\nsubjectAltNames: {sans}",
        namespace="vms",
    )

    (accepted,) = {one.accepted for one in client(mesh).calls("http://192.0.2.20/").landings}

    assert set(accepted) == {
        "spiffe://cluster.local/ns/vms/sa/special",
        "spiffe://cluster.local/ns/vms/sa/default",
    }


@pytest.mark.parametrize(("said", "sees"), [("['.']", False), ("[other]", True), ("['*']", True)])
def test_an_entry_is_known_where_it_is_exported(said, sees):
    mesh = world()
    applied(mesh, f"{EXTERNAL}\nresolution: DNS\nexportTo: {said}")
    pod = mesh.clusters["east"].pod("client", namespace="other")

    call = builders.Client(mesh, pod).calls("http://api.example.com/")

    assert bool(call.refused) is not sees


def test_the_oldest_entry_keeps_its_host_and_a_service_goes_before_all():
    mesh = world()
    mesh.clusters["east"].service("web", ready=["10.0.0.1"])
    static = "resolution: STATIC\nports: [{number: 80, name: http, protocol: HTTP}]\n"
    theirs = "endpoints: [{address: 203.0.113.66}]\nhosts: "
    applied(mesh, f"{EXTERNAL}\nresolution: DNS", created="2026-01-01T00:00:00Z", name="z")
    applied(
        mesh,
        f"{static}{theirs}[api.example.com, web.default.svc.cluster.local]",
        created="2026-01-02T00:00:00Z",
        namespace="attacker",
    )

    assert client(mesh).calls("http://api.example.com/").arrives_at
    assert client(mesh).calls("http://web/").arrives_at == "10.0.0.1"
    assert [one.partition(" names ")[2] for one in found(mesh)] == [
        "`api.example.com`, which ServiceEntry default/z has",
        "`web.default.svc.cluster.local`, which Service default/web has",
    ]


def test_an_entrys_address_never_takes_a_services():
    mesh = world()
    mesh.clusters["east"].service("web", ready=["10.0.0.1"], ports={"tcp": 5432})
    web = mesh.graph.get(mesh.sources.services, ObjectKey("east", "default", "web"))
    applied(
        mesh,
        f"""
        hosts: [aaa.example.com]
        addresses: [{web.spec.cluster_ip}]
        ports: [{{number: 5432, name: tcp, protocol: TCP}}]
        resolution: STATIC
        endpoints: [{{address: {PUBLIC}}}]
        """,
    )

    assert client(mesh).calls(f"tcp://{web.spec.cluster_ip}:5432").arrives_at == "10.0.0.1"


def test_gateways_of_the_mesh_are_no_door_to_the_outside():
    mesh = world()
    applied(mesh, f"{EXTERNAL}\nresolution: NONE".replace("api.example.com", "api.shop.local"))
    gateway = mesh.pod_at("172.30.0.10", network="")

    assert "shop.local" not in str(mesh.snapshot_of(gateway).resources)
