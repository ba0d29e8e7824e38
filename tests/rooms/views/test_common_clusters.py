"""What sidecars of several namespaces and clusters have in common is computed and held once."""

import pytest

from isthmus.testing import builders
from isthmus.views import outbound_clusters, view

WEB = "outbound|80||web.default.svc.cluster.local"


@pytest.fixture
def mesh():
    """Return two clusters in one network, and proxies of two namespaces in both."""
    mesh = builders.Mesh()
    for number, name in enumerate(("east", "west")):
        cluster = mesh.cluster(name, network="n1")
        cluster.service("web", ready=[f"10.{number}.0.1"], ports={"http": 80})
    return mesh


def see(mesh, *paths):
    """Connect proxies; return the clusters and endpoints that each sees, by its path."""
    return {path: mesh.slices_of(*mesh.scopes_of(mesh.proxy(path).pod)) for path in paths}


def scopes_with(mesh, name, kind=view.Kind.CLUSTER):
    keys = mesh.graph.items(mesh.views.slices)
    return [key.scope for key in keys if (key.kind, key.name) == (kind, name)]


def entry(mesh, name, export_to, *, namespace="default"):
    spec = {
        "hosts": [f"{name}.example.com"],
        "resolution": "DNS",
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
        "exportTo": export_to,
    }
    mesh.service_entry(name, spec, namespace=namespace)
    return f"outbound|80||{name}.example.com"


ALL = ("east/a/one", "east/b/one", "west/a/one", "west/b/one")


def test_a_cluster_and_its_endpoints_exist_once_for_all_namespaces_and_clusters(mesh):
    seen = see(mesh, *ALL)

    assert [type(one) for one in scopes_with(mesh, WEB)] == [view.CommonScope]
    assert len(scopes_with(mesh, WEB, view.Kind.ENDPOINTS)) == 1
    assert all(WEB in {key.name for key in told} for told in seen.values())


def test_what_does_not_reach_beyond_a_cluster_is_told_in_each_by_itself(mesh):
    mesh.configure(serviceSettings=[{"settings": {"clusterLocal": True}, "hosts": ["*"]}])
    seen = see(mesh, "east/a/one", "west/a/one")

    assert view.CommonScope not in {type(one) for one in scopes_with(mesh, WEB)}
    assert {one.cluster for one in scopes_with(mesh, WEB, view.Kind.ENDPOINTS)} == {"east", "west"}
    for path, address in (("east/a/one", "10.0.0.1"), ("west/a/one", "10.1.0.1")):
        (found,) = [
            one
            for key, one in seen[path].items()
            if (key.kind, key.name) == (view.Kind.ENDPOINTS, WEB)
        ]
        assert [one.address for group in found.groups for one in group.endpoints] == [address]


def test_a_rule_of_a_namespace_changes_the_clusters_of_its_own_proxies_alone(mesh):
    see(mesh, *ALL)
    mesh.destination_rule(
        "own", {"host": "web.default.svc.cluster.local", "subsets": [{"name": "v1"}]}, namespace="a"
    )

    own = [one for one in scopes_with(mesh, WEB) if isinstance(one, view.OutboundScope)]
    assert {(one.cluster, one.namespace) for one in own} == {("east", "a"), ("west", "a")}
    subset = "outbound|80|v1|web.default.svc.cluster.local"
    assert {one.namespace for one in scopes_with(mesh, subset)} == {"a"}


def test_a_rule_for_all_leaves_clusters_in_common(mesh):
    see(mesh, *ALL)
    mesh.destination_rule(
        "all", {"host": "web", "trafficPolicy": {"tls": {"mode": "DISABLE"}}}, namespace="default"
    )

    assert [type(one) for one in scopes_with(mesh, WEB)] == [view.CommonScope]


def test_what_few_services_show_to_some_namespaces_is_told_in_each_by_itself(mesh):
    name = entry(mesh, "few", ["a", "b"])
    seen = see(mesh, *ALL, "east/c/one")

    assert {one.namespace for one in scopes_with(mesh, name)} == {"a", "b"}
    assert name not in {key.name for key in seen["east/c/one"]}


def test_what_many_services_show_to_some_namespaces_these_have_in_common(mesh):
    with mesh.one_change():
        found = [entry(mesh, f"s{n}", ["a", "b"]) for n in range(outbound_clusters.MANY)]
    seen = see(mesh, *ALL, "east/c/one")

    for name in found:
        assert [type(one) for one in scopes_with(mesh, name)] == [view.CommonScope]
        assert all(name in {key.name for key in seen[path]} for path in ALL)
        assert name not in {key.name for key in seen["east/c/one"]}


def test_proxies_that_see_alike_hold_the_very_same_scopes(mesh):
    one, other = (mesh.scopes_of(mesh.proxy(f"east/a/{name}").pod) for name in ("one", "two"))

    alike = [(mine, its) for mine, its in zip(one, other, strict=True) if mine == its]
    assert len(alike) > 5
    assert all(mine is its for mine, its in alike)


def computed_for_a_namespace(services):
    mesh = builders.Mesh()
    east = mesh.cluster("east", network="n1")
    with mesh.one_change():
        for number in range(services):
            east.service(f"s{number}", ready=[], ports={"http": 80})
    mesh.scopes_of(mesh.proxy("east/a/one").pod)
    mesh.put(mesh.views.scopes, view.OutboundScope("east", "n1", "b"), 1)
    return mesh.graph.recomputed()


def test_a_namespace_that_comes_computes_nothing_for_each_service():
    assert computed_for_a_namespace(5) == computed_for_a_namespace(50)
