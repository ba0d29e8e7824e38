"""Whatever happened before: what is shared follows from what there is now."""

import dataclasses

from hypothesis import given, settings
from hypothesis import strategies as st

from fakes import links
from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.mesh.ambient import Scope
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import consistency
from isthmus.testing import builders, shapes
from isthmus.testing.shapes import Shape

SHARED, ABSENT = "default/reviews", "absent"
SCOPES = {
    "global": Scope(derives=True),
    "global-only": Scope(derives=True, takes_over=True),
    "istio": Scope(takes_over=True),
}
CLUSTERS = ("east", "west")
own = st.tuples(
    st.just("own"),
    st.sampled_from(CLUSTERS),
    st.sampled_from([ABSENT, "", "cluster", "global", "global-only", "unknown"]),
    st.booleans(),
    st.sampled_from(["", "Any", "PreferClose", "nonsense"]),
)
around = st.tuples(
    st.just("namespace"), st.sampled_from(CLUSTERS), st.sampled_from(["", "global", "unknown"])
)
told = st.tuples(
    st.just("told"), st.sampled_from([ABSENT, *SCOPES]), st.integers(0, 2), st.booleans()
)
recorded = st.tuples(
    st.just("recorded"), st.sampled_from(["", "240.240.1.1", "10.0.0.1", "240.240.0.0"])
)
entries = st.tuples(st.just("entry"), st.booleans())
events = st.one_of(own, around, told, recorded, entries)


def start():
    mesh = builders.Mesh()
    for number, (name, network) in enumerate(zip(CLUSTERS, ("n1", "n2"), strict=True)):
        cluster = mesh.cluster(name, network=network)
        cluster.gateway(external=f"172.30.0.{number}", ports={"tls": 15443, "hbone": 15008})
        shape = Shape(proxy=None, is_captured=True)
        cluster.pod("reviews-0", address=f"10.{number}.0.1", shape=shape)
    mesh.expose_services()
    links.put(mesh, peer="far", network="n3")
    return mesh


def happen(mesh, what, *said):
    """Make one of the events happen."""
    match what, *said:
        case "own", cluster, scope, is_ready, distribution:
            place = mesh.clusters[cluster]
            key = ObjectKey(place.id, "default", "reviews")
            if scope == ABSENT:
                gone(mesh, mesh.sources.services, key)
                gone(mesh, mesh.sources.endpoint_slices, ObjectKey(*key_of(key, "reviews-1")))
                return
            address = f"10.{CLUSTERS.index(cluster)}.0.1"
            shape = Shape(proxy=None, is_captured=True, scope=scope, distribution=distribution)
            ready = {"ready" if is_ready else "unready": [address]}
            place.service("reviews", shape=shape, **ready)
        case "namespace", cluster, scope:
            labels = {"solo.io/service-scope": scope} if scope else {}
            key = ObjectKey(mesh.clusters[cluster].id, "", "default")
            namespace = objects.Namespace(shapes.metadata("default", "", labels))
            mesh.put(mesh.sources.namespaces, key, namespace)
        case "told", scope, pods, has_more:
            if scope == ABSENT:
                links.withdraw(mesh, "far", SHARED)
            else:
                ports = (80, 81) if has_more else (80,)
                links.tell(mesh, "far", SHARED, SCOPES[scope], pods=pods, ports=ports)
        case "recorded", address:
            key = ObjectKey(mesh.clusters["east"].id, "istio-system", "autogen.default.reviews")
            labels = {"isthmus.dev/derived-service": "true"}
            host = "reviews.default.mesh.internal"
            given = [{"host": host, "value": address}] if address else []
            entry = objects.ServiceEntry(
                shapes.metadata("autogen.default.reviews", "istio-system", labels),
                {"hosts": [host]},
                {"addresses": given},
            )
            mesh.put(mesh.sources.service_entries, key, entry)
        case "entry", is_there:
            spec = {
                "hosts": ["reviews.default.mesh.internal"],
                "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
                "resolution": "STATIC",
                "endpoints": [{"address": "10.9.9.9"}],
            }
            if is_there:
                mesh.service_entry("mine", spec)
            else:
                key = ObjectKey(mesh.clusters["east"].id, "default", "mine")
                gone(mesh, mesh.sources.service_entries, key)


def key_of(key, name):
    return key.cluster, key.namespace, name


def gone(mesh, source, key):
    if mesh.graph.get(source, key) is not None:
        with mesh.graph.transaction() as transaction:
            transaction.delete(source, key)


def proxies(mesh):
    """Connect a proxy of each kind in each cluster."""
    found = []
    for name in CLUSTERS:
        cluster = mesh.clusters[name]
        found.append(cluster.pod("ztunnel", shape=Shape(proxy=ProxyKind.ZTUNNEL)))
        found.append(cluster.pod("client", shape=Shape(dns="captured")))
    return [*found, *(pod for pod in mesh.pods if pod.proxy is ProxyKind.ROUTER)]


def seen(mesh, pods):
    """Return all that proxies are told, all that is wrong, and all that is written down."""
    told_of = []
    for pod in pods:
        snapshot = mesh.snapshot_of(pod)
        assert consistency.missing(snapshot) == ()
        told_of.append({kind: {name: one.body for name, one in snapshot.of(kind).items()}
                        for kind in consistency.MESSAGES})  # fmt: skip
    findings = sorted(map(repr, mesh.graph.items(mesh.model.findings).values()))
    written = dict(mesh.graph.items(mesh.views.written.shared))
    return told_of, findings, written, dict(mesh.graph.items(mesh.model.peers.exports))


def afresh(mesh):
    """Return a mesh of the same objects that has never been otherwise."""
    other = builders.Mesh()
    for cluster in mesh.clusters.values():
        other.cluster(cluster.name, network=cluster.network)
    other.pods = list(mesh.pods)
    with other.graph.transaction() as transaction:
        for field in dataclasses.fields(mesh.sources):
            for key, one in mesh.graph.items(getattr(mesh.sources, field.name)).items():
                transaction.put(getattr(other.sources, field.name), key, one)
        for key, one in mesh.graph.items(mesh.model.peers.told).items():
            transaction.put(other.model.peers.told, key, one)
    return other


@settings(max_examples=40, deadline=None)
@given(st.lists(events, max_size=12))
def test_what_is_shared_follows_from_what_there_is(history):
    mesh = start()
    pods = proxies(mesh)
    for event in history:
        seen(mesh, pods[:1])
        happen(mesh, *event)
        assert mesh.graph.findings() == ()

    assert seen(mesh, pods) == seen(afresh(mesh), pods)
