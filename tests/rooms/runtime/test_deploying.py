"""What runs for Gateway objects, against the lab's own API server and its controllers."""

import contextlib

import pytest

from fakes import lab_cluster
from isthmus.base import tasks
from isthmus.install import gateway_crds, rights
from isthmus.kube import access, apply, client
from isthmus.lab.apiserver import pki
from isthmus.runtime import deploying

NAMESPACE = "istio-gateways"
KEPT = "deployments.apps", "services", "serviceaccounts"
GATEWAYS = "gateways.gateway.networking.k8s.io"
CLASSES = "gatewayclasses.gateway.networking.k8s.io"
ANNOTATION = "networking.istio.io/service-type"


@pytest.fixture
async def cluster():
    async with lab_cluster.running_cluster() as found, lab_cluster.served(found):
        await found.node("n1")
        await found.namespace(NAMESPACE)
        _ = found.nursery.start("fake kubelet", found.run_pods())
        yield found


@pytest.fixture
async def writes(cluster, tmp_path):
    file = tmp_path / "config"
    file.write_text(pki.kubeconfig(cluster.authority, name="c1", server=cluster.url))
    async with client.Client(access.from_kubeconfig(str(file), context=None)) as opened:
        yield opened


@pytest.fixture
async def kinds_served(writes):
    await apply.apply(writes, gateway_crds.manifests())


@contextlib.asynccontextmanager
async def at_work(writes, *, may_write=lambda: True, revision="default"):
    running = deploying.Gateways(writes, may_write, place=deploying.Place(revision))
    async with tasks.Nursery() as nursery:
        yield nursery.keep("gateways", running.run)


def gateway(name="istio-eastwest", *, class_name="istio-eastwest", **spec):
    listeners = [
        {"name": "cross-network", "port": 15008, "protocol": "HBONE", "tls": {"mode": "Passthrough"}},
        {"name": "xds-tls", "port": 15012, "protocol": "TLS", "tls": {"mode": "Passthrough"}},
    ]  # fmt: skip
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"topology.istio.io/network": "n1", "istio.io/expose-istiod": "15012"},
        },
        "spec": {"gatewayClassName": class_name, "listeners": listeners, **spec},
    }


def http(name="web", **spec):
    listeners = [{"name": "http", "port": 80, "protocol": "HTTP"}]
    return gateway(name, class_name="istio", **{"listeners": listeners, **spec})


def conditions(found):
    return {one["type"]: one for one in found.get("status", {}).get("conditions", ())}


def says(type_, status, reason=""):
    def said(found):
        one = conditions(found).get(type_, {})
        return one.get("status") == status and (not reason or one["reason"] == reason)

    return said


async def shown(cluster, wanted, *, resource=GATEWAYS):
    return await cluster.until(resource, wanted, NAMESPACE)


async def make(cluster, manifest):
    return await cluster.api.create(GATEWAYS, manifest)


async def change(cluster, name, patch):
    await cluster.api.patch(GATEWAYS, name, patch, namespace=NAMESPACE)


async def children(cluster, name):
    return [await cluster.api.get(resource, name, NAMESPACE) for resource in KEPT]


async def test_classes_are_made_and_accepted(cluster, writes, kinds_served):
    async with at_work(writes):
        for name in ("istio", "istio-eastwest", "istio-east-west", "istio-waypoint"):
            found = await cluster.until(
                CLASSES,
                lambda each, name=name: (
                    each["metadata"]["name"] == name and says("Accepted", "True")(each)
                ),
                "",
            )
            assert found["spec"]["controllerName"].startswith("istio.io/")


