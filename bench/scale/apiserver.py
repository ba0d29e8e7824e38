"""`python -m bench.scale.apiserver SHAPE FOLDER`: the API servers of a whole fleet, in one process.

They list, page, watch, send bookmarks and answer 410 from objects that they hold as bytes. On
standard input they are told what happens; they answer with the moments at which events were
written, on the machine's one monotonic clock.
"""

import asyncio
import dataclasses
import json
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from aiohttp import web

from bench.scale import shapes
from bench.scale.shapes import PODS, SLICES

BOOKMARK_S: Final = 10.0
FIRST: Final = 10
REMEMBERED: Final = 1024
"""So many events of a kind are told again to who comes back."""

ROUTINE: Final = frozenset({"limit", "continue", "watch"})
"""What whoever lists or watches says."""


@dataclass
class Kind:
    """The objects of one kind in one cluster, and who watches them.

    Attributes:
        events: What happened of late, each with its version.
        forgotten: The version of the last event that is not among them.
    """

    objects: dict[tuple[str, str], bytes] = field(default_factory=dict)
    watchers: set["asyncio.Queue[bytes | None]"] = field(default_factory=set)
    events: deque[tuple[int, bytes]] = field(default_factory=deque)
    forgotten: int = 0

    def tell(self, version: int, event: bytes) -> None:
        """Tell watchers of an event, now or when they come back."""
        self.events.append((version, event))
        if len(self.events) > REMEMBERED:
            self.forgotten, _ = self.events.popleft()
        for watcher in self.watchers:
            watcher.put_nowait(event)

    def since(self, version: int) -> Iterator[bytes]:
        """Yield the events after a version."""
        return (event for at, event in self.events if at > version)


@dataclass(frozen=True, slots=True)
class Step:
    """An event that is ready to be written.

    Attributes:
        event: What watchers are told.
        body: The object from then on; empty if it is gone.
    """

    path: str
    key: tuple[str, str]
    version: int
    event: bytes
    body: bytes


Steps = tuple[Step, Step, Step]
"""A pod comes, its slice changes, and another pod is gone."""


def _key(one: shapes.Obj) -> tuple[str, str]:
    return one["metadata"].get("namespace", ""), one["metadata"]["name"]


