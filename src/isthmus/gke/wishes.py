"""What the user's file of clusters asks for.

Decides what the file may say; everything else in it is refused by name. Refuses to know whether
any of it exists.
"""

import ipaddress
import re
from collections.abc import Iterable, Mapping
from dataclasses import astuple, dataclass
from typing import Final

from isthmus.gke import clusters, problems, ranges
from isthmus.gke import ports as port_sets

Node = str | list["Node"] | dict[str, "Node"]
"""A file's content: texts, lists and mappings."""

PRIORITY: Final = 900
"""Before the rules that GKE makes, which have 1000, as Google's guide has it."""

_KEYS: Final = ("mesh", "clusters", "ports", "authorizedNetworks", "priority")
_CLUSTER_KEYS: Final = (
    "name",
    "project",
    "location",
    "context",
    "controlPlane",
    "networkProject",
    "ports",
)
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?")
_PROJECT: Final = re.compile(r"([a-z0-9.-]+:)?[a-z][-a-z0-9]{4,28}[a-z0-9]")
_LOCATION: Final = re.compile(r"[a-z]+-[a-z]+[0-9]+(-[a-z])?")


@dataclass(frozen=True, slots=True)
class Member:
    """One cluster of the mesh-to-be.

    Attributes:
        context: Its context in the kubeconfig.
        control_plane: Title of the cluster whose control plane its pods talk to.
        network_project: The project that its network is expected in, or empty.
        ports: The ports that its pods serve; empty if the file does not say.
    """

    title: str
    place: clusters.Place
    context: str
    control_plane: str
    network_project: str = ""
    ports: port_sets.Ports = ()

    @property
    def has_control_plane(self) -> bool:
        """Whether a control plane runs there."""
        return self.control_plane == self.title


@dataclass(frozen=True, slots=True)
class Wishes:
    """All that the file asks for.

    Attributes:
        mesh: First part of the names of firewall rules.
        callers: Further networks that may call the API servers.
    """

    members: tuple[Member, ...]
    mesh: str = "isthmus"
    callers: tuple[clusters.Block, ...] = ()
    priority: int = PRIORITY


def wishes_of(document: Node) -> Wishes:
    """Return what the file's content asks for.

    Raises:
        FileRefused: It is not understood (ISM-GKE-002).
    """
    content = _mapping(document, "the file", _KEYS)
    entries = [
        _mapping(entry, f"clusters[{place}]", _CLUSTER_KEYS)
        for place, entry in enumerate(_list(content.get("clusters", []), "clusters"))
    ]
    if len(entries) < 2:
        raise _refused("`clusters` names fewer than two clusters")
    return Wishes(
        _members(entries, shared=_ports(content.get("ports", ""), "ports")),
        mesh=_matching(_NAME, content.get("mesh", "isthmus"), "mesh"),
        callers=_callers(content.get("authorizedNetworks", [])),
        priority=_priority(content.get("priority", str(PRIORITY))),
    )


def _members(entries: list[dict[str, Node]], *, shared: port_sets.Ports) -> tuple[Member, ...]:
    places = [_place(entry, f"clusters[{index}]") for index, entry in enumerate(entries)]
    titles = _titles(places)
    members = []
    for index, (entry, place) in enumerate(zip(entries, places, strict=True)):
        where = f"clusters[{index}]"
        title = titles[place]
        own = _ports(entry.get("ports", ""), f"{where}.ports")
        project = _text(entry.get("networkProject", ""), f"{where}.networkProject")
        members.append(
            Member(
                title,
                place,
                context=_text(entry.get("context", ""), f"{where}.context")
                or f"gke_{place.project}_{place.location}_{place.name}",
                control_plane=_text(entry.get("controlPlane", ""), f"{where}.controlPlane")
                or title,
                network_project=project and _matching(_PROJECT, project, f"{where}.networkProject"),
                ports=own or shared,
            )
        )
    _check_control_planes(members)
    return tuple(members)


def _place(entry: Mapping[str, Node], where: str) -> clusters.Place:
    return clusters.Place(
        _matching(_PROJECT, entry.get("project", ""), f"{where}.project"),
        _matching(_LOCATION, entry.get("location", ""), f"{where}.location"),
        _matching(_NAME, entry.get("name", ""), f"{where}.name"),
    )


