"""Lists: of now, of a moment that has passed, and in pieces that all show the same moment.

A continue token names the moment and the last object sent; when the moment is forgotten, the
client is told so with 410, as a real cluster does.
"""

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from isthmus.lab.apiserver import errors, requests, selectable, selectors, store
from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.state import State
from isthmus.lab.apiserver.values import Obj


class Token(msgspec.Struct, frozen=True):
    """Where a list goes on.

    Attributes:
        revision: The moment shown; -1 to go on with what is there now.
        after: Namespace and name of the last object sent.
    """

    revision: int
    after: tuple[str, str]


@dataclass(frozen=True, slots=True)
class Page:
    """A list or a piece of one.

    Attributes:
        meta: The list's metadata.
    """

    entries: list[store.Entry]
    meta: Obj


def page(state: State, resource: Resource, *, namespace: str, query: Mapping[str, str]) -> Page:
    """Return what a list request asks for; raises 400, 410 or 504."""
    matches = selectors.parse(
        labels=query.get("labelSelector", ""),
        fields=query.get("fieldSelector", ""),
        known=selectable.fields_of(resource),
    )
    limit = requests.number(query.get("limit") or "0", "limit")
    token = _token(query)
    revision, entries = _moment(state, resource, namespace, query, token)
    if token is not None:
        entries = [entry for entry in entries if _place(entry) > token.after]
    found = [entry for entry in entries if matches(entry.obj)]
    meta: Obj = {"resourceVersion": str(revision)}
    if limit and len(found) > limit:
        meta["continue"] = _encoded(Token(revision, _place(found[limit - 1])))
        if not query.get("labelSelector") and not query.get("fieldSelector"):
            meta["remainingItemCount"] = len(found) - limit
        found = found[:limit]
    return Page(found, meta)


def _place(entry: store.Entry) -> tuple[str, str]:
    meta = entry.obj["metadata"]
    return (meta.get("namespace", ""), meta["name"])


def _moment(
    state: State,
    resource: Resource,
    namespace: str,
    query: Mapping[str, str],
    token: Token | None,
) -> tuple[int, list[store.Entry]]:
    """Return the revision to show and the objects as of it."""
    kept = state.store
    given = query.get("resourceVersion") or ""
    match = query.get("resourceVersionMatch") or ""
    _refuse_contradictions(given, match, token)
    if token is not None and token.revision >= 0:
        if token.revision < kept.floor:
            raise _expired(kept.revision, token)
        return token.revision, kept.at(resource.key, revision=token.revision, namespace=namespace)
    if given and token is None:
        wanted = requests.number(given, "resourceVersion")
        check_reached(state, wanted)
        if match == "Exact":
            return wanted, kept.at(resource.key, revision=wanted, namespace=namespace)
    return kept.revision, kept.entries(resource.key, namespace)


def _refuse_contradictions(given: str, match: str, token: Token | None) -> None:
    if match not in ("", "Exact", "NotOlderThan"):
        raise errors.bad_request(f'resourceVersionMatch: Unsupported value: "{match}"')
    if match and not given:
        raise errors.bad_request(
            "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless"
            " resourceVersion is provided"
        )
    if match == "Exact" and given == "0":
        raise errors.bad_request(
            'resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for'
            ' resourceVersion "0"'
        )
    if token is not None and given not in ("", "0"):
        raise errors.bad_request("specifying resource version is not allowed when using continue")


def check_reached(state: State, wanted: int) -> None:
    """Raise 504 when a client asks for a revision that lies ahead."""
    if wanted > state.store.revision:
        raise errors.ApiError(
            504,
            "Timeout",
            f"Too large resource version: {wanted}, current: {state.store.revision}",
            details={
                "causes": [
                    {
                        "reason": "ResourceVersionTooLarge",
                        "message": "Too large resource version",
                    }
                ],
                "retryAfterSeconds": 1,
            },
        )


def _expired(revision: int, token: Token) -> errors.ApiError:
    error = errors.expired(
        "The provided continue parameter is too old to display a consistent list result. You can"
        " start a new list without the continue parameter, or use the continue token in this"
        " response to retrieve the remainder of the results."
    )
    error.more["metadata"] = {
        "resourceVersion": str(revision),
        "continue": _encoded(Token(-1, token.after)),
    }
    return error


def _encoded(token: Token) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(token)).decode().rstrip("=")


def _token(query: Mapping[str, str]) -> Token | None:
    text = query.get("continue")
    if not text:
        return None
    try:
        raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return msgspec.json.decode(raw, type=Token)
    except (binascii.Error, msgspec.DecodeError, ValueError) as error:
        raise errors.bad_request("continue key is not valid") from error