class ApiServer:
    """One cluster's API server."""

    def __init__(self, shape: shapes.Shape, cluster: int, authority: str) -> None:
        self._shape = shape
        self._cluster = cluster
        self._version = self._last = FIRST
        self._oldest = FIRST
        self._kinds: dict[str, Kind] = {}
        self._members: dict[int, list[shapes.Member]] = {}
        self.is_reachable = True
        for path, one in shapes.objects(shape, cluster):
            self._hold(path, one)
        if cluster == 0:
            for number in range(1, shape.clusters):
                secret = shapes.remote_secret(shape, number, authority=authority)
                self._hold(f"/api/v1/namespaces/{shapes.SYSTEM}/secrets", secret)

    def app(self) -> web.Application:
        """Return what answers requests."""
        app = web.Application(client_max_size=1 << 26)
        app.router.add_route("*", "/{path:.*}", self._answer)
        return app

    # --- what happens

    def members(self, service: int) -> list[shapes.Member]:
        """Return a service's pods as they are now."""
        if service not in self._members:
            self._members[service] = shapes.members(self._shape, self._cluster, service)
        return self._members[service]

    def ready(self, service: int, unready: Sequence[int]) -> int:
        """Make all but `unready` of a service's pods ready; return when the event was written."""
        own = self.members(service)
        for number, one in enumerate(own):
            own[number] = dataclasses.replace(one, is_ready=number not in unready)
        return self._slice(service)

    def replacing(self, service: int, number: int, marker: int) -> Steps:
        """Put a new pod in the place of one, with an address of its own, once these happen."""
        own = self.members(service)
        old = own[number]
        fresh = own[number] = dataclasses.replace(
            old, name=f"s{service}-m{marker}", address=shapes.marker(marker), is_ready=True
        )
        new, gone = (
            shapes.pod_object(self._shape, self._cluster, service, one) for one in (fresh, old)
        )
        known = shapes.endpoint_slice(self._shape, self._cluster, service, own)
        return (
            self._step(PODS, b"ADDED", new),
            self._step(SLICES, b"MODIFIED", known),
            self._step(PODS, b"DELETED", gone),
        )

    def happen(self, steps: Steps) -> int:
        """Let what was made ready happen now; return when the event of a slice was written."""
        _, written, _ = map(self._take, steps)
        return written

    def replace(self, service: int, number: int, marker: int) -> int:
        """Replace a pod now; return when the event was written."""
        return self.happen(self.replacing(service, number, marker))

    def on(self, node: int) -> dict[int, list[str]]:
        """Return the addresses of a node's pods, by service."""
        found = dict[int, list[str]]()
        for service in range(self._shape.services):
            for one in self.members(service):
                if one.node == node and one.is_ready:
                    found.setdefault(service, []).append(one.address)
        return found

    def lose(self, node: int) -> int:
        """Make all pods of a node unready at once; return when."""
        written = time.monotonic_ns()
        for service in self.on(node):
            own = self.members(service)
            for at, one in enumerate(own):
                own[at] = dataclasses.replace(one, is_ready=one.is_ready and one.node != node)
            self._slice(service)
        return written

    def add(self, service: int, marker: int) -> int:
        """Make a service of one pod."""
        one = shapes.Member(f"s{service}-m{marker}", shapes.marker(marker), 0, 0)
        self._members[service] = [one]
        self.put(PODS, shapes.pod_object(self._shape, self._cluster, service, one))
        written = self.put(shapes.SERVICES, shapes.service_object(self._shape, service))
        self._slice(service)
        return written

    def remove(self, service: int) -> int:
        """Delete a service with its pods."""
        (home,) = shapes.NAMESPACES[:1]
        written = self.delete(shapes.SERVICES, home, f"s{service}")
        self.delete(SLICES, home, f"s{service}-x7k2p")
        for one in self._members.pop(service, []):
            self.delete(PODS, home, one.name)
        return written

    def truth(self) -> dict[str, list[str]]:
        """Return the addresses that are ready, by service."""
        numbers = {*range(self._shape.services), *self._members}
        return {
            shapes.host(number): sorted(one.address for one in self.members(number) if one.is_ready)
            for number in numbers
        }

    def expire(self) -> None:
        """End all watches, and remember nothing of what was: 410 to all that go on from there."""
        self._last += 1
        self._version = self._oldest = self._last
        self.cut()

    def reach(self, *, is_reachable: bool) -> None:
        """Answer nobody from now on, or again."""
        self.is_reachable = is_reachable
        self.cut()

    def cut(self) -> None:
        """End all watches."""
        for kind in self._kinds.values():
            for watcher in kind.watchers:
                watcher.put_nowait(None)

    def put(self, path: str, one: shapes.Obj) -> int:
        """Write an object; return when its event was written."""
        is_new = _key(one) not in self._kinds.setdefault(path, Kind()).objects
        return self._take(self._step(path, b"ADDED" if is_new else b"MODIFIED", one))

    def delete(self, path: str, namespace: str, name: str) -> int:
        """Delete an object; return when its event was written."""
        one = json.loads(self._kinds[path].objects[namespace, name])
        return self._take(self._step(path, b"DELETED", one))

    def _slice(self, service: int) -> int:
        known = self.members(service)
        return self.put(SLICES, shapes.endpoint_slice(self._shape, self._cluster, service, known))

    def _step(self, path: str, kind: bytes, one: shapes.Obj) -> Step:
        """Make an event ready, which must happen before what is made ready later."""
        self._last += 1
        one["metadata"]["resourceVersion"] = str(self._last)
        body = json.dumps(one, separators=(",", ":")).encode()
        event = b'{"type":"%b","object":%b}\n' % (kind, body)
        return Step(path, _key(one), self._last, event, b"" if kind == b"DELETED" else body)

    def _take(self, step: Step) -> int:
        """Let an event happen; return when it was written."""
        kind, self._version = self._kinds[step.path], step.version
        if step.body:
            kind.objects[step.key] = step.body
        else:
            del kind.objects[step.key]
        written = time.monotonic_ns()
        kind.tell(step.version, step.event)
        return written

    def _hold(self, path: str, one: shapes.Obj) -> None:
        body = json.dumps(one, separators=(",", ":")).encode()
        self._kinds.setdefault(path, Kind()).objects[_key(one)] = body

    # --- requests

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = "/" + request.match_info["path"]
        if not self.is_reachable:
            return _status(503, "ServiceUnavailable")
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
        asked = int(request.query.get("resourceVersion") or self._version)
        if asked < max(self._oldest, kind.forgotten):
            return _status(410, "Expired")
        # What happens from here on is told, and what has happened while nobody listened.
        events = asyncio.Queue["bytes | None"]()
        for event in kind.since(asked):
            events.put_nowait(event)
        kind.watchers.add(events)
        answer = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            await answer.prepare(request)
            while some := await self._next(events):
                await answer.write(some)
        except ConnectionError:
            pass
        finally:
            kind.watchers.discard(events)
        return answer

    async def _next(self, events: "asyncio.Queue[bytes | None]") -> bytes:
        """Return all that is to be told, a bookmark if that is nothing for long; empty to end."""
        while True:
            try:
                async with asyncio.timeout(BOOKMARK_S):
                    event = await events.get()
            except TimeoutError:
                if events.empty():
                    return self._bookmark()
                continue
            some = list[bytes]()
            while event is not None:
                some.append(event)
                if events.empty():
                    return b"".join(some)
                event = events.get_nowait()
            if some:
                events.put_nowait(None)
            return b"".join(some)

    def _bookmark(self) -> bytes:
        version = {"metadata": {"resourceVersion": str(self._version)}}
        return json.dumps({"type": "BOOKMARK", "object": version}).encode() + b"\n"


