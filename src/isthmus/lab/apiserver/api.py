"""One cluster's Kubernetes API inside the process: what controllers and kubelets call.

It decides nothing by itself; it joins storage, admission, defaults and validation. Everything
that a client can do over HTTP can be done here without a socket.
"""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from isthmus.base import clock
from isthmus.lab.apiserver.errors import ApiError as ApiError
from isthmus.lab.apiserver.ports import Security as Security
from isthmus.lab.apiserver.ports import Streams as Streams
from isthmus.lab.apiserver.values import SYSTEM as SYSTEM
from isthmus.lab.apiserver.values import AdmissionRequest as AdmissionRequest
from isthmus.lab.apiserver.values import Attributes as Attributes
from isthmus.lab.apiserver.values import Event as Event
from isthmus.lab.apiserver.values import Obj as Obj
from isthmus.lab.apiserver.values import User as User

Admission: TypeAlias = Callable[[AdmissionRequest], Awaitable[Obj]]
"""Returns the object to store (anything for `DELETE`), or raises an `ApiError`."""

Review: TypeAlias = Callable[[User, Obj], Awaitable[Obj]]
"""Answers a TokenReview, SubjectAccessReview, SelfSubjectReview...: returns it with its status."""

IssueToken: TypeAlias = Callable[[Obj, Obj], Awaitable[Obj]]
"""Called with a ServiceAccount and a TokenRequest; returns the TokenRequest with its status."""


class Subscription:
    """Changes of one resource, without end: an async iterator and context manager.

    First every existing object as `ADDED`, then one `SYNCED`, then what happens. Events hold
    copies. Close it when done.
    """

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Event:
        raise NotImplementedError

    async def __aenter__(self) -> "Subscription":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the subscription; a waiting reader stops."""


class Api:
    """One cluster's API, one event loop, everything in memory.

    `resource` is a plural with its group, such as `pods`, `deployments.apps` or
    `gateways.networking.istio.io`. Objects that come out are copies.

    Attributes:
        admission: Called before every write; set by the security room.
        review: Answers authentication and authorization reviews; set by the security room.
        issue_token: Makes service account tokens; set by the security room.
    """

    def __init__(
        self,
        *,
        service_cidr: str = "10.96.0.0/16",
        history: int = 10_000,
        system_clock: clock.Clock | None = None,
    ) -> None:
        self.admission: Admission | None = None
        self.review: Review | None = None
        self.issue_token: IssueToken | None = None

    async def get(self, resource: str, name: str, namespace: str = "") -> Obj:
        """Return one object, or raise 404."""
        raise NotImplementedError

    async def list(
        self, resource: str, namespace: str = "", *, labels: str = "", fields: str = ""
    ) -> list[Obj]:
        """Return the matching objects, of every namespace when `namespace` is empty."""
        raise NotImplementedError

    async def create(
        self, resource: str, obj: Obj, *, user: User = SYSTEM, subresource: str = ""
    ) -> Obj:
        """Store a new object (or post to a subresource: `binding`, `eviction`, `token`).

        Raises 409 when it exists, 422 when it is invalid.
        """
        raise NotImplementedError

    async def update(
        self, resource: str, obj: Obj, *, subresource: str = "", user: User = SYSTEM
    ) -> Obj:
        """Replace an object; raises 409 when its resourceVersion is given and stale."""
        raise NotImplementedError

    async def patch(  # noqa: PLR0913  # the shape of the Kubernetes request
        self,
        resource: str,
        name: str,
        patch: Obj,
        *,
        namespace: str = "",
        subresource: str = "",
        kind: str = "merge",
        user: User = SYSTEM,
    ) -> Obj:
        """Change an object; `kind` is `merge`, `strategic`, `json` or `apply`."""
        raise NotImplementedError

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
        raise NotImplementedError

    def watch(self, resource: str, namespace: str = "") -> Subscription:
        """Subscribe to a resource, of every namespace when `namespace` is empty."""
        raise NotImplementedError
