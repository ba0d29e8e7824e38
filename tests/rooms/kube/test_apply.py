"""Planning, applying, deleting and waiting, against a scriptable API server."""

import asyncio

import pytest
from aiohttp import web

from fakes import kube_server
from isthmus.kube import apply, client, kinds, problems, waiting

CRD_NAME = "widgets.example.com"
WIDGET = kinds.Kind("example.com", "v1", "widgets", "Widget")


@pytest.fixture
async def server():
    async with kube_server.serving() as running:
        yield running


@pytest.fixture
async def writes(server):
    async with client.Client(server.access()) as opened:
        yield opened


def manifest(kind, name, namespace="", **fields):
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **fields}


CONFIG = manifest(kinds.CONFIG_MAP, "a", "n", data={"x": "1"})
SPACE = manifest(kinds.NAMESPACE, "n")
HOOK = manifest(kinds.MUTATING_WEBHOOK, "hook")
CRD = manifest(kinds.CUSTOM_RESOURCE_DEFINITION, CRD_NAME, spec={"names": {"kind": "Widget"}})


def titles(changes):
    return [(change.action, change.title) for change in changes]


async def test_objects_are_made_in_the_order_in_which_they_need_each_other(server, writes):
    steps = []

    await apply.apply(writes, [HOOK, CONFIG, SPACE], on_progress=steps.append)

    assert [step.change.kind for step in steps] == [
        "Namespace", "ConfigMap", "MutatingWebhookConfiguration",
    ]  # fmt: skip
    assert [(step.number, step.total) for step in steps] == [(1, 3), (2, 3), (3, 3)]


def config(number):
    return manifest(kinds.CONFIG_MAP, f"c{number:02}", "n")


async def test_objects_that_do_not_need_each_other_are_applied_at_once(server, writes):
    both = asyncio.Barrier(2)

    async def together(request):
        if request.method == "PATCH" and "configmaps" in request.path:
            async with asyncio.timeout(10):
                await both.wait()

    server.faults.append(together)

    done = await apply.apply(writes, [SPACE, config(1), config(2)])

    assert [change.name for change in done] == ["n", "c01", "c02"]


async def test_what_needs_others_is_begun_when_all_of_them_are_there(server, writes):
    heard = []

    async def hear(request):
        if request.method == "PATCH":
            heard.append(request.path.split("/")[-2])

    server.faults.append(hear)

    await apply.apply(writes, [HOOK, *map(config, range(20)), SPACE])

    assert heard == ["namespaces", *["configmaps"] * 20, "mutatingwebhookconfigurations"]


async def test_after_a_refusal_nothing_further_is_begun(server, writes):
    patched = []

    async def refuse(request):
        if request.method != "PATCH":
            return None
        patched.append(request.path.split("/")[-1])
        if patched[-1] in {"c01", "c02"}:
            return web.json_response({"message": f"no {patched[-1]}"}, status=403)
        return None

    server.faults.append(refuse)

    with pytest.raises(problems.ApiError, match="c01"):
        await apply.apply(writes, [HOOK, *map(config, range(40))])

    assert len(patched) <= 2 * apply.AT_ONCE
    assert all(server.get(kinds.CONFIG_MAP, name, "n") for name in {*patched} - {"c01", "c02"})


async def test_applying_twice_changes_nothing_the_second_time(server, writes):
    await apply.apply(writes, [SPACE, CONFIG])
    version = server.version

    again = await apply.apply(writes, [SPACE, CONFIG])

    assert {change.action for change in again} == {"unchanged"}
    assert server.version == version


async def test_a_plan_tells_what_would_happen_and_does_nothing(server, writes):
    await apply.apply(writes, [SPACE, CONFIG])
    version = server.version

    planned = await apply.plan(writes, [SPACE, {**CONFIG, "data": {"x": "2"}}, HOOK])

    assert titles(planned) == [
        ("unchanged", "Namespace n"),
        ("change", "ConfigMap n/a"),
        ("create", "MutatingWebhookConfiguration hook"),
    ]
    assert planned[1].fields == ("data.x",)
    assert server.version == version


async def test_a_plan_with_a_kind_that_it_brings_itself_is_no_error(server, writes):
    planned = await apply.plan(writes, [CRD, manifest(WIDGET, "w", "n")])

    assert titles(planned) == [
        ("create", f"CustomResourceDefinition {CRD_NAME}"),
        ("create", "Widget n/w"),
    ]


