"""The control plane's own settings, from its environment and arguments.

Source: spec sections 5.5, 6.2, 6.5 and 8.7.

    IsthmusError
    └── SettingRefused
"""

import argparse
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isthmus.base import errors
from isthmus.mesh import allocations
from isthmus.mesh.identities import ClusterId
from isthmus.mesh.proxies import NO_TUNNELS, Tunnelling
from isthmus.runtime import restlessness, viewing


class SettingRefused(errors.IsthmusError):
    """A setting of the control plane has a value that it cannot have."""

    code = "ISM-RUN-001"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the control plane runs with.

    Attributes:
        cluster: Id of the cluster that it runs in.
        manages_remotes: Whether it writes into remote clusters that name it (`EXTERNAL_ISTIOD`).
        ca_directory: Where the files of Secret `cacerts` are mounted.
        run_directory: Where its Unix socket for reports lives.
        remote_timeout_s: How long a remote cluster may keep the control plane unready.
        stream_age_s: After about how long a proxy must connect and prove itself again; 0 never.
        serves_debug: Whether pages about what is known are served on the monitoring port.
        debug_namespaces: Whose accounts may see them all, besides the system namespace's.
        trusts_loopback: Whether whoever comes from loopback may see them without a token.
        kubeconfig: A file to reach the cluster by; empty uses the pod's own account.
        has_secrets_at_home: Whether the remote secrets are where it runs, and the mesh is
            configured elsewhere (`LOCAL_CLUSTER_SECRET_WATCHER`).
        shared_mesh_config: ConfigMap in the configuration cluster that fills in for its own.
        serves_node_proxies: Whether node proxies of ambient mode are served
            (`PILOT_ENABLE_AMBIENT`).
        node_accounts: Namespace and name of the accounts that node proxies run as: they are told
            of the whole mesh, and may ask for certificates of their own node's pods
            (`CA_TRUSTED_NODE_ACCOUNTS`).
        tunnelling: Whether sidecars and gateways that can speak HBONE do.
        runs_gateways: Whether Gateways of the Gateway API are obeyed and run
            (`PILOT_ENABLE_GATEWAY_API`).
        patches_webhooks: Whether it keeps the bundle in its cluster's webhooks.
        links_clusters: Whether it talks to the control planes of linked clusters
            (`ENABLE_PEERING_DISCOVERY`).
        link_namespaces: Where links to other clusters count (`ISTHMUS_LINK_NAMESPACES`); empty for
            its own namespace and `istio-gateways`.
        account: As which it runs (`SERVICE_ACCOUNT`): other clusters know it by that.
        skips_domains: Whether somebody wants trust domains not to be looked at
            (`PILOT_SKIP_VALIDATE_TRUST_DOMAIN`).
        writes_addresses: Whether addresses of our making are written into ServiceEntries
            (`PILOT_ENABLE_IP_AUTOALLOCATE`).
        keys_refresh_s: How often keys of tokens are fetched (`PILOT_JWT_PUB_KEY_REFRESH_INTERVAL`).
        blocked: From where they never are (`BLOCKED_CIDRS_IN_JWKS_URIS`).
        most_views: How many views of the mesh there may be (`ISTHMUS_MOST_VIEWS`).
        most_tunnels: How many tunnels one caller may begin at a gateway between networks in a second;
            0 for any number (`ISTHMUS_TUNNELS_PER_CALLER`).
        ranges: From where they are given (`PILOT_IP_AUTOALLOCATE_IPV4_PREFIX` and `…_IPV6_PREFIX`).
        tells_endpoints_apart: Whether Envoys that can are told of each endpoint by itself, by LEDS,
            where sets of them go on changing (`ISTHMUS_ENABLE_LEDS`).
        apart_after: After how many changes of a large set of them; 0 all from the first on
            (`ISTHMUS_LEDS_AFTER`).
        push_workers: How many processes tell proxies in its place; 0 for none
            (`ISTHMUS_PUSH_WORKERS`).
        sends_by: The kernel's congestion control for what is told to proxies; empty for the host's own
            (`ISTHMUS_XDS_CONGESTION_CONTROL`).
    """

    cluster: ClusterId
    revision: str = "default"
    namespace: str = "istio-system"
    pod: str = "istiod"
    domain: str = "cluster.local"
    manages_remotes: bool = False
    ca_directory: str = "/etc/cacerts"
    run_directory: str = "/run/isthmus"
    audiences: tuple[str, ...] = ("istio-ca",)
    default_ttl_s: int = 24 * 3600
    max_ttl_s: int = 90 * 24 * 3600
    remote_timeout_s: float = 30.0
    stream_age_s: float = 1800.0
    kubeconfig: str = ""
    log_level: str = "info"
    custom_hosts: tuple[str, ...] = ()
    serves_debug: bool = True
    debug_namespaces: tuple[str, ...] = ()
    trusts_loopback: bool = False
    has_secrets_at_home: bool = False
    shared_mesh_config: str = ""
    serves_node_proxies: bool = False
    node_accounts: tuple[tuple[str, str], ...] = ()
    tunnelling: Tunnelling = NO_TUNNELS
    runs_gateways: bool = False
    patches_webhooks: bool = True
    links_clusters: bool = False
    link_namespaces: tuple[str, ...] = ()
    account: str = "istiod"
    skips_domains: bool = False
    writes_addresses: bool = False
    keys_refresh_s: float = 1200.0
    blocked: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
    most_views: int = viewing.MOST_USUAL
    ranges: allocations.Ranges = allocations.USUAL
    most_tunnels: int = 1000
    tells_endpoints_apart: bool = False
    apart_after: int = restlessness.USUAL_AFTER
    push_workers: int = 0
    sends_by: str = ""

    @property
    def knows_gateways(self) -> bool:
        """Whether Gateways of the Gateway API are read: links are some."""
        return self.runs_gateways or self.links_clusters


def read(environment: Mapping[str, str], arguments: Sequence[str]) -> Settings:
    """Read the settings.

    Raises:
        SettingRefused: A value cannot be used (ISM-RUN-001).
    """
    parser = argparse.ArgumentParser(prog="isthmus-discovery discovery")
    parser.add_argument("--domain", default="cluster.local", help="DNS suffix of services")
    parser.add_argument("--clusterID", dest="cluster", default="", help="id of this cluster")
    parser.add_argument("--kubeconfig", default=environment.get("KUBECONFIG", ""))
    parser.add_argument("--keepaliveMaxServerConnectionAge", dest="age", default="30m")
    parser.add_argument("--log_output_level", default="default:info")
    known, _ = parser.parse_known_args(arguments)
    namespace = environment.get("POD_NAMESPACE", "istio-system")
    is_ambient = _truth(environment, "PILOT_ENABLE_AMBIENT")
    usual = f"{namespace}/ztunnel" if is_ambient else ""
    return Settings(
        cluster=ClusterId(known.cluster or environment.get("CLUSTER_ID", "Kubernetes")),
        revision=environment.get("REVISION", "default"),
        namespace=namespace,
        pod=environment.get("POD_NAME", "istiod"),
        domain=known.domain,
        manages_remotes=_truth(environment, "EXTERNAL_ISTIOD"),
        ca_directory=environment.get("ROOT_CA_DIR", "/etc/cacerts"),
        run_directory=environment.get("ISTHMUS_RUN_DIR", "/run/isthmus"),
        audiences=_words(environment.get("TOKEN_AUDIENCES", "istio-ca")),
        default_ttl_s=_seconds(environment, "DEFAULT_WORKLOAD_CERT_TTL", 24 * 3600),
        max_ttl_s=_seconds(environment, "MAX_WORKLOAD_CERT_TTL", 90 * 24 * 3600),
        remote_timeout_s=_seconds(environment, "PILOT_REMOTE_CLUSTER_TIMEOUT", 30),
        stream_age_s=duration_s(known.age),
        kubeconfig=known.kubeconfig,
        log_level=known.log_output_level.rpartition(":")[2] or "info",
        custom_hosts=_words(environment.get("ISTIOD_CUSTOM_HOST", "")),
        serves_debug=_truth(environment, "ENABLE_DEBUG_ON_HTTP", default="true"),
        debug_namespaces=_words(environment.get("DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES", "")),
        trusts_loopback=_truth(environment, "ISTHMUS_DEBUG_TRUSTS_LOOPBACK"),
        has_secrets_at_home=_truth(environment, "LOCAL_CLUSTER_SECRET_WATCHER"),
        shared_mesh_config=environment.get("SHARED_MESH_CONFIG", ""),
        serves_node_proxies=is_ambient,
        node_accounts=_accounts(environment.get("CA_TRUSTED_NODE_ACCOUNTS", usual)),
        tunnelling=_tunnelling(environment, usual=str(is_ambient).lower()),
        runs_gateways=_truth(environment, "PILOT_ENABLE_GATEWAY_API"),
        # Set and empty: API servers verify the injector by an authority of somebody else's.
        patches_webhooks=environment.get("INJECTION_WEBHOOK_CONFIG_NAME", "any") != "",
        links_clusters=_truth(environment, "ENABLE_PEERING_DISCOVERY"),
        link_namespaces=_words(environment.get("ISTHMUS_LINK_NAMESPACES", "")),
        account=environment.get("SERVICE_ACCOUNT", "istiod"),
        skips_domains=_truth(environment, "PILOT_SKIP_VALIDATE_TRUST_DOMAIN"),
        writes_addresses=_truth(environment, "PILOT_ENABLE_IP_AUTOALLOCATE"),
        keys_refresh_s=max(_seconds(environment, "PILOT_JWT_PUB_KEY_REFRESH_INTERVAL", 1200), 1),
        blocked=_networks(environment.get("BLOCKED_CIDRS_IN_JWKS_URIS", "")),
        most_views=_number(environment, "ISTHMUS_MOST_VIEWS", viewing.MOST_USUAL),
        ranges=_ranges(environment),
        most_tunnels=_count(environment, "ISTHMUS_TUNNELS_PER_CALLER", 1000, most=MOST_COUNT),
        tells_endpoints_apart=_truth(environment, "ISTHMUS_ENABLE_LEDS", default="false"),
        apart_after=_apart_after(environment),
        push_workers=_workers(environment),
        sends_by=_congestion_control(environment),
    )


def _networks(text: str) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    try:
        return tuple(ipaddress.ip_network(word, strict=False) for word in _words(text))
    except ValueError as error:
        raise SettingRefused(
            "`BLOCKED_CIDRS_IN_JWKS_URIS` must be ranges of addresses",
            detail=str(error)[:200],
            hint="such as `10.0.0.0/8,192.168.1.0/24`",
        ) from error


def _ranges(environment: Mapping[str, str]) -> allocations.Ranges:
    usual = allocations.USUAL
    try:
        return allocations.ranges(
            environment.get("PILOT_IP_AUTOALLOCATE_IPV4_PREFIX", str(usual.ipv4)),
            environment.get("PILOT_IP_AUTOALLOCATE_IPV6_PREFIX", str(usual.ipv6)),
        )
    except allocations.RangeUnusable as error:
        raise SettingRefused(
            "`PILOT_IP_AUTOALLOCATE_IPV4_PREFIX` and `…_IPV6_PREFIX` must be ranges of addresses",
            detail=str(error)[:200],
            hint=f"the usual ones are `{usual.ipv4}` and `{usual.ipv6}`",
        ) from error


def _tunnelling(environment: Mapping[str, str], *, usual: str) -> Tunnelling:
    return Tunnelling(
        begins=_truth(environment, "PILOT_ENABLE_SENDING_HBONE", default=usual),
        ends=_truth(environment, "PILOT_ENABLE_SIDECAR_LISTENING_HBONE", default=usual),
    )


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _accounts(text: str) -> tuple[tuple[str, str], ...]:
    found = []
    for word in _words(text):
        namespace, _, name = word.partition("/")
        if not namespace or not name or "/" in name:
            raise SettingRefused(
                f"`CA_TRUSTED_NODE_ACCOUNTS` names no account: `{word[:80]}`",
                hint="write `<namespace>/<service account>`, with commas between",
            )
        found.append((namespace, name))
    return tuple(found)


def _apart_after(environment: Mapping[str, str]) -> int:
    return _count(
        environment,
        "ISTHMUS_LEDS_AFTER",
        restlessness.USUAL_AFTER,
        most=MOST_COUNT,
        hint="0 stands for all sets of endpoints, from the first change on",
    )


def _workers(environment: Mapping[str, str]) -> int:
    return _count(
        environment, "ISTHMUS_PUSH_WORKERS", 0, most=MOST_WORKERS, hint="0 stands for none"
    )


def _congestion_control(environment: Mapping[str, str]) -> str:
    text = environment.get("ISTHMUS_XDS_CONGESTION_CONTROL", "")
    if not re.fullmatch(r"[a-z0-9_]{0,15}", text):
        raise SettingRefused(
            f"`ISTHMUS_XDS_CONGESTION_CONTROL` names none: `{text[:40]}`",
            hint="such as `cubic`; empty stands for the node's own",
        )
    return text


def _count(
    environment: Mapping[str, str],
    name: str,
    usual: int,
    *,
    most: int,
    hint: str = "0 stands for any number",
) -> int:
    text = environment.get(name) or str(usual)
    if not _is_whole(text) or int(text) > most:
        raise SettingRefused(
            f"`{name}` must be a number from 0 to {most}, but is: `{text[:40]}`",
            hint=hint,
        )
    return int(text)


def _truth(environment: Mapping[str, str], name: str, *, default: str = "false") -> bool:
    text = environment.get(name, default).lower()
    if text not in {"true", "false", "1", "0"}:
        raise SettingRefused(f"`{name}` must be true or false, but is: `{text[:40]}`")
    return text in {"true", "1"}


def _number(environment: Mapping[str, str], name: str, usual: int) -> int:
    text = environment.get(name, "") or str(usual)
    if not _is_whole(text) or not int(text):
        raise SettingRefused(f"`{name}` must be a number above zero, but is: `{text[:40]}`")
    return int(text)


def _is_whole(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= MOST_DIGITS


MOST_COUNT = 1_000_000
MOST_DIGITS = 20
MOST_WORKERS = 64
UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def duration_s(text: str) -> float:
    """Read a duration as Go writes it, such as `24h` or `1h30m`, in seconds.

    Raises:
        SettingRefused: The text is no duration (ISM-RUN-001).
    """
    total, number, rest = 0.0, "", text
    while rest:
        if rest[0].isdigit() or rest[0] == ".":
            number, rest = number + rest[0], rest[1:]
            continue
        unit = next((u for u in ("ms", "s", "m", "h") if rest.startswith(u)), "")
        if not unit or not number:
            break
        total, number, rest = total + float(number) * UNITS_S[unit], "", rest[len(unit) :]
    if rest or number or not text:
        raise SettingRefused(f"not a duration: `{text[:40]}`", hint="such as `24h` or `1h30m`")
    return total


def _seconds(environment: Mapping[str, str], name: str, default_s: int) -> int:
    text = environment.get(name, "")
    return int(duration_s(text)) if text else default_s
