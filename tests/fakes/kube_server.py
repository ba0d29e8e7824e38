"""A scriptable API server in memory: enough of the protocol for our client, and faults on order.

It refuses what a real one refuses: unknown paths, stale writes, versions that were compacted. It
keeps every object as JSON and knows nothing of what objects mean.
"""

import asyncio
import contextlib
import copy
import json
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from isthmus.kube import access, kinds
from isthmus.testing import pace

Obj = dict[str, Any]
Fault = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


@dataclass
class Collection:
    objects: dict[tuple[str, str], Obj] = field(default_factory=dict)
    log: list[tuple[int, str, Obj, Obj | None]] = field(default_factory=list)


@dataclass
class KubeServer:
    """One API server; `kinds_` are those that it serves."""

    kinds_: tuple[kinds.Kind, ...] = kinds.KNOWN
    version: int = 100
    compacted: int = 0
    url: str = ""
    requests: list[str] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    token: str = ""
    transports: weakref.WeakSet[Any] = field(default_factory=weakref.WeakSet)
    cut_watches: asyncio.Event = field(default_factory=asyncio.Event)
    verbatim: dict[str, bytes] = field(default_factory=dict)
    """What is said in the place of a text: JSON that no library would write."""
    _collections: dict[str, Collection] = field(default_factory=dict)
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    _uids: int = 0

    # --- the test's side --------------------------------------------------------------------------

    def access(self, **more: Any) -> access.Access:
        return access.Access(server=self.url, ca_pem="", name="fake", **more)

    def put(self, kind: kinds.Kind, name: str, namespace: str = "", **fields: Any) -> Obj:
        """Create or replace an object, as somebody else would."""
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        metadata |= fields.pop("metadata", {})
        obj = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, **fields}
        return self._store(kind, obj)

    def remove(self, kind: kinds.Kind, name: str, namespace: str = "") -> None:
        collection = self._of(kind)
        old = collection.objects.pop((namespace, name))
        self._log(collection, "DELETED", old, old)

    def get(self, kind: kinds.Kind, name: str, namespace: str = "") -> Obj | None:
        return self._of(kind).objects.get((namespace, name))

    def compact(self) -> None:
        self.compacted = self.version

    async def cut(self) -> None:
        """End every watch in the middle of an event."""
        self.cut_watches.set()
        await self._wake()
        await asyncio.sleep(0.01)
        self.cut_watches.clear()

    async def cut_connections(self) -> None:
        """End every connection, as a machine that starts anew does."""
        for transport in list(self.transports):
            transport.abort()
        await asyncio.sleep(0.01)

    def count(self, start: str) -> int:
        return sum(request.startswith(start) for request in self.requests)

    # --- storage ----------------------------------------------------------------------------------

    def _of(self, kind: kinds.Kind) -> Collection:
        return self._collections.setdefault(kind.title, Collection())

    def _store(self, kind: kinds.Kind, obj: Obj) -> Obj:
        collection = self._of(kind)
        metadata = obj["metadata"]
        key = (metadata.get("namespace", ""), metadata["name"])
        old = collection.objects.get(key)
        if old is not None and _bare(old) == _bare(obj):
            return old
        self._uids += old is None
        stored = copy.deepcopy(obj)
        stored["metadata"] |= {
            "uid": old["metadata"]["uid"] if old else f"uid-{self._uids}",
            "creationTimestamp": metadata.get("creationTimestamp", "2026-01-01T00:00:00Z"),
        }
        collection.objects[key] = stored
        self._log(collection, "MODIFIED" if old else "ADDED", stored, old)
        return stored

    def _log(self, collection: Collection, what: str, obj: Obj, old: Obj | None) -> None:
        self.version += 1
        stamped = copy.deepcopy(obj)
        stamped["metadata"]["resourceVersion"] = str(self.version)
        obj["metadata"]["resourceVersion"] = str(self.version)
        collection.log.append((self.version, what, stamped, copy.deepcopy(old)))
        asyncio.get_running_loop().call_soon(lambda: _keep(self._wake()))

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    # --- the wire ---------------------------------------------------------------------------------

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(f"{request.method} {request.path}")
        if request.transport is not None:
            self.transports.add(request.transport)
        self.queries.append(dict(request.query))
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return refused(401, "Unauthorized", "Unauthorized")
        for fault in list(self.faults):
            given = await fault(request)
            if given is not None:
                return given
        found = self._kind(request.path)
        if found is None:
            return refused(404, "NotFound", "the server could not find the requested resource")
        kind, namespace, name, _ = found
        if request.method == "GET" and not name:
            watching = request.query.get("watch") == "true"
            reply = self._watch if watching else self._list
            return await reply(request, kind, namespace)
        return await self._one(request, kind, namespace, name)

    def _kind(self, path: str) -> tuple[kinds.Kind, str, str, str] | None:
        for kind in self.kinds_:
            if not path.startswith(kind.root + "/"):
                continue
            parts = path.removeprefix(kind.root + "/").split("/")
            namespace = ""
            if kind == kinds.NAMESPACE and len(parts) > 2:
                continue
            if kind.namespaced and parts[0] == "namespaces" and len(parts) > 2:
                namespace, parts = parts[1], parts[2:]
            if parts[0] == kind.plural:
                rest = [*parts[1:], "", ""]
                return kind, namespace, rest[0], rest[1]
        return None

    async def _one(
        self, request: web.Request, kind: kinds.Kind, namespace: str, name: str
    ) -> web.StreamResponse:
        body = json.loads(await request.read()) if request.can_read_body else {}
        if request.method == "POST":
            return self._create(kind, namespace, body)
        old = self._of(kind).objects.get((namespace, name))
        applying = "apply-patch" in request.headers.get("Content-Type", "")
        if old is None and not applying:
            return refused(404, "NotFound", f'{kind.plural} "{name}" not found')
        if request.method == "GET":
            return web.json_response(old)
        if request.method == "DELETE":
            self.remove(kind, name, namespace)
            return web.json_response({"kind": "Status", "status": "Success"})
        return self._change(request, kind, old or {}, body)

    def _create(self, kind: kinds.Kind, namespace: str, body: Obj) -> web.Response:
        name = body["metadata"]["name"]
        if (namespace, name) in self._of(kind).objects:
            return refused(409, "AlreadyExists", f'{kind.plural} "{name}" already exists')
        return web.json_response(self._store(kind, body), status=201)

    def _change(self, request: web.Request, kind: kinds.Kind, old: Obj, body: Obj) -> web.Response:
        if request.method == "PUT":
            asked = body["metadata"].get("resourceVersion")
            if asked and asked != old["metadata"]["resourceVersion"]:
                return refused(409, "Conflict", "the object has been modified")
            return web.json_response(self._store(kind, body))
        merged = _merged(old, body)
        dry = request.query.get("dryRun") == "All"
        return web.json_response(merged if dry else self._store(kind, merged))

    async def _list(
        self, request: web.Request, kind: kinds.Kind, namespace: str
    ) -> web.StreamResponse:
        items = [
            item
            for key, item in sorted(self._of(kind).objects.items())
            if _matches(item, request, namespace)
        ]
        start = int(request.query.get("continue") or 0)
        limit = int(request.query.get("limit") or 0) or len(items) + 1
        end = start + limit
        metadata = {"resourceVersion": str(self.version)}
        if end < len(items):
            metadata["continue"] = str(end)
        document = {"kind": f"{kind.kind}List", "metadata": metadata, "items": items[start:end]}
        return web.Response(body=self._said(document), content_type="application/json")

    def _said(self, document: Obj) -> bytes:
        text = json.dumps(document).encode()
        for place, said in self.verbatim.items():
            text = text.replace(json.dumps(place).encode(), said)
        return text

    async def _watch(
        self, request: web.Request, kind: kinds.Kind, namespace: str
    ) -> web.StreamResponse:
        since = int(request.query["resourceVersion"])
        if since < self.compacted:
            return refused(410, "Expired", "too old resource version")
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        with contextlib.suppress(ConnectionResetError):
            await self._events(request, response, kind, namespace)
        return response

    async def _events(
        self,
        request: web.Request,
        response: web.StreamResponse,
        kind: kinds.Kind,
        namespace: str,
    ) -> None:
        since = int(request.query["resourceVersion"])
        while True:
            for version, what, obj, old in self._of(kind).log:
                event = _seen(what, obj, old, request, namespace) if version > since else None
                if event is not None:
                    await response.write(self._said(event) + b"\n")
            since = max(since, self.version)
            async with self._changed:
                if since >= self.version and not self.cut_watches.is_set():
                    await self._changed.wait()
            if self.cut_watches.is_set():
                await response.write(b'{"type":"MODIFIED","object":{"metadata":{"na')
                assert request.transport is not None
                request.transport.close()
                return


