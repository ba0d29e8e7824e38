"""What the control plane and the processes that tell proxies say to each other.

They are sent as `framing` says. A worker asks; what it is told of scopes comes in order with the
answers. A question that cannot be read is left out; a worker that cannot read what it is told ends, and
another one is told everything.
"""

from typing import Final, TypeAlias

import msgspec

from isthmus.resources import snapshot
from isthmus.wire import callers, limits, nodes
from isthmus.xds import messages as xds

MOST_BYTES: Final = 256 << 20
PART_BYTES: Final = 1 << 20
"""What is told of scopes is cut into messages of about so much."""


class Held(msgspec.Struct, frozen=True, array_like=True):
    """A resource, as it is told; `members` are those of a collection."""

    type_url: str
    name: str
    version: str
    body: bytes
    aliases: tuple[str, ...] = ()
    parts_of: tuple[str, ...] = ()
    collections: tuple["Held", ...] = ()
    members: tuple["Held", ...] | None = None


class Change(msgspec.Struct, frozen=True, array_like=True):
    """What a scope has under a name from now on; nothing where `held` is None."""

    scope: int
    type_url: str
    name: str
    held: Held | None


# From the control plane.


class State(msgspec.Struct, frozen=True, tag=True):
    """What a worker serves with; a new one takes the place of the last.

    Attributes:
        chain_pem: Of the serving certificate, which the authority has signed; `key_pem` is its key.
        own_cluster: The cluster of those who name none.
        limits: What one client may use up.
        is_ready: Whether the mesh is known; whoever comes before that waits.
        first: The first number of a stream; others follow in steps of `step`.
    """

    chain_pem: str
    key_pem: str
    own_cluster: str
    limits: limits.Limits
    is_ready: bool = True
    first: int = 1
    step: int = 1


class Changed(msgspec.Struct, frozen=True, tag=True):
    """What has changed in scopes; it counts as one change up to the last part of it."""

    changes: tuple[Change, ...]
    is_last: bool


class Forgotten(msgspec.Struct, frozen=True, tag=True):
    """Scopes that no proxy of the worker sees any more."""

    scopes: tuple[int, ...]


class Moved(msgspec.Struct, frozen=True, tag=True):
    """A proxy sees other scopes from now on; `implied` it wants without naming it."""

    number: int
    scopes: tuple[int, ...]
    implied: tuple[str, ...]


class End(msgspec.Struct, frozen=True, tag=True):
    """The streams of these proxies must end, with a gRPC status."""

    numbers: tuple[int, ...]
    status: str
    reason: str


class Ask(msgspec.Struct, frozen=True, tag=True):
    """Asks for `Statuses`, if wanted, and `Figures`, in this order."""

    number: int
    with_streams: bool


class Drain(msgspec.Struct, frozen=True, tag=True):
    """Streams shall end within a time, then the worker."""

    grace_s: float


class Proven(msgspec.Struct, frozen=True, tag=True):
    """Answers `Prove`."""

    number: int
    caller: callers.Caller


class Opened(msgspec.Struct, frozen=True, tag=True):
    """Answers `Open`; what the scopes hold was told before."""

    number: int
    scopes: tuple[int, ...]
    implied: tuple[str, ...]


class Certified(msgspec.Struct, frozen=True, tag=True):
    """Answers `Certify`."""

    number: int
    chain: tuple[str, ...]


class Answered(msgspec.Struct, frozen=True, tag=True):
    """Answers `Aside`."""

    number: int
    nonce: str
    content: bytes


class Refused(msgspec.Struct, frozen=True, tag=True):
    """Answers any question with a no: the code of an error, or a gRPC status, or both."""

    number: int
    code: str
    status: str
    happened: str
    detail: str = ""


# From a worker.


class Prove(msgspec.Struct, frozen=True, tag=True):
    """Asks who calls."""

    number: int
    credentials: callers.Credentials


class Open(msgspec.Struct, frozen=True, tag=True):
    """Asks to follow what a proxy should have, whose caller was proven before."""

    number: int
    caller: callers.Caller
    node: nodes.Node


class Close(msgspec.Struct, frozen=True, tag=True):
    """The proxy of `Open` is gone."""

    number: int


class Certify(msgspec.Struct, frozen=True, tag=True):
    """Asks for a certificate."""

    number: int
    request: bytes
    credentials: callers.Credentials


class Aside(msgspec.Struct, frozen=True, tag=True):
    """Asks what is no proxy's question."""

    number: int
    request: xds.Request
    caller: callers.Caller
    flavour: xds.Flavour


class TypeShown(msgspec.Struct, frozen=True, array_like=True):
    """How far a proxy has come with a type; times are in seconds since 1970.

    Attributes:
        watched: Which of the lists of names it is subscribed to.
    """

    type_url: str
    sent: str
    acked: str
    version: str
    sent_at: float | None
    answered_at: float | None
    refused: tuple[str, ...]
    error: str
    watched: int


class StreamShown(msgspec.Struct, frozen=True, array_like=True):
    """How far a proxy has come; the control plane knows the rest of it."""

    number: int
    id: str
    peer: str
    connected_at: float
    flavour: xds.Flavour
    types: tuple[TypeShown, ...]


class Statuses(msgspec.Struct, frozen=True, tag=True):
    """Open streams; names are listed once for all that are subscribed to the same."""

    number: int
    streams: tuple[StreamShown, ...]
    names: tuple[tuple[str, ...], ...]


class Figures(msgspec.Struct, frozen=True, tag=True):
    """What a worker has counted since it began; it answers the question of that number, if any."""

    number: int
    values: dict[str, list[tuple[tuple[str, ...], float]]]
    counts: dict[str, list[tuple[tuple[str, ...], tuple[int, ...], float]]]


class Alive(msgspec.Struct, frozen=True, tag=True):
    """Says that a worker serves, and how many clients are connected."""

    connections: int


Told: TypeAlias = (
    State
    | Changed
    | Forgotten
    | Moved
    | End
    | Ask
    | Drain
    | Proven
    | Opened
    | Certified
    | Answered
    | Refused
)
Said: TypeAlias = Prove | Open | Close | Certify | Aside | Statuses | Figures | Alive
Answer: TypeAlias = Proven | Opened | Certified | Answered | Refused


def held(resource: snapshot.Resource) -> Held:
    """Return a resource as it is told."""
    version = resource.version
    members = version.members() if isinstance(version, snapshot.Contents) else None
    return Held(
        resource.type_url,
        resource.name,
        str.__str__(version),
        resource.body,
        resource.aliases,
        resource.parts_of,
        tuple(map(held, resource.collections)),
        None if members is None else tuple(map(held, members.values())),
    )


def resource(told: Held, known: dict[str, snapshot.TypeUrl]) -> snapshot.Resource:
    """Return a resource that was told; `known` keeps one object for each type."""
    version: str = told.version
    if told.members is not None:
        members = {one.name: resource(one, known) for one in told.members}
        version = snapshot.Contents.made(version, lambda: members)
    return snapshot.Resource(
        known.setdefault(told.type_url, snapshot.TypeUrl(told.type_url)),
        told.name,
        version,
        told.body,
        told.aliases,
        told.parts_of,
        tuple(resource(one, known) for one in told.collections),
    )
