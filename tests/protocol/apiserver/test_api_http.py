"""The protocol as bytes, without any client library."""

import asyncio
import io
import json

import aiohttp
import pytest

from isthmus.testing import pace


@pytest.fixture
async def session(cluster):
    async with client(cluster) as made:
        yield made


def client(cluster, token="admin"):
    return aiohttp.ClientSession(
        cluster.url,
        connector=aiohttp.TCPConnector(ssl=cluster.trusting()),
        headers={"Authorization": f"Bearer {token}"},
    )


CONFIGS = "/api/v1/namespaces/default/configmaps"


async def made(session, name, **data):
    body = {"metadata": {"name": name}, "data": data}
    async with session.post(CONFIGS, json=body) as answer:
        return await answer.json()


async def status(session, method, path, **what):
    async with session.request(method, path, **what) as answer:
        body = await answer.json()
        assert body["kind"] == "Status"
        assert body["code"] == answer.status
        return answer.status, body["reason"]


@pytest.mark.parametrize(
    ("method", "path", "what", "expected"),
    [
        ("GET", "/nothing", {}, (404, "NotFound")),
        ("GET", "/api/v1/gadgets", {}, (404, "NotFound")),
        ("GET", "/openapi/v2", {}, (404, "NotFound")),
        ("GET", CONFIGS + "/none", {}, (404, "NotFound")),
        ("POST", CONFIGS + "/none", {"json": {}}, (405, "MethodNotAllowed")),
        ("PUT", CONFIGS, {"json": {}}, (405, "MethodNotAllowed")),
        ("POST", "/healthz", {}, (405, "MethodNotAllowed")),
        ("POST", CONFIGS, {"data": b"{"}, (415, "UnsupportedMediaType")),
        (
            "POST",
            CONFIGS,
            {"data": b"{", "headers": {"Content-Type": "application/json"}},
            (400, "BadRequest"),
        ),
        ("POST", CONFIGS, {"json": []}, (400, "BadRequest")),
        ("POST", CONFIGS, {"json": {"metadata": 3}}, (400, "BadRequest")),
        ("POST", CONFIGS, {"json": {}}, (422, "Invalid")),
        ("PATCH", CONFIGS + "/x", {"json": {}}, (415, "UnsupportedMediaType")),
        ("GET", CONFIGS + "?watch=perhaps", {}, (400, "BadRequest")),
        ("GET", CONFIGS + "?limit=-1", {}, (400, "BadRequest")),
        ("GET", CONFIGS + "?resourceVersion=abc", {}, (400, "BadRequest")),
        ("GET", CONFIGS, {"headers": {"Accept": "text/html"}}, (406, "NotAcceptable")),
        ("GET", "/apis/coordination.k8s.io/v1/leases", {}, (403, "Forbidden")),
    ],
)
async def test_what_cannot_be_served_is_a_status(session, method, path, what, expected):
    assert await status(session, method, path, **what) == expected


async def test_an_unknown_caller_is_refused(cluster):
    async with client(cluster, token="nobody") as session:
        assert await status(session, "GET", CONFIGS) == (401, "Unauthorized")


async def test_health_and_version_are_open(cluster):
    async with client(cluster, token="nobody") as session:
        async with session.get("/readyz") as answer:
            assert await answer.text() == "ok"
        async with session.get("/version") as answer:
            assert (await answer.json())["major"] == "1"


async def test_a_body_that_is_too_large_is_refused(session):
    body = json.dumps({"metadata": {"name": "x"}, "data": {"a": "b" * 4_000_000}}).encode()
    kind = {"Content-Type": "application/json"}
    refused = await status(session, "POST", CONFIGS, data=io.BytesIO(body), headers=kind)
    assert refused == (413, "RequestEntityTooLarge")


async def test_yaml_is_taken_but_not_a_bomb(session):
    kind = {"Content-Type": "application/yaml"}
    good = b"metadata: {name: x}\ndata: {when: '2020-01-01'}\n"
    async with session.post(CONFIGS, data=good, headers=kind) as answer:
        assert answer.status == 201

    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    bomb = "\n".join(lines).encode()
    assert await status(session, "POST", CONFIGS, data=bomb, headers=kind) == (400, "BadRequest")


