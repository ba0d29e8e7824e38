"""The pages about what the control plane knows: which there are, and who may see which.

One table for all ways in: a Unix socket in the container, HTTP on the monitoring port and debug
types on discovery streams ask here, so that none of them can be the one that was forgotten. A
page is never a change: what Istio's pages do on request (`push`, `clear`) is not done.

Source: spec section 9.1; security rules of section 4.8; docs/decisions/0014.

    IsthmusError
    └── ProxyAmbiguous
"""

import http
import json
import urllib.parse
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Protocol

from isthmus.base import clock, errors
from isthmus.mesh.identities import ClusterId
from isthmus.wire import callers

Document = object
"""What JSON can say."""

PAGES: Final[Mapping[str, str]] = {
    "adsz": "Connected proxies, what each is subscribed to, and where it says it is",
    "ambientz": "Always empty: ambient mode is not part of this version",
    "authorizationz": "AuthorizationPolicies in force, by namespace",
    "cachez": "Always empty: resources are kept by content, not in a cache that can be stale",
    "clusterz": "Clusters that are watched or linked, and how well",
    "configz": "The mesh's settings and the policies and rules in force",
    "connections": "Connected proxies",
    "endpointShardz": "Endpoints of each service by cluster",
    "endpointz": "The same as `endpointShardz`",
    "findings": "What is wrong with single objects",
    "inject": "What the injector works with",
    "instancesz": "Services that each connected proxy serves",
    "krtz": "Always empty: collections are told of by the other pages",
    "mcsz": "Always empty: services of the MCS API are not followed",
    "mesh": "The mesh's settings, by their names in MeshConfig",
    "networkz": "Gateways through which networks are reached",
    "peerz": "Control planes of linked clusters that are told, and what they have applied",
    "probez": "Ways to other clusters, and how far this control plane gets on each",
    "push_status": "Always empty: what is wrong stands in `findings`",
    "registryz": "All services, merged across clusters",
    "resourcesz": "Names that proxies are subscribed to, by type",
    "syncz": "What each proxy was sent and has accepted",
    "telemetryz": "Always empty: Telemetry objects are not followed",
}
OF_PROXY: Final[Mapping[str, str]] = {
    "config_dump": "What a proxy should have, as Envoy's `config_dump`; `?types=` narrows it",
    "ecdsz": "Always empty: no extension is configured by discovery",
    "edsz": "The endpoints that a proxy should have",
    "explain": "Everything that decides one call of a proxy: `&host=NAME[:PORT]`",
    "ndsz": "The names that a proxy should answer by itself",
}
OF_NAMESPACES: Final = frozenset({"config_dump", "edsz", "ndsz"})
"""What callers may see of the proxies of their own namespace in their own cluster."""

FOR_OLDER: Final[Mapping[str, str]] = {"pushcontext": "push_status"}
SECRET_KEYS: Final = frozenset(
    {"private_key", "privateKey", "token", "password", "inline_bytes", "generic_secret"}
)
MOST_BYTES: Final = 64 * 1024 * 1024
A_SECOND: Final = 2.0
"""Pages that one caller may ask for in a second, on average."""

AT_ONCE: Final = 10
"""Pages that one caller may ask for at once, if it has not asked for a while."""

MOST_CALLERS: Final = 1_000
TOO_MANY: Final = f"more than {A_SECOND:g} pages a second; come again in a moment\n"
NOT_CONNECTED: Final = (
    "Proxy not connected to this Pilot instance. It may be connected to another instance.\n"
)
SAY_WHICH: Final = "say which proxy: ?proxyID=<pod>.<namespace>\n"


class ProxyAmbiguous(errors.IsthmusError):
    """Proxies of one name in one namespace are connected from several clusters."""

    code = "ISM-WIRE-004"


@dataclass(frozen=True, slots=True)
class Viewer:
    """What a caller may see.

    Attributes:
        cluster: Whose proxies it may see; None for all.
        namespace: Likewise.
        sees_mesh: Whether it may see pages that are about more than one proxy.
    """

    cluster: ClusterId | None = None
    namespace: str | None = None
    sees_mesh: bool = False

    def may_see(self, *, cluster: ClusterId, namespace: str) -> bool:
        """Say whether a proxy may be shown."""
        return self.cluster in {None, cluster} and self.namespace in {None, namespace}


EVERYTHING: Final = Viewer(sees_mesh=True)
"""Whoever may open the Unix socket may do all in the container, too."""


class Reports(Protocol):
    """What the control plane can say of itself; each answer is plain JSON."""

    def page(self, name: str) -> Document:
        """Return one of `PAGES`."""

    def page_of(
        self, name: str, proxy: str, query: Mapping[str, str], viewer: Viewer
    ) -> Document | None:
        """Return one of `OF_PROXY`; None when no such proxy is connected that may be shown.

        Raises:
            IsthmusError: It cannot be told which proxy, or what else, is meant.
        """

    def registration(self) -> Document:
        """Return all services with their instances, port by port."""


class Gather(Protocol):
    """Has told what others know."""

    async def __call__(self, *, with_streams: bool = True) -> None:
        """Have what is counted told, and if wanted how far proxies have come."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What is answered, with a status of HTTP."""

    status: int
    text: str
    is_json: bool = True


