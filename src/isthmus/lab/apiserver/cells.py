"""Makers of table cells that many kinds share: fields, counts, ages, selectors."""

import datetime
from collections.abc import Callable
from typing import TypeAlias

from isthmus.lab.apiserver.values import Json, Obj

Cell: TypeAlias = Callable[[Obj, datetime.datetime], Json]
"""Makes one cell from an object and the time."""


def text(path: str, missing: str = "<none>") -> Cell:
    """Show a field, or `missing`."""

    def cell(obj: Obj, _: datetime.datetime) -> Json:
        found = at(obj, path)
        return missing if found in (None, "", [], {}) else str(found)

    return cell


def number(path: str) -> Cell:
    """Show a number, 0 when it is not there."""
    return lambda obj, _: at(obj, path) or 0


def count(*paths: str) -> Cell:
    """Show how many entries the fields hold together."""
    return lambda obj, _: sum(len(at(obj, path) or ()) for path in paths)


def at(obj: Json, path: str) -> Json:
    """Return what lies at a path of field names, or None."""
    for part in path.split("."):
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def age_of(path: str) -> Cell:
    """Show how long ago the time in a field was."""
    return lambda obj, now: since(at(obj, path), now)


def since(text: Json, now: datetime.datetime) -> str:
    """Return how long ago a time was."""
    then = moment(text)
    return "<unknown>" if then is None else duration((now - then).total_seconds())


def moment(text: Json) -> datetime.datetime | None:
    """Return a time as a value, or None."""
    if not isinstance(text, str) or not text:
        return None
    try:
        return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None


def duration(seconds: float) -> str:
    """Return a span of time as kubectl shows it, such as `5m30s` or `3d4h`."""
    total = max(0, int(seconds))
    for below, unit, name, smaller, small in _SPANS:
        if total < below:
            rest = total % unit // smaller if smaller else 0
            return f"{total // unit}{name}" + (f"{rest}{small}" if rest else "")
    return f"{total // 31_536_000}y{total % 31_536_000 // 86_400}d"


# Up to so many seconds, show units of so many seconds under a name, then units of the next size.
_SPANS = (
    (120, 1, "s", 0, ""),
    (600, 60, "m", 1, "s"),
    (10_800, 60, "m", 0, ""),
    (28_800, 3600, "h", 60, "m"),
    (172_800, 3600, "h", 0, ""),
    (691_200, 86_400, "d", 3600, "h"),
    (63_072_000, 86_400, "d", 0, ""),
)


def selector(path: str) -> Cell:
    """Show a label selector of either form."""

    def cell(obj: Obj, _: datetime.datetime) -> Json:
        found = at(obj, path) or {}
        labels = (
            found.get("matchLabels", {})
            if "matchLabels" in found or "matchExpressions" in found
            else found
        )
        return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "<none>"

    return cell


def few(found: list[str], none: str = "<none>") -> str:
    """Show the first three of many."""
    if len(found) > 3:
        return f"{','.join(found[:3])} + {len(found) - 3} more..."
    return ",".join(found) or none
