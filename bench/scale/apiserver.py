"""`python -m bench.scale.apiserver SHAPE FOLDER`: the API servers of a whole fleet, in one process.

They list, page, watch, send bookmarks and answer 410 from objects that they hold as bytes. On
standard input they are told what to change; they answer with the moment at which the event was
written, on the machine's one monotonic clock.
"""

import asyncio
import contextlib
import json
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiohttp import web

from bench.scale import shapes

BOOKMARK_S: Final = 10.0
SLICES: Final = "/apis/discovery.k8s.io/v1/endpointslices"
FIRST: Final = 10
ROUTINE: Final = frozenset({"limit", "continue", "watch"})
"""What whoever lists or watches says."""


@dataclass
class Kind:
    """The objects of one kind in one cluster, and who watches them."""

    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    watchers: set[asyncio.Queue[bytes]] = field(default_factory=set)


class ApiServer:
    """One cluster's API server."""

    def __init__(self, shape: shapes.Shape, cluster: int, authority: str) -> None:
        self._shape = shape
        self._cluster = cluster
        self._version = FIRST
        self._kinds: dict[str, Kind] = {}
        for path, one in shapes.objects(shape, cluster):
            self._hold(path, one)
        if cluster == 0:
            for number, name in enumerate(shape.names[1:], 1):
                address = shapes.api_server(number)
                secret = shapes.remote_secret(name, address=address, authority=authority)
                self._hold(f"/api/v1/namespaces/{shapes.SYSTEM}/secrets", secret)

    def app(self) -> web.Application:
        """Return what answers requests."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    def ready(self, service: int, ready: frozenset[int]) -> int:
        """Make just `ready` of a service's pods ready; return when the event was written."""
        one = shapes.endpoint_slice(self._shape, self._cluster, service, ready)
        self._version += 1
        one["metadata"]["resourceVersion"] = str(self._version)
        body = self._hold(SLICES, one)
        event = b'{"type":"MODIFIED","object":%b}\n' % body
        written = time.monotonic_ns()
        for watcher in self._kinds[SLICES].watchers:
            watcher.put_nowait(event)
        return written

    def _hold(self, path: str, one: shapes.Obj) -> bytes:
        metadata = one["metadata"]
        body = json.dumps(one, separators=(",", ":")).encode()
        kind = self._kinds.setdefault(path, Kind())
        kind.objects[metadata.get("namespace", ""), metadata["name"]] = body
        return body

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = "/" + request.match_info["path"]
        if request.method == "POST" and path.endswith("/tokenreviews"):
            return web.json_response(_review(await request.json()), status=201)
        if request.method != "GET":
            return _status(403, "Forbidden")
        kind = self._kinds.get(path)
        if kind is None and not ROUTINE.isdisjoint(request.query):
            kind = self._kinds[path] = Kind()  # Of which nobody has made any object.
        if kind is None:
            return self._single(path)
        if "watch" in request.query:
            return await self._watch(request, kind)
        return self._list(request, kind)

    def _single(self, path: str) -> web.Response:
        """Return one object, if there is one."""
        folder, _, name = path.rpartition("/")
        parts = folder.split("/namespaces/")
        namespace = parts[1].split("/")[0] if len(parts) > 1 else ""
        general = folder.replace(f"/namespaces/{namespace}", "") if namespace else folder
        for place in (folder, general):
            found = self._kinds.get(place, Kind()).objects.get((namespace, name))
            if found is not None:
                return web.Response(body=found, content_type="application/json")
        return _status(404, "NotFound")

    def _list(self, request: web.Request, kind: Kind) -> web.Response:
        bodies = list(self._selected(request, kind))
        begin = int(request.query.get("continue") or 0)
        limit = int(request.query.get("limit") or 0) or len(bodies)
        page, rest = bodies[begin : begin + limit], bodies[begin + limit :]
        token = str(begin + limit) if rest else ""
        head = json.dumps({"resourceVersion": str(self._version), "continue": token})
        body = b'{"kind":"List","metadata":%b,"items":[%b]}' % (head.encode(), b",".join(page))
        return web.Response(body=body, content_type="application/json")

    def _selected(self, request: web.Request, kind: Kind) -> Iterator[bytes]:
        wanted = request.query.get("labelSelector", "")
        name = request.query.get("fieldSelector", "").partition("metadata.name=")[2]
        for (_, own), body in kind.objects.items():
            if name and own != name:
                continue
            # Selectors of the control plane name a label that an object has, or has not.
            key = wanted.lstrip("!").partition("=")[0]
            if not wanted or (key.encode() in body) is not wanted.startswith("!"):
                yield body

    async def _watch(self, request: web.Request, kind: Kind) -> web.StreamResponse:
        asked = int(request.query.get("resourceVersion") or FIRST)
        if asked < FIRST:
            return _status(410, "Expired")
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        await answer.prepare(request)
        events = asyncio.Queue[bytes]()
        kind.watchers.add(events)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(BOOKMARK_S):
                        await answer.write(await events.get())
                        continue
                version = {"metadata": {"resourceVersion": str(self._version)}}
                text = json.dumps({"type": "BOOKMARK", "object": version})
                await answer.write(text.encode() + b"\n")
        except ConnectionError:
            return answer
        finally:
            kind.watchers.discard(events)


def _review(review: shapes.Obj) -> shapes.Obj:
    namespace, _, name = review["spec"]["token"].partition(".")
    user = {
        "username": f"system:serviceaccount:{namespace}:client",
        "groups": ["system:serviceaccounts"],
        "extra": {"authentication.kubernetes.io/pod-name": [name]},
    }
    audiences = review["spec"].get("audiences") or ["istio-ca"]
    status = {"authenticated": True, "audiences": audiences, "user": user}
    return {**review, "status": status}


def _status(code: int, reason: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason}
    return web.json_response(body, status=code)


async def serve(shape: shapes.Shape, folder: Path) -> None:
    """Serve all clusters until standard input ends."""
    authority = (folder / "api.pem").read_text(encoding="utf-8")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(folder / "api.pem", folder / "api.key")
    servers = []
    for number in range(shape.clusters):
        servers.append(ApiServer(shape, number, authority))
        runner = web.AppRunner(servers[number].app(), access_log=None)
        await runner.setup()
        await web.TCPSite(
            runner, shapes.api_server(number), shapes.API_PORT, ssl_context=tls
        ).start()
    print(json.dumps({"serving": True}), flush=True)
    commands = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    while line := await commands.readline():
        asked = json.loads(line)
        written = servers[asked["cluster"]].ready(asked["service"], frozenset(asked["ready"]))
        print(json.dumps({"written_ns": written}), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(shapes.read(sys.argv[1]), Path(sys.argv[2])))