async def test_a_gateway_gets_an_account_a_service_and_pods_and_says_where_it_is(
    cluster, writes, kinds_served
):
    async with at_work(writes):
        made = await make(cluster, gateway())
        found = await shown(cluster, says("Programmed", "True"))

    account, service, deployment = reversed(await children(cluster, "istio-eastwest"))
    assert [one["value"] for one in found["status"]["addresses"]] == ["172.30.0.100"]
    for one in (account, service, deployment):
        assert one["metadata"]["labels"] == {
            "gateway.istio.io/managed": "istio.io-eastwest-controller",
            "gateway.networking.k8s.io/gateway-name": "istio-eastwest",
            "istio.io/expose-istiod": "15012",
            "topology.istio.io/network": "n1",
        }
        assert one["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]


async def test_a_listener_that_is_not_served_says_so_and_costs_itself_alone(
    cluster, writes, kinds_served
):
    odd = {"name": "odd", "port": 9000, "protocol": "UDP"}
    even = {"name": "http", "port": 80, "protocol": "HTTP"}
    async with at_work(writes):
        await make(cluster, http(listeners=[odd, even]))
        found = await shown(cluster, says("Programmed", "True"))

    said = {one["name"]: conditions({"status": one}) for one in found["status"]["listeners"]}
    assert says("Accepted", "True", "ListenersNotValid")(found)
    assert said["odd"]["Accepted"]["reason"] == "UnsupportedProtocol"
    assert said["odd"]["Programmed"]["status"] == "False"
    assert said["http"]["Programmed"]["status"] == "True"
    _, service, _ = await children(cluster, "web-istio")
    ports = [(one["port"], one["targetPort"]) for one in service["spec"]["ports"]]
    assert ports == [(15021, 15021), (80, 8080)]


async def test_a_second_look_writes_nothing(cluster, writes, kinds_served):
    async with at_work(writes):
        await make(cluster, http())
        await shown(cluster, says("Programmed", "True"))
    # Only now: what was shown may have been a step on the way.
    before = [
        await cluster.api.get(GATEWAYS, "web", NAMESPACE),
        *await children(cluster, "web-istio"),
    ]

    async with at_work(writes):
        await make(cluster, http("other"))
        name = "other"
        await shown(
            cluster,
            lambda each: each["metadata"]["name"] == name and says("Programmed", "True")(each),
        )
    after = [
        await cluster.api.get(GATEWAYS, "web", NAMESPACE),
        *await children(cluster, "web-istio"),
    ]

    versions = [[one["metadata"]["resourceVersion"] for one in some] for some in (before, after)]
    assert versions[0] == versions[1]


async def test_what_somebody_else_has_of_that_name_is_left_alone(cluster, writes, kinds_served):
    theirs = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web-istio", "namespace": NAMESPACE, "labels": {"app": "theirs"}},
        "spec": {"ports": [{"port": 1}]},
    }
    await cluster.api.create("services", theirs)
    async with at_work(writes):
        await make(cluster, http())
        found = await shown(cluster, says("Programmed", "False", "Invalid"))

    kept = await cluster.api.get("services", "web-istio", NAMESPACE)
    assert "does not belong to this Gateway" in conditions(found)["Programmed"]["message"]
    assert kept["metadata"]["labels"] == {"app": "theirs"}
    assert [one["port"] for one in kept["spec"]["ports"]] == [1]
    assert not await cluster.exists("deployments.apps", "web-istio", NAMESPACE)


async def test_a_listener_that_goes_takes_its_port_with_it(cluster, writes, kinds_served):
    two = [{"name": f"h{port}", "port": port, "protocol": "HTTP"} for port in (8000, 9000)]
    async with at_work(writes):
        await make(cluster, http(listeners=two))
        await shown(cluster, says("Programmed", "True"))
        await change(cluster, "web", {"spec": {"listeners": two[:1]}})
        await shown(
            cluster,
            lambda each: [one["port"] for one in each["spec"]["ports"]] == [15021, 8000],
            resource="services",
        )


async def test_what_runs_goes_with_the_gateway(cluster, writes, kinds_served):
    async with at_work(writes):
        await make(cluster, http())
        await shown(cluster, says("Programmed", "True"))
        await cluster.api.delete(GATEWAYS, "web", NAMESPACE)
        for resource in KEPT:
            await cluster.until_gone(resource, "web-istio", NAMESPACE)


@pytest.mark.parametrize(
    "patch",
    [
        {"addresses": [{"type": "Hostname", "value": "ingress.istio-gateways.svc"}]},
        {"gatewayClassName": "somebody-elses"},
        {"infrastructure": {"parametersRef": {"group": "", "kind": "ConfigMap", "name": "x"}}},
    ],
    ids=["addresses", "class", "parameters"],
)
async def test_what_runs_goes_when_it_is_wanted_no_more(cluster, writes, kinds_served, patch):
    async with at_work(writes):
        await make(cluster, http())
        await shown(cluster, says("Programmed", "True"))
        await change(cluster, "web", {"spec": patch})
        for resource in KEPT:
            await cluster.until_gone(resource, "web-istio", NAMESPACE)


