"""What the agent is told by its arguments, environment and mounted files.

Reads what Istio's injector gives to Istio's own agent, so that either can run in the container.

Source: spec sections 1.5, 4.2 and 5.3.
"""

import argparse
import json
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from isthmus.node import durations, metadata, resolvconf

TOKEN_FILE = pathlib.Path("/var/run/secrets/tokens/istio-token")
ROOTS_FILE = pathlib.Path("/var/run/secrets/istio/root-cert.pem")
POD_FOLDER = pathlib.Path("/etc/istio/pod")
CA_HEADER_PREFIX = "CA_HEADER_"
XDS_HEADER_PREFIX = "XDS_HEADER_"
DEFAULT_DISCOVERY = "istiod.istio-system.svc:15012"
DNS_ADDRESS = "127.0.0.1:15053"
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Ports:
    """Where the agent and its proxy listen for those who look after them."""

    admin: int = 15000
    status: int = 15020
    health: int = 15021
    prometheus: int = 15090


@dataclass(frozen=True, slots=True)
class Draining:
    """How a proxy leaves.

    Attributes:
        wait_s: How long it stays after it was told to leave.
        until_idle: Whether it stays after that until nobody is connected.
        spread_s: How long Envoy spreads the closing of its connections over.
    """

    wait_s: float = 5.0
    until_idle: bool = False
    spread_s: float = 45.0


@dataclass(frozen=True, slots=True)
class Renewing:
    """How certificates are asked for.

    Attributes:
        lifetime_s: What is asked for.
        share: After which share of its life a certificate is replaced.
        spread: How far that share is scattered, either way.
    """

    lifetime_s: int = 24 * 3600
    share: float = 0.5
    spread: float = 0.01


