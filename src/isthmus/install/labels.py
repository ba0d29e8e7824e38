"""Names and labels that every installed object carries, by which it is found again.

Source: spec section 6.1.
"""

from collections.abc import Mapping

from isthmus.base import version
from isthmus.install.options import Options

MANAGED = "operator.istio.io/managed"
COMPONENT = "operator.istio.io/component"
OWNER = "install.operator.istio.io/owning-resource"
OWNER_NAMESPACE = "install.operator.istio.io/owning-resource-namespace"
REVISION = "istio.io/rev"

FIELD_MANAGER = "isthmus-installer"


def metadata(
    options: Options,
    name: str,
    *,
    component: str,
    namespace: str | None = None,
    app: str = "",
    extra: Mapping[str, str] | None = None,
) -> dict[str, object]:
    """Return metadata for an object; `namespace` empty means that it is cluster-wide."""
    where = options.namespace if namespace is None else namespace
    labels = ownership(options, component) | ({"app": app} if app else {}) | dict(extra or {})
    found: dict[str, object] = {"name": name, "labels": labels}
    if where:
        found["namespace"] = where
    return found


def ownership(options: Options, component: str) -> dict[str, str]:
    """Return the labels by which an installed object is found again."""
    return {
        COMPONENT: component,
        MANAGED: "Reconcile",
        "operator.istio.io/version": version.VERSION,
        OWNER: "installed-state" + (f"-{options.revision}" if options.revision else ""),
        OWNER_NAMESPACE: options.namespace,
        REVISION: options.revision_label,
    }


def add_ownership(options: Options, manifest: dict[str, object], *, component: str) -> None:
    """Add those labels to an object that was made elsewhere."""
    found = manifest.setdefault("metadata", {})
    assert isinstance(found, dict)
    own = found.setdefault("labels", {})
    assert isinstance(own, dict)
    own.update(ownership(options, component) | own)
