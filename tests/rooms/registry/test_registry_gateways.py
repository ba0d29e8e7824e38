"""The gateways of networks: found by label, or named by the settings."""

import pytest


def test_a_labelled_service_is_a_gateway_of_its_network(world):
    world.gateway_service("c2", "n2", ingress=["9.9.9.9"])

    assert world.network_gateways == [("n2", "c2", "9.9.9.9", 15443, 0)]
    assert world.findings == []


def test_a_label_names_another_port(world):
    world.gateway_service(
        ports={"tls": 443}, labels={"networking.istio.io/gatewayPort": "443"}, ingress=["9.9.9.9"]
    )

    assert world.network_gateways == [("n2", "c2", "9.9.9.9", 443, 0)]


def test_each_port_counts_only_if_the_service_exposes_it(world):
    world.gateway_service(ports={"hbone": 15008}, ingress=["9.9.9.9"])

    assert world.network_gateways == [("n2", "c2", "9.9.9.9", 0, 15008)]


def test_a_service_that_exposes_neither_port_is_no_gateway(world):
    world.gateway_service(ports={"http": 80}, ingress=["9.9.9.9"])

    assert world.network_gateways == []
    assert world.findings == [
        "ISM-REG-012 Service istio-system/eastwest in cluster `c2`: "
        "exposes neither port 15443 nor port 15008"
    ]


def test_external_addresses_and_hostnames_count_too(world):
    world.gateway_service(ingress=["lb.example.org"], external_ips=("8.8.8.8",))

    assert [address for _, _, address, *_ in world.network_gateways] == [
        "8.8.8.8",
        "lb.example.org",
    ]


def test_a_load_balancers_address_counts_only_for_a_load_balancer(world):
    world.gateway_service(type="ClusterIP", ingress=["9.9.9.9"])

    assert world.network_gateways == []


def test_a_gateway_without_an_address_yet_is_reported(world):
    world.gateway_service()

    assert world.network_gateways == []
    assert world.findings[0].endswith("has no external address yet")


@pytest.mark.parametrize(
    "address",
    ["0.0.0.0", "127.0.0.1", "169.254.169.254", "localhost", "127.1", "0x7f000001"],
)
def test_an_address_that_no_traffic_may_go_to_is_no_gateway(world, address):
    world.gateway_service(ingress=["9.9.9.9"], external_ips=(address,))

    assert world.network_gateways == [("n2", "c2", "9.9.9.9", 15443, 0)]
    assert "has an external address that cannot be sent to" in world.findings[0]


@pytest.mark.parametrize("text", ["x", "0", "70000", "0000000999", "-1"])
def test_a_port_label_that_is_no_port_leaves_the_default(world, text):
    world.gateway_service(ingress=["9.9.9.9"], labels={"networking.istio.io/gatewayPort": text})

    assert world.network_gateways == [("n2", "c2", "9.9.9.9", 15443, 0)]
    assert "is no port" in world.findings[0]


def test_the_settings_name_a_gateway_by_address(world):
    world.settings(networks="networks: {n2: {gateways: [{address: 1.2.3.4, port: 443}]}}")

    assert world.network_gateways == [("n2", "", "1.2.3.4", 443, 0)]


def test_the_settings_name_a_gateway_by_service_in_the_clusters_of_its_network(world):
    for cluster in ("c1", "c2"):
        world.service(
            cluster, "ingress", "istio-system", type="LoadBalancer", ingress=[f"9.9.9.{cluster[1]}"]
        )

    world.settings(
        networks="""
        networks:
          n2:
            endpoints: [{fromRegistry: c2}]
            gateways: [{registryServiceName: ingress.istio-system.svc.cluster.local, port: 443}]
        """
    )

    assert world.network_gateways == [("n2", "c2", "9.9.9.2", 443, 0)]


def test_a_gateway_that_is_found_twice_counts_once(world):
    world.gateway_service("c2", "n2", ingress=["9.9.9.9", "9.9.9.9"], external_ips=("9.9.9.9",))

    assert len(world.network_gateways) == 1


def test_gateways_do_not_change_when_the_mesh_changes_elsewhere(world):
    world.gateway_service(ingress=["9.9.9.9"])
    known = world.graph.value(world.model.network_gateways)

    world.service()
    world.settings("accessLogFile: /dev/stdout")

    assert world.graph.value(world.model.network_gateways) is known


@pytest.fixture(name="are_up")
def are_up_fixture(world):
    return lambda: [gateway.is_up for gateway in world.graph.value(world.model.network_gateways)]


def test_a_gateway_is_down_while_none_of_its_pods_is_ready(world, are_up, member):
    world.gateway_service("c2", "n2", ingress=["9.9.9.9"])
    slice_ = {"cluster": "c2", "service": "eastwest", "namespace": "istio-system"}

    world.slice(**slice_, members=[member("10.1.0.1", ready=False)])
    assert are_up() == [False]
    assert world.findings[0].endswith("has no pod that is ready")

    world.slice(**slice_, members=[member("10.1.0.1", ready=False), member("10.1.0.2")])
    assert are_up() == [True]
    assert world.findings == []


def test_pods_that_end_do_not_keep_a_gateway_up(world, are_up, member):
    world.gateway_service("c2", "n2", ingress=["9.9.9.9"])
    ending = member("10.1.0.1", ready=False, serving=True, terminating=True)

    world.slice("c2", service="eastwest", namespace="istio-system", members=[ending])

    assert are_up() == [False]


def test_a_gateway_whose_slices_are_empty_is_down(world, are_up):
    world.gateway_service("c2", "n2", ingress=["9.9.9.9"])

    world.slice("c2", service="eastwest", namespace="istio-system", members=[])

    assert are_up() == [False]


def test_a_gateway_of_which_no_slice_is_known_counts_as_up(world, are_up):
    world.gateway_service("c2", "n2", ingress=["9.9.9.9"])

    world.slice("c1", service="eastwest", namespace="istio-system", members=[])
    world.slice("c2", service="other", namespace="istio-system", members=[])

    assert are_up() == [True]


def test_a_named_gateway_is_down_while_none_of_its_pods_is_ready(world, are_up):
    world.service("c2", "ingress", "istio-system", type="LoadBalancer", ingress=["9.9.9.9"])
    world.settings(
        networks="""
        networks:
          n2:
            endpoints: [{fromRegistry: c2}]
            gateways: [{registryServiceName: ingress.istio-system.svc.cluster.local, port: 443}]
        """
    )

    world.slice("c2", service="ingress", namespace="istio-system", members=[])

    assert are_up() == [False]
