"""Tables for `kubectl get`: their shape, and the columns that a custom resource's definition names.

Which columns a built-in kind has lies in columns.
"""

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from isthmus.lab.apiserver import cells
from isthmus.lab.apiserver.values import Json, Obj


@dataclass(frozen=True, slots=True)
class Column:
    """One column.

    Attributes:
        priority: 0 for columns that always show, 1 for those of `-o wide`.
        cell: Makes the cell of an object; the second argument is the time.
    """

    name: str
    cell: cells.Cell
    priority: int = 0
    type: str = "string"
    format: str = ""


def table(
    objects: Iterable[Obj],
    *,
    columns: tuple[Column, ...],
    meta: Obj,
    include: str,
    now: datetime.datetime,
) -> Obj:
    """Return a Table of `objects`.

    Args:
        objects: In the version that the client asked for.
        columns: From `columns_of`.
        meta: The list's metadata.
        include: `None`, `Metadata` or `Object`: what of each object comes with its row.
        now: For ages.
    """
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": [
            {
                "name": column.name,
                "type": column.type,
                "format": "name" if column.name == "Name" else column.format,
                "description": "",
                "priority": column.priority,
            }
            for column in columns
        ],
        "rows": [_row(obj, columns, include, now) for obj in objects],
    }


def _row(obj: Obj, columns: tuple[Column, ...], include: str, now: datetime.datetime) -> Obj:
    row: Obj = {"cells": [column.cell(obj, now) for column in columns]}
    if include == "Object":
        row["object"] = obj
    elif include != "None":
        row["object"] = partial(obj)
    return row


def partial(obj: Obj) -> Obj:
    """Return an object's metadata alone."""
    return {
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": obj["metadata"],
    }


def custom(printer: Mapping[str, Json]) -> Column:
    """Return the column that a definition's `additionalPrinterColumns` describe."""
    steps = _steps(str(printer.get("jsonPath", "")))
    kind = str(printer.get("type", "string"))

    def cell(obj: Obj, now: datetime.datetime) -> Json:
        found = _follow(obj, steps)
        if not found:
            return None if kind != "string" else ""
        if kind == "date":
            return cells.since(found[0], now)
        if kind in ("integer", "number", "boolean") and not isinstance(found[0], (dict, list)):
            return found[0]
        return ",".join(_plain(one) for one in found)

    return Column(
        str(printer.get("name", "")),
        cell,
        priority=int(printer.get("priority") or 0),
        type=kind,
        format=str(printer.get("format") or ""),
    )


def _plain(value: Json) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return "[" + " ".join(_plain(one) for one in value) + "]"
    return str(value)


_STEP = re.compile(
    r"\.(?P<name>(?:\\.|[^.\[\]\\])+)|\[\?\(@\.(?P<key>[\w.]+)\s*==\s*[\"'](?P<is>[^\"']*)[\"']\)\]"
    r"|\[(?P<index>-?\d+|\*)\]|\[[\"'](?P<quoted>[^\"']*)[\"']\]"
)


def _steps(path: str) -> tuple[re.Match[str], ...]:
    return tuple(_STEP.finditer(path if path.startswith((".", "[")) else "." + path))


def _follow(obj: Obj, steps: tuple[re.Match[str], ...]) -> list[Json]:
    found: list[Json] = [obj]
    for step in steps:
        found = [item for value in found for item in _step(value, step)]
    return [item for item in found if item is not None]


def _step(value: Json, step: re.Match[str]) -> Iterable[Json]:
    name = step["quoted"] if step["name"] is None else re.sub(r"\\(.)", r"\1", step["name"])
    if name is not None:
        return [value.get(name)] if isinstance(value, dict) else []
    if not isinstance(value, list):
        return []
    if step["key"] is not None:
        return [one for one in value if str(cells.at(one, step["key"])) == step["is"]]
    if step["index"] == "*":
        return value
    at = int(step["index"])
    return value[at : at + 1] if at >= 0 else value[at:][:1]