async def test_objects_of_a_new_kind_wait_until_it_is_served(server, writes):
    async def establish():
        await kube_server.eventually(lambda: server.get(kinds.CUSTOM_RESOURCE_DEFINITION, CRD_NAME))
        server.kinds_ = (*server.kinds_, WIDGET)
        conditions = [{"type": "Established", "status": "True"}]
        server.put(
            kinds.CUSTOM_RESOURCE_DEFINITION,
            CRD_NAME,
            spec=CRD["spec"],
            status={"conditions": conditions},
        )

    async def discovery(request):
        if request.path != "/apis/example.com/v1" or WIDGET not in server.kinds_:
            return None
        listed = [{"name": "widgets", "kind": "Widget", "namespaced": True}]
        return web.json_response({"resources": listed})

    server.faults.append(discovery)
    async with asyncio.TaskGroup() as group:
        group.create_task(establish())
        done = await apply.apply(writes, [manifest(WIDGET, "w", "n"), CRD])

    assert titles(done)[1] == ("create", "Widget n/w")


async def test_fields_that_somebody_else_owns_are_named_with_their_owner(server, writes):
    async def conflict(request):
        if request.method != "PATCH":
            return None
        cause = {
            "reason": "FieldManagerConflict",
            "message": 'conflict with "kubectl" using v1',
            "field": ".data.x",
        }
        body = {"reason": "Conflict", "message": "conflict", "details": {"causes": [cause]}}
        return web.json_response(body, status=409)

    server.faults.append(conflict)

    with pytest.raises(problems.FieldsOwnedElsewhere) as caught:
        await apply.apply(writes, [CONFIG])

    assert caught.value.detail == 'data.x: conflict with "kubectl" using v1'


async def test_deleting_takes_only_what_it_is_given_last_made_first(server, writes):
    await apply.apply(writes, [SPACE, CONFIG, HOOK])
    server.put(kinds.CONFIG_MAP, "other", "n")

    done = await apply.delete(writes, [SPACE, CONFIG, HOOK])

    assert [change.kind for change in done] == [
        "MutatingWebhookConfiguration", "ConfigMap", "Namespace",
    ]  # fmt: skip
    assert server.get(kinds.CONFIG_MAP, "other", "n") is not None
    assert {one.action for one in await apply.delete(writes, [CONFIG])} == {"absent"}


async def test_objects_are_found_by_their_labels_and_kinds_not_served_have_none(server, writes):
    server.put(kinds.CONFIG_MAP, "a", "n", metadata={"labels": {"owner": "us"}})
    server.put(kinds.CONFIG_MAP, "b", "n")

    found = await apply.labelled(writes, [kinds.CONFIG_MAP, WIDGET], labels="owner=us")

    assert [item["metadata"]["name"] for item in found] == ["a"]


def deployment(server, *, available, generation=1):
    server.put(
        kinds.DEPLOYMENT,
        "d",
        "n",
        metadata={"generation": 1},
        spec={"replicas": 2, "selector": {"matchLabels": {"app": "d"}}},
        status={
            "observedGeneration": generation,
            "updatedReplicas": 2,
            "replicas": 2,
            "availableReplicas": available,
        },
    )


async def test_waiting_tells_what_is_missing_and_ends_when_nothing_is(server, writes):
    said = []
    deployment(server, available=0)

    async with asyncio.TaskGroup() as group:
        waits = group.create_task(
            waiting.until(
                writes,
                kinds.DEPLOYMENT,
                "d",
                namespace="n",
                missing=waiting.deployment,
                on_progress=said.append,
            )
        )
        await kube_server.eventually(lambda: said)
        deployment(server, available=1)
        await kube_server.eventually(lambda: len(said) == 2)
        deployment(server, available=2)

    assert said == ["0 of 2 pods ready", "1 of 2 pods ready"]
    assert waits.result()["status"]["availableReplicas"] == 2


async def test_waiting_in_vain_names_what_holds_up_the_pods(server, writes):
    deployment(server, available=0)
    waits = {"reason": "ErrImagePull", "message": "no such image"}
    server.put(
        kinds.POD,
        "d-1",
        "n",
        metadata={"labels": {"app": "d"}},
        status={"containerStatuses": [{"name": "c", "state": {"waiting": waits}}]},
    )

    with pytest.raises(problems.WaitEnded) as caught:
        await waiting.until(
            writes, kinds.DEPLOYMENT, "d", namespace="n", missing=waiting.deployment, timeout_s=0.2
        )

    assert caught.value.detail.splitlines() == [
        "0 of 2 pods ready",
        "pod d-1, container c: ErrImagePull: no such image",
    ]


async def test_waiting_begins_before_the_object_exists(server, writes):
    async with asyncio.TaskGroup() as group:
        waits = group.create_task(
            waiting.until(
                writes, kinds.SERVICE, "s", namespace="n", missing=waiting.address, timeout_s=5
            )
        )
        await kube_server.eventually(lambda: server.count("GET") == 2)
        status = {"loadBalancer": {"ingress": [{"ip": "10.9.0.1"}]}}
        server.put(kinds.SERVICE, "s", "n", status=status)

    assert waiting.addresses_of(waits.result()) == ("10.9.0.1",)
