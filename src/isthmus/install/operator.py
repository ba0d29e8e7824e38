"""Reads IstioOperator files and `--set` flags into one checked document.

Decides which fields exist and names the one that does not; knows nothing of what they cause.

Source: spec section 6.1.

    IsthmusError
    └── OptionsRefused
"""

import copy
import difflib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import yaml

from isthmus.base import errors
from isthmus.install import fields

Tree = dict[str, object]
"""A document as YAML gives it."""

API_VERSION = "install.istio.io/v1alpha1"
KIND = "IstioOperator"
MOST_DIGITS = 2
VARIABLES = ("pilot.env.", "meshConfig.defaultConfig.proxyMetadata.")
AS_TEXT = (*VARIABLES, *(f"values.{each}" for each in VARIABLES))
"""Fields that become environment variables, in both of their places."""
"""Of a place in a list that a flag names."""

UNCHANGED = "nothing was changed in the cluster"


class OptionsRefused(errors.IsthmusError):
    """An installation file or flag cannot be understood."""

    code = "ISM-INST-001"


def read(
    texts: Iterable[tuple[str, str]],
    *,
    flags: Sequence[str] = (),
    values: Sequence[Tree] = (),
) -> Tree:
    """Merge IstioOperator documents and `path=value` flags, later over earlier, into one spec.

    Args:
        texts: Pairs of a file's name, for messages, and its text.
        flags: As `--set` takes them, below `spec`.
        values: What stands below `spec.values`, over the documents and below the flags.

    Raises:
        OptionsRefused: A document is broken or names a field that does not exist
            (ISM-INST-001).
    """
    spec: Tree = {}
    for name, text in texts:
        for document in _documents(name, text):
            spec = merged(spec, _spec_of(name, document))
    for one in values:
        spec = merged(spec, {"values": one})
    for flag in flags:
        spec = _flagged(spec, _flag(flag))
    check(spec)
    return spec


def merged(base: Tree, over: Mapping[str, object]) -> Tree:
    """Return `base` with `over` laid on it; lists of named parts merge by name."""
    result = copy.deepcopy(base)
    for key, value in over.items():
        old = result.get(key)
        if isinstance(old, dict) and isinstance(value, Mapping):
            result[key] = merged(old, value)
        else:
            result[key] = copy.deepcopy(value)
    return result


def _flagged(base: Tree, over: Mapping[str, object]) -> Tree:
    """Return `base` with a flag's one value laid on it; lists merge place by place."""
    return {**base, **{key: _laid(base.get(key), value) for key, value in over.items()}}


def _laid(old: object, value: object) -> object:
    if isinstance(old, dict) and isinstance(value, Mapping):
        return _flagged(old, value)
    if isinstance(old, list) and isinstance(value, list):
        pairs: Iterable[tuple[object, object]] = itertools.zip_longest(old, value, fillvalue={})
        return [_laid(one, two) for one, two in pairs]
    return copy.deepcopy(value)


def check(spec: Mapping[str, object]) -> None:
    """Refuse fields that do not exist, with the nearest one that does, and values of a wrong kind.

    Raises:
        OptionsRefused: With the path of the field (ISM-INST-001).
    """
    for _ in given(spec):
        pass


def given(
    value: object, *, shape: fields.Shape = fields.SPEC, path: str = "spec"
) -> Iterator[tuple[str, fields.Field]]:
    """Yield each field that a document gives, with its path.

    Raises:
        OptionsRefused: A field does not exist or holds something else than it may (ISM-INST-001).
    """
    if value is None or value == {} or value == []:
        return
    if isinstance(shape, fields.Field):
        _check_kind(path, value, shape.kind)
        yield path, shape
    elif isinstance(shape, fields.Each):
        for part in _list(path, value):
            yield from given(part, shape=shape.fields, path=path)
    else:
        tree = _mapping(path, value)
        _known(path, tree, shape)
        for key, inside in tree.items():
            below = shape.get(key) or shape[fields.OTHER]
            yield from given(inside, shape=below, path=f"{path}.{key}")


_TYPES: Mapping[fields.Kind, tuple[type, ...]] = {
    # A number is how YAML reads a text such as `5`; a truth is how it reads `no`.
    fields.Kind.TEXT: (str, int, float),
    fields.Kind.WHOLE: (int,),
    fields.Kind.TRUTH: (bool,),
    fields.Kind.LIST: (list,),
    fields.Kind.FIELDS: (Mapping,),
    fields.Kind.ANY: (object,),
}


