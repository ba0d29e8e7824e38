"""Speaks HTTP to one API server: the only place in the product that does.

JSON only. It decides how a request is sent, retried and refused; it knows nothing of what objects
mean. What a server asks us to wait for (`Retry-After`) is waited for, within bounds; redirects
are never followed.

Source: security rules RS-2 and PY; performance rule 8.
"""

import asyncio
import contextlib
import pathlib
import socket
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec
from aiohttp import abc, resolver
from typing_extensions import override

from isthmus.base import clock, version
from isthmus.kube import access, answers, kinds, paging, problems, reasons, tls

Obj = dict[str, Any]
"""An object as JSON says it."""

PAGE = 500
FIELD_MANAGER = "isthmus"
MOST_ATTEMPTS = 5
TOKEN_REREAD_S = 30.0
ANSWER_S = 10.0
"""Reading waits so long for the next byte: a server that hung and is back is heard soon."""
SILENCE_S = 90.0
"""A watch that says nothing for so long, not even a bookmark, is opened anew."""
LINE_BYTES = 1024 * 1024
PATCHES = {
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}
_STDOUT, _STDERR, _ERROR, _CLOSE = 1, 2, 3, 255
_V5 = "v5.channel.k8s.io"
_V4 = "v4.channel.k8s.io"


@dataclass(frozen=True, slots=True)
class ExecResult:
    """What a command in a container wrote, and how it ended."""

    stdout: bytes
    stderr: bytes
    code: int


