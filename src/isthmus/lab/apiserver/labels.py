"""Label selectors as objects: `matchLabels` and `matchExpressions`.

It decides whether labels match. It refuses to know whose labels they are.
"""

from collections.abc import Mapping

from isthmus.lab.apiserver.values import Obj


def labels_of(obj: Obj) -> Mapping[str, str]:
    """Return an object's labels."""
    return obj.get("metadata", {}).get("labels") or {}


def matches(selector: Obj | None, labels: Mapping[str, str]) -> bool:
    """Whether a LabelSelector selects `labels`; an empty one selects everything."""
    if not selector:
        return True
    wanted = selector.get("matchLabels") or {}
    if any(labels.get(key) != value for key, value in wanted.items()):
        return False
    return all(_holds(each, labels) for each in selector.get("matchExpressions") or ())


def matches_map(wanted: Mapping[str, str] | None, labels: Mapping[str, str]) -> bool:
    """Whether `labels` has every pair of a plain selector; an empty one selects nothing."""
    return bool(wanted) and all(labels.get(key) == value for key, value in (wanted or {}).items())


def _holds(expression: Obj, labels: Mapping[str, str]) -> bool:
    key, values = expression["key"], expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return labels.get(key) in values
        case "NotIn":
            return labels.get(key) not in values
        case "Exists":
            return key in labels
        case "DoesNotExist":
            return key not in labels
        case _:
            return False