@dataclass(frozen=True, slots=True)
class Dns:
    """How the pod's questions for names are answered.

    Attributes:
        address: Where the packet rules send them.
        domain: The pod's own, `<namespace>.svc.<domain of the cluster>`.
        resolvers: Whom the pod would ask.
    """

    address: Address
    namespace: str
    domain: str
    resolvers: resolvconf.Resolvers


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that the agent is told.

    Attributes:
        kind: `sidecar`, `router` or `waypoint`.
        node: What Envoy says of itself: id, cluster and metadata, as JSON.
        discovery: Where configuration comes from.
        authority: Where certificates come from.
        server_name: Whose certificate the control plane must show.
        folder: Where sockets and the bootstrap are.
        probes: The application's own probes by path, as JSON.
        scrape: Where the application serves metrics, if it does.
        memory_bytes: What its container may use; 0 where nobody said.
        dns: None where the pod asks for names by itself.
    """

    kind: str
    node: Mapping[str, object]
    discovery: Address
    authority: Address
    server_name: str
    cluster: str
    folder: pathlib.Path
    token_file: pathlib.Path = TOKEN_FILE
    roots_file: pathlib.Path = ROOTS_FILE
    address: str = "127.0.0.1"
    concurrency: int = 1
    log_level: str = "warning"
    component_log_level: str = "misc:error"
    agent_log_level: str = "info"
    ports: Ports = field(default_factory=Ports)
    draining: Draining = field(default_factory=Draining)
    renewing: Renewing = field(default_factory=Renewing)
    probes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    scrape: Mapping[str, object] = field(default_factory=dict)
    ca_headers: tuple[tuple[str, str], ...] = ()
    xds_headers: tuple[tuple[str, str], ...] = ()
    stats: Mapping[str, Sequence[str]] = field(default_factory=dict)
    memory_bytes: int = 0
    dns: Dns | None = None

    @property
    def discovery_socket(self) -> str:
        """Where Envoy asks for its configuration."""
        return str(self.folder / "XDS")

    @property
    def secrets_socket(self) -> str:
        """Where Envoy asks for its secrets."""
        return str(self.folder / "SDS")


def read(
    argv: Sequence[str],
    *,
    environment: Mapping[str, str],
    folder: pathlib.Path,
    pod_folder: pathlib.Path = POD_FOLDER,
) -> Settings:
    """Read arguments, environment and the files below `pod_folder`; `folder` is to work in.

    Raises:
        SettingRefused: One of them cannot be read (ISM-NODE-002).
    """
    options = _options(argv)
    proxy = _json_object(environment, "PROXY_CONFIG")
    discovery = address(str(proxy.get("discoveryAddress") or DEFAULT_DISCOVERY))
    found = metadata.of_environment(
        environment,
        labels=metadata.facts(_text(pod_folder / "labels")),
        annotations=metadata.facts(_text(pod_folder / "annotations")),
    )
    ca_address = environment.get("CA_ADDR", "")
    return Settings(
        kind=options.kind,
        node=metadata.node(options.kind, domain=options.domain, found=found, proxy_config=proxy),
        discovery=discovery,
        authority=address(ca_address) if ca_address else discovery,
        server_name=environment.get("ISTIOD_SAN") or discovery.host,
        cluster=str(found.get("CLUSTER_ID", "")),
        folder=folder,
        token_file=pathlib.Path(environment.get("ISTHMUS_TOKEN_FILE") or TOKEN_FILE),
        roots_file=pathlib.Path(environment.get("XDS_ROOT_CA") or ROOTS_FILE),
        address=environment.get("INSTANCE_IP") or "127.0.0.1",
        concurrency=whole(proxy.get("concurrency")) or 1,
        log_level=options.proxyLogLevel,
        component_log_level=options.proxyComponentLogLevel,
        agent_log_level=agent_level(options.log_output_level),
        ports=ports(environment),
        draining=_draining(environment, proxy),
        renewing=renewing(environment),
        probes=_json_object(environment, "ISTIO_KUBE_APP_PROBERS"),
        scrape=_json_object(environment, "ISTIO_PROMETHEUS_ANNOTATIONS"),
        ca_headers=_headers(environment, CA_HEADER_PREFIX),
        xds_headers=_headers(environment, XDS_HEADER_PREFIX),
        stats=proxy.get("proxyStatsMatcher") or {},
        memory_bytes=whole(environment.get("GOMEMLIMIT")),
        dns=_dns(environment, kind=options.kind, domain=options.domain),
    )


def mounted(path: pathlib.Path) -> str:
    """Read a file that the kubelet keeps current.

    Raises:
        SettingRefused: It cannot be read (ISM-NODE-002).
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise durations.SettingRefused(
            f"cannot read `{path}`",
            detail=str(error),
            hint="the injector mounts it: check the pod's volumes",
        ) from error


def _options(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="proxy", allow_abbrev=False)
    kinds = ("sidecar", "router", "waypoint")
    parser.add_argument("kind", choices=kinds, nargs="?", default="sidecar")
    parser.add_argument("--domain", default="")
    parser.add_argument("--proxyLogLevel", default="warning")
    parser.add_argument("--proxyComponentLogLevel", default="misc:error")
    parser.add_argument("--log_output_level", default="default:info")
    # Istio's agent knows further options; none of them changes what is done here.
    return parser.parse_known_args(argv)[0]


def agent_level(text: str) -> str:
    """Read `default:info,other:debug`: the level of everything."""
    levels = dict(part.partition(":")[::2] for part in text.split(","))
    level = levels.get("default") or next(iter(levels))
    return {"warn": "warning", "none": "critical", "fatal": "critical"}.get(
        level, level if level in ("debug", "info", "warning", "error") else "info"
    )


def _json_object(environment: Mapping[str, str], name: str) -> dict[str, Any]:
    text = environment.get(name, "")
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError as error:
        raise durations.SettingRefused(
            f"`{name}` is no JSON", detail=str(error), hint="the injector writes it; inject again"
        ) from error
    if not isinstance(found, dict):
        raise durations.SettingRefused(f"`{name}` is no JSON object")
    return found


