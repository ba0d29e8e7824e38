"""What was asked of the API server, by whom, and whether they might: each kind of request once.

It decides what makes two requests the same, so that what is kept stays small however long a
cluster runs. It refuses to know what anybody should be allowed.

    {"user": "system:serviceaccount:istio-system:istiod", "verb": "watch", "group": "",
     "resource": "pods", "subresource": "", "namespace": "", "name": "", "path": "",
     "allowed": true}
"""

import contextlib
import dataclasses
import json
import os
import pathlib
from dataclasses import dataclass

from isthmus.lab.apiserver.values import Attributes, User

_MOST = 20_000
_NAMED = frozenset(
    {"configmaps", "leases", "mutatingwebhookconfigurations", "secrets", "serviceaccounts"}
)
"""Resources whose names say what a request was for; other names are too many."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A kind of request.

    Attributes:
        name: Only of resources where single objects are granted.
        path: For what is no resource.
        allowed: Whether the roles allowed it.
    """

    user: str
    verb: str
    group: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""
    allowed: bool = True


class Audit:
    """Keeps what was asked; with a file also there, one line of JSON for each entry."""

    def __init__(self, path: pathlib.Path | None = None) -> None:
        self._path = path
        self._entries: dict[Entry, None] = {}

    def note(self, user: User, attributes: Attributes, *, allowed: bool) -> None:
        """Take down a request."""
        entry = _entry(user, attributes, allowed=allowed)
        if entry in self._entries or len(self._entries) >= _MOST:
            return
        self._entries[entry] = None
        # A lab must work also where its log cannot be written, such as on a full disk.
        with contextlib.suppress(OSError):
            self._write(entry)

    def entries(self) -> tuple[Entry, ...]:
        """Return what was asked, in order of the first time."""
        return tuple(self._entries)

    def _write(self, entry: Entry) -> None:
        if self._path is None:
            return
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "w") as file:
            file.write(json.dumps(dataclasses.asdict(entry)) + "\n")


def _entry(user: User, attributes: Attributes, *, allowed: bool) -> Entry:
    if not attributes.is_resource:
        return Entry(user.name, attributes.verb, path=attributes.path, allowed=allowed)
    return Entry(
        user.name,
        attributes.verb,
        group=attributes.group,
        resource=attributes.resource,
        subresource=attributes.subresource,
        namespace=attributes.namespace,
        name=attributes.name if attributes.resource in _NAMED else "",
        allowed=allowed,
    )
