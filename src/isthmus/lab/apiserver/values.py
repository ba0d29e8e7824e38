"""The values that pass between the rooms of the API server: objects, users, events, requests.

It decides nothing; it only names things. Objects are plain JSON dictionaries, because the API
server serves kinds that nobody here wrote.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Obj: TypeAlias = dict[str, Any]
"""A Kubernetes object as JSON."""

Json: TypeAlias = Any
"""Any JSON value."""


@dataclass(frozen=True, slots=True)
class User:
    """Who asks.

    Attributes:
        name: Such as `system:serviceaccount:default:sleep`.
        extra: Further claims by name, such as the pod that a token is bound to.
    """

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


SYSTEM = User("system:apiserver", groups=("system:masters",))
"""The API server itself and the controllers that run beside it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One change seen by a subscriber inside the process.

    Attributes:
        type: `ADDED`, `MODIFIED`, `DELETED`, or `SYNCED` once after the objects that existed.
        obj: The object after the change (before it, for `DELETED`); empty for `SYNCED`.
    """

    type: str
    obj: Obj


@dataclass(frozen=True, slots=True)
class AdmissionRequest:
    """A write that admission may change or refuse.

    Attributes:
        operation: `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
        resource: The plural alone, such as `pods`.
        obj: The object to be stored, defaulted; empty for `DELETE`.
        old: The object as stored; empty for `CREATE`.
    """

    operation: str
    group: str
    version: str
    resource: str
    kind: str
    name: str
    namespace: str
    user: User
    obj: Obj
    old: Obj
    subresource: str = ""
    dry_run: bool = False
    options: Obj = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Attributes:
    """What a request wants, as authorization sees it.

    Attributes:
        verb: Such as `get`, `list`, `watch`, `deletecollection`; for paths the HTTP method.
        resource: The plural alone; empty when the request is for a `path`.
        path: The whole path, such as `/healthz`.
    """

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""

    @property
    def is_resource(self) -> bool:
        """Whether the request is for a resource rather than a bare path."""
        return bool(self.resource)