def address(text: str) -> Address:
    """Read `host:port`.

    Raises:
        SettingRefused: It is something else (ISM-NODE-002).
    """
    host, colon, port = text.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:  # noqa: PLR2004, RUF100
        raise durations.SettingRefused(
            f"no address of a control plane: `{text[:80]}`",
            hint="write host and port, such as `istiod.istio-system.svc:15012`",
        )
    return Address(host.strip("[]"), int(port))


def whole(value: object) -> int:
    """Read a whole number; 0 for anything else."""
    return int(value) if isinstance(value, int | str) and str(value).isdigit() else 0


def ports(environment: Mapping[str, str]) -> Ports:
    """Read where agent and proxy listen.

    Raises:
        SettingRefused: The proxy's configuration cannot be read (ISM-NODE-002).
    """
    proxy = _json_object(environment, "PROXY_CONFIG")
    usual = Ports()
    return Ports(
        admin=whole(proxy.get("proxyAdminPort")) or usual.admin,
        status=whole(proxy.get("statusPort")) or usual.status,
        health=whole(environment.get("ENVOY_STATUS_PORT")) or usual.health,
        prometheus=whole(environment.get("ENVOY_PROMETHEUS_PORT")) or usual.prometheus,
    )


def _draining(environment: Mapping[str, str], proxy: Mapping[str, Any]) -> Draining:
    def proxy_seconds(name: str, usual: str) -> float:
        return durations.seconds(str(proxy.get(name) or usual), name=name)

    until_idle = environment.get("EXIT_ON_ZERO_ACTIVE_CONNECTIONS", "").lower() == "true"
    shortest = environment.get("MINIMUM_DRAIN_DURATION") or "5s"
    return Draining(
        wait_s=durations.seconds(shortest, name="MINIMUM_DRAIN_DURATION")
        if until_idle
        else proxy_seconds("terminationDrainDuration", "5s"),
        until_idle=until_idle,
        spread_s=proxy_seconds("drainDuration", "45s"),
    )


def renewing(environment: Mapping[str, str]) -> Renewing:
    """Read how certificates are asked for.

    Raises:
        SettingRefused: A number is none (ISM-NODE-002).
    """

    def share(name: str, usual: float) -> float:
        try:
            return float(environment.get(name) or usual)
        except ValueError as error:
            raise durations.SettingRefused(f"`{name}` is no number") from error

    lifetime = environment.get("SECRET_TTL") or "24h"
    return Renewing(
        lifetime_s=round(durations.seconds(lifetime, name="SECRET_TTL")),
        share=1 - share("SECRET_GRACE_PERIOD_RATIO", 0.5),
        spread=share("SECRET_GRACE_PERIOD_RATIO_JITTER", 0.01),
    )


def captures_dns(environment: Mapping[str, str]) -> bool:
    """Say whether the pod's questions for names are to be answered beside it."""
    return environment.get("ISTIO_META_DNS_CAPTURE", "").lower() in {"true", "all"}


def _dns(environment: Mapping[str, str], *, kind: str, domain: str) -> Dns | None:
    if not captures_dns(environment) or kind != "sidecar":
        return None
    namespace = environment.get("POD_NAMESPACE") or "default"
    return Dns(
        # By number: the name would have to be looked up first.
        address((environment.get("DNS_PROXY_ADDR") or DNS_ADDRESS).replace("localhost", LOOPBACK)),
        namespace,
        domain or f"{namespace}.svc.cluster.local",
        resolvconf.read(resolv_conf(environment)),
    )


def resolv_conf(environment: Mapping[str, str]) -> pathlib.Path:
    """Return where the pod's servers for names are written."""
    return pathlib.Path(environment.get("ISTHMUS_RESOLV_CONF") or resolvconf.RESOLV_CONF)


def _headers(environment: Mapping[str, str], prefix: str) -> tuple[tuple[str, str], ...]:
    return tuple(
        (name.removeprefix(prefix).lower(), value)
        for name, value in sorted(environment.items())
        if name.startswith(prefix)
    )


def _text(path: pathlib.Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
