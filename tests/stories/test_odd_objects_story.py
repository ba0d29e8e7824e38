"""An object that nobody can make sense of changes nothing but itself.

Whatever an object of one namespace says, proxies of other namespaces are told the same bytes as
without it; and when it is gone, nothing of it is left.
"""

import functools
import json

import hypothesis
import msgspec
import pytest
from hypothesis import strategies

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.mesh.identities import ClusterId
from isthmus.resources import snapshot
from isthmus.resources.envoy import build
from isthmus.testing import builders, envoys

ODD = "odd"
WORDS = strategies.sampled_from(
    [
        "",
        "*",
        ".",
        "~",
        "web",
        "a",
        "STRICT",
        "ALLOW",
        "DENY",
        "exact",
        "prefix",
        "regex",
        "(",
        "80",
    ]
)
LEAVES = strategies.one_of(
    strategies.none(),
    strategies.booleans(),
    strategies.integers(-1, 70000),
    strategies.floats(allow_nan=False, allow_infinity=False),
    WORDS,
    strategies.text(max_size=8),
)
FIELDS = {
    "virtual_services": ["hosts", "gateways", "http", "tcp", "tls", "match", "route", "uri"],
    "destination_rules": ["host", "trafficPolicy", "subsets", "labels", "name", "loadBalancer"],
    "authorization_policies": ["action", "rules", "from", "to", "source", "principals", "selector"],
}


def documents(names):
    """Return any JSON, with these names among its fields."""
    keys = strategies.one_of(strategies.sampled_from(names), WORDS)
    return strategies.recursive(
        LEAVES,
        lambda inner: strategies.one_of(
            strategies.lists(inner, max_size=3), strategies.dictionaries(keys, inner, max_size=4)
        ),
        max_leaves=20,
    )


def some(**fields):
    return strategies.fixed_dictionaries({}, optional=fields)


NAMES = strategies.sampled_from(["web", "other"])
TARGETS = strategies.fixed_dictionaries({"host": NAMES}, optional={"subset": WORDS})
ROUTES = strategies.lists(
    strategies.fixed_dictionaries({"destination": TARGETS}), min_size=1, max_size=2
)
LABELS = strategies.sampled_from([{}, {"app": "web"}, {"app": "nobody"}])
EXPORTS = strategies.lists(strategies.sampled_from(["*", ".", "default", "~"]), max_size=2)
POLICIES = some(
    loadBalancer=some(simple=strategies.sampled_from(["RANDOM", "ROUND_ROBIN", "odd"])),
    tls=some(mode=strategies.sampled_from(["DISABLE", "ISTIO_MUTUAL", "odd"])),
    outlierDetection=some(consecutive5xxErrors=strategies.integers(-1, 5)),
)
PLAUSIBLE = {
    "virtual_services": strategies.fixed_dictionaries(
        {"hosts": strategies.lists(NAMES, min_size=1, max_size=2)},
        optional={
            "http": strategies.lists(
                strategies.fixed_dictionaries(
                    {"route": ROUTES}, optional={"match": documents(["uri"]), "timeout": WORDS}
                ),
                max_size=2,
            ),
            "tcp": strategies.lists(some(route=ROUTES), max_size=1),
            "exportTo": EXPORTS,
            "gateways": strategies.lists(strategies.sampled_from(["mesh", "a"]), max_size=2),
        },
    ),
    "destination_rules": some(
        host=NAMES,
        trafficPolicy=POLICIES,
        subsets=strategies.lists(
            some(name=WORDS, labels=LABELS, trafficPolicy=POLICIES), max_size=2
        ),
        exportTo=EXPORTS,
    ),
    "authorization_policies": some(
        action=strategies.sampled_from(["ALLOW", "DENY", "odd"]),
        selector=some(matchLabels=LABELS),
        rules=strategies.lists(documents(FIELDS["authorization_policies"]), max_size=2),
    ),
}


