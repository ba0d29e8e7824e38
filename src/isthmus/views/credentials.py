"""Which Secrets gateways need: those that Gateway objects name, beside the gateways themselves.

Refuses to know what is in them, and whether the gateways' accounts may read them.

Source: spec sections 4.2 and 4.5; security rule XA-3.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from isthmus.engine import collections, graph, reader
from isthmus.views import gateway_slices, view


@dataclass(frozen=True, slots=True)
class Needed:
    """The credentials of one proxy.

    Attributes:
        names: Of Secrets, sorted; with each, whether it must say whose certificates of clients
            are accepted.
    """

    scope: view.CredentialScope
    names: tuple[tuple[str, bool], ...]


Wanted = collections.Collection[str, Needed]


def declare(
    graph_: graph.Graph,
    seen: collections.Collection[str, tuple[view.Scope, ...]],
    plans: gateway_slices.Plans,
) -> Wanted:
    """Declare what each proxy needs, by its key; nothing for whoever needs none."""
    return graph_.derive("views/credentials of proxies", seen, _needed(plans))


def _needed(
    plans: gateway_slices.Plans,
) -> Callable[[reader.Reader, str, tuple[view.Scope, ...]], Iterator[tuple[str, Needed]]]:
    def needed(
        read: reader.Reader, key: str, scopes: tuple[view.Scope, ...]
    ) -> Iterator[tuple[str, Needed]]:
        held = next((one for one in scopes if isinstance(one, view.CredentialScope)), None)
        names = dict[str, bool]()
        for scope in scopes:
            plan = read.get(plans, scope) if isinstance(scope, view.GatewayScope) else None
            for name, mode in plan.credentials() if plan is not None else ():
                names[name] = names.get(name, False) or mode.asks_for_certificates
        if held is not None and names:
            yield key, Needed(held, tuple(sorted(names.items())))

    return needed
