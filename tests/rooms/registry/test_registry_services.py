"""Services of one name are one service."""

import pytest

from isthmus.kube import objects
from isthmus.mesh.services import Protocol, Resolution
from isthmus.registry import protocols


def test_services_of_one_name_are_merged_with_the_addresses_of_each_cluster(world):
    world.service("c2", cluster_ip="10.97.0.2", labels={"from": "c2"})
    world.service("c1", cluster_ip="10.96.0.1", labels={"from": "c1"})

    service = world.the_service()
    assert service.hostname == "web.default.svc.cluster.local"
    assert service.vips == (("c1", ("10.96.0.1",)), ("c2", ("10.97.0.2",)))
    assert service.labels == (("from", "c1"),)
    assert world.findings == []


def test_the_configuration_cluster_decides_then_the_first_by_name(make_world):
    world = make_world()
    for cluster in ("c3", "c0", "c1"):
        world.service(cluster, labels={"from": cluster})
    assert world.the_service().labels == (("from", "c1"),)

    world.delete(world.sources.services, "c1", "web")

    assert world.the_service().labels == (("from", "c0"),)


def test_a_service_of_one_remote_cluster_is_known_everywhere(world):
    world.service("c2", cluster_ip="10.97.0.2")

    assert world.the_service().vips_in("c1") == ("10.97.0.2",)


def test_a_service_is_gone_when_its_last_object_is(world):
    world.service("c1")
    world.service("c2")
    world.delete(world.sources.services, "c1", "web")
    world.delete(world.sources.services, "c2", "web")

    assert world.the_service() is None
    assert world.endpoints() is None


def test_names_in_different_namespaces_are_different_services(world):
    world.service("c1", namespace="one")
    world.service("c2", namespace="two")

    assert world.the_service(namespace="one").vips == (("c1", ("10.96.0.1",)),)


def test_a_headless_service_has_no_address(world):
    world.service(cluster_ip="None")

    assert world.the_service().resolution is Resolution.HEADLESS
    assert world.the_service().vips == ()


def test_an_external_name_is_an_alias(world):
    world.service(type="ExternalName", external_name="db.example.org", cluster_ip="")

    assert world.the_service().resolution is Resolution.ALIAS
    assert world.the_service().alias_of == "db.example.org"


def test_the_annotation_says_to_whom_a_service_is_shown(world):
    world.service(annotations={"networking.istio.io/exportTo": "., team-a,team-a"})

    assert world.the_service().export_to == (".", "team-a")


def test_both_addresses_of_a_dual_stack_service_are_kept(world):
    world.service(cluster_ip="10.96.0.1", cluster_ips=("10.96.0.1", "fd00::1"))

    assert world.the_service().vips_in("c1") == ("10.96.0.1", "fd00::1")


@pytest.mark.parametrize(
    ("other", "reason"),
    [({"ports": {"http": 8080}}, "ports"), ({"cluster_ip": "None"}, "kind")],
)
def test_services_that_differ_between_clusters_are_reported(world, other, reason):
    world.service("c1")
    world.service("c2", **other)

    [finding] = world.findings
    assert finding.startswith("ISM-REG-010 Service default/web")
    assert f"`c2` differs from `c1` in {reason}" in finding


def test_a_cluster_local_service_may_differ(world):
    world.service("c1", "dns", "kube-system", ports={"dns": 53})
    world.service("c2", "dns", "kube-system", ports={"other": 53})

    assert world.findings == []


@pytest.mark.parametrize(
    ("port", "protocol"),
    [
        ({"name": "http"}, Protocol.HTTP),
        ({"name": "http-web"}, Protocol.HTTP),
        ({"name": "HTTP2-x"}, Protocol.HTTP2),
        ({"name": "grpc-web"}, Protocol.GRPC),
        ({"name": "grpc-web-x"}, Protocol.GRPC),
        ({"name": "https"}, Protocol.TLS),
        ({"name": "mongo-db"}, Protocol.TCP),
        ({"name": "httpx"}, Protocol.AUTO),
        ({"name": ""}, Protocol.AUTO),
        ({"name": "http", "app_protocol": "tcp"}, Protocol.TCP),
        ({"name": "http", "app_protocol": "kubernetes.io/h2c"}, Protocol.HTTP2),
        ({"name": "x", "app_protocol": "kubernetes.io/ws"}, Protocol.HTTP),
        ({"name": "http", "app_protocol": "example.com/own"}, Protocol.AUTO),
        ({"name": "", "port": 3306}, Protocol.TCP),
        ({"name": "http", "port": 3306}, Protocol.HTTP),
        ({"name": "dns", "protocol": "UDP"}, Protocol.UDP),
    ],
)
def test_what_is_spoken_is_declared_by_app_protocol_then_by_name(port, protocol):
    declared = objects.ServicePort(**{"port": 8080, **port})

    found = protocols.protocol_of(
        transport=declared.protocol,
        app_protocol=declared.app_protocol,
        port_name=declared.name,
        port=declared.port,
    )

    assert found is protocol


def test_udp_ports_are_kept_and_marked(world):
    world.service(ports=(objects.ServicePort(port=53, name="dns", protocol="UDP"),))

    [port] = world.the_service().ports
    assert (port.number, port.protocol) == (53, Protocol.UDP)
