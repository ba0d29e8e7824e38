"""The HTTP front: who asks, may they, what is asked, and the answer in the form they want.

Every failure becomes a Status; nobody ever sees a traceback. It decides nothing about objects.
"""

import weakref
from collections.abc import Callable, Mapping

import msgspec
from aiohttp import web

from isthmus.base import logs
from isthmus.lab.apiserver import (
    answers,
    api,
    applying,
    bodies,
    deletion,
    descriptions,
    discovery,
    errors,
    feeding,
    lists,
    openapi,
    receiving,
    requests,
    selectors,
    store,
    subresources,
    watching,
    writes,
)
from isthmus.lab.apiserver.ports import Security, Streams
from isthmus.lab.apiserver.state import Options
from isthmus.lab.apiserver.values import Attributes, Json, Obj, User

_LOG = logs.Log("isthmus.lab.apiserver")

LARGEST_BODY = 3 * 1024 * 1024
_RETURNS_DELETED = (
    "pods",
    "services",
    "serviceaccounts",
    "persistentvolumeclaims",
    "persistentvolumes",
    "podtemplates",
    "resourcequotas",
)


def application(
    served: api.Api, security: Security, streams: Streams, *, bookmark_s: float = 60.0
) -> web.Application:
    """Return the application that serves one cluster.

    Args:
        served: The cluster.
        security: Knows callers and what they may do.
        streams: Serves logs, exec and the like.
        bookmark_s: How often an idle watch gets a bookmark.
    """
    front = _Front(served, security, streams, bookmark_s=bookmark_s)
    app = web.Application(client_max_size=LARGEST_BODY)
    app.router.add_route("*", r"/{path:[\s\S]*}", front.answer)
    app.on_shutdown.append(front.close)
    return app


def _refusal(error: errors.ApiError) -> web.Response:
    response = _json(error.status(), status=error.code)
    retry = error.details.get("retryAfterSeconds")
    if retry or error.code == 429:
        response.headers["Retry-After"] = str(retry or 1)
    return response


def _json(value: Json, *, status: int = 200, media: str = "application/json") -> web.Response:
    return web.Response(
        body=msgspec.json.encode(value), status=status, headers={"Content-Type": media}
    )


