"""What is said on a discovery stream, as values.

Requests are what a client says; actions are what the server shall do. How they look as protobuf
is decided at the door, not here.

Source: spec section 4.6.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeVar, cast

from isthmus.base import hashing
from isthmus.resources.snapshot import EVERYTHING, Resource, TypeUrl

T = TypeVar("T")

WILDCARD: Final = EVERYTHING
"""The name that stands for every resource of a type."""


class Flavour(hashing.Word):
    """The two forms of the protocol."""

    STATE_OF_THE_WORLD = "sotw"
    DELTA = "delta"


class Versions(dict[str, str]):
    """What a client says to have; never changed, for it may be what many say who come again."""

    __slots__ = ("_made",)

    def __init__(self, versions: Mapping[str, str]) -> None:
        super().__init__(versions)
        self._made: dict[object, object] = {}

    def made(self, make: Callable[[Mapping[str, str]], T]) -> T:
        """Return what `make` makes of it, which is kept with it."""
        found = self._made.get(make)
        if found is None:
            found = self._made[make] = make(self)
        return cast("T", found)  # Sound: it was made by this very function.


@dataclass(frozen=True, slots=True)
class Request:
    """What a client says about one type.

    Attributes:
        names: State of the world only: all names that the client wants.
        subscribe: Delta only: names that it wants from now on.
        unsubscribe: Delta only: names that it no longer wants.
        initial_versions: Delta only, in the first request: what it has from another stream.
        version: The version that it works with, as it says.
        nonce: The offer that this answers; empty when it answers none.
        error: Why it refuses that offer; None when it does not.
    """

    type_url: TypeUrl
    names: tuple[str, ...] = ()
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    initial_versions: Mapping[str, str] = field(default_factory=dict)
    version: str = ""
    nonce: str = ""
    error: str | None = None

    def made(self, make: Callable[[Mapping[str, str]], T]) -> T:
        """Return what `make` makes of the versions; of what many have said it is made once."""
        versions = self.initial_versions
        return versions.made(make) if isinstance(versions, Versions) else make(versions)


@dataclass(frozen=True, slots=True)
class Offer:
    """Send these resources, and in delta these names as removed.

    Attributes:
        version: A digest of what is offered.
        nonce: Follows from the content, so that one message is the same for all who hear it.
    """

    type_url: TypeUrl
    version: str
    nonce: str
    resources: tuple[Resource, ...] = ()
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """The client works with an offer."""

    type_url: TypeUrl
    version: str
    nonce: str


@dataclass(frozen=True, slots=True)
class Refused:
    """The client does not work with an offer.

    Attributes:
        names: The resources that its message blames, as far as it names them.
        message: Its own words, cut to a bounded length.
        offered: All names in what it refuses.
    """

    type_url: TypeUrl
    version: str
    nonce: str
    names: tuple[str, ...]
    message: str
    offered: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """Tell whoever watches this stream."""

    outcome: Accepted | Refused


@dataclass(frozen=True, slots=True)
class Close:
    """End the stream with a gRPC status of this name."""

    code: str
    message: str


Action = Offer | Report | Close