_TASKS: set[asyncio.Task[None]] = set()


def _keep(work: Any) -> None:
    task = asyncio.get_running_loop().create_task(work)
    _TASKS.add(task)
    task.add_done_callback(_TASKS.discard)


def _bare(obj: Obj) -> Obj:
    hidden = ("resourceVersion", "uid", "creationTimestamp")
    metadata = {key: value for key, value in obj["metadata"].items() if key not in hidden}
    return {**obj, "metadata": metadata}


def _merged(old: Obj, new: Obj) -> Obj:
    merged = dict(old)
    for key, value in new.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merged(merged[key], value) if both else value
    return merged


def _matches(obj: Obj, request: web.Request, namespace: str) -> bool:
    metadata = obj["metadata"]
    labels = metadata.get("labels") or {}
    for part in filter(None, request.query.get("labelSelector", "").split(",")):
        if part.startswith("!"):
            if part[1:] in labels:
                return False
            continue
        key, _, value = part.partition("=")
        if labels.get(key) != value:
            return False
    for part in filter(None, request.query.get("fieldSelector", "").split(",")):
        negated = "!=" in part
        path, _, value = part.partition("!=" if negated else "=")
        found: Any = obj
        for step in path.split("."):
            found = (found or {}).get(step)
        if ((found or "") == value) is negated:
            return False
    return not namespace or metadata.get("namespace") == namespace


