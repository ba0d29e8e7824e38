"""What the control plane says that names stand for, and how a pod may write them.

A name is known as it stands in the table, in the short forms of Services, and with one of the
pod's search domains behind it: resolvers try those first, and would otherwise ask the whole way
up for each. Whatever is not known here is for the servers that the pod would have asked.

Source: spec section 4.10.

    IsthmusError
    └── TableRefused
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from google.protobuf import message

from isthmus.base import errors
from isthmus_proto.istio.networking.nds.v1 import nds_pb2

KUBERNETES: Final = "Kubernetes"


class TableRefused(errors.IsthmusError):
    """The control plane sent a table of names that cannot be read."""

    code = "ISM-NODE-007"


@dataclass(frozen=True, slots=True)
class Found:
    """What a name stands for.

    Attributes:
        host: The name in full; it differs from what was asked for another form of it.
    """

    host: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Forms:
    """How names may be written in one pod.

    Attributes:
        namespace: The pod's own, which short names are in.
        domain: What the full names of Services end with.
        search: Domains that the pod's resolver appends.
    """

    namespace: str
    domain: str
    search: tuple[str, ...] = ()


class Entries(Protocol):
    """What hosts stand for; an entry has `ips` and a `registry`."""

    def get(self, host: str, /) -> Any:  # noqa: ANN401, RUF100  # generated messages have no types
        """Return the entry of a host, or None."""


@dataclass(frozen=True, slots=True)
class Names:
    """All names that are known at one moment."""

    entries: Entries
    forms: Forms

    def find(self, name: str) -> Found | None:
        """Return what a name stands for, or None; it is in lower case, without a final dot."""
        for written in (name, *self._stripped(name)):
            for host in self._meant(written):
                entry = self.entries.get(host)
                if entry is not None and (host == written or entry.registry == KUBERNETES):
                    return Found(host, tuple(entry.ips))
        return self._covered(name)

    def _covered(self, name: str) -> Found | None:
        """Return what the closest pattern `*.suffix` says of a name.

        Names of Services are not for patterns: a resolver that appends its search domains would
        find any name of the world below one.
        """
        if name.endswith(f".{self.forms.domain}"):
            return None
        rest = name
        while "." in rest:
            _, _, rest = rest.partition(".")
            entry = self.entries.get(f"*.{rest}")
            if entry is not None:
                return Found(name, tuple(entry.ips))
        return None

    def _meant(self, name: str) -> Iterator[str]:
        """Yield the full names that a name may be short for, in a resolver's order."""
        forms = self.forms
        yield name
        yield f"{name}.{forms.namespace}.svc.{forms.domain}"
        yield f"{name}.svc.{forms.domain}"
        yield f"{name}.{forms.domain}"

    def _stripped(self, name: str) -> Iterator[str]:
        for domain in self.forms.search:
            if name.endswith(f".{domain}"):
                yield name.removesuffix(f".{domain}")


def read(table: bytes, *, forms: Forms) -> Names:
    """Read a table as the control plane sends it.

    Raises:
        TableRefused: It cannot be read (ISM-NODE-007).
    """
    try:
        parsed = nds_pb2.NameTable.FromString(table)
    except message.DecodeError as error:
        raise TableRefused(
            "the control plane's table of names cannot be read",
            detail=str(error),
            still_working="names are answered from the last table that could be",
            hint="compare the versions of control plane and agent",
        ) from error
    return Names(dict(parsed.table), forms)


def forms_of(*, namespace: str, domain: str, search: Sequence[str]) -> Forms:
    """Return the forms of a pod from its own DNS domain, `<namespace>.svc.<domain>`."""
    _, _, suffix = domain.partition(".svc.")
    lowered = tuple(dict.fromkeys(each.rstrip(".").lower() for each in search if each.strip(".")))
    return Forms(namespace.lower(), (suffix or "cluster.local").rstrip(".").lower(), lowered)