def specs(kind):
    names = strategies.sampled_from(FIELDS[kind])
    anything = strategies.dictionaries(names, documents(FIELDS[kind]), max_size=5)
    return strategies.one_of(PLAUSIBLE[kind], PLAUSIBLE[kind], anything)


@pytest.fixture(scope="module")
def mesh():
    """Two clusters with services, gateways and policies, all of them in other namespaces."""
    mesh = builders.Mesh()
    for number in (1, 2):
        cluster = mesh.cluster(f"c{number}", network=f"n{number}")
        ports = {"http": 80, "tcp": 9000, "unnamed": 7000}
        cluster.service("web", ready=[f"10.{number}.0.1", f"10.{number}.0.2"], ports=ports)
        cluster.service("other", ready=[f"10.{number}.0.4"], ports=ports)
        cluster.service("web", namespace=ODD, ready=[f"10.{number}.0.5"], ports=ports)
        cluster.service("other", namespace=ODD, ready=[f"10.{number}.0.6"], ports=ports)
        cluster.service("web", namespace="shop", ready=[f"10.{number}.0.3"], ports=ports)
        cluster.gateway(external=f"172.30.0.{number}")
        cluster.pod("client")
    mesh.expose_services()
    mesh.virtual_service(
        "web", {"hosts": ["web"], "http": [{"route": [{"destination": {"host": "web"}}]}]}
    )
    mesh.destination_rule("web", {"host": "web", "subsets": [{"name": "all", "labels": {}}]})
    mesh.peer_authentication("default", "STRICT")
    mesh.authorization_policy("web", {"rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]})
    for pod in mesh.pods:
        mesh.scopes_of(pod)
    assert len(told(mesh)) > 100
    return mesh


def told(mesh):
    """Return all bytes that proxies outside the odd namespace are told, by proxy and name."""
    return {
        (pod.connection, *name): body
        for pod in mesh.pods
        if pod.namespace != ODD
        for scope in mesh.graph.get(mesh.views.proxy_scopes, pod.connection) or ()
        for slice_ in mesh.slices_of(scope).values()
        for name, body in parts_of(slice_)
    }


def is_odd(body):
    return b".odd.svc" in body


@functools.lru_cache(maxsize=10_000)
def parts_of(slice_):
    """Return the names and bytes of a resource, or of each host in it, which services share."""
    resource = build.build(slice_)
    if resource.type_url != snapshot.ROUTES:
        return [((resource.type_url, resource.name), resource.body)]
    return [
        ((resource.type_url, resource.name, host.name), host.SerializeToString(deterministic=True))
        for host in envoys.decoded(resource).virtual_hosts
    ]


def without(mesh, source, key):
    with mesh.graph.transaction() as transaction:
        transaction.delete(source, key)


@pytest.mark.parametrize("kind", FIELDS)
def test_what_an_object_of_one_namespace_says_is_nothing_to_the_others(mesh, kind):
    start = told(mesh)
    before = {name: body for name, body in start.items() if not is_odd(body)}
    source = getattr(mesh.sources, kind)
    key = ObjectKey(ClusterId("c1"), ODD, "it")

    @hypothesis.settings(max_examples=50)
    @hypothesis.given(specs(kind))
    def check(spec):
        text = json.dumps({"metadata": {"name": "it", "namespace": ODD}, "spec": spec})
        mesh.put(source, key, msgspec.json.decode(text, type=objects.FreeForm))
        now = told(mesh)
        assert {name: now.get(name) for name in before} == before
        assert not [name for name in now.keys() - start.keys() if not is_odd(now[name])]

    check()
    without(mesh, source, key)
    assert told(mesh) == start


NUMBERS = strategies.integers(-1, 70000)
ADDRESSES = strategies.one_of(
    strategies.sampled_from(
        ["", "None", "0.0.0.0", "127.0.0.1", "169.254.169.254", "10.1.0.1", "::1"]
    ),
    strategies.text(max_size=10),
)


@strategies.composite
def services(draw):
    ports = draw(
        strategies.lists(
            strategies.builds(
                objects.ServicePort,
                name=WORDS,
                port=NUMBERS,
                protocol=strategies.sampled_from(["TCP", "UDP", "SCTP", "odd"]),
                app_protocol=WORDS,
            ),
            max_size=3,
        )
    )
    spec = objects.ServiceSpec(
        cluster_ip=draw(ADDRESSES),
        type=draw(strategies.sampled_from(["ClusterIP", "LoadBalancer", "ExternalName", "odd"])),
        external_name=draw(WORDS),
        ports=tuple(ports),
    )
    return objects.Service(objects.Metadata("new", namespace=ODD), spec=spec)


@strategies.composite
def slices(draw):
    endpoints = draw(
        strategies.lists(
            strategies.builds(
                objects.SliceEndpoint,
                addresses=strategies.lists(ADDRESSES, max_size=2).map(tuple),
                conditions=strategies.just(objects.EndpointConditions(ready=True)),
            ),
            max_size=3,
        )
    )
    labels = {"kubernetes.io/service-name": draw(strategies.sampled_from(["web", "new", ""]))}
    return objects.EndpointSlice(
        objects.Metadata("new-1", namespace=ODD, labels=labels), endpoints=tuple(endpoints)
    )


ENTRIES = some(
    hosts=strategies.lists(
        strategies.sampled_from(
            ["web.default.svc.cluster.local", "*.local", "*.b", "a.b", "A.b.", "*", "a", ""]
        ),
        max_size=3,
    ),
    addresses=strategies.lists(ADDRESSES, max_size=2),
    ports=strategies.lists(
        some(
            number=NUMBERS,
            name=WORDS,
            protocol=strategies.sampled_from(["HTTP", "TLS", "HTTPS", "TCP", "GRPC", "UDP", "odd"]),
            targetPort=NUMBERS,
        ),
        max_size=3,
    ),
    location=strategies.sampled_from(["MESH_INTERNAL", "MESH_EXTERNAL", "odd"]),
    resolution=strategies.sampled_from(["NONE", "STATIC", "DNS", "DNS_ROUND_ROBIN", "odd"]),
    endpoints=strategies.lists(
        some(
            address=ADDRESSES,
            ports=strategies.dictionaries(WORDS, NUMBERS, max_size=2),
            network=WORDS,
            locality=WORDS,
            weight=NUMBERS,
            serviceAccount=WORDS,
        ),
        max_size=2,
    ),
    workloadSelector=some(labels=LABELS),
    subjectAltNames=strategies.lists(WORDS, max_size=2),
)


def entries():
    """Return ServiceEntries, plausible ones and any."""
    anything = documents(["hosts", "ports", "number", "endpoints", "address"])
    return strategies.one_of(
        ENTRIES, strategies.dictionaries(strategies.sampled_from(["hosts", "ports"]), anything)
    ).map(lambda spec: objects.FreeForm(objects.Metadata("new", namespace=ODD), spec=spec))


KINDS = [("services", services()), ("endpoint_slices", slices()), ("service_entries", entries())]


@pytest.mark.parametrize(("kind", "odd"), KINDS)
def test_a_service_of_one_namespace_leaves_those_of_others_alone(mesh, kind, odd):
    before = {key: body for key, body in told(mesh).items() if key[1] in PER_SERVICE}
    source = getattr(mesh.sources, kind)
    key = ObjectKey(ClusterId("c1" if kind == "service_entries" else "c2"), ODD, "new")

    @hypothesis.settings(max_examples=50)
    @hypothesis.given(odd)
    def check(object_):
        mesh.put(source, key, object_)
        now = told(mesh)
        assert {name: now.get(name) for name in before} == before

    check()
    without(mesh, source, key)
    assert {name: body for name, body in told(mesh).items() if name[1] in PER_SERVICE} == before


PER_SERVICE = {snapshot.CLUSTERS, snapshot.ENDPOINTS}
"""Resources of single services; listeners and routes of a port are shared by all."""
