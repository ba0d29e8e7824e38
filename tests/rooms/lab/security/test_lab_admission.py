import asyncio
import base64
import json
import ssl

import aiohttp
import pytest
from aiohttp import web

from fakes.lab_cluster import encoded, pod, running_cluster, service
from isthmus.base import clock
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import pki

_GROUP = "admissionregistration.k8s.io"
_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"


class Hook:
    """An HTTPS webhook on the loopback that answers as a test says."""

    def __init__(self):
        now = clock.SystemClock().now()
        self.authority = pki.make_cluster_authority(
            "hooks", now=now, cluster_ip="127.0.0.1", addresses=["hook.default.svc"]
        )
        self.asked = []
        self.answer = {"allowed": True}
        self.status = 200
        self.port = 0
        self.held = asyncio.Event()
        self.held.set()

    async def serve(self, request):
        review = await request.json()
        self.asked.append(review["request"] | {"url": str(request.rel_url)})
        await self.held.wait()
        answer = self.answer(review["request"]) if callable(self.answer) else self.answer
        response = {"uid": review["request"]["uid"], **answer}
        body = {"apiVersion": review["apiVersion"], "kind": review["kind"], "response": response}
        return web.json_response(body, status=self.status)

    def configuration(self, kind="Mutating", *, name="hook", **more):
        webhook = {
            "name": f"{name}.example.com",
            "clientConfig": {
                "service": {"name": "hook", "namespace": "default", "path": "/inject"},
                "caBundle": encoded(self.authority.ca_pem),
            },
            "rules": [
                {
                    "operations": ["CREATE"],
                    "apiGroups": [""],
                    "apiVersions": ["v1"],
                    "resources": ["pods"],
                }
            ],
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
            "timeoutSeconds": 5,
            **more,
        }
        return {
            "apiVersion": f"{_GROUP}/v1",
            "kind": f"{kind}WebhookConfiguration",
            "metadata": {"name": name},
            "webhooks": [webhook],
        }


def patching(*operations):
    text = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": text}


@pytest.fixture
async def hook():
    found = Hook()
    application = web.Application()
    application.router.add_post("/{path:.*}", found.serve)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    pki.load_pair(context, found.authority.serving)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


@pytest.fixture
async def hooked(hook):
    """A cluster whose selector-less Service `hook` leads to the webhook by a hand-made slice."""

    async def connect(host, port):
        assert (host, port) == ("10.9.9.9", 15017)
        return await asyncio.open_connection("127.0.0.1", hook.port)

    async with running_cluster(connect=connect) as cluster:
        ports = [{"name": "https", "port": 443, "targetPort": 15017}]
        body = service("hook", ports=ports)
        del body["spec"]["selector"]
        await cluster.api.create("services", body)
        await cluster.api.create("endpointslices.discovery.k8s.io", _slice())
        yield cluster


def _slice():
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": "hook-1",
            "namespace": "default",
            "labels": {"kubernetes.io/service-name": "hook"},
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.9.9.9"]}],
        "ports": [{"name": "https", "port": 15017, "protocol": "TCP"}],
    }


async def _install(cluster, body):
    resource = f"{body['kind'].lower()}s.{_GROUP}"
    await cluster.api.create(resource, body)
    await cluster.until(resource, lambda c: c["metadata"]["name"] == body["metadata"]["name"], "")


async def test_a_pod_gets_its_account_and_a_token_volume(cluster):
    made = await cluster.api.create("pods", pod())

    [volume] = made["spec"]["volumes"]
    assert made["spec"]["serviceAccountName"] == "default"
    assert volume["name"].startswith("kube-api-access-")
    token, root, downward = volume["projected"]["sources"]
    assert token["serviceAccountToken"] == {"expirationSeconds": 3607, "path": "token"}
    assert root["configMap"]["name"] == "kube-root-ca.crt"
    assert downward["downwardAPI"]["items"][0]["path"] == "namespace"
    [mount] = made["spec"]["containers"][0]["volumeMounts"]
    assert (mount["mountPath"], mount["readOnly"]) == (_MOUNT, True)


async def test_a_pod_may_do_without_the_token(cluster):
    made = await cluster.api.create("pods", pod(automountServiceAccountToken=False))

    assert not made["spec"].get("volumes")


