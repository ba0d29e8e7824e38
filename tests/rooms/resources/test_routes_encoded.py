"""Routes are put together from the bytes of their hosts, and say what the library would write."""

import dataclasses

import pytest
from envoy_examples import ROUTES

from isthmus.mesh.traffic import HashKey, HashOf
from isthmus.resources.envoy import build, routes
from isthmus.views import routing, view


def host(number, **more):
    name = f"s{number}.shop.svc.cluster.local:80"
    key = HashKey(HashOf.HEADER, "x-user") if number % 2 else None
    plain = routing.plain_host(
        name, domains=(name, f"s{number}"), host=name, port=80, cluster_name=name, key=key
    )
    return dataclasses.replace(plain, **more)


@pytest.mark.parametrize(
    "slice_",
    [
        ROUTES,
        view.RouteSlice("80", ()),
        view.RouteSlice("80", tuple(map(host, range(300)))),
        view.RouteSlice("80", (host(1),), fallback_cluster=""),
        view.RouteSlice("x:80", (host(2, domains=("*",)),), names_caller=True),
        view.RouteSlice("443", (host(3, needs_tls=True),), "", 404),
    ],
)
def test_what_is_put_together_is_what_the_library_writes(slice_):
    said = routes.configuration_of(slice_).SerializeToString(deterministic=True)

    assert build.build(slice_).body == said


def test_a_host_that_several_see_is_serialized_once():
    shared = tuple(map(host, range(1000, 1010)))
    before = routes._encoded_host.cache_info().misses
    build.build(view.RouteSlice("80", shared))
    build.build(view.RouteSlice("80", shared, fallback_cluster=""))

    assert routes._encoded_host.cache_info().misses == before + len(shared)
