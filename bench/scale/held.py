"""`python -m bench.scale.held`: what the collections hold for each endpoint, without any sockets.

A fleet's objects are read and put into an empty mesh, one cluster after the other, and one endpoint
is taken out and brought back: memory for each endpoint, and CPU for each endpoint and each change.
With `--where` it says instead which lines of the code hold most.
"""

import argparse
import functools
import gc
import json
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Final

import msgspec

from bench.scale import shapes
from isthmus.base import memory
from isthmus.fleet import generations, sources
from isthmus.kube import objects, sharing
from isthmus.mesh.identities import ANYWHERE, ClusterId, NetworkId
from isthmus.resources import snapshot
from isthmus.runtime import assembly
from isthmus.views import view

CHANGES: Final = 100
LINES: Final = 40
SLICES: Final = "endpoint_slices"
READERS: Final = {
    one.kind.path(): (one.collection, msgspec.json.Decoder(one.decode))
    for one in generations.EVERYWHERE
}


class Held:
    """A mesh without proxies' sockets, and what its clusters have said."""

    def __init__(self, shape: shapes.Shape) -> None:
        self.shape = shape
        self.mesh = assembly.assemble(
            config_cluster=ClusterId(shape.names[0]),
            revision="default",
            system_namespace=shapes.SYSTEM,
            domain="cluster.local",
        )
        home, network = ClusterId(shape.names[0]), NetworkId("net")
        with self.mesh.graph.transaction() as change:
            for scope in (
                view.HorizonScope(ANYWHERE, network),
                view.CommonScope(network),
                view.OutboundScope(home, network, shapes.NAMESPACES[0]),
            ):
                change.put(self.mesh.views.scopes, scope, 1)

    def learn(self, cluster: int) -> float:
        """Learn of a cluster; return how much CPU that took."""
        told = [
            (path, json.dumps(one).encode()) for path, one in shapes.objects(self.shape, cluster)
        ]
        began = time.process_time()
        with self.mesh.graph.transaction() as change:
            cluster_id = ClusterId(self.shape.names[cluster])
            for path, text in told:
                if path in READERS:
                    collection, decoder = READERS[path]
                    one = sharing.lean(decoder.decode(text))
                    named = sources.ObjectKey(cluster_id, one.metadata.namespace, one.metadata.name)
                    change.put(getattr(self.mesh.sources, collection), named, one)
        return time.process_time() - began

    def change(self) -> float:
        """Take an endpoint out and bring it back, many times; return the CPU for each change."""
        members = shapes.members(self.shape, 0, 0)
        decoder = READERS[generations.EVERYWHERE[3].kind.path()][1]
        acts = [
            functools.partial(
                self._put,
                decoder,
                json.dumps(shapes.endpoint_slice(self.shape, 0, 0, seen)).encode(),
            )
            for seen in (members[1:], members)
        ]
        for act in acts:
            act()
        began = time.process_time()
        for number in range(CHANGES):
            acts[number % 2]()
        return (time.process_time() - began) / CHANGES

    def _put(self, decoder: msgspec.json.Decoder[objects.Object], text: bytes) -> None:
        one = sharing.lean(decoder.decode(text))
        home = ClusterId(self.shape.names[0])
        key = sources.ObjectKey(home, one.metadata.namespace, one.metadata.name)
        with self.mesh.graph.transaction() as change:
            change.put(getattr(self.mesh.sources, SLICES), key, one)


def main() -> int:
    """Measure once."""
    parser = argparse.ArgumentParser(description=__doc__)
    usual = shapes.Shape()
    for name in ("clusters", "services", "endpoints"):
        parser.add_argument(f"--{name}", type=int, default=getattr(usual, name))
    parser.add_argument("--where", action="store_true")
    chosen = parser.parse_args()
    memory.collect_rarely()
    held = Held(shapes.Shape(chosen.clusters, chosen.services, chosen.endpoints, 0))
    memory.give_back()
    before = _pss()
    if chosen.where:
        tracemalloc.start()
    used_s = sum(held.learn(number) for number in range(chosen.clusters))
    if chosen.where:
        _show(chosen.endpoints)
        return 0
    for _ in snapshot.resting():
        pass  # As a control plane has it that nobody asks at the moment.
    memory.give_back()
    found = {
        "bytes_per_endpoint": (_pss() - before) / chosen.endpoints,
        "cpu_us_per_endpoint": used_s / chosen.endpoints * 1e6,
        "cpu_us_per_change": held.change() * 1e6,
    }
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


def _pss() -> int:
    lines = Path("/proc/self/smaps_rollup").read_text(encoding="utf-8").splitlines()
    return next(int(one.split()[1]) << 10 for one in lines if one.startswith("Pss:"))


def _show(endpoints: int) -> None:
    gc.collect()
    for one in tracemalloc.take_snapshot().statistics("lineno")[:LINES]:
        where = one.traceback[0]
        per = f"{one.size / endpoints:8.1f} B {one.count / endpoints:6.2f} objects"
        sys.stdout.write(f"{per}  {where.filename}:{where.lineno}\n")


if __name__ == "__main__":
    sys.exit(main())