async def test_an_unknown_account_is_refused(cluster):
    with pytest.raises(apis.ApiError) as caught:
        await cluster.api.create("pods", pod(serviceAccountName="nobody"))

    assert caught.value.code == 403
    assert caught.value.message == (
        'pods "one" is forbidden: error looking up service account default/nobody:'
        ' serviceaccount "nobody" not found'
    )


async def test_a_namespace_that_ends_takes_nothing_new(cluster):
    await cluster.namespace("going")
    kept = {"metadata": {"finalizers": ["example.com/hold"], "name": "x", "namespace": "going"}}
    await cluster.api.create("configmaps", {"apiVersion": "v1", "kind": "ConfigMap", **kept})
    await cluster.api.delete("namespaces", "going")

    with pytest.raises(apis.ApiError, match="because it is being terminated"):
        await cluster.api.create("pods", pod(namespace="going"))


async def test_namespaces_of_the_cluster_itself_stay(cluster):
    with pytest.raises(apis.ApiError, match="this namespace may not be deleted"):
        await cluster.api.delete("namespaces", "kube-system")


async def test_a_mutating_webhook_changes_what_is_stored(hooked, hook):
    hook.answer = patching(
        {"op": "add", "path": "/metadata/annotations", "value": {"seen": "yes"}},
        {"op": "add", "path": "/spec/containers/-", "value": {"name": "proxy", "image": "p"}},
    )
    await _install(hooked, hook.configuration())

    made = await hooked.api.create("pods", pod())

    assert made["metadata"]["annotations"] == {"seen": "yes"}
    mounts = [c["volumeMounts"][0]["mountPath"] for c in made["spec"]["containers"]]
    assert mounts == [_MOUNT, _MOUNT]
    [asked] = hook.asked
    assert asked["url"] == "/inject?timeout=5s"
    assert asked["operation"] == "CREATE"
    assert asked["kind"] == {"group": "", "version": "v1", "kind": "Pod"}
    assert asked["userInfo"]["groups"] == ["system:masters"]
    assert asked["namespace"] == "default"
    assert asked["dryRun"] is False


async def test_a_refusal_is_passed_on(hooked, hook):
    hook.answer = {"allowed": False, "status": {"message": "not today", "code": 403}}
    await _install(hooked, hook.configuration("Validating"))

    with pytest.raises(apis.ApiError) as caught:
        await hooked.api.create("pods", pod())

    assert caught.value.code == 403
    assert caught.value.message == (
        'admission webhook "hook.example.com" denied the request: not today'
    )


async def test_a_refusal_without_words_says_so(hooked, hook):
    hook.answer = {"allowed": False}
    await _install(hooked, hook.configuration("Validating"))

    with pytest.raises(apis.ApiError, match="denied the request without explanation") as caught:
        await hooked.api.create("pods", pod())
    assert caught.value.code == 400


async def test_a_failing_webhook_stops_the_write_or_is_passed_over(hooked, hook):
    hook.status = 500
    await _install(hooked, hook.configuration())
    with pytest.raises(apis.ApiError) as caught:
        await hooked.api.create("pods", pod())
    assert caught.value.code == 500
    assert caught.value.message.startswith(
        'Internal error occurred: failed calling webhook "hook.example.com": '
    )

    patch = {"webhooks": hook.configuration(failurePolicy="Ignore")["webhooks"]}
    resource = f"mutatingwebhookconfigurations.{_GROUP}"
    await hooked.api.patch(resource, "hook", patch)
    await hooked.until(resource, lambda c: c["webhooks"][0]["failurePolicy"] == "Ignore", "")

    assert await hooked.api.create("pods", pod())


async def test_a_webhook_that_is_too_slow_fails(hooked, hook):
    hook.held.clear()
    await _install(hooked, hook.configuration(timeoutSeconds=1))

    with pytest.raises(apis.ApiError) as caught:
        await hooked.api.create("pods", pod())

    hook.held.set()
    assert caught.value.message == (
        'Internal error occurred: failed calling webhook "hook.example.com": failed to call'
        ' webhook: Post "https://hook.default.svc:443/inject?timeout=1s":'
        " context deadline exceeded"
    )