async def test_what_was_deleted_or_changed_by_hand_comes_back(cluster, writes, kinds_served):
    chosen = "gateway.networking.k8s.io/gateway-name"
    async with at_work(writes):
        await make(cluster, http())
        await shown(cluster, says("Programmed", "True"))
        # More than once: what it still has to look at after the start may hide that it looks.
        for number in range(2):
            other = {"selector": {chosen: f"other{number}", "app": "x"}}
            await cluster.api.patch("services", "web-istio", {"spec": other}, namespace=NAMESPACE)
            await shown(
                cluster,
                lambda each: each["spec"]["selector"] == {chosen: "web"},
                resource="services",
            )
            old = await cluster.api.get("serviceaccounts", "web-istio", NAMESPACE)
            await cluster.api.delete("serviceaccounts", "web-istio", NAMESPACE)
            await shown(
                cluster,
                lambda each, old=old: (
                    each["metadata"]["name"] == "web-istio"
                    and each["metadata"]["uid"] != old["metadata"]["uid"]
                ),
                resource="serviceaccounts",
            )


async def test_who_does_not_lead_writes_nothing(cluster, writes, kinds_served):
    async with at_work(writes, may_write=lambda: False), at_work(writes, revision="canary"):
        await make(cluster, http())
        await shown_class(cluster, "istio")

        assert not await cluster.exists("deployments.apps", "web-istio", NAMESPACE)


async def shown_class(cluster, name):
    await cluster.until(CLASSES, lambda each: each["metadata"]["name"] == name, "")


async def test_a_revision_runs_the_gateways_that_name_it(cluster, writes, kinds_served):
    canary = http()
    canary["metadata"]["labels"]["istio.io/rev"] = "canary"
    async with at_work(writes, revision="canary"):
        await make(cluster, http("other"))
        await make(cluster, canary)
        found = await shown(cluster, says("Programmed", "True"))

    deployment, _, _ = await children(cluster, "web-istio")
    template = deployment["spec"]["template"]["metadata"]
    assert found["metadata"]["name"] == "web"
    assert template["labels"]["istio.io/rev"] == "canary"
    assert not await cluster.exists("deployments.apps", "other-istio", NAMESPACE)


async def test_a_waypoint_runs_within_its_cluster_and_bears_whom_it_is_for(
    cluster, writes, kinds_served
):
    mesh = {"name": "mesh", "port": 15008, "protocol": "HBONE"}
    made = gateway("waypoint", class_name="istio-waypoint", listeners=[mesh])
    made["metadata"]["labels"] = {"istio.io/waypoint-for": "all"}
    async with at_work(writes):
        await make(cluster, made)
        await shown(cluster, says("Accepted", "True", "Accepted"))

    deployment, service, _ = await children(cluster, "waypoint")
    template = deployment["spec"]["template"]["metadata"]
    assert service["spec"]["type"] == "ClusterIP"
    assert service["metadata"]["labels"]["istio.io/waypoint-for"] == "all"
    assert template["annotations"]["inject.istio.io/templates"] == "waypoint"
    assert template["labels"]["networking.istio.io/tunnel"] == "http"


async def test_a_gateway_may_stay_within_its_cluster(cluster, writes, kinds_served):
    near = http()
    near["metadata"]["annotations"] = {ANNOTATION: "ClusterIP"}
    async with at_work(writes):
        await make(cluster, near)
        found = await shown(cluster, says("Programmed", "True"))

    assert found["status"]["addresses"] == [
        {"type": "Hostname", "value": f"web-istio.{NAMESPACE}.svc.cluster.local"}
    ]


async def test_it_works_with_just_the_rights_that_are_granted(cluster, writes, kinds_served):
    account = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
    role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "r"}
    version, metadata = "rbac.authorization.k8s.io/v1", {"name": "r"}
    granted = {"apiVersion": version, "kind": "ClusterRole", "metadata": metadata}
    bound = {"apiVersion": version, "kind": "ClusterRoleBinding", "metadata": metadata}
    await apply.apply(
        writes,
        [
            {**granted, "rules": [*rights.followed(), *rights.run()]},
            {**bound, "roleRef": role, "subjects": [account]},
        ],
    )
    reached = access.Access(
        server=cluster.url, ca_pem=cluster.authority.ca_pem, token=await cluster.token()
    )
    async with client.Client(reached) as humble, at_work(humble):
        await make(cluster, http())
        await shown(cluster, says("Programmed", "True"))
        await change(cluster, "web", {"spec": {"gatewayClassName": "somebody-elses"}})
        for resource in KEPT:
            await cluster.until_gone(resource, "web-istio", NAMESPACE)


# --- routes


ROUTES = "httproutes.gateway.networking.k8s.io"


def route(name="r", *rules, parent="web", hosts=()):
    spec = {"parentRefs": [{"name": parent}], "rules": list(rules) or [to("app")]}
    return {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {**spec, "hostnames": list(hosts)},
    }


def to(service, **more):
    return {"backendRefs": [{"name": service, "port": 80}], **more}


