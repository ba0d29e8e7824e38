"""VirtualServices that hand some of their requests on to others, which have no hosts of their own.

What a delegate says holds within what its root says: a request must match both. Where that cannot
be told, the delegate's route is left out, and its author is told so. One level only, as in Istio.

Source: Istio's API for VirtualService.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, TypeVar

from isthmus.base import errors
from isthmus.engine import collections, graph, reader
from isthmus.fleet.sources import ObjectKey
from isthmus.mesh import requests
from isthmus.mesh.policies import HttpMatch, HttpRoute, VirtualService
from isthmus.registry import checked, config, patterns

T = TypeVar("T", int, str)

Virtuals = collections.Collection[ObjectKey, VirtualService]
Named = tuple[tuple[str, str], ...]

EVERYWHERE: Final = "*"
OWN_NAMESPACE: Final = "."
MOST_ROUTES: Final = 5000
"""So many come of one VirtualService at most: roots and delegates multiply."""


class Conflict(Exception):  # noqa: N818
    """No request, or none that can be told, matches both."""


def declare(graph_: graph.Graph, virtuals: Virtuals) -> config.Nodes[VirtualService]:
    """Declare the VirtualServices with hosts, each with its delegates' routes among its own."""
    by_delegate = graph_.index(
        "VirtualService.by delegate",
        virtuals,
        lambda _, one: {route.delegate for route in one.http if route.delegate},
    )

    def whole(
        read: reader.Reader, key: ObjectKey, virtual: VirtualService
    ) -> Iterable[tuple[ObjectKey, checked.Checked[VirtualService]]]:
        problems = dict[str, None]()
        if not virtual.hosts:
            if not read.lookup(by_delegate, (key.namespace, key.name)):
                problems["names no host, and no VirtualService delegates to it"] = None
            yield key, checked.Checked(None, _findings(virtual, problems))
            return
        routes = list[HttpRoute]()
        for route in virtual.http:
            if route.delegate is None:
                routes.append(route)
                continue
            namespace, name = route.delegate
            found = read.get(virtuals, ObjectKey(key.cluster, namespace, name))
            routes += _handed_on(route, virtual, found, problems)
        if len(routes) > MOST_ROUTES:
            problems[f"has more than {MOST_ROUTES} routes with its delegates'"] = None
        made = dataclasses.replace(virtual, http=tuple(routes[:MOST_ROUTES]))
        yield key, checked.Checked(made, _findings(virtual, problems))

    both = graph_.derive("VirtualService.with delegates", virtuals, whole)
    return config.Nodes(
        values=checked.values_of(graph_, "VirtualService.whole", both),
        findings=checked.findings_of(graph_, "VirtualService.whole", both),
    )


def _findings(virtual: VirtualService, problems: Iterable[str]) -> tuple[errors.Finding, ...]:
    return tuple(
        errors.Finding(
            code=config.OBJECT_DOUBTFUL,
            subject=f"VirtualService {virtual.namespace}/{virtual.name}",
            happened=text,
            still_working="its other routes are used",
            hint="name a VirtualService without hosts that is exported to this namespace",
        )
        for text in problems
    )


def _handed_on(
    route: HttpRoute,
    root: VirtualService,
    delegate: VirtualService | None,
    problems: dict[str, None],
) -> Iterator[HttpRoute]:
    """Yield what becomes of a root's route."""
    named = "/".join(route.delegate or ())
    if delegate is None:
        problems[f"delegates to VirtualService `{named}`, which is not there"] = None
    elif delegate.hosts:
        problems[f"delegates to VirtualService `{named}`, which has hosts of its own"] = None
    elif not _is_exported(delegate, client=root.namespace):
        problems[f"delegates to VirtualService `{named}`, which is not exported to it"] = None
    else:
        for one in delegate.http:
            if one.delegate is not None:
                problems[f"delegates to VirtualService `{named}`, which delegates again"] = None
                continue
            try:
                yield merged(route, one)
            except Conflict:
                problems[
                    f"delegates to VirtualService `{named}`, of which a route matches nothing "
                    "that this one hands on"
                ] = None


