"""What a pod's annotations wish for its proxy.

Every annotation of Istio's that is honoured is read here and nowhere else.

Source: spec section 5.3, "Annotations honoured".
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from isthmus.inject import shapes
from isthmus.inject.settings import InjectionSettings, Resources
from isthmus.inject.shapes import Obj
from isthmus.kube import yamltext

TEMPLATES: Final = "inject.istio.io/templates"
SIDECAR, GATEWAY, WAYPOINT = "sidecar", "gateway", "waypoint"
ROLES: Final[Mapping[str, str]] = MappingProxyType(
    {SIDECAR: "sidecar", GATEWAY: "router", WAYPOINT: "waypoint"}
)
"""Templates, and as what their proxies run."""

_TRAFFIC: Final = "traffic.sidecar.istio.io/"
_SIDECAR: Final = "sidecar.istio.io/"
_CONFIG: Final = "proxy.istio.io/config"
MOST_PORT: Final = 65_535


@dataclass(frozen=True, slots=True)
class Wishes:
    """What one pod's proxy shall be like.

    Attributes:
        template: `sidecar`, `gateway` or `waypoint`.
        settings: The injector's settings with the pod's own wishes in their place.
        interfaces: Interfaces whose traffic stays outside the mesh.
        proxy_config: What the agent is told, as JSON.
    """

    template: str
    settings: InjectionSettings
    interfaces: str
    interception: str
    proxy_config: tuple[tuple[str, object], ...]

    @property
    def is_sidecar(self) -> bool:
        """Whether the proxy stands beside an application."""
        return self.template == SIDECAR


def read(pod: Obj, *, settings: InjectionSettings) -> Wishes:
    """Read the wishes of a pod.

    Raises:
        InjectionRefused: One of them cannot be met (ISM-INJ-001).
    """
    annotations = shapes.texts(shapes.below(pod, "metadata"), "annotations")
    config = _config(annotations.get(_CONFIG, ""))
    metadata = shapes.texts(config, "proxyMetadata", what=_CONFIG)
    merged = _proxy_config(settings, config)
    return Wishes(
        template=_template(annotations),
        settings=replace(
            _captured(annotations, settings),
            image=annotations.get(f"{_SIDECAR}proxyImage") or settings.image,
            resources=_resources(annotations, settings.resources),
            log_level=annotations.get(f"{_SIDECAR}logLevel") or settings.log_level,
            component_log_level=annotations.get(f"{_SIDECAR}componentLogLevel")
            or settings.component_log_level,
            agent_log_level=annotations.get(f"{_SIDECAR}agentLogLevel") or settings.agent_log_level,
            rewrites_probes=_flag(
                annotations.get(f"{_SIDECAR}rewriteAppHTTPProbers", ""), settings.rewrites_probes
            ),
            holds_application=_flag(
                str(config.get("holdApplicationUntilProxyStarts", "")), settings.holds_application
            ),
            proxy_metadata=tuple(sorted({**dict(settings.proxy_metadata), **metadata}.items())),
        ),
        interfaces=annotations.get(f"{_TRAFFIC}excludeInterfaces", ""),
        interception=_interception(annotations.get(f"{_SIDECAR}interceptionMode", "")),
        proxy_config=merged,
    )


def _template(annotations: Mapping[str, str]) -> str:
    wanted = [part.strip() for part in annotations.get(TEMPLATES, SIDECAR).split(",")]
    if len(wanted) != 1 or wanted[0] not in ROLES:
        raise shapes.InjectionRefused(
            f"annotation `{TEMPLATES}` names no template of ours: `{','.join(wanted)[:100]}`",
            hint=f"use `{SIDECAR}`, `{GATEWAY}` or `{WAYPOINT}`",
        )
    return wanted[0]


def _captured(annotations: Mapping[str, str], settings: InjectionSettings) -> InjectionSettings:
    def ports(key: str, default: str) -> str:
        value = annotations.get(_TRAFFIC + key)
        return default if value is None else _ports(_TRAFFIC + key, value)

    status = annotations.get("status.sidecar.istio.io/port", "")
    if status:
        _ports("status.sidecar.istio.io/port", status)
    return replace(
        settings,
        include_ranges=annotations.get(
            f"{_TRAFFIC}includeOutboundIPRanges", settings.include_ranges
        ),
        exclude_ranges=annotations.get(
            f"{_TRAFFIC}excludeOutboundIPRanges", settings.exclude_ranges
        ),
        include_inbound=ports("includeInboundPorts", settings.include_inbound),
        exclude_inbound=ports("excludeInboundPorts", settings.exclude_inbound),
        include_outbound=ports("includeOutboundPorts", settings.include_outbound),
        exclude_outbound=ports("excludeOutboundPorts", settings.exclude_outbound),
        status_port=int(status) if status.isdecimal() else settings.status_port,
    )


def _ports(annotation: str, text: str) -> str:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    for part in parts:
        if part != "*" and not (part.isdecimal() and 0 < int(part) <= MOST_PORT):
            raise shapes.InjectionRefused(
                f"annotation `{annotation}` holds no port: `{part[:40]}`",
                hint="list port numbers, separated by commas",
            )
    return ",".join(parts)


def _resources(annotations: Mapping[str, str], default: Resources) -> Resources:
    def wish(name: str) -> str:
        return annotations.get(f"{_SIDECAR}proxy{name}", "")

    if not any(wish(name) for name in ("CPU", "Memory", "CPULimit", "MemoryLimit")):
        return default
    # As in Istio: who sets one of them sets all; what is not named is left open.
    return Resources(wish("CPU"), wish("Memory"), wish("CPULimit"), wish("MemoryLimit"))


def _interception(text: str) -> str:
    if text not in ("", "REDIRECT", "NONE"):
        raise shapes.InjectionRefused(
            f"annotation `{_SIDECAR}interceptionMode` is not supported: `{text[:40]}`",
            hint="use `REDIRECT` or `NONE`",
        )
    return text or "REDIRECT"


def _config(text: str) -> Obj:
    if not text:
        return {}
    try:
        found = yamltext.read(text)
    except yamltext.RefusedError as error:
        raise shapes.InjectionRefused(
            f"annotation `{_CONFIG}` cannot be read: {error}", hint="write plain YAML or JSON"
        ) from error
    if not isinstance(found, dict):
        raise shapes.InjectionRefused(
            f"annotation `{_CONFIG}` is no object", hint="write a ProxyConfig"
        )
    return found


def _proxy_config(settings: InjectionSettings, config: Obj) -> tuple[tuple[str, object], ...]:
    merged: dict[str, object] = dict(settings.proxy_config)
    if settings.discovery_address:
        merged["discoveryAddress"] = settings.discovery_address
    elif settings.revision or settings.namespace != InjectionSettings().namespace:
        merged["discoveryAddress"] = settings.own_address
    if settings.mesh_id:
        merged["meshId"] = settings.mesh_id
    merged |= {key: _typed(value) for key, value in config.items() if key != "proxyMetadata"}
    metadata = {**dict(settings.proxy_metadata), **config.get("proxyMetadata", {})}
    if metadata:
        merged["proxyMetadata"] = metadata
    return tuple(sorted(merged.items()))


def _typed(value: object) -> object:
    if value in ("true", "false"):
        return value == "true"
    if isinstance(value, str) and value.isdecimal():
        return int(value)
    return value


def _flag(text: str, default: bool) -> bool:  # noqa: FBT001, RUF100  # a fallback, not a switch
    return text.lower() == "true" if text else default