def _seen(what: str, obj: Obj, old: Obj | None, request: web.Request, namespace: str) -> Obj | None:
    before = old is not None and _matches(old, request, namespace)
    after = what != "DELETED" and _matches(obj, request, namespace)
    if not before and not after:
        return None
    shown = ("MODIFIED" if before else "ADDED") if after else "DELETED"
    return {"type": shown, "object": obj}


def refused(status: int, reason: str, message: str, **headers: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": status}
    return web.json_response(
        body | {"reason": reason, "message": message}, status=status, headers=headers
    )


@contextlib.asynccontextmanager
async def serving(server: KubeServer | None = None) -> AsyncIterator[KubeServer]:
    """Serve on a free port of loopback."""
    server = server or KubeServer()
    app = web.Application(client_max_size=16 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", server.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.05, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    server.url = f"http://{host}:{port}"
    try:
        yield server
    finally:
        await runner.cleanup()


def failing(start: str, status: int, *, times: int = 10**9, **headers: str) -> Fault:
    """Refuse requests whose path begins with `start`."""
    left = times

    async def fault(request: web.Request) -> web.StreamResponse | None:
        nonlocal left
        if left <= 0 or not request.path.startswith(start):
            return None
        left -= 1
        return refused(status, "Fault", f"fault {status}", **headers)

    return fault


async def eventually(claim: Callable[[], object], *, within_s: float = pace.patience(5.0)) -> None:
    """Wait until `claim` holds; what holds it up is another task of this loop."""
    async with asyncio.timeout(within_s):
        while not claim():  # noqa: ASYNC110  # a claim is a question, not an event
            await asyncio.sleep(0.002)