def _check_kind(path: str, value: object, kind: fields.Kind) -> None:
    is_stray_truth = isinstance(value, bool) and kind in {fields.Kind.TEXT, fields.Kind.WHOLE}
    if is_stray_truth or not isinstance(value, _TYPES[kind]):
        raise OptionsRefused(
            f"`{path}` must hold {kind.value}, but is: `{str(value)[:60]}`",
            still_working=UNCHANGED,
            hint="put it in quotes" if is_stray_truth and kind is fields.Kind.TEXT else "",
        )


def _known(path: str, tree: Mapping[str, object], known: Iterable[str]) -> None:
    names = sorted(known)
    for key in tree:
        if key not in names and fields.OTHER not in names:
            near = difflib.get_close_matches(str(key), names, n=1)
            advice = [f"did you mean `{near[0]}`?"] if near else []
            beside = (
                "or put it below `spec.unvalidatedValues`"
                if path.startswith("spec.values")
                else f"known here: {', '.join(names)}"
            )
            raise OptionsRefused(
                f"unknown field: `{path}.{key}`",
                still_working=UNCHANGED,
                hint=" ".join([*advice, beside]),
            )


def _documents(name: str, text: str) -> list[Mapping[str, object]]:
    try:
        loaded = [document for document in yaml.safe_load_all(text) if document is not None]
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise OptionsRefused(
            f"`{name}` is not YAML",
            detail=str(error).replace("<unicode string>", name),
            still_working=UNCHANGED,
            hint="check indentation at the line that is named above",
        ) from error
    for document in loaded:
        if not isinstance(document, Mapping):
            raise OptionsRefused(
                f"`{name}` holds no object but: {str(document)[:60]}", still_working=UNCHANGED
            )
    return loaded


def _spec_of(name: str, document: Mapping[str, object]) -> Mapping[str, object]:
    kind, version = document.get("kind"), document.get("apiVersion")
    if kind != KIND or version != API_VERSION:
        found = f"of kind `{kind or 'none'}` in `{version or 'no apiVersion'}`"
        raise OptionsRefused(
            f"`{name}` is {found}, not {KIND} in {API_VERSION}",
            still_working=UNCHANGED,
            hint="apply other objects with `kubectl apply`",
        )
    _known(name, document, {"apiVersion", "kind", "metadata", "spec", "status"})
    return _mapping(f"{name}: spec", document.get("spec"))


def _mapping(path: str, value: object) -> Mapping[str, object]:
    if value is None:
        return {}
    _check_kind(path, value, fields.Kind.FIELDS)
    assert isinstance(value, Mapping)
    return value


def _list(path: str, value: object) -> list[object]:
    _check_kind(path, value, fields.Kind.LIST)
    assert isinstance(value, list)
    return value


def _flag(flag: str) -> Tree:
    path, separator, text = flag.partition("=")
    if not separator or not path:
        raise OptionsRefused(
            f"`--set` wants path=value, but got: `{flag}`",
            still_working=UNCHANGED,
            hint="such as `--set values.global.network=network1`",
        )
    try:
        value: object = yaml.safe_load(text) if text else ""
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise OptionsRefused(
            f"`--set {path}` has a value that is not YAML: `{text[:60]}`",
            still_working=UNCHANGED,
            hint="put it in quotes",
        ) from error
    if path.startswith(AS_TEXT):
        # Environment variables are texts: `true` must not become a boolean.
        value = text
    for part in reversed(_split(path)):
        value = [*[{}] * part, value] if isinstance(part, int) else {part: value}
    assert isinstance(value, dict)
    return value


def _split(path: str) -> list[str | int]:
    """Return the steps of `a.b[0].c`: names, and places in lists."""
    found: list[str | int] = []
    for part in path.replace("\\.", "\0").split("."):
        name, *places = part.replace("\0", ".").split("[")
        found.append(name)
        for place in places:
            number = place.removesuffix("]")
            if not (place.endswith("]") and number.isdecimal() and len(number) <= MOST_DIGITS):
                raise OptionsRefused(
                    f"`--set` wants a place in a list as [0], but got: `[{place}`",
                    hint="such as `values.global.meshNetworks.network2.gateways[0].port=15443`",
                )
            found.append(int(number))
    return found