def app(name="app"):
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"ports": [{"port": 80}]},
    }


def at_parent(found):
    """Return what our controller says of a route at its first parent."""
    ours = [
        one
        for one in found.get("status", {}).get("parents", ())
        if one["controllerName"] == "istio.io/gateway-controller"
    ]
    return conditions({"status": ours[0]}) if ours else {}


async def told(cluster, type_, status, reason):
    def said(found):
        one = at_parent(found).get(type_, {})
        return (one.get("status"), one.get("reason")) == (status, reason)

    return await shown(cluster, said, resource=ROUTES)


async def test_a_route_says_whether_its_backends_are_there_and_is_counted(
    cluster, writes, kinds_served
):
    async with at_work(writes):
        await make(cluster, http())
        await cluster.api.create(ROUTES, route())
        await told(cluster, "ResolvedRefs", "False", "BackendNotFound")
        await cluster.api.create("services", app())
        found = await told(cluster, "ResolvedRefs", "True", "ResolvedRefs")
        assert at_parent(found)["Accepted"]["status"] == "True"
        await shown(cluster, lambda one: counted(one) == [1])
        await cluster.api.delete(ROUTES, "r", NAMESPACE)
        await shown(cluster, lambda one: counted(one) == [0])


def counted(gateway_):
    return [one["attachedRoutes"] for one in gateway_.get("status", {}).get("listeners", ())]


async def test_a_route_says_why_it_does_not_attach(cluster, writes, kinds_served):
    listener = {"name": "http", "port": 80, "protocol": "HTTP", "hostname": "a.example"}
    async with at_work(writes):
        await make(cluster, http(listeners=[listener]))
        await cluster.api.create(ROUTES, route(hosts=["b.example"]))
        await told(cluster, "Accepted", "False", "NoMatchingListenerHostname")
        spec = {"spec": {"listeners": [{**listener, "hostname": "b.example"}]}}
        await change(cluster, "web", spec)
        await told(cluster, "Accepted", "True", "Accepted")


async def test_a_route_for_a_service_says_whether_that_is_there(cluster, writes, kinds_served):
    led = route()
    led["spec"]["parentRefs"] = [{"kind": "Service", "group": "", "name": "called", "port": 80}]
    led["spec"]["rules"] = [{"backendRefs": [{"name": "far", "namespace": "other", "port": 80}]}]
    await cluster.namespace("other")
    async with at_work(writes):
        await cluster.api.create(ROUTES, led)
        await told(cluster, "Accepted", "False", "NoMatchingParent")
        await cluster.api.create("services", app("called"))
        await told(cluster, "Accepted", "True", "Accepted")
        await told(cluster, "ResolvedRefs", "False", "BackendNotFound")
        far = app("far")
        far["metadata"]["namespace"] = "other"
        await cluster.api.create("services", far)
        await told(cluster, "ResolvedRefs", "True", "ResolvedRefs")
        ports = {"spec": {"ports": [{"port": 90}]}}
        await cluster.api.patch("services", "called", ports, namespace=NAMESPACE)
        await told(cluster, "Accepted", "False", "NoMatchingParent")


async def test_a_rule_that_is_not_supported_is_named(cluster, writes, kinds_served):
    bad = to("app", filters=[{"type": "ExtensionRef"}])
    async with at_work(writes):
        await make(cluster, http())
        await cluster.api.create("services", app())
        await cluster.api.create(ROUTES, route("r", bad, to("app")))
        found = await told(cluster, "PartiallyInvalid", "True", "UnsupportedValue")
        assert "rules[0]" in at_parent(found)["PartiallyInvalid"]["message"]
        await cluster.api.patch(ROUTES, "r", {"spec": {"rules": [bad]}}, namespace=NAMESPACE)
        await told(cluster, "Accepted", "False", "UnsupportedValue")


async def test_what_others_say_of_a_route_stays_and_ours_goes_with_the_parent(
    cluster, writes, kinds_served
):
    theirs = {"parentRef": {"name": "theirs"}, "controllerName": "example.com/c", "conditions": []}
    async with at_work(writes):
        await make(cluster, http())
        await cluster.api.create(ROUTES, route())
        status = {"status": {"parents": [theirs]}}
        await cluster.api.patch(ROUTES, "r", status, namespace=NAMESPACE, subresource="status")
        await told(cluster, "Accepted", "True", "Accepted")
        await cluster.api.delete(GATEWAYS, "web", NAMESPACE)
        await shown(
            cluster, lambda one: one.get("status", {}).get("parents") == [theirs], resource=ROUTES
        )
