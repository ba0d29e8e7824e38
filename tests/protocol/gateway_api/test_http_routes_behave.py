"""HTTPRoutes at a Gateway: what a real Envoy does with requests."""

import opened
import pytest
from opened import to

WEB, API = "10.1.0.1", "10.1.0.2"


@pytest.fixture
def mesh():
    found = opened.a_mesh()
    opened.gateway(found)
    return found


def path(value, kind="PathPrefix"):
    return {"path": {"type": kind, "value": value}}


def test_the_most_specific_rule_counts_whatever_its_place(mesh, tmp_path):
    opened.route(
        mesh,
        "first",
        {"backendRefs": [to("web")]},
        {"matches": [path("/a")], "backendRefs": [to("api")]},
    )
    opened.route(
        mesh,
        "second",
        {"matches": [path("/a/b", "Exact")], "backendRefs": [to("web")]},
        {
            "matches": [{**path("/a"), "headers": [{"name": "x-who", "value": "me"}]}],
            "backendRefs": [to("web")],
        },
        {"matches": [{**path("/m"), "method": "POST"}], "backendRefs": [to("api")]},
    )
    with opened.running(mesh, tmp_path) as door:
        assert door.pod("/") == WEB
        assert door.pod("/a") == API
        assert door.pod("/a/c?x=1") == API
        assert door.pod("/ab") == WEB
        assert door.pod("/a/b") == WEB
        assert door.pod("/a/c", **{"x-who": "me"}) == WEB
        assert door.pod("/m", method="POST") == API
        assert door.pod("/m") == WEB


def test_hosts_belong_to_routes_and_to_listeners(tmp_path):
    mesh = opened.a_mesh()
    opened.gateway(
        mesh,
        {"name": "one", "port": 8000, "protocol": "HTTP", "hostname": "*.one.example"},
        {"name": "two", "port": 9000, "protocol": "HTTP"},
    )
    opened.route(mesh, "a", {"backendRefs": [to("web")]}, hosts=["x.one.example", "two.example"])
    opened.route(
        mesh,
        "b",
        {"backendRefs": [to("api")]},
        hosts=["y.one.example"],
        parent={"name": "door", "sectionName": "one"},
    )
    with opened.running(mesh, tmp_path) as door:
        assert door.pod(host="x.one.example") == WEB
        assert door.pod(host="y.one.example") == API
        assert door.pod(host="two.example") == 404
        assert door.pod(host="z.one.example") == 404
        assert door.pod(host="two.example", port=9000) == WEB
        assert door.pod(host="x.one.example", port=9000) == WEB
        assert door.pod(host="y.one.example", port=9000) == 404


def test_a_narrower_listener_keeps_its_hosts_for_itself(tmp_path):
    mesh = opened.a_mesh()
    wide = {"name": "a", "port": 8000, "protocol": "HTTP", "hostname": "*.example"}
    narrow = {"name": "b", "port": 8000, "protocol": "HTTP", "hostname": "x.example"}
    empty = {"name": "c", "port": 8000, "protocol": "HTTP", "hostname": "*.none.example"}
    opened.gateway(mesh, wide, narrow, empty)
    at_wide = {"name": "door", "sectionName": "a"}
    hosts = ["x.example", "*.example", "y.none.example"]
    opened.route(mesh, "thief", {"backendRefs": [to("api")]}, hosts=hosts, parent=at_wide)
    owner = {"matches": [path("/own")], "backendRefs": [to("web")]}
    opened.route(mesh, "z", owner, parent={"name": "door", "sectionName": "b"})
    with opened.running(mesh, tmp_path) as door:
        assert door.pod("/own", host="x.example") == WEB
        assert door.pod("/else", host="x.example") == 404
        assert door.pod(host="y.example") == API
        assert door.pod(host="y.none.example") == 404


def test_shares_are_as_their_weights_and_what_is_missing_gets_500(mesh, tmp_path):
    opened.route(
        mesh,
        "a",
        {"matches": [path("/all")], "backendRefs": [to("web", weight=0), to("api")]},
        {"matches": [path("/half")], "backendRefs": [to("web"), to("gone")]},
        {"matches": [path("/none")], "backendRefs": [to("gone")]},
        {"matches": [path("/theirs")], "backendRefs": [to("web", namespace="other")]},
        {"matches": [path("/nothing")]},
    )
    with opened.running(mesh, tmp_path) as door:
        assert {door.pod("/all") for _ in range(20)} == {API}
        halves = [door.pod("/half") for _ in range(60)]
        assert set(halves) == {WEB, 500}
        assert 10 < halves.count(WEB) < 50
        assert [door.pod(one) for one in ("/none", "/theirs", "/nothing")] == [500, 500, 500]