def _review(review: shapes.Obj) -> shapes.Obj:
    namespace, account, name = [*review["spec"]["token"].split("."), "", ""][:3]
    user = {
        "username": f"system:serviceaccount:{namespace}:{account}",
        "groups": ["system:serviceaccounts"],
        "extra": {"authentication.kubernetes.io/pod-name": [name]},
    }
    audiences = review["spec"].get("audiences") or ["istio-ca"]
    status = {"authenticated": True, "audiences": audiences, "user": user}
    return {**review, "status": status}


def _status(code: int, reason: str) -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": code, "reason": reason}
    return web.json_response(body, status=code)


class Servers:
    """All clusters' API servers, as they are told what happens."""

    def __init__(self, servers: Sequence[ApiServer]) -> None:
        self._servers = servers
        self._ready: list[tuple[float, ApiServer, int, Steps]] = []

    async def obey(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Let something happen."""
        if asked["act"] in {"prepare", "replace"}:
            self._ready = list(self._prepared(asked["events"]))
        if asked["act"] == "prepare":
            return {}
        if asked["act"] in {"begin", "replace"}:
            return {"found": await self._replaced()}
        if asked["act"] == "truth":
            return {"found": [each.truth() for each in self._servers]}
        one = self._servers[asked["cluster"]]
        return {"found": ACTS[asked["act"]](one, asked)}

    def _prepared(
        self, events: Sequence[Sequence[float]]
    ) -> Iterator[tuple[float, ApiServer, int, Steps]]:
        """Yield what happens when pods are replaced, so that nothing else is left to do then."""
        for at_s, *numbers in events:
            cluster, service, number, marker = map(int, numbers)
            one = self._servers[cluster]
            yield at_s, one, marker, one.replacing(service, number, marker)

    async def _replaced(self) -> dict[str, int]:
        """Replace pods, each at its moment from now; return when each event was written."""
        began, written = time.monotonic(), dict[str, int]()
        for at_s, one, marker, steps in self._ready:
            # Who is late lets watches have what there is all the same, before there is more.
            await asyncio.sleep(max(0.0, began + at_s - time.monotonic()))
            written[shapes.marker(marker)] = one.happen(steps)
        return written


ACTS: Final[Mapping[str, Callable[[ApiServer, dict[str, Any]], object]]] = {
    "ready": lambda one, asked: one.ready(asked["service"], asked["unready"]),
    "members": lambda one, asked: [each.address for each in one.members(asked["service"])],
    "on": lambda one, asked: {str(key): some for key, some in one.on(asked["node"]).items()},
    "lose": lambda one, asked: one.lose(asked["node"]),
    "add": lambda one, asked: one.add(asked["service"], asked["marker"]),
    "remove": lambda one, asked: one.remove(asked["service"]),
    "policy": lambda one, asked: one.put(shapes.POLICIES, shapes.policy(asked["number"])),
    "expire": lambda one, _: one.expire(),
    "reachable": lambda one, asked: one.reach(is_reachable=asked["is_reachable"]),
}


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
        await web.TCPSite(runner, *shapes.place(shape, number), ssl_context=tls).start()
    print(json.dumps({"serving": True}), flush=True)
    commands = asyncio.StreamReader(limit=1 << 26)
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(commands), sys.stdin
    )
    told = Servers(servers)
    while line := await commands.readline():
        print(json.dumps(await told.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(shapes.read(sys.argv[1]), Path(sys.argv[2])))
