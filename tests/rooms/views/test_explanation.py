"""Why each endpoint gets its share of a client's calls: never another story than the proxy's own."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.mesh.localities import Locality
from isthmus.mesh.workloads import Health
from isthmus.runtime import explaining
from isthmus.testing import builders, shapes
from isthmus.views import explanation, view, walks

NAME = "outbound|80|{}|web.default.svc.cluster.local"


def explained(mesh, call="web:80", client="east/client"):
    """Return the explanation of a call, and the slices that the caller was told."""
    pod = mesh.proxy(client).pod
    scopes = mesh.scopes_of(pod)
    proxy = mesh.graph.get(mesh.views.proxies, pod.connection)
    told = {
        slice_.cluster_name: slice_
        for scope in scopes
        for slice_ in mesh.slices_of(scope).values()
        if isinstance(slice_, view.EndpointsSlice)
    }
    explainer = explaining.Explainer(mesh, authority=lambda: None)
    return explainer.explained(proxy, scopes, call=call), told


def endpoints(document):
    return {one["address"]: one for leg in document["legs"] for one in leg["endpoints"]}


def two_networks(*, shape=shapes.USUAL, has_gateway=True):
    mesh = builders.Mesh()
    east, west = mesh.cluster("east", network="n1"), mesh.cluster("west", network="n2")
    if has_gateway:
        west.gateway(external="172.30.0.9")
    mesh.expose_services()
    east.service("web", ready=["10.0.0.1"], shape=shape)
    west.service("web", ready=["10.1.0.1", "10.1.0.2"], shape=shape)
    return mesh


# --- the same as what is told


def set_of(document):
    """Return the addresses by which the explained endpoints are called."""
    return {
        place
        for one in endpoints(document).values()
        for place in (one["via"] or [f"{one['address']}:{one['port']}"])
        if one["verdict"] != "excluded"
    }


@settings(max_examples=60, deadline=None)
@given(
    gateways=st.lists(st.sampled_from(["up", "down", "none"]), min_size=3, max_size=3),
    networks=st.lists(st.sampled_from(["n1", "n2", "n3", ""]), min_size=3, max_size=3),
    proxied=st.lists(st.booleans(), min_size=3, max_size=3),
    counts=st.lists(st.integers(0, 3), min_size=3, max_size=3),
    mode=st.sampled_from([None, "DISABLE", "ISTIO_MUTUAL"]),
    is_local=st.booleans(),
    distributes=st.booleans(),
)
def test_what_is_explained_is_what_is_told(
    gateways, networks, proxied, counts, mode, is_local, distributes
):
    mesh = builders.Mesh()
    local = [{"settings": {"clusterLocal": True}, "hosts": ["web.default.svc.cluster.local"]}]
    for index, (state, network) in enumerate(zip(gateways, networks, strict=True)):
        cluster = mesh.cluster(f"c{index}", network=network)
        if not index and is_local:
            mesh.configure(serviceSettings=local)
        cluster.node("node", region=f"r{index % 2}", zone=f"z{index}")
        if state != "none" and network:
            pod = cluster.gateway(external=f"172.30.0.{index + 1}")
            if state == "down":
                cluster.endpoints(
                    "istio-eastwestgateway", namespace=builders.SYSTEM, ready=[],
                    unready=[pod.address], ports=builders.PASSED_PORTS,
                )  # fmt: skip
        # Without a proxy it speaks no mutual TLS.
        shape = (
            shapes.Shape(node="node") if proxied[index] else shapes.Shape(node="node", proxy=None)
        )
        ready = [f"10.{index}.0.{number}" for number in range(1, 1 + counts[index])]
        cluster.service("web", ready=ready, shape=shape)
    mesh.expose_services()
    policy = {"tls": {"mode": mode}} if mode else {}
    if distributes:
        share = {"from": "*", "to": {"r0/*": 80, "r1/*": 20}}
        policy["loadBalancer"] = {"localityLbSetting": {"distribute": [share]}}
    subsets = [{"name": "c1", "labels": {"topology.istio.io/cluster": "c1"}}]
    spec = {"host": "web", "trafficPolicy": policy, "subsets": subsets}
    mesh.destination_rule("web", spec)
    for subset in ("", "c1"):
        to = {"host": "web", "subset": subset} if subset else {"host": "web"}
        mesh.virtual_service("web", {"hosts": ["web"], "http": [{"route": [{"destination": to}]}]})

        document, told = explained(mesh, client="c0/client")

        slice_ = told[NAME.format(subset)]
        groups = [one for group in slice_.groups for one in group.endpoints]
        assert set_of(document) == {f"{one.address}:{one.port}" for one in groups}
        shares = [one["share"] for one in endpoints(document).values()]
        assert sum(shares) == pytest.approx(1 if groups else 0)
        assert all(one["reason"] for one in endpoints(document).values() if not one["share"])


# --- reasons


def test_an_endpoint_behind_a_gateway_names_it_and_shares_what_it_gets():
    found = endpoints(explained(two_networks())[0])

    assert found["10.0.0.1"]["verdict"] == "preferred"
    assert found["10.1.0.1"]["via"] == found["10.1.0.2"]["via"] == ["172.30.0.9:15443"]
    assert found["10.1.0.1"]["share"] == pytest.approx(1 / 3)


def test_what_is_not_ready_is_excluded_with_this_reason():
    mesh = two_networks()
    mesh.clusters["west"].endpoints(
        "web", ready=["10.1.0.1"], unready=["10.1.0.2"], ports={"http": 80}
    )

    assert reason(mesh, "10.1.0.2") == explanation.Reason.NOT_READY.value


def reason(mesh, address):
    return endpoints(explained(mesh)[0])[address]["reason"]


def test_without_a_proxy_no_gateway_passes_it_on():
    mesh = two_networks(shape=shapes.Shape(proxy=None))

    assert reason(mesh, "10.1.0.1") == explanation.Reason.NO_MTLS.value
    assert reason(mesh, "10.0.0.1") == ""


def test_a_gateway_without_a_ready_pod_is_the_reason():
    mesh = two_networks()
    mesh.clusters["west"].endpoints(
        "istio-eastwestgateway",
        namespace=builders.SYSTEM,
        ready=[],
        unready=[mesh.pod_at("172.30.0.9", network="").address],
        ports=builders.PASSED_PORTS,
    )

    assert reason(mesh, "10.1.0.1") == explanation.Reason.GATEWAY_DOWN.value


def test_a_network_without_any_gateway_is_dialled_directly():
    found = endpoints(explained(two_networks(has_gateway=False))[0])

    assert found["10.1.0.1"]["verdict"] == "preferred"


def test_a_cluster_local_service_keeps_others_out():
    mesh = two_networks()
    hosts = ["web.default.svc.cluster.local"]
    mesh.configure(serviceSettings=[{"settings": {"clusterLocal": True}, "hosts": hosts}])

    assert reason(mesh, "10.1.0.1") == explanation.Reason.CLUSTER_LOCAL.value


def test_a_subset_leaves_out_what_lacks_its_labels_and_names_rule_and_route():
    mesh = two_networks()
    labels = {"topology.istio.io/cluster": "west"}
    mesh.destination_rule("rule", {"host": "web", "subsets": [{"name": "w", "labels": labels}]})
    route = {"route": [{"destination": {"host": "web", "subset": "w"}}]}
    mesh.virtual_service("split", {"hosts": ["web"], "http": [route]})

    document, _ = explained(mesh)

    [leg] = document["legs"]
    assert leg["virtualService"] == "split.default"
    assert leg["destinationRule"] == {"name": "rule.default", "place": "client's namespace"}
    assert endpoints(document)["10.0.0.1"]["reason"] == explanation.Reason.SUBSET.value


def test_a_headless_service_is_dialled_pod_by_pod():
    mesh = two_networks(shape=shapes.Shape(is_headless=True))
    found = endpoints(explained(mesh)[0])

    assert found["10.0.0.1"]["verdict"] == "preferred"
    assert found["10.1.0.1"]["reason"] == explanation.Reason.OTHER_NETWORK.value


# --- policies


def judged(mesh):
    return endpoints(explained(mesh)[0])["10.0.0.1"]


def test_the_policy_that_says_what_is_accepted_is_named():
    mesh = two_networks()
    assert judged(mesh)["peerAuthentication"] == {"mode": "PERMISSIVE", "policy": ""}

    mesh.peer_authentication("istio-system", "STRICT", name="mesh")
    assert judged(mesh)["peerAuthentication"] == {"mode": "STRICT", "policy": "mesh.istio-system"}

    mesh.peer_authentication("default", "PERMISSIVE", name="ns")
    mesh.peer_authentication(
        "default", "UNSET", name="port", selector={"app": "web"}, ports={80: "STRICT"}
    )
    assert judged(mesh)["peerAuthentication"] == {"mode": "STRICT", "policy": "port.default"}


CALLER = "cluster.local/ns/default/sa/default"


@pytest.mark.parametrize(
    ("action", "rules", "outcome"),
    [
        ("ALLOW", [{"from": [{"source": {"principals": [CALLER]}}]}], "allowed"),
        ("ALLOW", [{"from": [{"source": {"principals": ["other/ns/a/sa/b"]}}]}], "denied"),
        ("ALLOW", [{"to": [{"operation": {"paths": ["/a"]}}]}], "depends on the request"),
        ("ALLOW", [{"to": [{"operation": {"ports": ["81"]}}]}], "denied"),
        ("ALLOW", [], "denied"),
        ("DENY", [{}], "denied"),
        ("DENY", [{"from": [{"source": {"namespaces": ["default"]}}]}], "denied"),
        ("DENY", [{"from": [{"source": {"notNamespaces": ["default"]}}]}], "allowed"),
        ("DENY", [{"to": [{"operation": {"methods": ["GET"]}}]}], "depends on the request"),
        ("DENY", [], "allowed"),
    ],
)
def test_what_policies_say_of_the_caller_is_told_and_nothing_is_guessed(action, rules, outcome):
    mesh = two_networks()
    mesh.authorization_policy("p", {"action": action, "rules": rules})

    found = judged(mesh)["authorization"]

    assert found["outcome"] == outcome
    assert [one["name"] for one in found["policies"]] == ["p.default"]


def test_a_caller_in_plain_text_has_no_identity():
    mesh = two_networks()
    mesh.destination_rule("plain", {"host": "web", "trafficPolicy": {"tls": {"mode": "DISABLE"}}})
    rule = {"from": [{"source": {"namespaces": ["default"]}}]}
    mesh.authorization_policy("p", {"action": "ALLOW", "rules": [rule]})

    assert judged(mesh)["mutualTls"] is False
    assert judged(mesh)["authorization"]["outcome"] == "denied"


# --- names


@pytest.mark.parametrize(
    "call",
    ["web", "web:80", "http://web/x", "web.default", "WEB.default.svc", "web.default.svc.cluster.local.:80"],
)  # fmt: skip
def test_every_name_that_the_caller_may_use_is_understood(call):
    document, _ = explained(two_networks(), call)

    assert document["service"]["hostname"] == "web.default.svc.cluster.local"
    assert document["call"]["port"] == 80


def test_an_address_is_understood_as_the_service_that_has_it():
    document, _ = explained(two_networks(), "10.96.0.1:80")

    assert document["service"]["name"] == "web"


def test_what_nobody_knows_passes_through():
    document, _ = explained(two_networks(), "example.com:443")

    assert document["service"] is None
    assert [leg["cluster"] for leg in document["legs"]] == ["PassthroughCluster"]


@pytest.mark.parametrize("call", ["", ":80", "web:x", "web:70000", "web:81", "://"])
def test_what_is_no_call_is_refused(call):
    with pytest.raises(walks.CallNotUnderstood):
        explained(two_networks(), call)


def test_a_gateway_makes_no_calls():
    mesh = two_networks()
    gateway = mesh.pod_at("172.30.0.9", network="")

    with pytest.raises(walks.CallNotUnderstood, match="gateway"):
        explained(mesh, client=f"west/istio-system/{gateway.name}")


# --- shares


def group(priority, weight, *healths):
    members = [
        view.LbEndpoint(f"10.{priority}.{weight}.{index}", 80, 1, health=health)
        for index, health in enumerate(healths)
    ]
    return view.LocalityGroup(Locality("r", f"z{weight}"), weight, tuple(members), priority)


WELL, ILL = Health.HEALTHY, Health.UNHEALTHY


@pytest.mark.parametrize(
    ("groups", "weighs", "shares"),
    [
        ([group(0, 1, WELL, WELL)], False, [0.5, 0.5]),
        ([group(0, 1, WELL), group(1, 1, WELL)], False, [1.0, 0.0]),
        ([group(0, 1, ILL), group(1, 1, WELL)], False, [0.0, 1.0]),
        # Half of the near ones are well: 1.4 times that stays, the rest spills over.
        ([group(0, 1, WELL, ILL), group(1, 1, WELL)], False, [0.7, 0.0, 0.3]),
        ([group(0, 30, WELL), group(0, 70, WELL, WELL)], True, [0.3, 0.35, 0.35]),
        ([group(0, 30, WELL), group(0, 70, ILL)], True, [1.0, 0.0]),
        ([group(0, 1, ILL)], False, [0.0]),
        ([], False, []),
    ],
)
def test_shares_follow_envoys_rules(groups, weighs, shares):
    found = explanation.shares_of(groups, weighs_places=weighs)

    assert [one.share for one in found] == pytest.approx(shares)


@pytest.mark.parametrize("speaks_tunnels", [True, False])
def test_what_is_called_through_a_tunnel_is_not_called_in_plain_text(speaks_tunnels):
    mesh = builders.Mesh()
    east = mesh.cluster("east", network="n1")
    east.service("web", ready=["10.0.0.1"], shape=shapes.CAPTURED)
    east.pod("client", shape=builders.Shape(speaks_tunnels=speaks_tunnels))

    document, _ = explained(mesh)

    (one,) = endpoints(document).values()
    assert one["mutualTls"] is speaks_tunnels
    assert one["peerAuthentication"]["mode"] == "PERMISSIVE"