def test_paths_and_hosts_are_rewritten(mesh, tmp_path):
    def rewrite(**path_):
        return [{"type": "URLRewrite", "urlRewrite": {"hostname": "in.example", "path": path_}}]

    prefix = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}
    short = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/"}
    full = {"type": "ReplaceFullPath", "replaceFullPath": "/whole"}
    rules = {"/old": prefix, "/cut": short, "/full": full}
    opened.route(
        mesh,
        "a",
        *(
            {"matches": [path(one)], "filters": rewrite(**how), "backendRefs": [to("web")]}
            for one, how in rules.items()
        ),
    )
    asked = {
        "/old": "/new",
        "/old/x?q=1": "/new/x?q=1",
        "/cut": "/",
        "/cut/x": "/x",
        "/full": "/whole",
        "/full/x?q=1": "/whole?q=1",
    }
    with opened.running(mesh, tmp_path) as door:
        got = {one: door.ask(one)[1] for one in asked}

    assert {one: said["path"] for one, said in got.items()} == asked
    assert {said["headers"]["host"] for said in got.values()} == {"in.example"}


def test_clients_are_sent_elsewhere(mesh, tmp_path):
    def redirect(**how):
        return [{"type": "RequestRedirect", "requestRedirect": how}]

    prefix = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}
    opened.route(
        mesh,
        "a",
        {"matches": [path("/tls")], "filters": redirect(scheme="https", statusCode=301)},
        {"matches": [path("/old")], "filters": redirect(hostname="new.example", path=prefix)},
    )
    with opened.running(mesh, tmp_path) as door:
        assert door.ask("/tls/a?b=c")[:2] == (301, "https://any.example/tls/a?b=c")
        assert door.ask("/old")[:2] == (302, "http://new.example/new")
        assert door.ask("/old/a")[:2] == (302, "http://new.example/new/a")


def test_headers_are_changed_both_ways(mesh, tmp_path):
    changes = {
        "set": [{"name": "x-set", "value": "new"}],
        "add": [{"name": "x-add", "value": "b"}],
        "remove": ["x-gone"],
    }
    answer = {"set": [{"name": "x-from", "value": "door"}]}
    opened.route(
        mesh,
        "a",
        {
            "filters": [
                {"type": "RequestHeaderModifier", "requestHeaderModifier": changes},
                {"type": "ResponseHeaderModifier", "responseHeaderModifier": answer},
            ],
            "backendRefs": [to("web")],
        },
    )
    with opened.running(mesh, tmp_path) as door:
        status, said, headers = door.ask(**{"x-set": "old", "x-gone": "x"})

    assert status == 200
    assert (said["headers"]["x-set"], said["headers"]["x-add"]) == ("new", "b")
    assert "x-gone" not in said["headers"]
    assert headers["x-from"] == "door"


def test_a_rule_that_is_not_understood_costs_itself_alone(mesh, tmp_path):
    opened.route(
        mesh,
        "bad",
        {"filters": [{"type": "ExtensionRef"}], "backendRefs": [to("web")]},
        {"matches": [path("/x")], "sessionPersistence": {"a": 1}, "backendRefs": [to("web")]},
        {"matches": [path("/re[", "RegularExpression")], "backendRefs": [to("web")]},
        {"matches": [path("/ok")], "backendRefs": [to("web")]},
        {"matches": [path("/w")], "backendRefs": [to("web", weight=2**31), to("api")]},
        {"matches": [{"headers": [{"name": ":path", "value": "x"}]}], "backendRefs": [to("web")]},
        {"matches": "none", "filters": 1, "backendRefs": {"a": 1}, "timeouts": []},
    )
    opened.route(mesh, "good", {"matches": [path("/good")], "backendRefs": [to("api")]})
    with opened.running(mesh, tmp_path) as door:
        assert door.pod("/ok") == WEB
        assert door.pod("/good") == API
        assert door.pod("/x") in {404, 500}
        assert door.pod("/re[") in {404, 500}


def test_nobody_attaches_from_a_namespace_that_is_not_let_in(mesh, tmp_path):
    parent = {"name": "door", "namespace": "apps"}
    opened.route(mesh, "thief", {"backendRefs": [to("web")]}, parent=parent, namespace="elsewhere")
    with opened.running(mesh, tmp_path) as door:
        assert door.pod() == 404