def _titles(places: list[clusters.Place]) -> dict[clusters.Place, str]:
    """Return the shortest way to name each place that no other shares."""
    if len(set(places)) != len(places):
        twice = next(place for place in places if places.count(place) > 1)
        raise _refused(f"cluster `{twice.name}` in `{twice.location}` is named twice")
    return {place: _title(place, places) for place in places}


def _title(place: clusters.Place, places: list[clusters.Place]) -> str:
    spelled = [
        (each, (each.name, f"{each.name}-{each.location}", "-".join(reversed(astuple(each)))))
        for each in places
    ]
    own = next(names for each, names in spelled if each == place)
    for length, name in enumerate(own):
        if sum(names[length] == name for _, names in spelled) == 1:
            return name
    return own[-1]


def _check_control_planes(members: Iterable[Member]) -> None:
    own = {member.title: member.has_control_plane for member in members}
    for member in members:
        if not own.get(member.control_plane, False):
            raise _refused(
                f"`controlPlane` of `{member.title}` names no cluster with a control plane: "
                f"{member.control_plane}",
                hint=f"clusters with one: {', '.join(name for name, is_own in own.items() if is_own)}",
            )


def _ports(node: Node, where: str) -> port_sets.Ports:
    texts: Node = [node] if isinstance(node, str) and node else node
    spans = []
    for text in _list(texts, where):
        try:
            spans.append((1, port_sets.HIGHEST) if text == "all" else _span(text))
        except ValueError as error:
            raise _refused(
                f"`{where}` has no port: {text}", hint="such as 5000, 8080-8090 or all"
            ) from error
    return port_sets.united(spans)


def _span(node: Node) -> port_sets.Span:
    if not isinstance(node, str):
        raise ValueError("no text")
    span = port_sets.span_of(node)
    if span[0] == 0:
        raise ValueError("nothing listens on port 0")
    return span


def _callers(node: Node) -> tuple[clusters.Block, ...]:
    found = []
    for index, entry in enumerate(_list(node, "authorizedNetworks")):
        where = f"authorizedNetworks[{index}]"
        fields = _mapping(entry, where, ("name", "cidr"))
        cidr = _text(fields.get("cidr", ""), f"{where}.cidr")
        try:
            found.append(
                clusters.Block(
                    ipaddress.ip_network(cidr), _text(fields.get("name", ""), f"{where}.name")
                )
            )
        except ValueError as error:
            raise _refused(f"`{where}.cidr` is no range of addresses: {cidr}") from error
    return tuple(found)


def _priority(node: Node) -> int:
    text = _text(node, "priority")
    if not text.isdecimal() or not 0 <= int(text) < port_sets.HIGHEST:
        raise _refused(f"`priority` is no number from 0 to 65534: {text}")
    return int(text)


def _mapping(node: Node, where: str, keys: tuple[str, ...]) -> dict[str, Node]:
    if not isinstance(node, dict):
        raise _refused(f"`{where}` is no mapping")
    for key in node:
        if key not in keys:
            raise _refused(f"`{where}` has an unknown key: {key}", hint=f"known: {', '.join(keys)}")
    return node


def _list(node: Node, where: str) -> list[Node]:
    if node == "":
        return []
    if not isinstance(node, list):
        raise _refused(f"`{where}` is no list")
    return node


def _text(node: Node, where: str) -> str:
    if not isinstance(node, str):
        raise _refused(f"`{where}` is no text")
    return node


def _matching(pattern: re.Pattern[str], node: Node, where: str) -> str:
    text = _text(node, where)
    if not text:
        raise _refused(f"`{where}` is missing")
    if not pattern.fullmatch(text):
        raise _refused(f"`{where}` cannot be a name in Google's cloud: {text}")
    return text


def _refused(happened: str, *, hint: str = "") -> problems.FileRefused:
    return problems.FileRefused(
        happened, hint=hint or "docs/howto/gke.md says what the file may say"
    )


def is_wide(block: clusters.Block) -> bool:
    """Tell whether a range is so large that somebody should say that it is meant."""
    return block.cidr.prefixlen < (8 if block.cidr.version == ranges.EVERYWHERE[0].version else 32)
