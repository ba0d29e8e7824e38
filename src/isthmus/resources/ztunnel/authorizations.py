"""Policies about connections as `istio.security.Authorization`.

A node proxy takes a match that says nothing as one that fits nothing, and a list of matches that
is empty as one that fits all. So where a connection may be any, the whole list is left out.

Source: spec section 7.1.
"""

import ipaddress
from collections.abc import Iterable
from typing import Final

from google.protobuf import message

from isthmus.mesh.authorization import Action, Form, Pattern
from isthmus.views import view
from isthmus_proto.istio.security import authorization_pb2 as wire

REACHES: Final = {
    view.wds.Reach.MESH: wire.GLOBAL,
    view.wds.Reach.NAMESPACE: wire.NAMESPACE,
    view.wds.Reach.NAMED: wire.WORKLOAD_SELECTOR,
}
FORMS: Final = {Form.EXACT: "exact", Form.PREFIX: "prefix", Form.SUFFIX: "suffix"}


def authorization_of(slice_: view.wds.AuthorizationSlice) -> message.Message:
    """Return the message that says who may connect."""
    result: message.Message = wire.Authorization(
        name=slice_.name,
        namespace=slice_.namespace,
        scope=REACHES[slice_.reach],
        action=wire.DENY if slice_.action is Action.DENY else wire.ALLOW,
        groups=[{"rules": list(_rules(group))} for group in slice_.groups],
    )
    return result


def _rules(group: Iterable[view.wds.Alternatives]) -> Iterable[dict[str, object]]:
    for alternatives in group:
        if view.wds.ANY_CONNECTION not in alternatives:
            yield {"matches": [_match(one) for one in alternatives]}


def _match(match: view.wds.ConnectionMatch) -> dict[str, object]:
    return {
        "namespaces": [_text(one) for one in match.namespaces],
        "not_namespaces": [_text(one) for one in match.not_namespaces],
        "principals": [_text(one) for one in match.principals],
        "not_principals": [_text(one) for one in match.not_principals],
        "source_ips": [_range(one) for one in match.sources],
        "not_source_ips": [_range(one) for one in match.not_sources],
        "destination_ports": match.ports,
        "not_destination_ports": match.not_ports,
        "service_accounts": [_account(one) for one in match.accounts],
        "not_service_accounts": [_account(one) for one in match.not_accounts],
    }


def _text(pattern: Pattern) -> dict[str, object]:
    if pattern.form is Form.PRESENT:
        return {"presence": {}}
    return {FORMS[pattern.form]: pattern.text}


def _range(text: str) -> dict[str, object]:
    block = ipaddress.ip_network(text, strict=False)
    return {"address": block.network_address.packed, "length": block.prefixlen}


def _account(one: tuple[str, str]) -> dict[str, object]:
    namespace, account = one
    return {"namespace": namespace, "serviceAccount": account}
