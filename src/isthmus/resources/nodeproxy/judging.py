"""Policies about connections as Envoy's RBAC filters: first what is denied, then what is allowed.

In a tunnel the caller is known by its certificate and the port by the tunnel's authority; without
one nobody has an identity. Nobody without an identity is allowed in for whom he is not.

Source: spec section 7.1; docs/reference/authorization.md.
"""

import dataclasses
import functools
import ipaddress
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from envoy.config.rbac.v3 import rbac_pb2
from envoy.extensions.filters.http.rbac.v3 import rbac_pb2 as http_rbac_pb2
from envoy.extensions.filters.network.rbac.v3 import rbac_pb2 as network_rbac_pb2

from isthmus.mesh.authorization import Action, Form, Pattern
from isthmus.resources.envoy import messages, rbac
from isthmus.views import view

Match = view.wds.ConnectionMatch
Policies = Sequence[view.wds.AuthorizationSlice]
Group = Sequence[view.wds.Alternatives]
Names = Sequence[view.nodeslices.TunnelName]
Ports = Callable[[int], messages.Fields]

IN_ORDER: Final = (Action.DENY, Action.ALLOW)
SEGMENT: Final = "[^/]+"
SOME: Final = "[^/]*"


def tunnels(
    policies: Policies, action: Action, *, address: str, names: Names = ()
) -> http_rbac_pb2.RBAC:
    """Return the configuration of the filter that denies, or of the one that allows, tunnels.

    Args:
        policies: What is said of the pod.
        action: Which of it is meant.
        address: The pod's own, with which its ports are asked for.
        names: Names with which they are asked for as well.
    """
    port = functools.partial(_port_of_tunnel, address=address, names=names)
    return http_rbac_pb2.RBAC(rules=_rules(policies, action, port))


def connections(policies: Policies) -> list[messages.Fields]:
    """Return the filters that judge connections without a tunnel: first who denies."""
    each = (_rules(policies, action, _port_of_connection) for action in IN_ORDER)
    return [
        messages.extension(
            rbac.NETWORK_FILTER, network_rbac_pb2.RBAC(rules=rules, stat_prefix="tcp.")
        )
        for rules in each
        if rules is not None
    ]


def _rules(policies: Policies, action: Action, port: Ports) -> rbac_pb2.RBAC | None:
    """Return what is denied or allowed; None for nothing denied, and for all allowed."""
    held = [policy for policy in policies if policy.action is action]
    named = {
        f"{policy.resource_name}/{number}/{part}": meant
        for policy in held
        for number, group in enumerate(policy.groups)
        for part, meant in enumerate(_meant(group, port, action))
    }
    if held and action is Action.ALLOW and not named:
        named = {"nothing-is-allowed": {"permissions": [rbac.NEVER], "principals": [rbac.ANY]}}
    return rbac_pb2.RBAC(action=rbac.ENVOYS_ACTION[action], policies=named) if named else None


def _meant(group: Group, port: Ports, action: Action) -> Iterator[messages.Fields]:
    """Yield Envoy's policies for a group, of each of whose lists one alternative must fit.

    Envoy asks what is called and who calls apart. A list in which both are asked is taken apart.
    """
    what = [one for one in group if all(_asks_what(match) for match in one)]
    who = [one for one in group if one not in what and not any(map(_asks_both, one))]
    mixed = [one for one in group if one not in what and one not in who]
    for chosen in itertools.product(*mixed):
        alone = [(match,) for match in chosen]
        yield {
            "permissions": [_permission([*what, *alone], port)],
            "principals": [_principal([*who, *alone], action)],
        }


def _asks_what(match: Match) -> bool:
    """Say whether a match is about what is called alone."""
    return dataclasses.replace(match, ports=(), not_ports=()) == view.wds.ANY_CONNECTION


def _asks_both(match: Match) -> bool:
    return bool(match.ports or match.not_ports)


# --- what is called


def _permission(lists: Sequence[view.wds.Alternatives], port: Ports) -> messages.Fields:
    return _all("and_rules", "rules", [_one_of_ports(one, port) for one in lists])


def _one_of_ports(alternatives: view.wds.Alternatives, port: Ports) -> messages.Fields:
    return _one("or_rules", "rules", [_ports(match, port) for match in alternatives])


