"""Whatever is sent to an API server of a lab, the answer is a Status and the server lives on."""

import asyncio
import io
import json
import ssl
import urllib.parse

import aiohttp
import booted
import hypothesis
import pytest
import pytest_asyncio
from hypothesis import strategies as st

from isthmus.kube import access

pytestmark = [pytest.mark.lab, pytest.mark.asyncio(loop_scope="module")]

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
PLACES = (
    "/api/v1/namespaces/default/configmaps",
    "/api/v1/namespaces/default/pods/none/log",
    "/api/v1/namespaces/default/pods/none/exec",
    "/api/v1/namespaces/default/services/none:http/proxy/x",
    "/apis/apps/v1/namespaces/default/deployments/none/scale",
    "/apis/apps/v1/deployments",
    "/apis/authentication.k8s.io/v1/tokenreviews",
    "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews",
    "/api/v1/namespaces/default/serviceaccounts/default/token",
    "/api/v1/namespaces/default/pods/none/eviction",
    "/api/v1/namespaces/default/pods/tool/eviction",
    "/api/v1/namespaces/default/pods/tool/binding",
    "/api/v1/namespaces/default/pods/tool",
    "/api/v1/namespaces/default/pods/tool/status",
    "/api/v1/namespaces/kube-system/finalize",
    "/apis/apps/v1/namespaces/default/deployments/web/scale",
    "/apis/apps/v1/namespaces/default/deployments/web",
    "/apis/authorization.k8s.io/v1/subjectaccessreviews",
    "/api/v1/watch/pods",
    "/openapi/v3/apis/none",
)
SPEC = {"schedulerName": "nobody", "containers": [{"name": "main", "image": "busybox"}]}
WEB = {"metadata": {"labels": {"app": "web"}}, "spec": SPEC}
BEGINNING = {
    "/api/v1/namespaces/default/pods": {"metadata": {"name": "tool"}, "spec": SPEC},
    "/apis/apps/v1/namespaces/default/deployments": {
        "metadata": {"name": "web"},
        "spec": {"replicas": 0, "selector": {"matchLabels": {"app": "web"}}, "template": WEB},
    },
}
MEDIA = (
    "application/json",
    "application/yaml",
    "application/merge-patch+json",
    "application/json-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
    "application/vnd.kubernetes.protobuf",
    "text/plain",
    "x; =",
    "",
)
PARAMETERS = (
    "labelSelector",
    "fieldSelector",
    "limit",
    "continue",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "fieldManager",
    "fieldValidation",
    "dryRun",
    "force",
    "propagationPolicy",
    "gracePeriodSeconds",
    "container",
    "command",
    "tailLines",
    "sinceTime",
    "pretty",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(("apiVersion", "kind", "metadata", "name", "spec", "labels", "data"))
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
BODIES = (
    st.none()
    | st.binary(max_size=60)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.binary(max_size=40).map(lambda rest: b"k8s\0" + rest)
)
TEXTS = st.text(max_size=12) | st.sampled_from(
    ("-1", "1e9", "9" * 40, "a in (", "!", "a=b=c", "metadata.name", "2020", "\0", "%2e%2e", "MA==")
)
PATHS = st.sampled_from(PLACES) | st.builds(
    lambda place, rest: f"{place}/{urllib.parse.quote(rest, safe='')}",
    st.sampled_from(PLACES),
    st.text(max_size=20) | st.sampled_from(("../../..", "..", ".", "%00", "a" * 300, "..;/")),
)


@pytest.fixture(scope="module")
def lab():
    with booted.booted_lab("ordinary", "single") as running:
        yield running


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def session(lab):
    reached = access.from_kubeconfig(str(lab.home / lab.name / "kubeconfig"), context="cluster1")
    context = ssl.create_default_context(cadata=reached.ca_pem)
    pair = lab.home / "admin.pem"
    pair.write_text(reached.client_certificate_pem + reached.client_key_pem)
    context.load_cert_chain(pair)
    connector = aiohttp.TCPConnector(ssl=context)
    async with aiohttp.ClientSession(reached.server, connector=connector) as opened:
        for place, manifest in BEGINNING.items():
            async with opened.post(place, json=manifest) as answer:
                assert answer.status == 201
        yield opened
    await booted.connections_closed()


async def answered(session, method, path, **request):
    """Send a request; return its status and, of an error, its body as JSON."""
    url = session._base_url.join(aiohttp.client.URL(path, encoded=True))
    async with asyncio.timeout(10), session.request(method, url, **request) as answer:
        if answer.status < 400:
            return answer.status, {}
        content = await answer.read()
        assert answer.content_type == "application/json" or not content, (method, path, content)
        return answer.status, json.loads(content) if content else {}


async def test_whatever_is_asked_the_answer_is_a_status(session, lab):
    @hypothesis.settings(max_examples=250)
    @hypothesis.given(
        st.sampled_from(METHODS),
        PATHS,
        st.sampled_from(MEDIA),
        BODIES,
        st.dictionaries(st.sampled_from(PARAMETERS), TEXTS, max_size=2),
    )
    def ask(method, path, media, body, query):
        asked.append((method, path, media, body, query))

    asked = []
    ask()
    for method, path, media, body, query in asked:
        headers = {"Content-Type": media} if media else {}
        full = f"{path}?{urllib.parse.urlencode(query)}" if query else path
        status, said = await answered(session, method, full, data=body, headers=headers)
        assert status < 500 or status in {501, 503, 504}, (method, full, media, body, said)
        if said and method != "HEAD":
            assert said["kind"] == "Status", (method, full)
            assert said["code"] == status
    assert "Traceback" not in lab.log
    assert "request failed" not in lab.log


async def test_paths_do_not_lead_out(session):
    for path in ("/../../etc/passwd", "/api/v1/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd"):
        status, said = await answered(session, "GET", path)
        assert (status, said["kind"]) == (404, "Status")


async def test_long_selectors_are_read(session):
    many = "a in (" + ",".join(f"v{number}" for number in range(20_000)) + ")"

    status, _ = await answered(
        session, "GET", f"/api/v1/pods?{urllib.parse.urlencode({'labelSelector': many})}"
    )

    assert status == 200


async def test_too_large_a_body_is_refused(session):
    body = json.dumps({"kind": "ConfigMap", "data": {"a": "x" * (4 << 20)}}).encode()
    try:
        status, said = await answered(session, "POST", PLACES[0], data=io.BytesIO(body))
    except aiohttp.ClientOSError:
        return  # the server had answered and closed before all of it was sent
    assert (status, said["reason"]) == (413, "RequestEntityTooLarge")


async def test_deeply_nested_bodies_are_refused(session):
    for body in (b"[" * 100_000, b'{"a":' * 50_000, b"a: &a [*a, *a]"):
        status, said = await answered(
            session, "POST", PLACES[0], data=body, headers={"Content-Type": "application/yaml"}
        )
        assert (status, said["kind"]) == (400, "Status")
