"""The webhook answers every review, whatever is in it."""

import base64
import io
import json

import pytest
from aiohttp import test_utils
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.base import metrics
from isthmus.inject import injection
from isthmus.inject.settings import InjectionSettings
from isthmus.wire import webhook

POD = {"metadata": {"name": "one"}, "spec": {"containers": [{"name": "app"}]}}
INJECTOR = injection.injector(InjectionSettings)


def review(pod, *, version="admission.k8s.io/v1"):
    return {
        "apiVersion": version,
        "kind": "AdmissionReview",
        "request": {"uid": "u1", "namespace": "sample", "object": pod},
    }


@pytest.fixture
async def client():
    application = webhook.application(INJECTOR)
    async with test_utils.TestClient(test_utils.TestServer(application)) as opened:
        yield opened


@pytest.mark.parametrize("version", webhook.VERSIONS)
async def test_a_review_is_answered_in_its_own_version(client, version):
    answer = await client.post("/inject/cluster/c2/net/n2", json=review(POD, version=version))
    document = await answer.json()

    assert document["apiVersion"] == version
    assert document["response"]["uid"] == "u1"
    assert document["response"]["allowed"]
    assert document["response"]["patchType"] == "JSONPatch"
    patch = base64.b64decode(document["response"]["patch"]).decode()
    assert '"ISTIO_META_NETWORK", "value": "n2"' in patch


async def test_a_pod_that_needs_no_proxy_is_let_through_unchanged(client):
    pod = {**POD, "spec": {**POD["spec"], "hostNetwork": True}}
    answer = await client.post("/inject", json=review(pod))

    assert (await answer.json())["response"] == {"uid": "u1", "allowed": True}


async def test_a_pod_that_cannot_get_one_is_refused_by_name_reason_and_next_step(client):
    pod = {**POD, "metadata": {"name": "one", "annotations": {"inject.istio.io/templates": "x"}}}
    answer = await client.post("/inject", json=review(pod))
    response = (await answer.json())["response"]

    assert not response["allowed"]
    message = response["status"]["message"]
    assert message.startswith("error[ISM-INJ-001]: pod `sample/one`: ")
    assert "hint: use `sidecar`, `gateway` or `waypoint`" in message


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"{}", "text/plain", 415),
        (b"", "application/json", 400),
        (b"{", "application/json", 400),
        (b"\xff\xff", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{}", "application/json", 400),
        (b'{"apiVersion":"admission.k8s.io/v1"}', "application/json", 400),
        (b"[" * 100_000, "application/json", 400),
        (b"[" * 70 + b"]" * 70, "application/json", 400),
        (b'"' + b"x" * webhook.MOST_BYTES + b'"', "application/json", 413),
    ],
)
async def test_what_is_no_review_is_refused(client, body, kind, status):
    answer = await client.post("/inject", data=io.BytesIO(body), headers={"Content-Type": kind})

    assert answer.status == status


async def test_without_settings_no_pod_slips_through():
    application = webhook.application(injection.injector(lambda: None), unready=lambda: "no roots")
    async with test_utils.TestClient(test_utils.TestServer(application)) as client:
        answer = await client.post("/inject", json=review(POD))
        ready = await client.get("/ready")

        assert not (await answer.json())["response"]["allowed"]
        assert (ready.status, await ready.text()) == (503, "no roots\n")


async def test_pods_are_counted():
    registered = metrics.Metrics()
    hook = webhook.Webhook(INJECTOR, registered=registered)
    for pod in (POD, {**POD, "spec": {"hostNetwork": True}}, {"spec": 7}):
        hook.answer(webhook.parse(json.dumps(review(pod)).encode()), path="/inject")

    text = registered.text()
    assert "sidecar_injection_requests_total 3" in text
    assert "sidecar_injection_success_total 1" in text
    assert "sidecar_injection_skip_total 1" in text
    assert "sidecar_injection_failure_total 1" in text


odd = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    *("metadata", "spec", "containers", "initContainers", "volumes", "labels"),
                    *("annotations", "ownerReferences", "name", "env", "ports", "kind"),
                    *("readinessProbe", "httpGet", "port", "controller", "imagePullSecrets"),
                    "securityContext",
                ]
            ),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@settings(max_examples=300, deadline=None)
@given(odd, odd, odd)
def test_whatever_a_pod_holds_its_api_server_gets_an_answer(pod, metadata, container):
    hook = webhook.Webhook(INJECTOR)
    spec = {
        "containers": [
            {"name": "istio-proxy", **(container if isinstance(container, dict) else {})}
        ]
    }
    for each in (pod, {"metadata": metadata, "spec": spec}):
        answer = hook.answer(webhook.parse(json.dumps(review(each)).encode()), path="/inject")

        assert answer["response"]["uid"] == "u1"
