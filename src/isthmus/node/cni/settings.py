"""What the agent of ambient mode is told by its arguments and environment, by Istio's names.

Source: the DaemonSet of Istio's CNI agent.
"""

import argparse
import pathlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from isthmus.node import durations

PROXY_SOCKET = "/var/run/ztunnel/ztunnel.sock"
NETWORKS = "/host/var/run/netns"
PROCESSES = "/host/proc"
EXCLUDED = "kube-system,istio-system"


@dataclass(frozen=True, slots=True)
class Settings:
    """What one agent does.

    Attributes:
        node: The node whose pods it looks after.
        excluded: Namespaces of which no pod takes part.
        networks: Where namespaces are found by the UIDs of their pods.
        processes: The node's own `/proc`.
        health_port: Says whether the agent is ready.
        metrics_port: Tells its figures.
    """

    node: str
    excluded: frozenset[str] = frozenset(EXCLUDED.split(","))
    socket: pathlib.Path = pathlib.Path(PROXY_SOCKET)
    networks: pathlib.Path = pathlib.Path(NETWORKS)
    processes: pathlib.Path = pathlib.Path(PROCESSES)
    captures_dns: bool = True
    health_port: int = 8000
    metrics_port: int = 15014
    log_level: str = "info"


def read(argv: Sequence[str], *, environment: Mapping[str, str]) -> Settings:
    """Read them.

    Raises:
        SettingRefused: One cannot be read, or the node's name is missing (ISM-NODE-002).
    """
    parser = argparse.ArgumentParser(prog="install-cni", allow_abbrev=False)
    parser.add_argument("--log_output_level", default="info")
    parser.add_argument("--log_as_json", action="store_true")
    options = parser.parse_args(argv)
    if not environment.get("NODE_NAME"):
        raise durations.SettingRefused(
            "`NODE_NAME` is not set", hint="take it from the field `spec.nodeName` of the pod"
        )
    listed = environment.get("EXCLUDE_NAMESPACES", EXCLUDED).split(",")
    return Settings(
        node=environment["NODE_NAME"],
        excluded=frozenset(filter(None, (each.strip() for each in listed))),
        socket=pathlib.Path(environment.get("ZTUNNEL_UDS_ADDRESS") or PROXY_SOCKET),
        networks=pathlib.Path(environment.get("HOST_NETNS_DIR") or NETWORKS),
        processes=pathlib.Path(environment.get("HOST_PROC_DIR") or PROCESSES),
        captures_dns=environment.get("AMBIENT_DNS_CAPTURE", "true").lower() == "true",
        log_level=_level(options.log_output_level),
    )


def _level(text: str) -> str:
    wanted = text.rpartition(":")[2]
    return wanted if wanted in ("debug", "info", "warning", "error") else "info"
