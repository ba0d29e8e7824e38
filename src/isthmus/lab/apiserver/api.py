"""One cluster's Kubernetes API inside the process: what controllers and kubelets call.

It decides nothing by itself; it joins storage, admission, defaults and validation. Everything
that a client can do over HTTP can be done here without a socket.
"""

from collections import deque
from collections.abc import Callable, Mapping

from isthmus.base import clock
from isthmus.lab.apiserver import (
    applying,
    copying,
    deletion,
    errors,
    merging,
    patches,
    receiving,
    selectors,
    state,
    store,
    subresources,
    writes,
)
from isthmus.lab.apiserver.errors import ApiError as ApiError
from isthmus.lab.apiserver.ports import Security as Security
from isthmus.lab.apiserver.ports import Streams as Streams
from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.state import Admission as Admission
from isthmus.lab.apiserver.state import IssueToken as IssueToken
from isthmus.lab.apiserver.state import Options as Options
from isthmus.lab.apiserver.state import Review as Review
from isthmus.lab.apiserver.values import SYSTEM as SYSTEM
from isthmus.lab.apiserver.values import AdmissionRequest as AdmissionRequest
from isthmus.lab.apiserver.values import Attributes as Attributes
from isthmus.lab.apiserver.values import Event as Event
from isthmus.lab.apiserver.values import Json, Obj
from isthmus.lab.apiserver.values import User as User

SYNCED = Event("SYNCED", {})

_FIRST_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")