def _is_exported(delegate: VirtualService, *, client: str) -> bool:
    return not delegate.export_to or any(
        target in {EVERYWHERE, client} or (target == OWN_NAMESPACE and delegate.namespace == client)
        for target in delegate.export_to
    )


def merged(root: HttpRoute, leaf: HttpRoute) -> HttpRoute:
    """Return a delegate's route as its root narrows it; what it does not say the root says.

    Raises:
        Conflict: A match of it is outside of all that the root hands on.
    """
    own, general = leaf.treatment, root.treatment
    treatment = dataclasses.replace(
        own,
        headers=general.headers if own.headers == requests.UNCHANGED else own.headers,
        rewrite=general.rewrite if own.rewrite == requests.PLAIN.rewrite else own.rewrite,
        retries=own.retries or general.retries,
        fault=own.fault or general.fault,
        cors=own.cors or general.cors,
    )
    return dataclasses.replace(
        leaf,
        matches=_matches(root.matches, leaf.matches),
        timeout_s=leaf.timeout_s or root.timeout_s,
        treatment=treatment,
        mirrors=leaf.mirrors or root.mirrors,
    )


def _matches(roots: Sequence[HttpMatch], leaves: Sequence[HttpMatch]) -> tuple[HttpMatch, ...]:
    if not roots or not leaves:
        return tuple(leaves or roots)
    found = list[HttpMatch]()
    for leaf in leaves:
        before = len(found)
        for root in roots:
            try:
                found.append(narrowed(root, leaf))
            except Conflict:
                continue
        if len(found) == before:
            raise Conflict
    return tuple(found)


def narrowed(root: HttpMatch, leaf: HttpMatch) -> HttpMatch:
    """Return what requests look like that both match.

    Raises:
        Conflict: None can, or it cannot be told.
    """
    if root.path and leaf.path and root.ignores_case is not leaf.ignores_case:
        raise Conflict
    ignores_case = leaf.ignores_case if leaf.path else root.ignores_case
    return HttpMatch(
        path=_text(root.path, leaf.path, ignores_case=ignores_case),
        method=_text(_whole(root.method), _whole(leaf.method)).removeprefix("exact:"),
        headers=_texts(root.headers, leaf.headers),
        port=_same(root.port, leaf.port),
        scheme=_text(root.scheme, leaf.scheme),
        authority=_text(root.authority, leaf.authority),
        without_headers=_texts(root.without_headers, leaf.without_headers, must_be_equal=True),
        query=_texts(root.query, leaf.query),
        ignores_case=ignores_case,
        gateways=_common(root.gateways, leaf.gateways),
        source_namespace=_same(root.source_namespace, leaf.source_namespace),
        source=_texts(root.source, leaf.source, must_be_equal=True),
    )


def _whole(method: str) -> str:
    """Return a method as a pattern."""
    return method if not method or ":" in method else f"exact:{method}"


def _text(root: str, leaf: str, *, ignores_case: bool = False) -> str:
    """Return the narrower of two patterns; what no pattern asks of is any text."""
    if not root or not leaf or root == leaf:
        return leaf or root
    if root == patterns.PRESENT:
        return leaf
    kind, _, wide = root.partition(":")
    own, _, narrow = leaf.partition(":")
    if ignores_case:
        wide, narrow = wide.lower(), narrow.lower()
    if kind == "prefix" and own in {"exact", "prefix"} and narrow.startswith(wide):
        return leaf
    if kind == own == "exact" and narrow == wide:
        return leaf
    raise Conflict


def _texts(root: Named, leaf: Named, *, must_be_equal: bool = False) -> Named:
    found = dict(root)
    for name, pattern in leaf:
        known = found.get(name, pattern)
        if must_be_equal and known != pattern:
            raise Conflict
        found[name] = pattern if must_be_equal else _text(known, pattern)
    return tuple(sorted(found.items()))


def _same(root: T, leaf: T) -> T:
    if root and leaf and root != leaf:
        raise Conflict
    return leaf or root


def _common(root: tuple[str, ...], leaf: tuple[str, ...]) -> tuple[str, ...]:
    if not root or not leaf:
        return leaf or root
    found = tuple(name for name in leaf if name in root)
    if not found:
        raise Conflict
    return found