async def test_unknown_fields_are_warned_of_refused_or_ignored(session):
    body = {"metadata": {"name": "x"}, "dta": {}}
    strict = CONFIGS + "?fieldValidation=Strict"
    assert await status(session, "POST", strict, json=body) == (400, "BadRequest")
    async with session.post(CONFIGS + "?dryRun=All", json=body) as answer:
        assert answer.headers["Warning"] == '299 - "unknown field \\"dta\\""'
    async with session.post(CONFIGS + "?fieldValidation=Ignore", json=body) as answer:
        assert "Warning" not in answer.headers


async def test_a_dry_run_stores_nothing(session):
    body = {"metadata": {"name": "x"}}
    async with session.post(CONFIGS + "?dryRun=All", json=body) as answer:
        assert (answer.status, (await answer.json())["metadata"]["name"]) == (201, "x")
    assert await status(session, "GET", CONFIGS + "/x") == (404, "NotFound")


async def test_a_collection_can_be_deleted_by_selector(session):
    for name in "ab":
        await made(session, name)
    async with session.delete(CONFIGS, params={"fieldSelector": "metadata.name=a"}) as answer:
        assert answer.status == 200
    async with session.get(CONFIGS) as answer:
        assert [one["metadata"]["name"] for one in (await answer.json())["items"]] == ["b"]


async def test_discovery_comes_in_both_forms(session):
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    async with session.get("/apis", headers={"Accept": accept}) as answer:
        body = await answer.json()
        assert "as=APIGroupDiscoveryList" in answer.headers["Content-Type"]
        assert "apps" in [one["metadata"]["name"] for one in body["items"]]
    async with session.get("/apis/apps/v1") as answer:
        names = [one["name"] for one in (await answer.json())["resources"]]
        assert {"deployments", "deployments/scale"} <= set(names)


async def lines(answer, count):
    async with asyncio.timeout(pace.patience(10)):
        return [json.loads(await answer.content.readline()) for _ in range(count)]


async def test_a_watch_streams_what_happens(session):
    async with session.get(CONFIGS + "?watch=1") as answer:
        await made(session, "a")
        async with session.delete(CONFIGS + "/a"):
            pass
        assert [one["type"] for one in await lines(answer, 2)] == ["ADDED", "DELETED"]


async def test_a_watch_ends_in_time_with_a_last_bookmark(session):
    path = CONFIGS + "?watch=1&resourceVersion=1&timeoutSeconds=1&allowWatchBookmarks=true"
    async with session.get(path) as answer:
        seen = [json.loads(line) async for line in answer.content]
    assert [one["type"] for one in seen] == ["BOOKMARK"]
    assert int(seen[0]["object"]["metadata"]["resourceVersion"]) > 1


async def test_an_idle_watch_gets_bookmarks_that_move_on(marking):
    async with client(marking) as session:
        path = CONFIGS + "?watch=1&resourceVersion=5&allowWatchBookmarks=true"
        async with session.get(path) as answer:
            first = (await lines(answer, 1))[0]
            body = {"metadata": {"name": "other"}}
            async with session.post("/api/v1/namespaces", json=body) as created:
                at = int((await created.json())["metadata"]["resourceVersion"])
            seen = first
            while int(seen["object"]["metadata"]["resourceVersion"]) < at:
                seen = (await lines(answer, 1))[0]
                assert seen["type"] == "BOOKMARK"


async def test_a_watch_from_a_compacted_revision_is_told_so_in_the_stream(cluster, session):
    await made(session, "a")
    cluster.api.compact()
    async with session.get(CONFIGS + "?watch=1&resourceVersion=1") as answer:
        assert answer.status == 200
        seen = await lines(answer, 1)
        assert await answer.content.read() == b""
    assert (seen[0]["type"], seen[0]["object"]["code"]) == ("ERROR", 410)


async def test_stopping_the_server_ends_watches(cluster, session):
    answer = await session.get(CONFIGS + "?watch=1")
    await made(session, "a")
    await lines(answer, 1)

    await cluster.stop()

    async with asyncio.timeout(pace.patience(5)):
        assert await answer.content.read() == b""
