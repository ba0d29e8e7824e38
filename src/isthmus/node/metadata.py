"""What a proxy says of itself: its node id and the metadata that control planes read.

Source: spec section 4.2.
"""

import json
from collections.abc import Mapping

from isthmus.base import version

STRINGS = "ISTIO_META_"
DOCUMENTS = "ISTIO_METAJSON_"

FROM_ENVIRONMENT = {
    "POD_NAME": "NAME",
    "POD_NAMESPACE": "NAMESPACE",
    "SERVICE_ACCOUNT": "SERVICE_ACCOUNT",
    "INSTANCE_IP": "INSTANCE_IPS",
}


def facts(text: str) -> dict[str, str]:
    """Read a file of the downward API: one `key="value"` per line, quoted as Go does."""
    found = {}
    for line in text.splitlines():
        key, separator, quoted = line.partition("=")
        if separator:
            found[key] = _unquoted(quoted)
    return found


def _unquoted(text: str) -> str:
    try:
        value = json.loads(text)
    except ValueError:
        # Go writes some characters as no JSON has them; the value is then taken as it stands.
        return text.strip('"')
    return value if isinstance(value, str) else text


def of_environment(
    environment: Mapping[str, str], *, labels: Mapping[str, str], annotations: Mapping[str, str]
) -> dict[str, object]:
    """Collect the metadata of a node."""
    found: dict[str, object] = {
        key: environment[name] for name, key in FROM_ENVIRONMENT.items() if environment.get(name)
    }
    for name, value in sorted(environment.items()):
        if name.startswith(DOCUMENTS):
            found |= _document(name.removeprefix(DOCUMENTS), value)
        elif name.startswith(STRINGS):
            found[name.removeprefix(STRINGS)] = value
    found.setdefault("ISTIO_VERSION", version.PROXY_VERSION)
    # Stock Envoy lacks the extensions of Istio's own build; control planes must not send them.
    found["ISTHMUS_VERSION"] = version.VERSION
    found["LABELS"] = dict(labels)
    found["ANNOTATIONS"] = dict(annotations)
    return found


def _document(key: str, text: str) -> dict[str, object]:
    try:
        value = json.loads(text)
    except ValueError:
        return {key: text}
    return value if isinstance(value, dict) else {key: value}


def node(
    kind: str,
    *,
    domain: str,
    found: Mapping[str, object],
    proxy_config: Mapping[str, object],
) -> dict[str, object]:
    """Build Envoy's node."""
    namespace = str(found.get("NAMESPACE", "default"))
    name = str(found.get("NAME", "proxy"))
    address = str(found.get("INSTANCE_IPS", "127.0.0.1")).split(",")[0]
    labels = found.get("LABELS")
    app = labels.get("app", "") if isinstance(labels, Mapping) else ""
    complete = dict(found)
    if proxy_config:
        complete["PROXY_CONFIG"] = dict(proxy_config)
    return {
        "id": "~".join(
            (kind, address, f"{name}.{namespace}", domain or f"{namespace}.svc.cluster.local")
        ),
        "cluster": f"{app}.{namespace}" if app else f"istio-proxy.{namespace}",
        "metadata": complete,
    }
