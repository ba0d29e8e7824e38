"""What a VirtualService says is what a real Envoy does with requests."""

import time

import pytest
import routed

from isthmus.testing import pace

LIMIT_S = pace.patience(20.0)


def to(name, **more):
    return {"destination": {"host": name}, **more}


def when(match, *, then="other"):
    """Return routes: what matches goes to `then`, all else to `web`."""
    return {"http": [{"match": [match], "route": [to(then)]}, {"route": [to("web")]}]}


def treated(**treatment):
    return {"http": [{"route": [to("web")], **treatment}]}


SPECS = {
    "exact": when({"uri": {"exact": "/a"}}),
    "prefix": when({"uri": {"prefix": "/a"}}),
    "regex": when({"uri": {"regex": "/a[0-9]+"}}),
    "any case": when({"uri": {"prefix": "/a"}, "ignoreUriCase": True}),
    "method": when({"method": {"exact": "POST"}}),
    "methods": when({"method": {"regex": "P.*"}}),
    "authority": when({"authority": {"prefix": "web.default"}}),
    "header": when({"headers": {"role": {"exact": "boss"}}}),
    "header regex": when({"headers": {"role": {"regex": "b.*"}}}),
    "header there": when({"headers": {"role": {}}}),
    "without": when({"withoutHeaders": {"role": {"exact": "boss"}}}),
    "without any": when({"withoutHeaders": {"role": {}}}),
    "query": when({"queryParams": {"page": {"exact": "1"}}}),
    "here": when({"sourceNamespace": "default"}),
    "elsewhere": when({"sourceNamespace": "elsewhere"}),
    "mesh": when({"gateways": ["mesh"]}),
    "gateway": when({"gateways": ["istio-system/ingress"]}),
    "delegated": {
        "http": [
            {
                "match": [{"uri": {"prefix": "/team"}}],
                "delegate": {"name": "team"},
                "headers": {"request": {"set": {"by": "root"}}},
            },
            {"route": [to("web")]},
        ],
        "delegates": {
            "team": {"http": [{"match": [{"uri": {"exact": "/team/a"}}], "route": [to("other")]}]}
        },
    },
    "rewrite": {
        "http": [
            {
                "match": [{"uri": {"prefix": "/old"}}],
                "rewrite": {"uri": "/new", "authority": "there"},
                "route": [to("web")],
            }
        ]
    },
    "rewrite regex": treated(
        rewrite={"uriRegexRewrite": {"match": "^/v([0-9])/(.*)", "rewrite": "/\\2?v=\\1"}}
    ),
    "redirect": {
        "http": [
            {
                "redirect": {
                    "uri": "/new",
                    "authority": "there",
                    "scheme": "https",
                    "port": 8443,
                    "redirectCode": 308,
                }
            }
        ]
    },
    "redirect prefix": {
        "http": [{"match": [{"uri": {"prefix": "/old"}}], "redirect": {"uri": "%PREFIX()%/new"}}]
    },
    "answer": {"http": [{"directResponse": {"status": 418, "body": {"string": "tea"}}}]},
    "headers": treated(
        headers={
            "request": {
                "set": {"a": "new", "host": "there"},
                "add": {"b": "more"},
                "remove": ["c"],
            },
            "response": {"set": {"x-served-by": "nobody"}, "add": {"d": "back"}},
        }
    ),
    "headers of one": {
        "http": [{"route": [to("web", headers={"request": {"set": {"a": "mine", "host": "me"}}})]}]
    },
    "retried": treated(retries={"attempts": 3, "retryOn": "5xx"}),
    "by status": treated(retries={"attempts": 1, "retryOn": "503"}),
    "not retried": treated(retries={"attempts": 0}),
    "default": treated(),
    "aborted": treated(fault={"abort": {"httpStatus": 507, "percentage": {"value": 100}}}),
    "never aborted": treated(fault={"abort": {"httpStatus": 507, "percentage": {"value": 0}}}),
    "delayed": treated(fault={"delay": {"fixedDelay": "0.3s"}}),
    "mirrored": treated(mirror={"host": "other"}),
    "not mirrored": treated(
        mirrors=[{"destination": {"host": "other"}, "percentage": {"value": 0}}]
    ),
    "pages": treated(
        corsPolicy={
            "allowOrigins": [{"exact": "https://a.example.com"}, {"regex": "https://.*[.]b[.]com"}],
            "allowMethods": ["GET", "PUT"],
            "allowHeaders": ["x-mine"],
            "maxAge": "60s",
            "allowCredentials": True,
        }
    ),
}


@pytest.fixture(scope="module")
def envoy(tmp_path_factory):
    running = routed.Routed(tmp_path_factory.mktemp("routes"), SPECS)
    try:
        until = time.monotonic() + LIMIT_S
        while not running.is_up():
            assert time.monotonic() < until, "Envoy does not start"
            time.sleep(0.05)
        yield running
    finally:
        running.close()


