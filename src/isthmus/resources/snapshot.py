"""The hand-over to `xds`: what a proxy should have, as named and versioned bytes.

A resource's version follows from its content alone, so that equal bytes are never sent twice and
all proxies that see the same share one object.

Source: spec sections 4.5 and 4.6.
"""

import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from typing import Final, NewType

from typing_extensions import override

from isthmus.resources import folding

TypeUrl = NewType("TypeUrl", str)
"""The full URL of a protobuf type, as it stands in an `Any`."""

PREFIX: Final = "type.googleapis.com/"
CLUSTERS: Final = TypeUrl(PREFIX + "envoy.config.cluster.v3.Cluster")
ENDPOINTS: Final = TypeUrl(PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment")
MEMBERS: Final = TypeUrl(PREFIX + "envoy.config.endpoint.v3.LbEndpoint")
"""Endpoints that are told one by one. Its resources are collections, which clients name."""

LISTENERS: Final = TypeUrl(PREFIX + "envoy.config.listener.v3.Listener")
ROUTES: Final = TypeUrl(PREFIX + "envoy.config.route.v3.RouteConfiguration")
NAMES: Final = TypeUrl(PREFIX + "istio.networking.nds.v1.NameTable")
ADDRESSES: Final = TypeUrl(PREFIX + "istio.workload.Address")
AUTHORIZATIONS: Final = TypeUrl(PREFIX + "istio.security.Authorization")
SECRETS: Final = TypeUrl(PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret")

PUSH_ORDER: Final = (
    CLUSTERS,
    ENDPOINTS,
    MEMBERS,
    LISTENERS,
    ROUTES,
    SECRETS,
    NAMES,
    AUTHORIZATIONS,
    ADDRESSES,
)
"""The order in which a proxy must hear of changes, so that nothing refers to what is not there."""

EVERYTHING: Final = "*"
"""The name by which a proxy wants every resource of a type."""

WILDCARD_TYPES: Final = frozenset({CLUSTERS, LISTENERS, NAMES, AUTHORIZATIONS, ADDRESSES})
"""Types of which a proxy gets all without naming any."""


class Contents(str):
    """The version of a collection: it also knows what the collection consists of.

    Attributes:
        members: Gives, by name, what a client has that has this version.
    """

    __slots__ = ("members",)

    members: Callable[[], Mapping[str, "Resource"]]

    @staticmethod
    def made(text: str, members: Callable[[], Mapping[str, "Resource"]]) -> "Contents":
        """Return the edition that is called `text`; the same text always means the same members."""
        made = Contents(text)
        made.members = members
        return made


@dataclass(frozen=True, slots=True, weakref_slot=True, eq=False)
class Resource:
    """One resource, ready to be put into an `Any`.

    Attributes:
        version: A short digest of `body`.
        body: The serialized message of type `type_url`; it may be folded until somebody asks.
        aliases: Other names by which a client may ask for it.
        parts_of: Names of resources whose subscribers need this one, too.
        collections: Those of `MEMBERS` that it refers to; they come and go with it.
    """

    type_url: TypeUrl
    name: str
    version: str
    body: bytes
    aliases: tuple[str, ...] = ()
    parts_of: tuple[str, ...] = ()
    collections: tuple["Resource", ...] = ()

    @override
    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Resource):
            return NotImplemented
        return (
            self.version == other.version
            and self.name == other.name
            and self.type_url == other.type_url
            and self.aliases == other.aliases
            and self.parts_of == other.parts_of
            and self.collections == other.collections
            and self.body == other.body
        )

    @override
    def __hash__(self) -> int:
        return hash((self.type_url, self.name, self.version))

    def rest(self) -> int:
        """Keep the body folded until somebody asks for it again; return how long it is if it was not."""
        held = _HELD.__get__(self)
        found = folding.folded(held)
        if found is held:
            return 0
        _HELD.__set__(self, found)
        return len(held)


_HELD: Final = vars(Resource)["body"]


def _body(resource: Resource) -> bytes:
    held: bytes = _HELD.__get__(resource)
    if not isinstance(held, folding.Folded):
        return held
    body = folding.unfolded(held)
    _HELD.__set__(resource, body)
    return body


# What is asked for looks as if it had never been folded.
setattr(Resource, "body", property(_body, _HELD.__set__))  # noqa: B010  # It is a field.

_KNOWN: Final = weakref.WeakValueDictionary[Hashable, Resource]()


def shared(fresh: Resource) -> Resource:
    """Return the resource that is equal and known already, or else this one, whose body may rest."""
    told = tuple([one.version for one in fresh.collections])
    known = _KNOWN.setdefault((fresh.type_url, fresh.name, fresh.version, told), fresh)
    return known if known == fresh else fresh


def resting() -> Iterator[int]:
    """Fold the bodies of shared resources that are not, and yield how long each was.

    Whoever goes through this may take a breath between any two.
    """
    for known in _KNOWN.valuerefs():
        one = known()
        if one is not None and (size := one.rest()):
            yield size


@dataclass(frozen=True, slots=True)
class Leads:
    """What names lead to, of one type, besides the resources of these names.

    Attributes:
        related: By any name, the resources that go by it or are parts of it.
        implied: Names that the proxy wants without naming them, unless it wants everything.
    """

    related: Mapping[str, Set[str]] = field(default_factory=dict)
    implied: frozenset[str] = frozenset()


NOWHERE: Final = Leads()


class Edition:
    """Stands for some resources as they are, until they change: then there is another one.

    Whoever makes something of them may keep it here; it ends with the edition.
    """

    __slots__ = ("kept",)

    def __init__(self) -> None:
        self.kept: object = None


Stamp = tuple[Edition, ...]


def _unstamped(_: TypeUrl) -> Stamp:
    return ()


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that one proxy should have at one moment, by type and name.

    Attributes:
        stamp_of: Gives the editions of which all resources of a type are, the widest last: the same
            for equal resources only, of any snapshot and at any time. Empty where none are known.
    """

    resources: Mapping[TypeUrl, Mapping[str, Resource]]
    leads: Mapping[TypeUrl, Leads] = field(default_factory=dict)
    stamp_of: Callable[[TypeUrl], Stamp] = _unstamped

    def of(self, type_url: TypeUrl) -> Mapping[str, Resource]:
        """Return the resources of one type; empty when there are none."""
        return self.resources.get(type_url, {})

    def leads_of(self, type_url: TypeUrl) -> Leads:
        """Return what names of one type lead to."""
        return self.leads.get(type_url, NOWHERE)


EMPTY: Final = Snapshot({})
