"""`python -m bench.scale`: one point of the grid, measured and printed as JSON.

It runs in a network namespace of its own, so that the subject may listen where it always does.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.scale import point, shapes
from isthmus.base import netlink

INSIDE: Final = "ISTHMUS_BENCH_INSIDE"
CHANGES: Final = 20


def main() -> int:
    """Measure one point."""
    chosen = _parser().parse_args()
    if not os.environ.get(INSIDE):
        command = ["unshare", "--user", "--map-root-user", "--net", sys.executable, "-m"]
        environment = {**os.environ, INSIDE: "1"}
        return subprocess.call([*command, "bench.scale", *sys.argv[1:]], env=environment)
    shape = shapes.Shape(
        chosen.clusters, chosen.services, chosen.endpoints, chosen.proxies, not chosen.networks
    )
    _addresses(shape)
    with tempfile.TemporaryDirectory(prefix="isthmus-scale-") as folder:
        found = point.Point(Path(folder), shape).measured(chosen.changes)
        print(json.dumps(found, indent=1))
    return 0


def _parser() -> argparse.ArgumentParser:
    usual = shapes.Shape()
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    for name in ("clusters", "services", "endpoints", "proxies"):
        parser.add_argument(f"--{name}", type=int, default=getattr(usual, name))
    parser.add_argument("--networks", action="store_true", help="each cluster is a network")
    parser.add_argument("--changes", type=int, default=CHANGES)
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
