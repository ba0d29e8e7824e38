"""Reads values as Helm's charts take them, of istiod, ztunnel and istio-cni, into one document.

A file says what a chart's file says; which chart it is for follows from what it holds. Guides on
the web print these values with all indentation lost: such a file is understood as well, since each
of its names means one thing only.

Source: the charts' values; the guide for linked ambient meshes.
"""

import difflib
from collections.abc import Iterator, Mapping
from typing import Final

import yaml

from isthmus.install import fields, operator
from isthmus.install.operator import OptionsRefused, Tree

UNCHANGED: Final = "nothing was changed in the cluster"
PROXY_VARIABLES: Final = frozenset({"SKIP_VALIDATE_TRUST_DOMAIN"})
"""Environment of nodes' proxies; what else stands below `env` is the control plane's."""

SECTIONS: Final = frozenset(
    {"meshConfig", "global", "multiCluster", "env", "platforms", "peering", "ambient"}
)
LOST: Final[Mapping[str, tuple[str, ...]]] = {
    "trustDomain": ("meshConfig", "trustDomain"),
    "clusterName": ("global", "multiCluster", "clusterName"),
    "dnsCapture": ("ambient", "dnsCapture"),
    "enabled": ("platforms", "peering", "enabled"),
}
"""Where names belong that stand at the left edge."""

PLACES: Final[Mapping[str, tuple[str, ...]]] = {
    "network": ("global", "network"),
    "ambient": ("cni", "ambient"),
    "istiodRemote": ("istiodRemote",),
}
"""Where a chart's own names stand in a document for all charts."""

OF_PILOT: Final = frozenset(
    {"replicaCount", "resources", "autoscaleEnabled", "nodeSelector", "tolerations", "affinity"}
)
"""What the chart of the control plane has at its top, as well as below `pilot`."""


def read(name: str, text: str) -> Tree:
    """Return the values of a file, as they stand below `spec.values`.

    Raises:
        OptionsRefused: It is no YAML, or names something that no chart has (ISM-INST-001).
    """
    try:
        loaded = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise OptionsRefused(
            f"`{name}` is not YAML", detail=str(error), still_working=UNCHANGED
        ) from error
    if loaded is None:
        return {}
    if not isinstance(loaded, Mapping):
        raise OptionsRefused(f"`{name}` holds no values", still_working=UNCHANGED)
    found: Tree = {}
    for path, value in _placed(name, loaded):
        for part in reversed(path):
            value = {part: value}  # from the inside out
        assert isinstance(value, dict)
        found = operator.merged(found, value)
    return found


def _placed(name: str, given: Mapping[object, object]) -> Iterator[tuple[tuple[str, ...], object]]:
    """Yield each value of a file with its place."""
    for key, value in given.items():
        key = str(key)  # YAML's keys may be numbers
        if value is None and (key in SECTIONS or key in fields.VALUES):
            continue
        if key == "env":
            yield from _variables(name, value)
        elif key.isupper():
            yield _variable(key), value
        elif key in LOST:
            yield _known_place(LOST[key]), value
        elif key in PLACES:
            yield PLACES[key], value
        elif key in OF_PILOT:
            yield ("pilot", key), value
        elif key in fields.VALUES:
            yield (key,), value
        else:
            raise _unknown(name, key)


def _known_place(path: tuple[str, ...]) -> tuple[str, ...]:
    return (*PLACES.get(path[0], path[:1]), *path[1:])


def _variables(name: str, value: object) -> Iterator[tuple[tuple[str, ...], object]]:
    if not isinstance(value, Mapping):
        raise OptionsRefused(
            f"`{name}`: `env` must hold names and values, but is: `{str(value)[:60]}`",
            still_working=UNCHANGED,
        )
    for key, text in value.items():
        yield _variable(str(key)), text


def _variable(key: str) -> tuple[str, ...]:
    return ("ztunnel" if key in PROXY_VARIABLES else "pilot", "env", key)


def _unknown(name: str, key: str) -> OptionsRefused:
    known = sorted({*fields.VALUES, *LOST, *PLACES, *OF_PILOT, "env"})
    near = difflib.get_close_matches(key, known, n=1)
    return OptionsRefused(
        f"`{name}` has an unknown value: `{key}`",
        still_working=UNCHANGED,
        hint=f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}",
    )