MATCHES = [
    ("exact", {"path": "/a"}, "other"),
    ("exact", {"path": "/ab"}, "web"),
    ("prefix", {"path": "/ab"}, "other"),
    ("prefix", {"path": "/b"}, "web"),
    ("regex", {"path": "/a12"}, "other"),
    ("regex", {"path": "/a12?x=y"}, "other"),
    ("regex", {"path": "/a12b"}, "web"),
    ("any case", {"path": "/AB"}, "other"),
    ("method", {"method": "POST"}, "other"),
    ("method", {"method": "GET"}, "web"),
    ("methods", {"method": "POST"}, "other"),
    ("methods", {"method": "GET"}, "web"),
    ("authority", {"host": "web.default"}, "other"),
    ("authority", {"host": "web"}, "web"),
    ("header", {"role": "boss"}, "other"),
    ("header", {"role": "bos"}, "web"),
    ("header", {}, "web"),
    ("header regex", {"role": "boss"}, "other"),
    ("header regex", {"role": "my boss"}, "web"),
    ("header there", {"role": "any"}, "other"),
    ("header there", {}, "web"),
    ("without", {"role": "boss"}, "web"),
    ("without", {"role": "guest"}, "other"),
    ("without", {}, "other"),
    ("without any", {"role": "guest"}, "web"),
    ("without any", {}, "other"),
    ("query", {"path": "/?page=1"}, "other"),
    ("query", {"path": "/?page=12"}, "web"),
    ("query", {"path": "/"}, "web"),
    ("here", {}, "other"),
    ("elsewhere", {}, "web"),
    ("mesh", {}, "other"),
    ("gateway", {}, "web"),
]


@pytest.mark.parametrize(("name", "request_", "server"), MATCHES)
def test_a_match_decides_who_answers(envoy, name, request_, server):
    assert envoy.get(name, **request_).server == server


def test_a_delegate_says_what_becomes_of_requests_that_it_is_handed(envoy):
    answer = envoy.get("delegated", "/team/a")

    assert (answer.server, answer.seen["headers"]["by"]) == ("other", "root")
    assert envoy.get("delegated", "/team/b").server == "web"


def test_path_and_host_are_rewritten(envoy):
    seen = envoy.get("rewrite", "/old/a?b=c").seen

    assert (seen["path"], seen["headers"]["host"]) == ("/new/a?b=c", "there")


def test_a_path_is_rewritten_by_pattern(envoy):
    assert envoy.get("rewrite regex", "/v2/a").seen["path"] == "/a?v=2"


def test_clients_are_sent_elsewhere(envoy):
    answer = envoy.get("redirect", "/old")

    assert (answer.status, answer.headers["location"]) == (308, "https://there:8443/new")


def test_a_redirect_keeps_what_follows_the_prefix(envoy):
    assert envoy.get("redirect prefix", "/old/a").headers["location"].endswith("//web/new/a")


def test_an_answer_is_given_at_once(envoy):
    answer = envoy.get("answer")

    assert (answer.status, answer.body) == (418, "tea")


def test_headers_are_replaced_added_and_removed(envoy):
    answer = envoy.get("headers", a="old", b="some", c="secret")
    seen = answer.seen["headers"]

    assert (seen["a"], seen["host"]) == ("new", "there")
    assert seen["b"] in {"some,more", "some", "more"}
    assert "c" not in seen
    assert (answer.headers["x-served-by"], answer.headers["d"]) == ("nobody", "back")


def test_headers_are_changed_for_one_destination(envoy):
    seen = envoy.get("headers of one").seen["headers"]

    assert (seen["a"], seen["host"]) == ("mine", "me")


@pytest.mark.parametrize(
    ("name", "failing", "status"),
    [
        ("retried", 3, 200),
        ("retried", 4, 503),
        ("by status", 1, 200),
        ("by status", 2, 503),
        ("not retried", 1, 503),
        ("default", 2, 200),
    ],
)
def test_requests_are_tried_as_often_as_it_says(envoy, name, failing, status):
    path = f"/{name.replace(' ', '-')}/{failing}"

    assert envoy.get(name, path, x_fail=str(failing)).status == status


def test_errors_are_injected_into_the_share_that_is_asked_for(envoy):
    assert envoy.get("aborted").status == 507
    assert envoy.get("never aborted").status == 200


def test_requests_are_delayed(envoy):
    began = time.monotonic()

    assert envoy.get("delayed").status == 200
    # Envoy's timers count whole milliseconds, from when its loop last looked at the clock.
    assert time.monotonic() - began >= 0.29


def test_copies_go_to_another_service(envoy):
    assert envoy.get("mirrored", "/copied").server == "web"
    assert envoy.servers["other"].was_asked_for("/copied")


def test_no_copies_go_where_none_are_wanted(envoy):
    envoy.get("not mirrored", "/not-copied")
    envoy.get("mirrored", "/after-it")

    assert envoy.servers["other"].was_asked_for("/after-it")
    assert "/not-copied" not in envoy.servers["other"].paths


@pytest.mark.parametrize(
    ("origin", "is_let_in"),
    [("https://a.example.com", True), ("https://x.b.com", True), ("https://c.com", False)],
)
def test_pages_of_some_sites_may_call(envoy, origin, is_let_in):
    asked = {"origin": origin, "access_control_request_method": "GET"}
    answer = envoy.get("pages", method="OPTIONS", **asked)

    assert (answer.headers.get("access-control-allow-origin") == origin) is is_let_in
    if is_let_in:
        assert answer.headers["access-control-allow-methods"] == "GET,PUT"
        assert answer.headers["access-control-max-age"] == "60"
        assert answer.headers["access-control-allow-credentials"] == "true"
