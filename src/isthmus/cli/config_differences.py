"""What differs between what the control plane wants of a proxy and what the proxy has.

Only what means something is compared: Envoy's page adds weights, health and defaults to
endpoints, and a proxy asks for no more endpoints and routes than its clusters and listeners name.

Source: spec section 9.2 (`proxy-status POD`).
"""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from isthmus.cli import config_dumps, config_rows
from isthmus.cli.config_dumps import Document, Dump

KINDS: Final = (
    ("Clusters", config_dumps.CLUSTERS),
    ("Listeners", config_dumps.LISTENERS),
    ("Routes", config_dumps.ROUTES),
    ("Endpoints", config_dumps.ENDPOINTS),
)
WIDTH: Final = 80
MOST_LINES: Final = 12
NOTHING: Final = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """One resource that is not the same on both sides.

    Attributes:
        lines: What is different, readable; empty when one side has none.
        is_wanted: Whether the control plane has it.
        is_there: Whether the proxy has it.
    """

    kind: str
    name: str
    lines: tuple[str, ...] = ()
    is_wanted: bool = True
    is_there: bool = True


def between(wanted: Dump, there: Dump) -> list[Difference]:
    """Return all differences, in the order of kinds and names."""
    return [one for title, kind in KINDS for one in _of_kind(title, kind, wanted, there)]


def _of_kind(title: str, kind: str, wanted: Dump, there: Dump) -> Iterator[Difference]:
    asked = _asked_for(kind, wanted)
    left, right = wanted.dynamic(kind), there.dynamic(kind)
    if asked is not None:
        left = {name: one for name, one in left.items() if name in asked}
    if kind == config_dumps.ENDPOINTS:
        # Envoy lists an assignment for each of its clusters, also for those that have none.
        right = {name: one for name, one in right.items() if name in (asked or ())}
    for name in sorted({*left, *right}):
        if name not in right:
            yield Difference(title, name, is_there=False)
        elif name not in left:
            if not _is_empty(kind, right[name].resource):
                yield Difference(title, name, is_wanted=False)
        else:
            lines = tuple(_lines(kind, left[name].resource, right[name].resource))
            if lines:
                yield Difference(title, name, lines)


def _is_empty(kind: str, resource: Document) -> bool:
    return kind == config_dumps.ENDPOINTS and not resource.get("endpoints")


def _asked_for(kind: str, wanted: Dump) -> set[str] | None:
    """Return the names that a proxy with this configuration asks for; None for all."""
    if kind == config_dumps.ENDPOINTS:
        clusters = wanted.dynamic(config_dumps.CLUSTERS).values()
        return {one.name for one in clusters if one.resource.get("type") == "EDS"}
    if kind == config_dumps.ROUTES:
        return {
            str(rds["route_config_name"])
            for one in wanted.dynamic(config_dumps.LISTENERS).values()
            for rds in _found(one.resource, "rds")
        }
    return None


def _found(document: Any, key: str) -> Iterator[Document]:  # noqa: ANN401  # of JSON
    """Yield the values of a key, wherever they stand."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name == key and isinstance(value, dict):
                yield value
            else:
                yield from _found(value, key)
    elif isinstance(document, list):
        for one in document:
            yield from _found(one, key)


def _lines(kind: str, left: Document, right: Document) -> Iterator[str]:
    if kind == config_dumps.ENDPOINTS:
        mine, theirs = _assigned(left), _assigned(right)
        yield from (f"- {one}" for one in sorted(mine - theirs))
        yield from (f"+ {one}" for one in sorted(theirs - mine))
        return
    for path, wanted, there in _changes(left, right, ""):
        yield path.lstrip(".")
        yield from _sides(wanted, there)


def _assigned(resource: Document) -> set[str]:
    """Return what balancing depends on, a line for each endpoint."""
    found = set()
    for group in resource.get("endpoints") or ():
        place = config_rows.locality(group.get("locality") or {})
        level = group.get("priority", 0)
        for one in group.get("lb_endpoints") or ():
            said = one.get("endpoint") or {}
            found.add(
                f"{config_rows.address(said.get('address') or {})} "
                f"{one.get('health_status', 'HEALTHY')} weight {one.get('load_balancing_weight', 1)} "
                f"priority {level} {place}".rstrip()
            )
    return found


def _changes(left: Any, right: Any, path: str) -> Iterator[tuple[str, Any, Any]]:  # noqa: ANN401  # of JSON
    if isinstance(left, dict) and isinstance(right, dict):
        for key in [*left, *(key for key in right if key not in left)]:
            yield from _changes(left.get(key, NOTHING), right.get(key, NOTHING), f"{path}.{key}")
    elif isinstance(left, list) and isinstance(right, list):
        for index in range(max(len(left), len(right))):
            mine = left[index] if index < len(left) else NOTHING
            theirs = right[index] if index < len(right) else NOTHING
            yield from _changes(mine, theirs, f"{path}[{index}]")
    elif left != right:
        yield path, left, right


def _sides(wanted: object, there: object) -> Iterator[str]:
    for sign, value in (("-", wanted), ("+", there)):
        if value is not NOTHING:
            yield f"{sign} {json.dumps(value, sort_keys=True)}"


def summary(differences: list[Difference], there: Dump, *, only: str = "") -> Iterator[str]:
    """Yield the lines of the report; `-` is wanted and absent, `+` is there and not wanted."""
    for title, kind in KINDS:
        if only not in {"", kind}:
            continue
        found = [one for one in differences if one.kind == title]
        if not found:
            loaded = max((one.loaded for one in there.of(kind) if one.loaded), default="")
            when = f" ({kind[:1]}DS last loaded at {loaded})" if loaded else ""
            yield f"{title} Match{when}"
            continue
        yield f"{title} Don't Match: {len(found)}"
        yield "  - as the control plane wants it    + as the proxy has it"
        for one in found:
            yield from _block(one)


def _block(one: Difference) -> Iterator[str]:
    if not one.is_there:
        yield f"  - {one.name}: the proxy has none"
    elif not one.is_wanted:
        yield f"  + {one.name}: the control plane wants none"
    else:
        yield f"  {one.name}"
        wrapped = [each for line in one.lines for each in _wrapped(line)]
        yield from wrapped[:MOST_LINES]
        if len(wrapped) > MOST_LINES:
            yield f"      … {len(wrapped) - MOST_LINES} more lines; -o json shows all"


def _wrapped(line: str) -> list[str]:
    return textwrap.wrap(
        line,
        WIDTH,
        initial_indent="    ",
        subsequent_indent="        ",
        break_on_hyphens=False,
    )
