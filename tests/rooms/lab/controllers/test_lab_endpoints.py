from fakes.lab_cluster import POOL, deployment, pod, service

_SLICES = "endpointslices.discovery.k8s.io"


def _of(name):
    return lambda each: each["metadata"]["labels"].get("kubernetes.io/service-name") == name


def _has(name, count):
    return lambda each: _of(name)(each) and len(each.get("endpoints") or ()) == count


async def test_a_ready_pod_is_an_endpoint_with_its_node_and_zone(machine):
    await machine.api.create("services", service())
    await machine.api.create("pods", pod("web"))

    found = await machine.until(_SLICES, _has("web", 1))

    [endpoint] = found["endpoints"]
    assert endpoint["conditions"] == {"ready": True, "serving": True, "terminating": False}
    assert (endpoint["nodeName"], endpoint["zone"]) == ("n1", "z1")
    assert endpoint["targetRef"]["name"] == "web"
    assert [(port["name"], port["port"]) for port in found["ports"]] == [("", 8080)]


async def test_the_older_kind_says_the_same(machine):
    await machine.api.create("services", service())
    await machine.api.create("pods", pod("web"))

    found = await machine.until(
        "endpoints", lambda e: e["metadata"]["name"] == "web" and e.get("subsets")
    )

    [subset] = found["subsets"]
    assert subset["addresses"][0]["targetRef"]["name"] == "web"
    assert subset["ports"] == [{"port": 8080, "protocol": "TCP"}]


async def test_a_pod_that_ends_serves_on_but_is_not_ready(cluster):
    await cluster.node("n1")
    await cluster.api.create("services", service())
    await cluster.api.create("pods", pod("web", nodeName="n1"))
    status = {
        "phase": "Running",
        "podIP": "10.1.0.9",
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    await cluster.api.patch(
        "pods", "web", {"status": status}, namespace="default", subresource="status"
    )
    await cluster.until(_SLICES, _has("web", 1))

    await cluster.api.delete("pods", "web", "default")

    found = await cluster.until(
        _SLICES,
        lambda s: _has("web", 1)(s) and s["endpoints"][0]["conditions"]["terminating"],
    )
    conditions = found["endpoints"][0]["conditions"]
    assert conditions == {"ready": False, "serving": True, "terminating": True}


async def test_a_named_port_is_looked_up_in_each_pod(machine):
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    await machine.api.create("services", service(ports=ports))
    container = {"name": "main", "image": "one", "ports": [{"name": "web", "containerPort": 81}]}
    await machine.api.create("pods", pod("web", containers=[container]))

    found = await machine.until(_SLICES, _has("web", 1))

    assert [(port["name"], port["port"]) for port in found["ports"]] == [("http", 81)]


async def test_hand_made_slices_of_a_service_without_selector_stay(machine):
    body = service("remote")
    del body["spec"]["selector"]
    await machine.api.create("services", body)
    made = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "remote-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "remote"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["172.30.0.9"]}],
        "ports": [{"name": "", "port": 15012, "protocol": "TCP"}],
    }
    await machine.api.create(_SLICES, made)

    await machine.api.create("services", service())
    await machine.until(_SLICES, _of("web"))

    assert (await machine.api.get(_SLICES, "remote-1", "default"))["endpoints"]


async def test_the_endpoints_go_with_their_service(machine):
    await machine.api.create("services", service())
    found = await machine.until(_SLICES, _of("web"))

    await machine.api.delete("services", "web", "default")

    await machine.until_gone(_SLICES, found["metadata"]["name"])
    await machine.until_gone("endpoints", "web")


async def test_the_service_kubernetes_leads_to_the_api_server(cluster):
    found = await cluster.api.get(_SLICES, "kubernetes", "default")
    kubernetes = await cluster.api.get("services", "kubernetes", "default")

    assert found["endpoints"][0]["addresses"] == ["172.30.0.3"]
    assert kubernetes["spec"]["clusterIP"] == "10.96.0.1"


def _ingress(name):
    return lambda s: (
        s["metadata"]["name"] == name
        and (s.get("status", {}).get("loadBalancer") or {}).get("ingress")
    )


async def test_load_balancers_get_different_addresses_and_the_machine_hears(machine):
    for name in ("a", "b"):
        await machine.api.create("services", service(name, type="LoadBalancer"))

    found = [await machine.until("services", _ingress(name)) for name in ("a", "b")]

    addresses = [each["status"]["loadBalancer"]["ingress"][0]["ip"] for each in found]
    assert sorted(addresses) == sorted(POOL)
    assert set(machine.balanced) >= set(zip(("a", "b"), addresses, strict=True))


async def test_an_address_that_is_free_again_goes_to_who_waits(machine):
    for name in ("a", "b", "c"):
        await machine.api.create("services", service(name, type="LoadBalancer"))
    await machine.until("events", lambda e: e["reason"] == "SyncLoadBalancerFailed")

    await machine.api.delete("services", "a", "default")

    found = await machine.until("services", _ingress("c"))
    assert found["status"]["loadBalancer"]["ingress"][0]["ip"] in POOL
    assert ("a", None) in machine.balanced


async def test_pods_are_spread_over_ready_nodes(machine):
    await machine.node("n2")
    await machine.node("n3", ready=False)
    await machine.api.create("deployments.apps", deployment(replicas=4))

    await machine.until("pods", lambda p: p["spec"].get("nodeName") == "n2")
    await machine.until(
        "deployments.apps", lambda d: d.get("status", {}).get("availableReplicas") == 4
    )

    nodes = [p["spec"]["nodeName"] for p in await machine.api.list("pods", "default")]
    assert sorted(nodes) == ["n1", "n1", "n2", "n2"]


async def test_a_pod_that_fits_nowhere_says_why_and_is_taken_when_a_node_comes(machine):
    await machine.api.create("pods", pod("web", nodeSelector={"disk": "fast"}))

    event = await machine.until("events", lambda e: e["reason"] == "FailedScheduling")
    assert event["message"] == (
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    )

    await machine.node("n2", disk="fast")
    found = await machine.until("pods", lambda p: p["spec"].get("nodeName"))
    assert found["spec"]["nodeName"] == "n2"


async def test_pods_of_a_node_that_is_gone_go_too(machine):
    await machine.api.create("pods", pod("web"))
    await machine.until("pods", lambda p: p["spec"].get("nodeName"))

    await machine.api.delete("nodes", "n1")

    await machine.until_gone("pods", "web")
