"""What the cluster is at this moment: storage, the resources served, and who is asked on writes.

It holds and looks up. The rules of writing and deleting lie in writes and deletion.
"""

import datetime
import ipaddress
import random
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from isthmus.base import clock
from isthmus.lab.apiserver import crds, errors, schemas, store
from isthmus.lab.apiserver.resources import Catalog, Resource
from isthmus.lab.apiserver.values import SYSTEM, AdmissionRequest, Obj, User

Admission: TypeAlias = Callable[[AdmissionRequest], Awaitable[Obj]]
"""Returns the object to store (anything for `DELETE`), or raises an `ApiError`."""

Review: TypeAlias = Callable[[User, Obj], Awaitable[Obj]]
"""Answers a TokenReview, SubjectAccessReview, SelfSubjectReview...: returns it with its status."""

IssueToken: TypeAlias = Callable[[Obj, Obj], Awaitable[Obj]]
"""Called with a ServiceAccount and a TokenRequest; returns the TokenRequest with its status."""

_NAME_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


@dataclass(frozen=True, slots=True)
class Options:
    """How a write is to be made.

    Attributes:
        manager: The field manager; empty leaves no record unless the object has one already.
        validation: `Strict`, `Warn` or `Ignore`: what becomes of unknown fields.
        force: Whether an apply takes fields from other owners.
        warnings: Filled with what the client should be told.
    """

    user: User = SYSTEM
    subresource: str = ""
    dry_run: bool = False
    manager: str = ""
    validation: str = "Ignore"
    force: bool = False
    warnings: list[str] = field(default_factory=list)


class State:
    """One cluster.

    Attributes:
        custom: Versions of custom resources by (key, version).
    """

    def __init__(self, *, service_cidr: str, history: int, system_clock: clock.Clock) -> None:
        self.store = store.Store(history=history)
        self.catalog = Catalog()
        self.clock = system_clock
        self.service_cidr = ipaddress.IPv4Network(service_cidr)
        self.custom: dict[tuple[str, str], crds.Version] = {}
        self.admission: Admission | None = None
        self.review: Review | None = None
        self.issue_token: IssueToken | None = None
        self._random = random.Random()  # names only, no secrets

    def now(self) -> str:
        """Return the time as objects show it."""
        return shown(self.clock.now())

    def new_uid(self) -> str:
        """Return a fresh uid."""
        return str(uuid.uuid4())

    def new_name(self, base: str) -> str:
        """Return `base` with a random end."""
        return base[:58] + "".join(self._random.choices(_NAME_LETTERS, k=5))

    def shape(self, resource: Resource) -> schemas.Schema:
        """Return what objects of a resource look like."""
        if resource.custom:
            found = self.custom.get((resource.key, resource.version))
            return schemas.ANY if found is None else found.shape
        return schemas.builtin(resource.group, resource.version, resource.kind)

    def read(self, resource: Resource, *, name: str, namespace: str = "") -> store.Entry:
        """Return a stored object, or raise 404."""
        entry = self.store.get(resource.key, name=name, namespace=namespace)
        if entry is None:
            raise errors.not_found(resource.plural, name=name, group=resource.group)
        return entry

    def learn(self, crd: Obj) -> None:
        """Serve what a definition describes."""
        found = crds.versions_of(crd)
        stored = crds.storage_of(crd)
        self._unlearn(stored.key)
        for one in found:
            self.custom[(one.resource.key, one.resource.version)] = one
        self.catalog.replace(stored.key, served=[one.resource for one in found], stored=stored)

    def unlearn(self, crd: Obj) -> None:
        """Stop serving what a definition described."""
        key = crd["metadata"]["name"]
        self._unlearn(key)
        self.catalog.replace(key, served=(), stored=None)
        self.store.close_feeds(key)

    def _unlearn(self, key: str) -> None:
        self.custom = {one: value for one, value in self.custom.items() if one[0] != key}

    def scale_paths(self, resource: Resource) -> Mapping[str, str]:
        """Return where the numbers of the scale subresource lie."""
        if resource.custom:
            return self.custom[(resource.key, resource.version)].scale
        return {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".spec.selector",
        }


def shown(moment: datetime.datetime) -> str:
    """Return a moment as objects show it: UTC, whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
