"""What becomes of VirtualServices that delegate, and of the matches of both."""

import pytest

from isthmus.mesh.policies import HttpMatch
from isthmus.registry import delegates


@pytest.mark.parametrize(
    ("root", "leaf", "both"),
    [
        ({"path": "prefix:/a"}, {"path": "prefix:/a/b"}, {"path": "prefix:/a/b"}),
        ({"path": "prefix:/a"}, {"path": "exact:/a/b"}, {"path": "exact:/a/b"}),
        ({"path": "prefix:/a"}, {}, {"path": "prefix:/a"}),
        ({}, {"path": "regex:/a.*"}, {"path": "regex:/a.*"}),
        ({"path": "prefix:/a"}, {"path": "prefix:/b"}, None),
        ({"path": "prefix:/a"}, {"path": "prefix:/"}, None),
        ({"path": "exact:/a"}, {"path": "prefix:/a"}, None),
        ({"path": "prefix:/a"}, {"path": "regex:/a.*"}, None),
        ({"path": "regex:/a.*"}, {"path": "exact:/ab"}, None),
        ({"path": "prefix:/A"}, {"path": "prefix:/ab"}, None),
        ({"path": "prefix:/a"}, {"path": "prefix:/ab", "ignores_case": True}, None),
        (
            {"path": "prefix:/A", "ignores_case": True},
            {"path": "prefix:/ab", "ignores_case": True},
            {"path": "prefix:/ab", "ignores_case": True},
        ),
        ({"method": "GET"}, {"method": "GET"}, {"method": "GET"}),
        ({"method": "GET"}, {"method": "POST"}, None),
        ({"method": "prefix:P"}, {"method": "POST"}, {"method": "POST"}),
        ({"port": 80}, {"port": 80}, {"port": 80}),
        ({"port": 80}, {"port": 81}, None),
        ({"source_namespace": "a"}, {"source_namespace": "b"}, None),
        ({"source": (("a", "1"),)}, {"source": (("a", "2"),)}, None),
        (
            {"source": (("a", "1"),)},
            {"source": (("b", "2"),)},
            {"source": (("a", "1"), ("b", "2"))},
        ),
        (
            {"headers": (("a", "present:"), ("b", "exact:1"))},
            {"headers": (("a", "exact:1"),)},
            {"headers": (("a", "exact:1"), ("b", "exact:1"))},
        ),
        ({"headers": (("a", "exact:1"),)}, {"headers": (("a", "exact:2"),)}, None),
        ({"without_headers": (("a", "exact:1"),)}, {"without_headers": (("a", "prefix:1"),)}, None),
        (
            {"query": (("a", "prefix:1"),)},
            {"query": (("a", "exact:12"),)},
            {"query": (("a", "exact:12"),)},
        ),
        ({"gateways": ("mesh", "a/b")}, {"gateways": ("mesh",)}, {"gateways": ("mesh",)}),
        ({"gateways": ("a/b",)}, {"gateways": ("mesh",)}, None),
    ],
)
def test_requests_must_match_both(root, leaf, both):
    if both is None:
        with pytest.raises(delegates.Conflict):
            delegates.narrowed(HttpMatch(**root), HttpMatch(**leaf))
    else:
        assert delegates.narrowed(HttpMatch(**root), HttpMatch(**leaf)) == HttpMatch(**both)


def put(world, name, **spec):
    world.istio(world.sources.virtual_services, name=name, **spec)


def to(host="web"):
    return {"route": [{"destination": {"host": host}}]}


def handing_on(world, *routes, name="leaf", **more):
    """Return the routes of a root that hands requests below `/a` on."""
    if routes:
        put(world, "leaf", http=list(routes), **more)
    part = {"match": [{"uri": {"prefix": "/a"}}], "delegate": {"name": name}, "timeout": "3s"}
    put(world, "root", hosts=["web"], http=[part, to("rest")])
    (found,) = world.graph.items(world.model.virtual_services).values()
    return [
        (
            [match.path for match in route.matches],
            route.destinations[0].host.partition(".")[0],
            route.timeout_s,
        )
        for route in found.http
    ]


REST = ([], "rest", 0.0)


def test_a_delegates_routes_stand_where_its_root_hands_on(world):
    deep = {"match": [{"uri": {"prefix": "/a/b"}}], **to("deep"), "timeout": "1s"}

    assert handing_on(world, deep, to("flat")) == [
        (["prefix:/a/b"], "deep", 1.0),
        (["prefix:/a"], "flat", 3.0),
        REST,
    ]
    assert world.findings == []


def test_what_a_delegate_matches_outside_of_its_root_is_left_out_and_the_rest_used(world):
    outside = {"match": [{"uri": {"prefix": "/b"}}], **to("out")}

    assert handing_on(world, outside, to("flat")) == [(["prefix:/a"], "flat", 3.0), REST]
    assert "matches nothing that this one hands on" in world.findings[0]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"hosts": ["web"]}, "has hosts of its own"),
        ({"exportTo": ["elsewhere"]}, "is not exported to it"),
    ],
)
def test_a_delegate_that_cannot_be_one_gets_no_request(world, more, said):
    put(world, "leaf", http=[to("flat")], **more)
    put(world, "root", hosts=["a"], http=[{"delegate": {"name": "leaf"}}, to("rest")])
    found = world.graph.items(world.model.virtual_services).values()
    (root,) = [one for one in found if one.name == "root"]

    assert [one.destinations[0].host.partition(".")[0] for one in root.http] == ["rest"]
    assert any(said in one for one in world.findings)


def test_a_delegate_that_is_not_there_yet_is_used_when_it_comes(world):
    assert handing_on(world) == [REST]
    assert "`default/leaf`, which is not there" in world.findings[0]

    put(world, "leaf", http=[to("flat")])
    assert world.findings == []
    assert handing_on(world)[0] == (["prefix:/a"], "flat", 3.0)


def test_delegates_do_not_delegate_and_no_cycle_is_followed(world):
    again = {"delegate": {"name": "leaf"}}

    assert handing_on(world, again, to("flat")) == [(["prefix:/a"], "flat", 3.0), REST]
    assert "which delegates again" in world.findings[0]
    assert "which has hosts" in handing_on_itself(world)


def handing_on_itself(world):
    handing_on(world, name="root")
    return world.findings[0]


@pytest.mark.parametrize(
    "beside", [to(), {"redirect": {"uri": "/b"}}, {"directResponse": {"status": 200}}]
)
def test_a_route_that_delegates_does_nothing_else(world, beside):
    put(world, "leaf", http=[to("flat")])
    put(world, "root", hosts=["web"], http=[{"delegate": {"name": "leaf"}, **beside}])

    (found,) = world.graph.items(world.model.virtual_services).values()
    assert found.http == ()
    assert any("`spec.http[0].delegate` cannot stand beside" in one for one in world.findings)


def test_a_delegate_may_be_of_another_namespace_and_speaks_of_its_own(world):
    world.istio(world.sources.virtual_services, name="leaf", namespace="team", http=[to("flat")])
    named = {"name": "leaf", "namespace": "team"}
    put(world, "root", hosts=["web"], http=[{"delegate": named}])

    (found,) = world.graph.items(world.model.virtual_services).values()
    assert found.http[0].destinations[0].host == "flat.team.svc.cluster.local"