def _ports(match: Match, port: Ports) -> messages.Fields:
    parts: list[messages.Fields] = []
    if match.ports:
        parts.append(_one("or_rules", "rules", [port(one) for one in match.ports]))
    parts.extend({"not_rule": port(one)} for one in match.not_ports)
    return _all("and_rules", "rules", parts)


def _port_of_connection(port: int) -> messages.Fields:
    return {"destination_port": port}


def _port_of_tunnel(port: int, *, address: str, names: Names) -> messages.Fields:
    # Only these authorities get any further, see `pods`. Ports of names are not the pod's own.
    asked = [f"{address}:{port}", *(one.authority for one in names if one.port == port)]
    each = [_asked_for(one) for one in asked]
    return _one("or_rules", "rules", each) if len(each) > 1 else each[0]


def _asked_for(authority: str) -> messages.Fields:
    # Routes are found whatever the case of a name is.
    exact = {"exact": authority, "ignore_case": True}
    return {"header": {"name": ":authority", "string_match": exact}}


# --- who calls


def _principal(lists: Sequence[view.wds.Alternatives], action: Action) -> messages.Fields:
    return _all("and_ids", "ids", [_one_of_callers(one, action) for one in lists])


def _one_of_callers(alternatives: view.wds.Alternatives, action: Action) -> messages.Fields:
    return _one("or_ids", "ids", [_caller(match, action) for match in alternatives])


def _caller(match: Match, action: Action) -> messages.Fields:
    wanted = filter(None, map(list, _identities(match)))
    parts = [_one("or_ids", "ids", some) for some in wanted]
    unwanted = [one for some in _excluded(match) for one in some]
    if unwanted and action is Action.ALLOW:
        parts.append(rbac.KNOWN_CALLER)
    parts.extend({"not_id": one} for one in unwanted)
    if match.sources:
        parts.append(_one("or_ids", "ids", [_range(one) for one in match.sources]))
    parts.extend({"not_id": _range(one)} for one in match.not_sources)
    return _all("and_ids", "ids", parts)


def _identities(match: Match) -> Iterator[Iterator[messages.Fields]]:
    yield map(_by_principal, match.principals)
    yield map(_by_namespace, match.namespaces)
    yield map(_by_account, match.accounts)


def _excluded(match: Match) -> Iterator[Iterator[messages.Fields]]:
    yield map(_by_principal, match.not_principals)
    yield map(_by_namespace, match.not_namespaces)
    yield map(_by_account, match.not_accounts)


def _by_principal(pattern: Pattern) -> messages.Fields:
    match pattern.form:
        case Form.EXACT:
            return _named({"exact": f"spiffe://{pattern.text}"})
        case Form.PREFIX:
            return _named({"prefix": f"spiffe://{pattern.text}"})
        case Form.SUFFIX:
            return _named({"suffix": pattern.text})
        case Form.PRESENT:
            return rbac.KNOWN_CALLER


def _by_namespace(pattern: Pattern) -> messages.Fields:
    before = SOME if pattern.form is Form.SUFFIX else ""
    after = SOME if pattern.form is Form.PREFIX else ""
    is_any = pattern.form is Form.PRESENT
    segment = SEGMENT if is_any else f"{before}{re.escape(pattern.text)}{after}"
    return _named({"safe_regex": {"regex": f"spiffe://{SEGMENT}/ns/{segment}/sa/{SEGMENT}"}})


def _by_account(account: tuple[str, str]) -> messages.Fields:
    namespace, name = map(re.escape, account)
    return _named({"safe_regex": {"regex": f"spiffe://{SEGMENT}/ns/{namespace}/sa/{name}"}})


def _named(matcher: messages.Fields) -> messages.Fields:
    return {"authenticated": {"principal_name": matcher}}


def _range(text: str) -> messages.Fields:
    block = ipaddress.ip_network(text, strict=False)
    prefix = {
        "address_prefix": str(block.network_address),
        "prefix_len": {"value": block.prefixlen},
    }
    return {"direct_remote_ip": prefix}


# --- and, or


def _all(operator: str, field: str, parts: list[messages.Fields]) -> messages.Fields:
    return {operator: {field: parts}} if parts else rbac.ANY


def _one(operator: str, field: str, parts: list[messages.Fields]) -> messages.Fields:
    # Node proxies take a list of alternatives without any for one that all fits.
    return {operator: {field: parts}} if parts else rbac.ANY
