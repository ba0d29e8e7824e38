"""Requests that go on inside a pod: log, exec, attach, port-forward and proxy.

It decides which container is meant and which framing a client speaks. It refuses to know how a pod
runs: `PodRuntime` is the machine's part.

What the assembly of a cluster needs::

    streams = streams.PodStreams(api, runtime, connect=connect)
    app = http.application(api, security, streams)

`connect` reaches Services without pods, as for `security.ClusterSecurity`.
"""

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

from aiohttp import web

from isthmus.base import clock as clocks
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import backends, errors, forwarding, proxying, selectors, terminals
from isthmus.lab.apiserver.values import Obj
from isthmus.lab.apiserver.webhooks import Connect

_LIVENESS_S = 5.0


class PodRuntime(Protocol):
    """What the machine does for the streams."""

    async def exec(
        self,
        namespace: str,
        pod: str,
        container: str,
        argv: Sequence[str],
        *,
        stdin: bool,
        tty: bool,
    ) -> terminals.ExecStream:
        """Start a program in a container. Raises LookupError when it is not running."""

    async def attach(
        self, namespace: str, pod: str, container: str, *, stdin: bool
    ) -> terminals.JoinedStream:
        """Join a container's main program. Raises LookupError when it is not running."""

    def logs(  # noqa: PLR0913  # what a log request can ask for
        self,
        namespace: str,
        pod: str,
        container: str,
        *,
        follow: bool,
        tail: int | None,
        previous: bool,
        since_s: float | None,
        timestamps: bool,
    ) -> AsyncIterator[bytes]:
        """Yield what a container wrote. Raises LookupError when it never ran."""

    async def dial(
        self, namespace: str, pod: str, port: int
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to a port on the loopback of a pod. Raises OSError when nothing listens."""


class PodStreams:
    """Answers the streaming requests for the pods of one cluster."""

    def __init__(
        self,
        api: apis.Api,
        runtime: PodRuntime,
        *,
        connect: Connect | None = None,
        clock: clocks.Clock | None = None,
    ) -> None:
        self._api = api
        self._runtime = runtime
        self._connect = connect or asyncio.open_connection
        self._clock = clock or clocks.SystemClock()

    async def log(self, request: web.Request, pod: Obj) -> web.StreamResponse:
        """Send a container's output."""
        query = request.query
        container = container_of(pod, query.get("container", ""))
        namespace, name = _key(pod)
        limit = _number(query, "limitBytes")
        lines = self._runtime.logs(
            namespace,
            name,
            container,
            follow=selectors.go_bool(query.get("follow")),
            tail=_number(query, "tailLines"),
            previous=selectors.go_bool(query.get("previous")),
            since_s=self._since(query),
            timestamps=selectors.go_bool(query.get("timestamps")),
        )
        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        async with _closed_after(_limited(lines, limit)) as parts:
            first = await _first(parts, pod, container)
            await response.prepare(request)
            async with asyncio.TaskGroup() as group:
                copying = group.create_task(_copy(response, first, parts))
                # A reader that leaves while nothing is written is noticed only by looking.
                while not copying.done():
                    await asyncio.wait({copying}, timeout=_LIVENESS_S)
                    if request.transport is None or request.transport.is_closing():
                        copying.cancel()
        return response

    async def exec(self, request: web.Request, pod: Obj) -> web.StreamResponse:
        """Run a program in a container."""
        query = request.query
        container = container_of(pod, query.get("container", ""))
        argv = query.getall("command", [])
        if not argv:
            raise errors.bad_request("you must specify at least 1 command for the container")
        socket = await terminals.opened(request)
        namespace, name = _key(pod)
        tty = selectors.go_bool(query.get("tty"))
        stdin = selectors.go_bool(query.get("stdin"))
        try:
            program = await self._runtime.exec(
                namespace, name, container, argv, stdin=stdin, tty=tty
            )
        except (LookupError, OSError) as error:
            await terminals.refuse(socket, _why_not(error, container))
            return socket
        await terminals.join(socket, program, stdin=stdin)
        return socket

    async def attach(self, request: web.Request, pod: Obj) -> web.StreamResponse:
        """Join a container's main program."""
        container = container_of(pod, request.query.get("container", ""))
        socket = await terminals.opened(request)
        namespace, name = _key(pod)
        stdin = selectors.go_bool(request.query.get("stdin"))
        try:
            program = await self._runtime.attach(namespace, name, container, stdin=stdin)
        except LookupError as error:
            await terminals.refuse(socket, _why_not(error, container))
            return socket
        try:
            await terminals.join(socket, program, stdin=stdin)
        finally:
            program.leave()
        return socket

    async def portforward(self, request: web.Request, pod: Obj) -> web.StreamResponse:
        """Carry connections to a pod's ports."""
        if (pod.get("status") or {}).get("phase") != "Running":
            phase = (pod.get("status") or {}).get("phase", "Unknown")
            raise errors.bad_request(
                f"unable to forward port because pod is not running. Current status={phase}"
            )
        namespace, name = _key(pod)

        async def dial(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
            return await self._runtime.dial(namespace, name, port)

        return await forwarding.serve(request, dial, pod_name=name)

    async def proxy(
        self, request: web.Request, obj: Obj, *, path: str, port: str
    ) -> web.StreamResponse:
        """Pass an HTTP request on to a pod or a service."""
        namespace, name = _key(obj)
        try:
            if obj["kind"] == "Pod":
                number = int(port) if port.isdigit() else _pod_port(obj, port)
                connection = await self._runtime.dial(namespace, name, number)
            elif obj["kind"] == "Service":
                connection = await self._dial_service(namespace, name, port)
            else:
                raise errors.ApiError(501, "NotImplemented", "nodes have no proxy here")
        except (OSError, LookupError, backends.NoBackendError) as error:
            raise proxying.unreachable(error) from error
        return await proxying.relayed(request, connection, path=path)

    async def _dial_service(
        self, namespace: str, name: str, port: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        backend = await backends.backend_of(self._api, namespace=namespace, name=name, port=port)
        if backend.pod:
            return await self._runtime.dial(namespace, backend.pod, backend.port)
        return await self._connect(backend.address, backend.port)

    def _since(self, query: Mapping[str, str]) -> float | None:
        if (seconds := _number(query, "sinceSeconds")) is not None:
            return seconds
        if not (text := query.get("sinceTime")):
            return None
        since = datetime.datetime.fromisoformat(text)
        return max(0.0, (self._clock.now() - since).total_seconds())


async def _copy(response: web.StreamResponse, first: bytes, parts: AsyncIterator[bytes]) -> None:
    with contextlib.suppress(ConnectionError):
        await response.write(first)
        async for part in parts:
            await response.write(part)
        await response.write_eof()


def container_of(pod: Obj, wanted: str) -> str:
    """Return the container that a request means, or raise a 400 that lists the choice."""
    spec, name = pod["spec"], pod["metadata"]["name"]
    usual = [each["name"] for each in spec["containers"]]
    initial = [each["name"] for each in spec.get("initContainers") or ()]
    others = [each["name"] for each in spec.get("ephemeralContainers") or ()]
    if wanted in {*usual, *initial, *others}:
        return wanted
    if wanted:
        raise errors.bad_request(f"container {wanted} is not valid for pod {name}")
    if len(usual) == 1:
        return str(usual[0])
    text = f"a container name must be specified for pod {name}, choose one of: [{' '.join(usual)}]"
    if initial:
        text += f" or one of the init containers: [{' '.join(initial)}]"
    raise errors.bad_request(text)


def _key(obj: Obj) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if not text:
        return None
    if not text.isdigit():
        raise errors.bad_request(f"{name}: Invalid value: {text}: must be a number, 0 or more")
    return int(text)


def _why_not(error: Exception, container: str) -> str:
    if isinstance(error, OSError):
        return str(error)
    said = str(error.args[0]) if error.args else ""
    return said or f'container not found ("{container}")'


def _pod_port(pod: Obj, name: str) -> int:
    """Return the number of a named port, or of the first one when no name is given."""
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            if not name or port.get("name") == name:
                return int(port["containerPort"])
    if not name:
        return 80
    raise errors.bad_request(f'no port "{name}" in pod "{pod["metadata"]["name"]}"')


async def _first(parts: AsyncIterator[bytes], pod: Obj, container: str) -> bytes:
    """Return the first bytes of a log, so that its failure is still an HTTP error."""
    try:
        return await anext(parts, b"")
    except LookupError as error:
        name, said = pod["metadata"]["name"], str(error.args[0]) if error.args else ""
        if said.startswith("previous"):
            raise errors.bad_request(said) from error
        why = _waiting(pod, container)
        raise errors.bad_request(
            f'container "{container}" in pod "{name}" is waiting to start: {why}'
        ) from error


def _waiting(pod: Obj, container: str) -> str:
    for each in (pod.get("status") or {}).get("containerStatuses") or ():
        if each["name"] == container:
            return str((each.get("state") or {}).get("waiting", {}).get("reason", "unknown"))
    return "PodInitializing"


async def _limited(parts: AsyncIterator[bytes], limit: int | None) -> AsyncIterator[bytes]:
    left = limit
    async with _closed_after(parts) as found:
        async for part in found:
            if left is None:
                yield part
                continue
            yield part[:left]
            left -= len(part)
            if left <= 0:
                return


@contextlib.asynccontextmanager
async def _closed_after(parts: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """Close an iterator afterwards if it can be closed."""
    try:
        yield parts
    finally:
        close = getattr(parts, "aclose", None)
        if close is not None:
            await close()