async def test_an_authority_that_is_not_in_the_bundle_is_not_trusted(hooked, hook):
    body = hook.configuration()
    body["webhooks"][0]["clientConfig"]["caBundle"] = encoded(hooked.authority.ca_pem)
    await _install(hooked, body)

    with pytest.raises(apis.ApiError, match="x509: certificate signed by unknown authority"):
        await hooked.api.create("pods", pod())
    assert hook.asked == []


async def test_the_certificate_must_name_the_service(hooked, hook):
    other = service("other", ports=[{"name": "https", "port": 443, "targetPort": 15017}])
    del other["spec"]["selector"]
    await hooked.api.create("services", other)
    found = _slice()
    found["metadata"] |= {"name": "other-1", "labels": {"kubernetes.io/service-name": "other"}}
    await hooked.api.create("endpointslices.discovery.k8s.io", found)
    body = hook.configuration()
    body["webhooks"][0]["clientConfig"]["service"]["name"] = "other"
    await _install(hooked, body)

    with pytest.raises(apis.ApiError, match=r"certificate is not valid.*other\.default\.svc"):
        await hooked.api.create("pods", pod())


async def test_a_webhook_without_service_or_endpoint_says_which(hooked, hook):
    body = hook.configuration()
    body["webhooks"][0]["clientConfig"]["service"]["name"] = "none"
    await _install(hooked, body)

    with pytest.raises(apis.ApiError, match='service "none" not found'):
        await hooked.api.create("pods", pod())


async def test_a_webhook_may_be_named_by_url(cluster, hook):
    body = hook.configuration()
    del body["webhooks"][0]["clientConfig"]["service"]
    url = f"https://127.0.0.1:{hook.port}/direct"
    body["webhooks"][0]["clientConfig"]["url"] = url
    await _install(cluster, body)

    await cluster.api.create("pods", pod())

    assert [asked["url"] for asked in hook.asked] == ["/direct?timeout=5s"]


@pytest.mark.parametrize(
    ("selectors", "heard"),
    [
        ({}, True),
        ({"objectSelector": {"matchLabels": {"app": "one"}}}, True),
        ({"objectSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["one"]}]}}, False),
        ({"objectSelector": {"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}}, True),
        ({"namespaceSelector": {"matchLabels": {"istio-injection": "enabled"}}}, False),
        ({"namespaceSelector": {"matchExpressions": [{"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["default"]}]}}, True),
    ],
)  # fmt: skip
async def test_selectors_choose_what_a_webhook_hears(hooked, hook, selectors, heard):
    await _install(hooked, hook.configuration(**selectors))

    await hooked.api.create("pods", pod())

    assert bool(hook.asked) is heard


async def test_webhooks_are_asked_in_the_order_of_their_names_and_again_if_needed(hooked, hook):
    def answer(request):
        annotations = dict(request["object"]["metadata"].get("annotations") or {})
        count = len(annotations)
        if count >= 3:
            return {"allowed": True}
        value = {**annotations, f"n{count}": "x"}
        return patching({"op": "add", "path": "/metadata/annotations", "value": value})

    hook.answer = answer
    for name, policy in (("b", "Never"), ("a", "IfNeeded")):
        body = hook.configuration(name=name, reinvocationPolicy=policy)
        body["webhooks"][0]["clientConfig"]["service"]["path"] = f"/{name}"
        await _install(hooked, body)

    made = await hooked.api.create("pods", pod())

    assert [asked["url"][1] for asked in hook.asked] == ["a", "b", "a"]
    assert len(made["metadata"]["annotations"]) == 3


async def test_a_webhook_is_told_that_a_write_is_only_tried(front, hook):
    body = hook.configuration()
    del body["webhooks"][0]["clientConfig"]["service"]
    body["webhooks"][0]["clientConfig"]["url"] = f"https://127.0.0.1:{hook.port}/"
    await _install(front, body)
    url = f"{front.url}/api/v1/namespaces/default/pods?dryRun=All"

    async with (
        aiohttp.ClientSession() as session,
        session.post(url, json=pod(), ssl=front.tls(front.authority.admin)) as answer,
    ):
        assert answer.status == 201

    assert [asked["dryRun"] for asked in hook.asked] == [True]
    assert not await front.exists("pods", "one")
