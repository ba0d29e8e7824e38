"""Objects in the form that a client asked for: whole, metadata only, or rows of a table.

Whole objects go out as bytes that were made once and are shared by every reader.
"""

from collections.abc import Callable, Mapping

import msgspec

from isthmus.lab.apiserver import columns, conversion, lists, store, tables
from isthmus.lab.apiserver.requests import Form
from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.state import State
from isthmus.lab.apiserver.values import Json, Obj

Query = Mapping[str, str]
_PARTIAL = ("PartialObjectMetadata", "PartialObjectMetadataList")


def entry(
    state: State, resource: Resource, found: store.Entry, *, wanted: Form, query: Query
) -> bytes:
    """Return one stored object."""
    if wanted.kind == "Table":
        meta = {"resourceVersion": found.obj["metadata"].get("resourceVersion", "")}
        return _table(state, resource, [found], meta, query)
    if wanted.kind in _PARTIAL:
        return msgspec.json.encode(tables.partial(found.obj))
    if conversion.is_stored_form(resource, found.obj):
        return found.encoded
    return msgspec.json.encode(conversion.to_wire(resource, found.obj))


def one(state: State, resource: Resource, obj: Obj, *, wanted: Form, query: Query) -> bytes:
    """Return one object that a write left, in the stored form."""
    return entry(state, resource, store.Entry(obj, revision=0), wanted=wanted, query=query)


def listed(
    state: State, resource: Resource, page: lists.Page, *, wanted: Form, query: Query
) -> bytes:
    """Return a list."""
    if wanted.kind == "Table":
        return _table(state, resource, page.entries, page.meta, query)
    if wanted.kind in _PARTIAL:
        return msgspec.json.encode(
            {
                "kind": "PartialObjectMetadataList",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": page.meta,
                "items": [tables.partial(found.obj) for found in page.entries],
            }
        )
    items = [entry(state, resource, found, wanted=wanted, query=query) for found in page.entries]
    head = {
        "kind": resource.list_kind,
        "apiVersion": resource.api_version,
        "metadata": page.meta,
    }
    return msgspec.json.encode(head)[:-1] + b',"items":[' + b",".join(items) + b"]}"


def encoder(
    state: State, resource: Resource, *, wanted: Form, query: Query
) -> Callable[[store.Entry], bytes]:
    """Return what encodes the objects of one watch; only its first table names the columns."""
    if wanted.kind != "Table":
        return lambda found: entry(state, resource, found, wanted=wanted, query=query)
    named = False

    def rows(found: store.Entry) -> bytes:
        nonlocal named
        meta = {"resourceVersion": found.obj["metadata"].get("resourceVersion", "")}
        made = _tabled(state, resource, [found], meta, query)
        if named:
            made["columnDefinitions"] = None
        named = True
        return msgspec.json.encode(made)

    return rows


def _table(
    state: State, resource: Resource, found: list[store.Entry], meta: Obj, query: Query
) -> bytes:
    return msgspec.json.encode(_tabled(state, resource, found, meta, query))


def _tabled(
    state: State, resource: Resource, found: list[store.Entry], meta: Obj, query: Query
) -> Obj:
    version = state.custom.get((resource.key, resource.version))
    printer: tuple[Mapping[str, Json], ...] = () if version is None else version.columns
    objects = [
        one.obj if resource.stored_as else conversion.to_wire(resource, one.obj) for one in found
    ]
    return tables.table(
        objects,
        columns=columns.columns_of(resource, printer),
        meta=meta,
        include=query.get("includeObject") or "Metadata",
        now=state.clock.now(),
    )
