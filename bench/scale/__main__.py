"""`python -m bench.scale`: one point of the grid, measured and printed as JSON.

It runs in a network namespace of its own, so that the subject may listen where it always does.
"""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.scale import point, shapes, subject
from isthmus.base import netlink

INSIDE: Final = "ISTHMUS_BENCH_INSIDE"
INCOMPLETE: Final = 3
"""The exit status of a run in which a workload has no figures."""

SIZES: Final = {
    "clusters": "clusters, each with an API server",
    "services": "services, all of them in every cluster",
    "endpoints": "endpoints in all clusters together",
    "proxies": "sidecars",
    "whole": "of these take the state of the world, the others deltas",
    "nodes": "proxies of nodes besides, which learn of their own cluster alone",
    "apart": "sidecars besides that see none of the services",
}


def main() -> int:
    """Measure one point."""
    chosen = _parser().parse_args()
    if not os.environ.get(INSIDE) and not chosen.subject:
        command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-m"]
        environment = {**os.environ, INSIDE: "1"}
        return subprocess.call([*command, "bench.scale", *sys.argv[1:]], env=environment)
    shape = _shape(chosen)
    if not chosen.subject:
        _addresses(shape)
    plan = point.Plan(
        workloads=tuple(chosen.workload or point.WORKLOADS),
        changes=chosen.changes,
        seconds=chosen.seconds,
        rest_s=chosen.rest,
        profile=chosen.profile,
        subject=chosen.subject,
        pid=chosen.pid,
        kubeconfigs=chosen.kubeconfigs,
        settings=dict(one.partition("=")[::2] for one in chosen.set),
    )
    with tempfile.TemporaryDirectory(prefix="isthmus-scale-") as folder:
        try:
            found = point.Point(Path(folder), shape, plan).measured()
        except subject.Ended as said:
            sys.stderr.write(f"{said}\n")
            return 1
        print(json.dumps(found, indent=1))
    return INCOMPLETE if "failed" in found else 0


def _shape(chosen: argparse.Namespace) -> shapes.Shape:
    shape = shapes.read(chosen.shape) if chosen.shape else shapes.POINTS[chosen.point]
    given = {name: getattr(chosen, name) for name in SIZES if getattr(chosen, name) is not None}
    shape = dataclasses.replace(shape, **given, is_flat=shape.is_flat and not chosen.networks)
    if chosen.subject:
        shape = dataclasses.replace(shape, listen=chosen.listen, token=chosen.token)
    if shape.nodes and shape.clusters > 1:
        raise SystemExit("--nodes needs --clusters 1: proxies of nodes learn of their own alone")
    return shape


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench.scale",
        description="Measures a control plane among the API servers and the proxies of a made-up "
        "fleet: one point of the grid. Prints what was found as JSON.",
        epilog="workloads: " + "; ".join(f"{key}: {text}" for key, text in point.WORKLOADS.items()),
    )
    parser.add_argument("--point", choices=shapes.POINTS, default="short")
    other = parser.add_argument_group("another control plane instead of this product's")
    other.add_argument("--subject", default="", metavar="HOST:PORT", help="where it serves, by TLS")
    other.add_argument("--token", default="", help="what all clients show to it")
    other.add_argument("--pid", type=int, default=0, help="its process, for CPU time and memory")
    other.add_argument(
        "--kubeconfigs",
        default="kubeconfigs",
        metavar="FOLDER",
        help="where is written how to reach the fleet's API servers, one file each",
    )
    other.add_argument("--listen", default="127.0.0.1", help="where these listen then")
    parser.add_argument("--shape", help=argparse.SUPPRESS)
    for name, text in SIZES.items():
        parser.add_argument(
            f"--{name}", type=int, metavar="N", help=f"instead of the point's: {text}"
        )
    parser.add_argument("--networks", action="store_true", help="each cluster is a network")
    parser.add_argument("--workload", action="append", choices=point.WORKLOADS, help="only this")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of istiod's"
    )
    parser.add_argument("--changes", type=int, default=point.CHANGES, metavar="N")
    parser.add_argument(
        "--seconds", type=float, default=10.0, help="how long a rate is kept (default: 10)"
    )
    parser.add_argument(
        "--rest", type=float, default=point.IDLE_S, help="before memory is read, in seconds"
    )
    parser.add_argument(
        "--profile", default="", metavar="FILE", help="where py-spy writes of single changes"
    )
    return parser


def _addresses(shape: shapes.Shape) -> None:
    """Give this network its addresses."""
    loopback = netlink.index_of("lo")
    servers = map(shapes.api_server, range(shape.clusters))
    netlink.send(
        [
            netlink.up(loopback),
            *(netlink.address(loopback, one, prefix=32) for one in servers),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