class Client:
    """A connection pool to one API server; open it with `async with`.

    Every method raises `problems.ApiError` when the server refuses (ISM-KUBE-001) and
    `problems.Unreachable` when no answer comes (ISM-KUBE-002). Certificates that no connection
    could use are refused at once (`ssl.SSLError`).
    """

    def __init__(
        self,
        reached_by: access.Access,
        *,
        timeout_s: float = 30.0,
        attempts: int = MOST_ATTEMPTS,
        system_clock: clock.Clock | None = None,
    ) -> None:
        self.access = reached_by
        self._clock = system_clock or clock.SystemClock()
        self._tls = tls.context(reached_by)
        self._timeout_s = timeout_s
        self._attempts = attempts
        self._session: aiohttp.ClientSession | None = None
        self._token = reached_by.token
        self._token_read_at: float | None = None

    async def __aenter__(self) -> Self:
        self.open()
        return self

    def open(self) -> None:
        """Make ready to connect; nothing is sent yet."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=self._tls,
                limit=0,
                resolver=_ConfinedResolver() if self.access.confined else None,
                socket_factory=tls.open_socket,
            ),
            headers={"User-Agent": f"isthmus/{version.VERSION}", "Accept": "application/json"},
            read_bufsize=LINE_BYTES,
            auto_decompress=True,
            cookie_jar=aiohttp.DummyCookieJar(),
        )

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # --- objects --------------------------------------------------------------------------------

    async def get(
        self, kind: kinds.Kind, name: str, *, namespace: str = "", subresource: str = ""
    ) -> Obj:
        """Return one object."""
        path = kind.path(name, namespace=namespace, subresource=subresource)
        return answers.document(await self.raw("GET", path))

    async def find(self, kind: kinds.Kind, name: str, *, namespace: str = "") -> Obj | None:
        """Return one object, or None when it, or its kind, does not exist."""
        try:
            return await self.get(kind, name, namespace=namespace)
        except problems.ApiError as error:
            if error.is_missing:
                return None
            raise

    async def list_(
        self, kind: kinds.Kind, *, namespace: str = "", labels: str = "", fields: str = ""
    ) -> list[Obj]:
        """Return all objects that match, page by page; each says its kind."""
        query = {"limit": str(PAGE), "labelSelector": labels, "fieldSelector": fields}
        found: list[Obj] = []
        told = paging.Pages()
        while True:
            page = answers.document(
                await self.raw("GET", kind.path(namespace=namespace), query=query)
            )
            stamp = {"apiVersion": kind.api_version, "kind": kind.kind}
            found += [{**stamp, **item} for item in page.get("items") or []]
            said, query["continue"] = query.get("continue"), answers.next_page(page)
            if not query["continue"]:
                return found
            if not told.leads_on(has_news=query["continue"] != said and bool(page.get("items"))):
                raise paging.endless(kind.title)

    async def create(
        self,
        kind: kinds.Kind,
        obj: Mapping[str, Any],
        *,
        dry_run: bool = False,
        field_manager: str = FIELD_MANAGER,
    ) -> Obj:
        """Create an object and return it as stored."""
        namespace = str(obj.get("metadata", {}).get("namespace", ""))
        query = {"fieldManager": field_manager, "dryRun": "All" if dry_run else ""}
        return answers.document(
            await self.raw("POST", kind.path(namespace=namespace), query=query, body=obj)
        )

    async def update(
        self,
        kind: kinds.Kind,
        obj: Mapping[str, Any],
        *,
        subresource: str = "",
        field_manager: str = FIELD_MANAGER,
    ) -> Obj:
        """Replace an object; refused when its `resourceVersion` is not the newest."""
        metadata = obj["metadata"]
        path = kind.path(
            metadata["name"], namespace=metadata.get("namespace", ""), subresource=subresource
        )
        return answers.document(
            await self.raw("PUT", path, query={"fieldManager": field_manager}, body=obj)
        )

    async def patch(  # noqa: PLR0913  # each argument is one of the API's own
        self,
        kind: kinds.Kind,
        name: str,
        body: object,
        *,
        namespace: str = "",
        patch: str = "merge",
        field_manager: str = FIELD_MANAGER,
        force: bool = False,
        subresource: str = "",
        dry_run: bool = False,
    ) -> Obj:
        """Change an object; `patch` is one of merge, strategic, json and apply."""
        query = {"fieldManager": field_manager, "dryRun": "All" if dry_run else ""}
        if patch == "apply":
            query["force"] = "true" if force else "false"
        path = kind.path(name, namespace=namespace, subresource=subresource)
        headers = {"Content-Type": PATCHES[patch]}
        return answers.document(
            await self.raw("PATCH", path, query=query, body=body, headers=headers)
        )

    async def delete(
        self,
        kind: kinds.Kind,
        name: str,
        *,
        namespace: str = "",
        uid: str = "",
        propagation: str = "Background",
    ) -> Obj:
        """Delete an object; with `uid` only that very one."""
        body: Obj = {
            "kind": "DeleteOptions",
            "apiVersion": "v1",
            "propagationPolicy": propagation,
        }
        if uid:
            body["preconditions"] = {"uid": uid}
        return answers.document(
            await self.raw("DELETE", kind.path(name, namespace=namespace), body=body)
        )

    async def kind_of(self, manifest: Mapping[str, Any]) -> kinds.Kind:
        """Return the kind of an object, asking the server when it is none of ours.

        Raises:
            problems.KindUnknown: The server does not serve it (ISM-KUBE-006).
        """
        try:
            return kinds.of_manifest(manifest)
        except problems.KindUnknown:
            group, _, served = str(manifest.get("apiVersion", "")).rpartition("/")
            probe = kinds.Kind(group, served, "", str(manifest.get("kind", "")))
            with contextlib.suppress(problems.ApiError):
                for item in (
                    answers.document(await self.raw("GET", probe.root)).get("resources") or []
                ):
                    if item["kind"] == probe.kind and "/" not in item["name"]:
                        return kinds.Kind(
                            group, served, item["name"], probe.kind, namespaced=item["namespaced"]
                        )
            raise

    # --- credentials ----------------------------------------------------------------------------

    async def token_review(self, token: str, audiences: Sequence[str] = ()) -> Obj:
        """Ask the server whose token this is; return the review's `status`."""
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, **({"audiences": list(audiences)} if audiences else {})},
        }
        review = await self.raw("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body=body)
        status = answers.document(review).get("status") or {}
        assert isinstance(status, dict)
        return status

    async def token_request(
        self,
        namespace: str,
        service_account: str,
        *,
        audiences: Sequence[str] = (),
        seconds: int = 3600,
        bound_to: Mapping[str, str] | None = None,
    ) -> str:
        """Return a fresh token of a service account; it ends with the object in `bound_to`."""
        bound = {"boundObjectRef": dict(bound_to)} if bound_to else {}
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"audiences": list(audiences), "expirationSeconds": seconds, **bound},
        }
        path = kinds.SERVICE_ACCOUNT.path(service_account, namespace=namespace, subresource="token")
        return str(answers.document(await self.raw("POST", path, body=body))["status"]["token"])

    # --- containers -----------------------------------------------------------------------------

    async def logs(self, namespace: str, pod: str, container: str = "", *, tail: int = 0) -> str:
        """Return what a container wrote."""
        query = {"container": container, "tailLines": str(tail) if tail else ""}
        path = kinds.POD.path(pod, namespace=namespace, subresource="log")
        return (await self.raw("GET", path, query=query)).decode(errors="replace")

    async def exec(  # noqa: PLR0913  # each argument is one of the API's own
        self,
        namespace: str,
        pod: str,
        argv: Sequence[str],
        *,
        container: str = "",
        stdin: bytes | None = None,
        timeout_s: float | None = 60.0,
        on_output: Callable[[int, bytes], None] | None = None,
    ) -> ExecResult:
        """Run a command in a container and return what it wrote.

        `on_output` gets it instead, as it comes, with 1 for standard output and 2 for errors.
        """
        query = [("command", word) for word in argv]
        query += [("stdout", "1"), ("stderr", "1")]
        query += [("container", container)] if container else []
        query += [("stdin", "1")] if stdin is not None else []
        path = kinds.POD.path(pod, namespace=namespace, subresource="exec")
        protocols = (_V5, _V4) if stdin is None else (_V5,)
        try:
            async with (
                asyncio.timeout(timeout_s),
                self._opened().ws_connect(
                    self.access.server + path,
                    params=query,
                    protocols=protocols,
                    headers=self._credential(),
                    max_msg_size=0,
                    server_hostname=self.access.tls_server_name or None,
                    proxy=self.access.proxy_url or None,
                ) as stream,
            ):
                if stdin is not None:
                    await stream.send_bytes(b"\0" + stdin)
                    await stream.send_bytes(bytes((_CLOSE, 0)))
                return await _command_ended(stream, on_output)
        except aiohttp.WSServerHandshakeError as error:
            raise problems.ApiError(
                error.status, "", f"cannot run a command in `{namespace}/{pod}`: {error.message}"
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error, timeout_s or 0.0) from error

    # --- requests -------------------------------------------------------------------------------

    async def raw(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> bytes:
        """Send one request and return the answer's body; empty query values are left out."""
        payload = None if body is None else msgspec.json.encode(body)
        typed = {"Content-Type": "application/json"} if body is not None else {}
        parameters = {key: value for key, value in (query or {}).items() if value}
        for attempt in range(1, self._attempts + 1):
            last = attempt == self._attempts
            try:
                async with self._opened().request(
                    method,
                    self.access.server + path,
                    params=parameters,
                    data=payload,
                    headers={**typed, **self._credential(), **(headers or {})},
                    timeout=aiohttp.ClientTimeout(
                        total=self._timeout_s,
                        sock_connect=reasons.CONNECT_S,
                        # What writes may wait for webhooks.
                        sock_read=ANSWER_S if method == "GET" else None,
                    ),
                    allow_redirects=False,
                    server_hostname=self.access.tls_server_name or None,
                    proxy=self.access.proxy_url or None,
                ) as answer:
                    content = await answers.whole(answer.content.iter_any())
                    if 200 <= answer.status < 300:
                        return content
                    delay_s = answers.wait_asked_for(answer.headers, status=answer.status)
                    if delay_s is None or last:
                        raise answers.refusal(answer.status, content, request=f"{method} {path}")
            except aiohttp.ServerDisconnectedError as error:
                # An idle connection that the server closed; only what may be repeated is.
                if last or method != "GET":
                    raise self._unreachable(error, self._timeout_s) from error
                delay_s = 0.0
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self._unreachable(error, self._timeout_s) from error
            await self._clock.sleep(delay_s)
        raise AssertionError("the last attempt returns or raises")

    async def watch(  # noqa: PLR0913  # each argument is one of the API's own
        self,
        kind: kinds.Kind,
        *,
        resource_version: str,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        timeout_s: int = 300,
        on_open: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[bytes, None]:
        """Yield the events since `resource_version`, a JSON text each, until the server ends.

        `on_open` is called once the server has accepted, which may be long before any event.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "labelSelector": labels,
            "fieldSelector": fields,
            "timeoutSeconds": str(timeout_s),
        }
        path = kind.path(namespace=namespace)
        limit_s = ANSWER_S
        try:
            async with (
                asyncio.timeout(limit_s) as patience,
                self._opened().get(
                    self.access.server + path,
                    params={key: value for key, value in query.items() if value},
                    headers=self._credential(),
                    timeout=aiohttp.ClientTimeout(
                        total=None, sock_connect=reasons.CONNECT_S, sock_read=SILENCE_S
                    ),
                    allow_redirects=False,
                    server_hostname=self.access.tls_server_name or None,
                    proxy=self.access.proxy_url or None,
                ) as answer,
            ):
                if answer.status != 200:
                    content = await answers.whole(answer.content.iter_any())
                    raise answers.refusal(answer.status, content, request=f"GET {path}?watch=true")
                limit_s = SILENCE_S
                patience.reschedule(None)
                on_open()
                try:
                    async for line in answers.lines(answer.content.iter_any()):
                        yield line
                finally:
                    # To say goodbye takes longer than a command lives that stops waiting.
                    if answer.connection is not None and answer.connection.transport is not None:
                        answer.connection.transport.abort()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise self._unreachable(error, limit_s) from error

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise problems.Unreachable(f"the connection to `{self.access.name}` is closed")
        return self._session

    def _credential(self) -> dict[str, str]:
        if self.access.token_path:
            now = self._clock.monotonic()
            if self._token_read_at is None or now - self._token_read_at > TOKEN_REREAD_S:
                with contextlib.suppress(OSError):
                    self._token = pathlib.Path(self.access.token_path).read_text().strip()
                    self._token_read_at = now
        return {"Authorization": f"Bearer {self._token}"} if self._token else {}

    def _unreachable(self, error: BaseException, timeout_s: float) -> problems.Unreachable:
        return reasons.unreachable(
            error, server=self.access.server, name=self.access.name, limit_s=timeout_s
        )


# --- answers --------------------------------------------------------------------------------------


async def _command_ended(
    stream: aiohttp.ClientWebSocketResponse, on_output: Callable[[int, bytes], None] | None
) -> ExecResult:
    written: dict[int, bytearray] = {_STDOUT: bytearray(), _STDERR: bytearray()}
    code: int | None = None
    async for message in stream:
        if message.type is not aiohttp.WSMsgType.BINARY or not message.data:
            continue
        channel, content = message.data[0], message.data[1:]
        if channel in written and on_output is not None:
            on_output(channel, content)
        elif channel in written:
            written[channel] += content
        elif channel == _ERROR:
            code = answers.exit_code(content)
    if code is None:
        raise aiohttp.ClientPayloadError("the stream ended before the command")
    return ExecResult(bytes(written[_STDOUT]), bytes(written[_STDERR]), code)


class _ConfinedResolver(resolver.ThreadedResolver):
    """Resolves names, leaving out addresses that a foreign kubeconfig may not lead to."""

    @override
    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[abc.ResolveResult]:
        found = await super().resolve(host, port, family)
        allowed = [item for item in found if not tls.forbidden(item["host"])]
        if not allowed:
            raise OSError(f"`{host}` leads to an address that a remote secret may not name")
        return allowed