class Subscription:
    """Changes of one resource, without end: an async iterator and context manager.

    First every existing object as `ADDED`, then one `SYNCED`, then what happens. Events hold
    copies. Close it when done. It ends by itself when the resource is no longer served or the
    reader is hopelessly behind: then subscribe again.
    """

    def __init__(self, existing: list[store.Entry], feed: store.Feed) -> None:
        self._first = deque(Event(store.ADDED, entry.obj) for entry in existing)
        self._first.append(SYNCED)
        self._changes: deque[store.Change] = deque()
        self._feed = feed

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Event:
        if self._first:
            event = self._first.popleft()
            return Event(event.type, copying.copied(event.obj))
        while not self._changes:
            self._changes.extend(self._feed.take())
            if self._changes:
                break
            if self._feed.closed:
                raise StopAsyncIteration
            await self._feed.wait()
        change = self._changes.popleft()
        return Event(change.type, copying.copied(change.entry.obj))

    async def __aenter__(self) -> "Subscription":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the subscription; a waiting reader stops."""
        self._first.clear()
        self._changes.clear()
        self._feed.close()
        self._feed.take()


class Api:
    """One cluster's API, one event loop, everything in memory.

    `resource` is a plural with its group, such as `pods`, `deployments.apps` or
    `gateways.networking.istio.io`. Objects that come out are copies.
    """

    def __init__(
        self,
        *,
        service_cidr: str = "10.96.0.0/16",
        history: int = 10_000,
        system_clock: clock.Clock | None = None,
    ) -> None:
        self.state = state.State(
            service_cidr=service_cidr,
            history=history,
            system_clock=system_clock or clock.SystemClock(),
        )
        for name in _FIRST_NAMESPACES:
            self._found_namespace(name)

    def _found_namespace(self, name: str) -> None:
        self.state.store.put(
            "namespaces",
            {
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {
                    "name": name,
                    "uid": self.state.new_uid(),
                    "creationTimestamp": self.state.now(),
                    "labels": {"kubernetes.io/metadata.name": name},
                },
                "spec": {"finalizers": ["kubernetes"]},
                "status": {"phase": "Active"},
            },
        )

    @property
    def admission(self) -> Admission | None:
        """Called before every write; set by the security room."""
        return self.state.admission

    @admission.setter
    def admission(self, admission: Admission | None) -> None:
        self.state.admission = admission

    @property
    def review(self) -> Review | None:
        """Answers authentication and authorization reviews; set by the security room."""
        return self.state.review

    @review.setter
    def review(self, review: Review | None) -> None:
        self.state.review = review

    @property
    def issue_token(self) -> IssueToken | None:
        """Makes service account tokens; set by the security room."""
        return self.state.issue_token

    @issue_token.setter
    def issue_token(self, issue_token: IssueToken | None) -> None:
        self.state.issue_token = issue_token

    @property
    def revision(self) -> str:
        """The resourceVersion of the latest write."""
        return str(self.state.store.revision)

    async def get(self, resource: str, name: str, namespace: str = "") -> Obj:
        """Return one object, or raise 404."""
        found = self.state.catalog.named(resource)
        return copying.copied(self.state.read(found, name=name, namespace=namespace).obj)

    async def list(
        self, resource: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Obj]:
        """Return the matching objects, of every namespace when `namespace` is empty."""
        found = self.state.catalog.named(resource)
        matches = selectors.parse(labels=labels, fields=fields)
        entries = self.state.store.entries(found.key, namespace)
        return [copying.copied(entry.obj) for entry in entries if matches(entry.obj)]

    async def create(
        self, resource: str, obj: Obj, *, user: User = SYSTEM, subresource: str = ""
    ) -> Obj:
        """Store a new object (or post to a subresource: `binding`, `eviction`, `token`).

        Raises 409 when it exists, 422 when it is invalid.
        """
        found = self.state.catalog.named(resource)
        options = Options(user=user, subresource=subresource)
        if subresource:
            meta = obj.get("metadata") or {}
            return await self.post(
                found, obj, name=meta["name"], namespace=meta.get("namespace", ""), options=options
            )
        return copying.copied(await writes.create(self.state, found, obj, options=options))

    async def post(
        self, resource: Resource, obj: Obj, *, name: str, namespace: str, options: Options
    ) -> Obj:
        """Post `obj` to the subresource that `options` name; returns the answer."""
        match (resource.key, options.subresource):
            case ("pods", "binding"):
                obj = receiving.typed(obj, group="", version="v1", kind="Binding")
                await subresources.bind(
                    self.state, obj, name=name, namespace=namespace, options=options
                )
                return success(code=201)
            case ("pods", "eviction"):
                obj = receiving.typed(obj, group="policy", version="v1", kind="Eviction")
                await subresources.evict(
                    self.state, obj, name=name, namespace=namespace, options=options
                )
                return success(code=201)
            case ("serviceaccounts", "token"):
                obj = receiving.typed(
                    obj, group="authentication.k8s.io", version="v1", kind="TokenRequest"
                )
                return await subresources.token(
                    self.state, obj, name=name, namespace=namespace, options=options
                )
            case _:
                raise errors.no_method()

    async def update(
        self, resource: str, obj: Obj, *, subresource: str = "", user: User = SYSTEM
    ) -> Obj:
        """Replace an object; raises 409 when its resourceVersion is given and stale."""
        found = self.state.catalog.named(resource)
        meta = obj["metadata"]
        changed = await self.change(
            found,
            lambda _: obj,
            name=meta["name"],
            namespace=meta.get("namespace", ""),
            options=Options(user=user, subresource=subresource),
        )
        return copying.copied(changed)

    async def change(
        self,
        resource: Resource,
        edit: Callable[[Obj], Obj],
        *,
        name: str,
        namespace: str,
        options: Options,
    ) -> Obj:
        """Change an object or its subresource through `edit`; returns what was changed."""
        if options.subresource == "scale":
            return await subresources.rescale(
                self.state, resource, edit, name=name, namespace=namespace, options=options
            )
        if options.subresource == "finalize":
            edit = _finalizing(edit)
        return await writes.update(
            self.state, resource, edit, name=name, namespace=namespace, options=options
        )

    async def patch(  # noqa: PLR0913  # the shape of the Kubernetes request
        self,
        resource: str,
        name: str,
        patch: Json,
        *,
        namespace: str = "",
        subresource: str = "",
        kind: str = "merge",
        user: User = SYSTEM,
    ) -> Obj:
        """Change an object; `kind` is `merge`, `strategic`, `json` or `apply`."""
        found = self.state.catalog.named(resource)
        manager = user.name if kind == "apply" else ""
        options = Options(user=user, subresource=subresource, manager=manager)
        if kind == "apply":
            applied, _ = await applying.apply(
                self.state, found, patch, name=name, namespace=namespace, options=options
            )
            return copying.copied(applied)
        changed = await self.change(
            found,
            self.patching(found, patch, kind=kind, subresource=subresource),
            name=name,
            namespace=namespace,
            options=options,
        )
        return copying.copied(changed)

    def patching(
        self, resource: Resource, patch: Json, *, kind: str, subresource: str = ""
    ) -> Callable[[Obj], Obj]:
        """Return what applies `patch` to an object."""
        edit = _EDITS.get(kind)
        if edit is None or (kind == "strategic" and resource.custom):
            raise errors.unsupported(
                f"application/{kind}-patch+json", known=["application/merge-patch+json"]
            )
        if kind != "json" and not isinstance(patch, dict):
            raise errors.bad_request("the patch must be an object")
        shape = self.state.shape(resource)

        def patched(old: Obj) -> Obj:
            if kind == "strategic" and subresource != "scale":
                return _object(merging.merged(shape, old, patch))
            return _object(edit(old, patch))

        return patched

    async def delete(
        self,
        resource: str,
        name: str,
        namespace: str = "",
        *,
        user: User = SYSTEM,
        grace_s: int | None = None,
    ) -> None:
        """Delete an object, or mark it deleted while finalizers or a grace period hold it."""
        found = self.state.catalog.named(resource)
        how = deletion.How(grace_s=grace_s, options=Options(user=user))
        await deletion.delete(self.state, found, name=name, namespace=namespace, how=how)

    def watch(self, resource: str, namespace: str = "") -> Subscription:
        """Subscribe to a resource, of every namespace when `namespace` is empty."""
        found = self.state.catalog.named(resource)
        existing = self.state.store.entries(found.key, namespace)
        return Subscription(existing, self.state.store.feed(found.key, namespace))

    def compact(self) -> None:
        """Forget the past, as a real cluster does every few minutes."""
        self.state.store.compact()


def success(*, code: int = 200, details: Mapping[str, Json] | None = None) -> Obj:
    """Return a Status that says that all went well."""
    status: Obj = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "code": code,
    }
    if details:
        status["details"] = dict(details)
    return status


_EDITS: Mapping[str, Callable[[Json, Json], Json]] = {
    "merge": patches.merged,
    "json": patches.operated,
    "strategic": patches.merged,
}


def _finalizing(edit: Callable[[Obj], Obj]) -> Callable[[Obj], Obj]:
    return lambda old: subresources.finalize(old, edit(old))


def _object(value: Json) -> Obj:
    if not isinstance(value, dict):
        raise errors.bad_request("the patch does not leave an object")
    return value