class _Front:
    def __init__(
        self, served: api.Api, security: Security, streams: Streams, *, bookmark_s: float
    ) -> None:
        self._api = served
        self._state = served.state
        self._security = security
        self._streams = streams
        self._bookmark_s = bookmark_s
        self._feeds: weakref.WeakSet[store.Feed] = weakref.WeakSet()
        self._descriptions = descriptions.Descriptions(served.state)
        self._verbs = {
            "get": self._get,
            "list": self._list,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_all,
        }

    async def close(self, _: web.Application) -> None:
        """End every watch."""
        for feed in list(self._feeds):
            feed.close()

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer any request; every failure becomes a Status."""
        try:
            return await self._answered(request)
        except errors.ApiError as error:
            return _refusal(error)
        except web.HTTPRequestEntityTooLarge:
            return _refusal(errors.too_large(LARGEST_BODY))
        except web.HTTPException as error:
            reason = error.reason or ""
            return _refusal(errors.ApiError(error.status, reason.replace(" ", ""), reason))
        except ConnectionError:
            raise
        except Exception as error:  # the border: a client must get a Status
            _LOG.error(
                "request failed",
                method=request.method,
                path=request.path,
                error=f"{type(error).__name__}: {error}",
            )
            return _refusal(errors.internal("an error on the server prevented the request"))

    async def _answered(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path in descriptions.OPEN_PATHS and request.method == "GET":
            return self._open(path)
        user = await self._security.authenticate(request)
        try:
            found = requests.target(self._state.catalog, path)
        except errors.ApiError:
            await self._security.authorize(user, Attributes(request.method.lower(), path=path))
            return self._bare(request)
        watches = (
            request.method == "GET"  # the answer to HEAD has no body, so that nothing is watched
            and not found.name
            and (found.watches or selectors.go_bool(request.query.get("watch")))
        )
        verb = requests.verb(request.method, found, watches=watches)
        wanted = found.attributes(verb, fields=request.query.get("fieldSelector", ""))
        await self._security.authorize(user, wanted)
        if found.resource.virtual:
            return await self._review(request, found, user)
        if found.subresource in _STREAMED:
            return await self._stream(request, found)
        if watches:
            return await self._watch(request, found)
        return await self._verbs[verb](request, found, user)

    def _open(self, path: str) -> web.Response:
        if path == "/version":
            return _json(discovery.VERSION)
        return web.Response(text="ok")

    def _bare(self, request: web.Request) -> web.Response:
        """Answer for a path that is no resource: discovery, OpenAPI, health."""
        if request.method not in ("GET", "HEAD"):
            raise errors.no_resource() if request.path.startswith("/api") else errors.no_method()
        path = request.path.rstrip("/") or "/"
        if path.startswith(("/healthz/", "/livez/", "/readyz/")):
            return web.Response(text="ok")
        accept = request.headers.get("Accept", "")
        if path == "/openapi/v2" and openapi.OLD_MEDIA in accept.replace("@", "."):
            return web.Response(body=openapi.OLD, headers={"Content-Type": openapi.OLD_MEDIA})
        wanted = requests.form(accept)
        aggregated = wanted.kind == "APIGroupDiscoveryList" and path in ("/api", "/apis")
        found = self._descriptions.at(path, aggregated=aggregated)
        if found is None:
            raise errors.no_resource()
        media = wanted.media if aggregated else "application/json"
        return web.Response(body=found, headers={"Content-Type": media})

    async def _body(self, request: web.Request) -> Obj:
        raw = await request.read()
        return bodies.parsed_object(raw, request.content_type if raw else "")

    def _options(
        self, request: web.Request, found: requests.Target, user: User, patch: str = ""
    ) -> Options:
        agent = request.headers.get("User-Agent", "")
        return requests.options(request.query, user=user, agent=agent, found=found, patch=patch)

    def _sent(
        self,
        request: web.Request,
        found: requests.Target,
        obj: Obj,
        options: Options,
        status: int = 200,
    ) -> web.Response:
        """Answer a write with the object that came of it."""
        response = answers.one(
            self._state, found.resource, obj, wanted=_form(request, found), query=request.query
        )
        made = web.Response(
            body=response, status=status, headers={"Content-Type": "application/json"}
        )
        for warning in options.warnings:
            text = warning.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")
            made.headers.add("Warning", f'299 - "{text}"')
        return made

    async def _get(
        self, request: web.Request, found: requests.Target, _: User
    ) -> web.StreamResponse:
        given = request.query.get("resourceVersion")
        if given:
            lists.check_reached(self._state, requests.number(given, "resourceVersion"))
        entry = self._state.read(found.resource, name=found.name, namespace=found.namespace)
        if found.subresource == "scale":
            return _json(subresources.scale_of(self._state, found.resource, entry.obj))
        wanted = _form(request, found)
        body = answers.entry(self._state, found.resource, entry, wanted=wanted, query=request.query)
        return web.Response(body=body, headers={"Content-Type": wanted.media})

    async def _list(
        self, request: web.Request, found: requests.Target, _: User
    ) -> web.StreamResponse:
        wanted = _form(request, found)
        page = lists.page(
            self._state, found.resource, namespace=found.namespace, query=request.query
        )
        body = answers.listed(self._state, found.resource, page, wanted=wanted, query=request.query)
        return web.Response(body=body, headers={"Content-Type": wanted.media})

    async def _create(
        self, request: web.Request, found: requests.Target, user: User
    ) -> web.StreamResponse:
        body = await self._body(request)
        options = self._options(request, found, user)
        if found.name:
            return await self._post(found, body, options)
        meta = body.get("metadata") or {}
        if not isinstance(meta, dict):
            raise errors.bad_request("metadata must be an object")
        meta = dict(meta)
        if found.resource.namespaced:
            _check_namespace(found, meta)
            meta["namespace"] = found.namespace or meta.get("namespace") or "default"
        obj = await writes.create(
            self._state, found.resource, {**body, "metadata": meta}, options=options
        )
        return self._sent(request, found, obj, options, 201)

    async def _post(
        self, found: requests.Target, body: Obj, options: Options
    ) -> web.StreamResponse:
        if not found.subresource:
            raise errors.no_method()
        answer = await self._api.post(
            found.resource, body, name=found.name, namespace=found.namespace, options=options
        )
        return _json(answer, status=201)

    async def _update(
        self, request: web.Request, found: requests.Target, user: User
    ) -> web.StreamResponse:
        body = await self._body(request)
        options = self._options(request, found, user)
        meta = body.get("metadata")
        if not found.name or not isinstance(meta, dict):
            raise errors.no_method() if not found.name else errors.bad_request("no metadata")
        _check_namespace(found, meta)
        if meta.get("name") not in (None, "", found.name):
            raise errors.bad_request(
                f"the name of the object ({meta['name']}) does not match the name on the URL"
                f" ({found.name})"
            )
        obj = await self._change(found, lambda _: body, options)
        return self._written(request, found, obj, options)

    async def _patch(
        self, request: web.Request, found: requests.Target, user: User
    ) -> web.StreamResponse:
        kind = bodies.PATCHES.get(request.content_type)
        if kind is None or (kind == "strategic" and found.resource.custom):
            raise errors.unsupported(request.content_type, known=_patches_of(found))
        patch = bodies.parsed(await request.read(), request.content_type)
        options = self._options(request, found, user, kind)
        if kind == "apply" and found.subresource != "scale":
            return await self._apply(request, found, patch, options)
        edit = self._api.patching(
            found.resource,
            patch,
            kind="merge" if kind == "apply" else kind,
            subresource=found.subresource,
        )
        obj = await self._change(found, edit, options)
        return self._written(request, found, obj, options)

    async def _apply(
        self, request: web.Request, found: requests.Target, config: Json, options: Options
    ) -> web.StreamResponse:
        meta = config.get("metadata") if isinstance(config, dict) else None
        if isinstance(meta, dict):
            _check_namespace(found, meta)
            if meta.get("name") not in (None, "", found.name):
                raise errors.bad_request("metadata.name must match the name on the URL")
        obj, is_new = await applying.apply(
            self._state,
            found.resource,
            config,
            name=found.name,
            namespace=found.namespace,
            options=options,
        )
        return self._sent(request, found, obj, options, 201 if is_new else 200)

    async def _change(
        self, found: requests.Target, edit: Callable[[Obj], Obj], options: Options
    ) -> Obj:
        return await self._api.change(
            found.resource, edit, name=found.name, namespace=found.namespace, options=options
        )

    def _written(
        self, request: web.Request, found: requests.Target, obj: Obj, options: Options
    ) -> web.StreamResponse:
        if found.subresource == "scale":
            return _json(obj)
        return self._sent(request, found, obj, options)

    async def _delete(
        self, request: web.Request, found: requests.Target, user: User
    ) -> web.StreamResponse:
        if found.subresource:
            raise errors.no_method()
        options = self._options(request, found, user)
        body = await self._body(request) if request.can_read_body else {}
        obj, gone = await deletion.delete(
            self._state,
            found.resource,
            name=found.name,
            namespace=found.namespace,
            how=requests.how(request.query, body, options),
        )
        if not gone or found.resource.plural in _RETURNS_DELETED:
            return self._sent(request, found, obj, options)
        details = {
            "name": found.name,
            "group": found.resource.group,
            "kind": found.resource.plural,
            "uid": obj["metadata"]["uid"],
        }
        kept = {key: value for key, value in details.items() if value}
        return _json(api.success(details=kept))

    async def _delete_all(
        self, request: web.Request, found: requests.Target, user: User
    ) -> web.StreamResponse:
        options = self._options(request, found, user)
        body = await self._body(request) if request.can_read_body else {}
        how = requests.how(request.query, body, options)
        page = lists.page(
            self._state, found.resource, namespace=found.namespace, query=request.query
        )
        for entry in page.entries:
            meta = entry.obj["metadata"]
            try:
                await deletion.delete(
                    self._state,
                    found.resource,
                    name=meta["name"],
                    namespace=meta.get("namespace", ""),
                    how=how,
                )
            except errors.ApiError as error:
                if error.code != 404:
                    raise
        wanted = _form(request, found)
        listed = answers.listed(
            self._state, found.resource, page, wanted=wanted, query=request.query
        )
        return web.Response(body=listed, headers={"Content-Type": wanted.media})

    async def _review(
        self, request: web.Request, found: requests.Target, user: User
    ) -> web.StreamResponse:
        if found.name or request.method != "POST":
            raise errors.no_resource() if found.name else errors.no_method()
        body = await self._body(request)
        if self._state.review is None:
            raise errors.no_resource()
        resource = found.resource
        body = receiving.typed(
            body, group=resource.group, version=resource.version, kind=resource.kind
        )
        meta = body.get("metadata")
        body["metadata"] = {"creationTimestamp": None, **(meta if isinstance(meta, dict) else {})}
        if found.namespace:
            body["metadata"]["namespace"] = found.namespace
        return _json(await self._state.review(user, body), status=201)

    async def _stream(self, request: web.Request, found: requests.Target) -> web.StreamResponse:
        name, port = found.name, ""
        if found.subresource == "proxy" and ":" in name:
            parts = name.split(":")
            name, port = (parts[0], parts[1]) if len(parts) == 2 else (parts[1], parts[2])
        obj = self._state.read(found.resource, name=name, namespace=found.namespace).obj
        match found.subresource:
            case "log":
                return await self._streams.log(request, obj)
            case "exec":
                return await self._streams.exec(request, obj)
            case "attach":
                return await self._streams.attach(request, obj)
            case "portforward":
                return await self._streams.portforward(request, obj)
            case _:
                path = "/" + found.rest
                return await self._streams.proxy(request, obj, path=path, port=port)

    async def _watch(self, request: web.Request, found: requests.Target) -> web.StreamResponse:
        wanted = _form(request, found)
        asked = watching.wish(
            self._state,
            namespace=found.namespace,
            query=request.query,
            resource=found.resource,
        )
        encode = answers.encoder(self._state, found.resource, wanted=wanted, query=request.query)
        watch = watching.Watch(self._state, found.resource, asked, encode)
        self._feeds.add(watch.feed)
        response = web.StreamResponse(headers={"Content-Type": wanted.media})
        try:
            await response.prepare(request)
            await feeding.feed(
                request, response, watch=watch, asked=asked, bookmark_s=self._bookmark_s
            )
            await response.write_eof()
        except ConnectionError:
            return response
        finally:
            watch.feed.close()
        return response


def _form(request: web.Request, found: requests.Target) -> requests.Form:
    wanted = requests.form(request.headers.get("Accept", ""))
    return requests.Form() if found.subresource == "scale" else wanted


def _check_namespace(found: requests.Target, meta: Mapping[str, Json]) -> None:
    given = meta.get("namespace")
    if found.resource.namespaced and found.namespace and given not in (None, "", found.namespace):
        raise errors.bad_request(
            f"the namespace of the provided object does not match the namespace sent on the"
            f" request ({given} and {found.namespace})"
        )


def _patches_of(found: requests.Target) -> list[str]:
    return [
        media
        for media, kind in bodies.PATCHES.items()
        if not (kind == "strategic" and found.resource.custom)
    ]


_STREAMED = frozenset(("log", "exec", "attach", "portforward", "proxy"))
