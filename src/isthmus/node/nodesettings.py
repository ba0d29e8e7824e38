"""What the agent of a node's proxy is told by its environment and mounted files.

Reads what Istio's charts give to Istio's own node proxy, so that either can run in the container.

Source: spec section 7.2; ztunnel's documented environment.
"""

import pathlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from isthmus.mesh.identities import ClusterId, NetworkId, TrustDomain
from isthmus.mesh.settings import DEFAULT_TRUST_DOMAIN
from isthmus.node import durations, metadata, resolvconf, settings
from isthmus.views import nodeslices

DEFAULT_ADDRESS = "https://istiod.istio-system.svc:15012"
POD_AGENT = pathlib.Path("/var/run/ztunnel/ztunnel.sock")
"""Where the agent that enrols pods of this node listens."""
ACCESS_LOG = "/dev/stdout"
GRACE_S = 5.0
THREADS = 2


@dataclass(frozen=True, slots=True)
class Ports:
    """Where those who look after the proxy ask."""

    ready: int = 15021
    stats: int = 15020


@dataclass(frozen=True, slots=True)
class Names:
    """How enrolled pods' questions for names are answered.

    Attributes:
        port: Where the packet rules send them, in each pod's network.
        domain: Of the cluster.
        servers: Who is asked for names that are not known here.
    """

    port: int
    domain: str
    servers: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class NodeSettings:
    """Everything that the agent is told.

    Attributes:
        claim: The proxy's id and metadata, as it shows them to the control plane.
        discovery: Where workloads, services and policies come from.
        authority: Where certificates come from.
        server_name: Whose certificate the control plane must show.
        folder: Where sockets, places of pods and the bootstrap are.
        pod_agent: The socket at which pods are told.
        grace_s: How long open connections may last after the end was told.
        names: None where pods ask for names by themselves.
    """

    node: nodeslices.Node
    claim: Mapping[str, object]
    discovery: settings.Address
    authority: settings.Address
    server_name: str
    folder: pathlib.Path
    token_file: pathlib.Path = settings.TOKEN_FILE
    roots_file: pathlib.Path = settings.ROOTS_FILE
    pod_agent: pathlib.Path = POD_AGENT
    concurrency: int = THREADS
    log_level: str = "info"
    ports: Ports = field(default_factory=Ports)
    renewing: settings.Renewing = field(default_factory=settings.Renewing)
    grace_s: float = 5.0
    names: Names | None = None

    @property
    def discovery_socket(self) -> str:
        """Where Envoy asks for its configuration and secrets."""
        return str(self.folder / "XDS")

    @property
    def admin_socket(self) -> str:
        """Where Envoy answers this agent."""
        return str(self.folder / "admin")


def read(environment: Mapping[str, str], *, folder: pathlib.Path) -> NodeSettings:
    """Read the environment; `folder` is to work in.

    Raises:
        SettingRefused: Some of it cannot be read (ISM-NODE-002).
    """
    discovery = _address(environment.get("XDS_ADDRESS") or DEFAULT_ADDRESS)
    authority = environment.get("CA_ADDRESS", "")
    grace = environment.get("TERMINATION_GRACE_PERIOD_SECONDS", "")
    return NodeSettings(
        node=_node(environment),
        claim=_claim(environment),
        discovery=discovery,
        authority=_address(authority) if authority else discovery,
        server_name=environment.get("ALT_XDS_HOSTNAME") or discovery.host,
        folder=folder,
        token_file=_path(environment, "ISTHMUS_TOKEN_FILE", settings.TOKEN_FILE),
        roots_file=_path(environment, "XDS_ROOT_CA", settings.ROOTS_FILE),
        pod_agent=_path(environment, "INPOD_UDS", POD_AGENT),
        concurrency=settings.whole(environment.get("ZTUNNEL_WORKER_THREADS")) or THREADS,
        log_level=settings.agent_level(environment.get("RUST_LOG") or "info"),
        ports=Ports(
            ready=settings.whole(environment.get("READINESS_PORT")) or Ports().ready,
            stats=settings.whole(environment.get("STATS_PORT")) or Ports().stats,
        ),
        renewing=settings.renewing(environment),
        grace_s=_seconds(grace) if grace else GRACE_S,
        names=_names(environment),
    )


def cluster_of(environment: Mapping[str, str]) -> ClusterId:
    """Return which cluster this is."""
    return ClusterId(_first(environment, "CLUSTER_ID", "ISTIO_META_CLUSTER_ID") or "Kubernetes")


def _node(environment: Mapping[str, str]) -> nodeslices.Node:
    domains = environment.get("TRUST_DOMAIN") or DEFAULT_TRUST_DOMAIN
    return nodeslices.Node(
        environment.get("NODE_NAME", ""),
        cluster_of(environment),
        NetworkId(_first(environment, "NETWORK", "ISTIO_META_NETWORK")),
        tuple(TrustDomain(each.strip()) for each in domains.split(",") if each.strip()),
        access_log=environment.get("ISTHMUS_ACCESS_LOG", ACCESS_LOG),
    )


def _claim(environment: Mapping[str, str]) -> Mapping[str, object]:
    found = metadata.of_environment(environment, labels={}, annotations={})
    found["CLUSTER_ID"] = str(cluster_of(environment))
    found["NODE_NAME"] = environment.get("NODE_NAME", "")
    found["NETWORK"] = _first(environment, "NETWORK", "ISTIO_META_NETWORK")
    domain = f"{found.get('NAMESPACE', 'default')}.svc.{_domain(environment)}"
    return metadata.node("ztunnel", domain=domain, found=found, proxy_config={})


def _names(environment: Mapping[str, str]) -> Names | None:
    if (environment.get("ISTIO_META_DNS_CAPTURE") or "true").lower() not in {"true", "all"}:
        return None
    _, _, port = (environment.get("DNS_PROXY_ADDR") or settings.DNS_ADDRESS).rpartition(":")
    servers = resolvconf.read(settings.resolv_conf(environment)).servers
    return Names(settings.whole(port) or 15053, _domain(environment), servers)


def _domain(environment: Mapping[str, str]) -> str:
    return environment.get("CLUSTER_DOMAIN") or "cluster.local"


def _seconds(text: str) -> float:
    """Read a number of seconds, or a duration."""
    plain = text.replace(".", "", 1).isdigit()
    return (
        float(text) if plain else durations.seconds(text, name="TERMINATION_GRACE_PERIOD_SECONDS")
    )


def _address(text: str) -> settings.Address:
    return settings.address(text.removeprefix("https://").removeprefix("http://").rstrip("/"))


def _path(environment: Mapping[str, str], name: str, usual: pathlib.Path) -> pathlib.Path:
    return pathlib.Path(environment.get(name) or usual)


def _first(environment: Mapping[str, str], *names: str) -> str:
    return next((environment[name] for name in names if environment.get(name)), "")