class Desk:
    """Answers whoever asks, after a look at what they may see."""

    def __init__(
        self,
        reports: Reports,
        *,
        own_cluster: ClusterId,
        system_namespace: str,
        trusted_namespaces: tuple[str, ...] = (),
        system_clock: clock.Clock | None = None,
        at_once: int = AT_ONCE,
    ) -> None:
        self.reports = reports
        self.own_cluster = own_cluster
        self.gather: Gather = _gathered
        """Awaited before pages are made: has what others know told."""
        self._system = frozenset({system_namespace, *trusted_namespaces})
        self._clock = system_clock or clock.SystemClock()
        self._at_once = at_once
        self._asked: OrderedDict[callers.Caller, tuple[float, float]] = OrderedDict()

    def viewer(self, caller: callers.Caller) -> Viewer:
        """Return what a proven caller may see.

        The system namespace of another cluster stands for that cluster alone: whoever governs it
        does not govern the mesh.
        """
        if caller.namespace not in self._system:
            return Viewer(caller.cluster, caller.namespace)
        return EVERYTHING if caller.cluster == self.own_cluster else Viewer(caller.cluster)

    def is_busy_with(self, caller: callers.Caller) -> bool:
        """Count a question; say whether the caller has asked too many of late."""
        now = self._clock.monotonic()
        left, then = self._asked.pop(caller, (float(self._at_once), now))
        left = min(left + (now - then) * A_SECOND, self._at_once) - 1
        self._asked[caller] = (max(left, -1.0), now)
        while len(self._asked) > MOST_CALLERS:
            self._asked.popitem(last=False)
        return left < 0

    def answer(self, target: str, viewer: Viewer) -> Answer:
        """Answer for `name?query`, as it stands after `/debug/`."""
        name, _, said = target.partition("?")
        query = dict(urllib.parse.parse_qsl(said, keep_blank_values=True))
        name = FOR_OLDER.get(name, name)
        if not _is_open(name, viewer):
            return _refused()
        try:
            return self._answered(name, query, viewer)
        except errors.IsthmusError as error:
            lines = [f"{error.happened} ({error.code})", *error.detail.splitlines()]
            lines += [f"hint: {error.hint}"] if error.hint else []
            text = "\n".join(lines) + "\n"
            return Answer(http.HTTPStatus.CONFLICT, text, is_json=False)

    def registration(self, viewer: Viewer) -> Answer:
        """Answer with the listing that the oldest guides look at."""
        return _said(self.reports.registration(), lines=True) if viewer.sees_mesh else _refused()

    def _answered(self, name: str, query: Mapping[str, str], viewer: Viewer) -> Answer:
        if name in OF_PROXY:
            return self._answered_of(name, query, viewer)
        if name in PAGES:
            return _said(self.reports.page(name), lines="pretty" in query)
        if name in {"", "list"}:
            return _said(index(), lines="pretty" in query)
        return Answer(http.HTTPStatus.NOT_FOUND, f"no such page: {name[:64]}\n", is_json=False)

    def _answered_of(self, name: str, query: Mapping[str, str], viewer: Viewer) -> Answer:
        proxy = query.get("proxyID", "")
        if not proxy:
            return Answer(http.HTTPStatus.BAD_REQUEST, SAY_WHICH, is_json=False)
        if viewer.namespace is not None and namespace_in(proxy) != viewer.namespace:
            return _refused()
        document = self.reports.page_of(name, proxy, query, viewer)
        if document is None:
            return Answer(http.HTTPStatus.NOT_FOUND, NOT_CONNECTED, is_json=False)
        return _said(document, lines="pretty" in query)


async def _gathered(*, with_streams: bool = True) -> None:
    """Nobody else knows anything."""
    del with_streams


def index() -> list[str]:
    """Return the paths of all pages."""
    return sorted(f"/debug/{name}" for name in (*PAGES, *OF_PROXY))


def namespace_in(proxy: str) -> str:
    """Return the namespace in `<pod>.<namespace>[.<cluster>]`, or in a longer id of a proxy."""
    _, is_node, rest = proxy.partition("~")
    name = rest.split("~")[1] if is_node and "~" in rest else proxy  # <kind>~<address>~<name>~…
    words = name.split(".")
    return words[1] if len(words) > 1 else ""


def redacted(document: Document) -> Document:
    """Return a document without the values of keys and tokens."""
    if isinstance(document, Mapping):
        return {
            key: "[redacted]" if key in SECRET_KEYS else redacted(value)
            for key, value in document.items()
        }
    if isinstance(document, list | tuple):
        return [redacted(each) for each in document]
    return document


def _is_open(name: str, viewer: Viewer) -> bool:
    """Say whether a viewer may ask for a page at all; whom it may see there is another question.

    To explain a call is to tell of others' services, wherever they are.
    """
    if viewer.sees_mesh:
        return True
    if viewer.namespace is None:
        return name in OF_PROXY and name != "explain"
    return name in OF_NAMESPACES


def _refused() -> Answer:
    text = "this page is not for callers of this namespace and cluster\n"
    return Answer(http.HTTPStatus.FORBIDDEN, text, is_json=False)


def _said(document: Document, *, lines: bool) -> Answer:
    indent = 2 if lines else None
    separators = None if indent else (",", ":")
    text = json.dumps(redacted(document), indent=indent, separators=separators, default=str)
    if len(text) > MOST_BYTES:
        text = f"the page has more than {MOST_BYTES} bytes; ask for a part of it\n"
        return Answer(http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text, is_json=False)
    return Answer(http.HTTPStatus.OK, text + "\n")
