"""Taking in an object: copied, pruned, its types checked, in the form in which it is stored.

What is wrong becomes an error or a warning, as the client asked; what the fields mean is checked
later, once defaults and admission have had their say.
"""

import base64

from isthmus.lab.apiserver import conversion, copying, crds, errors, schemas, validation
from isthmus.lab.apiserver.resources import Resource
from isthmus.lab.apiserver.state import Options, State
from isthmus.lab.apiserver.values import Obj


def received(state: State, resource: Resource, given: Obj, options: Options) -> Obj:
    """Return a clean copy in the stored form."""
    if not isinstance(given.get("metadata", {}), dict):
        raise errors.bad_request("metadata must be an object")
    if given.get("apiVersion", resource.api_version) != resource.api_version:
        raise errors.bad_request(
            f"the API version in the data ({given['apiVersion']}) does not match the expected API"
            f" version ({resource.api_version})"
        )
    if given.get("kind", resource.kind) != resource.kind:
        raise errors.bad_request(
            f'{given["kind"]} in version "{resource.version}" cannot be handled as a'
            f" {resource.kind}"
        )
    obj = copying.copied(given)
    meta = obj.get("metadata") or {}
    obj = {"apiVersion": resource.api_version, "kind": resource.kind, **obj, "metadata": meta}
    shape = state.shape(resource)
    if resource.custom:
        obj = crds.defaulted(shape, obj)
    cleaned, report = validation.clean(shape, obj, nulls=resource.custom)
    refuse_bad(resource, cleaned, report)
    tell_unknown(resource, report, options)
    if resource.plural == "secrets":
        encode_string_data(cleaned)
    stored = state.catalog.named(resource.key)
    return conversion.to_storage(resource, cleaned, stored=stored)


def typed(given: Obj, *, group: str, version: str, kind: str) -> Obj:
    """Return a clean copy of a body that is never stored, such as a review; raises 400."""
    if given.get("kind", kind) != kind:
        raise errors.bad_request(
            f'{given["kind"]} in version "{version}" cannot be handled as a {kind}'
        )
    obj = {"apiVersion": f"{group}/{version}".lstrip("/"), "kind": kind, **copying.copied(given)}
    cleaned: Obj
    cleaned, report = validation.clean(schemas.builtin(group, version, kind), obj, nulls=False)
    if report.mistyped:
        first = report.mistyped[0]
        what = first.message.removeprefix("Invalid value: ")
        raise errors.bad_request(
            f'{kind} in version "{version}" cannot be handled as a {kind}: {first.field}: {what}'
        )
    return cleaned


def refuse_bad(resource: Resource, obj: Obj, report: validation.Report) -> None:
    """Raise 400 or 422 when values are of the wrong type or missing."""
    if report.mistyped and not resource.custom:
        first = report.mistyped[0]
        what = first.message.removeprefix("Invalid value: ")
        raise errors.bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a'
            f" {resource.kind}: {first.field}: {what}"
        )
    # The status of a built-in kind comes from components, which may leave zero values out.
    causes = report.mistyped + [
        cause
        for cause in report.causes
        if resource.custom or not cause.field.startswith(("status.", "metadata."))
    ]
    if causes:
        name = (obj.get("metadata") or {}).get("name") or ""
        raise errors.invalid(resource.kind, name=name, causes=causes, group=resource.group)


def tell_unknown(resource: Resource, report: validation.Report, options: Options) -> None:
    """Warn of unknown fields or refuse them, as asked."""
    if not report.unknown or options.validation == "Ignore":
        return
    texts = [f'unknown field "{path}"' for path in report.unknown]
    if options.validation == "Warn":
        options.warnings.extend(texts)
        return
    raise errors.bad_request(
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}:'
        f" strict decoding error: {', '.join(texts)}"
    )


def encode_string_data(secret: Obj) -> None:
    """Move a Secret's plain text to its encoded data."""
    given = secret.pop("stringData", None)
    if given:
        data = secret.setdefault("data", {})
        data.update({key: _base64(value) for key, value in given.items()})


def _base64(text: str) -> str:
    return base64.b64encode(text.encode()).decode()
