"""`python -m bench.scale.watches`: what a connected proxy costs above the sockets, in one process.

Proxies open what a stream opens: a watch, and a talk with its session and record. They ask for clusters and
listeners, then for the endpoints and routes that these name, and acknowledge, in ready bytes as
Envoy sends them. Memory is what Python allocated between two counts of proxies, by file; CPU is
that of this process, without the client's part. Printed as JSON.
"""

import argparse
import asyncio
import gc
import json
import time
import tracemalloc
from pathlib import Path
from typing import Any, Final

from envoy.service.discovery.v3 import discovery_pb2
from typing_extensions import override

from isthmus.base import clock, metrics
from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.proxies import ProxyKind
from isthmus.resources import snapshot
from isthmus.runtime import assembly, connections
from isthmus.testing import shapes
from isthmus.wire import callers, counting, limits, nodes, streams, talks
from isthmus.wire.h2 import calls, outlet
from isthmus.xds.messages import Flavour

EAST: Final = ClusterId("east")
SHOP: Final = "shop"
PORT: Final = 8080
CHANGES: Final = 10
MOST_FILES: Final = 12
ASKED: Final = (snapshot.CLUSTERS, snapshot.LISTENERS)
LED_TO: Final = (snapshot.ENDPOINTS, snapshot.ROUTES)

Question = discovery_pb2.DeltaDiscoveryRequest
Whole = discovery_pb2.DiscoveryRequest
Answer = discovery_pb2.DiscoveryResponse


class Fleet:
    """One cluster with services, and proxies in as many deployments as wanted."""

    def __init__(self, services: int, endpoints: int, deployments: int) -> None:
        self.deployments = deployments
        counters = counting.Counters(metrics.Metrics())
        self.ground = talks.Ground(
            limits.Limits(age_s=0), counters, system_clock=clock.SystemClock()
        )
        self.mesh = assembly.assemble(
            config_cluster=EAST,
            revision="",
            system_namespace="istio-system",
            domain="cluster.local",
        )
        self.connections = connections.Connections(
            self.mesh, authenticator=_Nobody(), unready=lambda _: ""
        )
        with self.mesh.graph.transaction() as transaction:
            for number in range(services):
                name = f"s{number}"
                meta = shapes.metadata(name, SHOP)
                vip = f"172.16.{number >> 8}.{number & 255}"
                ports = {"http": 80}
                service = shapes.service_of(meta, ports=ports, vip=vip, shape=shapes.USUAL)
                transaction.put(self.mesh.sources.services, ObjectKey(EAST, SHOP, name), service)
                transaction.put(
                    self.mesh.sources.endpoint_slices,
                    ObjectKey(EAST, SHOP, f"{name}-1"),
                    _slice(number, endpoints),
                )

    def change(self, number: int, endpoints: int) -> None:
        """Let a service have so many endpoints."""
        with self.mesh.graph.transaction() as transaction:
            transaction.put(
                self.mesh.sources.endpoint_slices,
                ObjectKey(EAST, SHOP, f"s{number}-1"),
                _slice(number, endpoints),
            )

    def add_pods(self, numbers: range) -> None:
        """Add the pods of proxies."""
        with self.mesh.graph.transaction() as transaction:
            for number in numbers:
                app = f"client-{number % self.deployments}"
                pod = objects.Pod(
                    shapes.metadata(f"p{number}", SHOP, {"app": app}),
                    spec=objects.PodSpec(node_name="n1"),
                    status=objects.PodStatus(phase="Running", pod_ip=_address(number)),
                )
                transaction.put(self.mesh.sources.pods, ObjectKey(EAST, SHOP, f"p{number}"), pod)


class _Nobody(callers.Authenticator):
    @override
    async def authenticate(self, credentials: callers.Credentials) -> callers.Caller:
        raise callers.CallerRefused("nobody calls")


class Way(talks.Way):
    """What the wire is to a talk: here, a list of what was said."""

    def __init__(self) -> None:
        self.said: list[outlet.Message] = []

    @override
    def say(self, message: outlet.Message) -> bool:
        self.said.append(message)
        return True

    @override
    def send(self, message: outlet.Message) -> bool:
        return self.say(message)

    @override
    def flush(self) -> None:
        """Nothing: it was said."""

    @override
    def close(self, status: str, text: str) -> None:
        raise RuntimeError(f"{status}: {text}")


class Stream:
    """One stream, from its first message on."""

    def __init__(self, fleet: Fleet, number: int, flavour: Flavour) -> None:
        caller = callers.Caller(EAST, SHOP, "default", f"p{number}", f"uid-{number}")
        node = _node(number)
        self._ground = fleet.ground
        self._way = Way()
        self._is_begun = False
        self.watch = fleet.connections.open(caller, node)
        record = streams.Record(
            f"{node.name}-{number}", node, caller, "", flavour, fleet.ground.turns.now()
        )
        self.talk = talks.Talk(
            fleet.ground,
            way=self._way,
            watch=self.watch,
            record=record,
            gone=_let_go,
        )

    def hear(self, content: bytes) -> None:
        """Take a request in."""
        if self._is_begun:
            self.talk.heard(content)
            return
        self._is_begun = True
        flavour = self.talk.record.flavour
        first, _ = self._ground.opening(content, flavour=flavour)
        self.talk.begin(first)

    def say(self) -> list[outlet.Message]:
        """Return all that is to be said, encoded as it goes out."""
        self.talk.tell(self._ground.turns)
        said, self._way.said = self._way.said, []
        return said


def _let_go(talk: talks.Talk) -> None:
    raise RuntimeError(f"{talk.record.id} has ended")


class Client:
    """What Envoy would answer, as bytes that are the same for all."""

    def __init__(self, seen: snapshot.Snapshot, flavour: Flavour, *, has_all: bool) -> None:
        self.flavour = flavour
        self._has = seen if has_all else snapshot.EMPTY
        self._answers: dict[outlet.Message, bytes] = {}
        # An endpoint set has its cluster's name; clusters that need none are not asked for.
        self.names = {kind: sorted(seen.of(kind)) for kind in LED_TO}
        self.first = [self.question(kind) for kind in ASKED]
        self.then = [self.question(kind) for kind in LED_TO]

    def question(self, kind: snapshot.TypeUrl) -> bytes:
        """Return the first request about a type."""
        names = self.names.get(kind, [])
        if self.flavour is Flavour.DELTA:
            asked = Question(
                type_url=kind,
                resource_names_subscribe=names,
                initial_resource_versions=self._versions(kind),
            )
            return bytes(asked.SerializeToString())
        return bytes(Whole(type_url=kind, resource_names=names).SerializeToString())

    def _versions(self, kind: snapshot.TypeUrl) -> dict[str, str]:
        """Return what it says to have; assignments were told for the clusters that it has."""
        clusters = self._has.of(snapshot.CLUSTERS) if kind == snapshot.ENDPOINTS else {}
        return {
            name: f"{clusters[name].version}.{one.version}" if name in clusters else one.version
            for name, one in self._has.of(kind).items()
        }

    def answer(self, message: outlet.Message) -> bytes:
        """Return the acknowledgement of a message, the same for the same one."""
        known = self._answers.get(message)
        if known is None:
            known = self._answers[message] = self._answer(message)
        return known

    def _answer(self, message: outlet.Message) -> bytes:
        is_delta = self.flavour is Flavour.DELTA
        kind_of = discovery_pb2.DeltaDiscoveryResponse if is_delta else Answer
        offer = kind_of.FromString(message.body[calls.PREFIX_BYTES :])
        kind, nonce = snapshot.TypeUrl(offer.type_url), offer.nonce
        if self.flavour is Flavour.DELTA:
            return bytes(Question(type_url=kind, response_nonce=nonce).SerializeToString())
        names, version = self.names.get(kind, []), offer.version_info
        asked = Whole(
            type_url=kind, response_nonce=nonce, version_info=version, resource_names=names
        )
        return bytes(asked.SerializeToString())


class Meter:
    """The CPU time of the server's part."""

    def __init__(self) -> None:
        self.spent = 0.0

    def told(self, stream: Stream, client: Client) -> int:
        """Let a client hear all and acknowledge it; return how much was said."""
        began = time.process_time()
        offers = stream.say()
        self.spent += time.process_time() - began
        answers = [client.answer(message) for message in offers]
        began = time.process_time()
        for answer in answers:
            stream.hear(answer)
        self.spent += time.process_time() - began
        return len(offers)

    def connected(self, fleet: Fleet, number: int, client: Client) -> Stream:
        """Connect a proxy and let it come in sync."""
        began = time.process_time()
        stream = Stream(fleet, number, client.flavour)
        for asked in (client.first, client.then):
            for content in asked:
                stream.hear(content)
            self.spent += time.process_time() - began
            self.told(stream, client)
            began = time.process_time()
        self.spent += time.process_time() - began
        return stream


def measured(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one fleet."""
    flavour = Flavour.STATE_OF_THE_WORLD if chosen.sotw else Flavour.DELTA
    fleet = Fleet(chosen.services, chosen.endpoints, chosen.deployments)
    warm = chosen.proxies // 2
    fleet.add_pods(range(2 * chosen.proxies + warm))
    seen = fleet.connections.open(callers.Caller(EAST, SHOP, "d", "p0"), _node(0)).snapshot()
    client, meter = Client(seen, flavour, has_all=chosen.again), Meter()
    kept = [meter.connected(fleet, number, client) for number in range(warm)]
    gc.collect()
    gc.freeze()
    meter.spent = 0.0
    kept += [meter.connected(fleet, warm + number, client) for number in range(chosen.proxies)]
    sync_us = meter.spent / chosen.proxies * 1e6
    change_us, told = _changes(fleet, kept, client, meter, chosen)
    found = {
        "flavour": flavour.value,
        "sync_us_per_proxy": round(sync_us),
        "change_us_per_proxy": round(change_us, 1),
        "told_per_change": told,
        **_memory(fleet, kept, client, chosen),
    }
    if len({_held(stream) for stream in kept}) != 1:
        raise RuntimeError("proxies that see the same were not told the same")
    return found


def _changes(
    fleet: Fleet, kept: list[Stream], client: Client, meter: Meter, chosen: argparse.Namespace
) -> tuple[float, float]:
    meter.spent, told = 0.0, 0
    for number in range(CHANGES):
        began = time.process_time()
        fleet.change(number, chosen.endpoints + 1)
        meter.spent += time.process_time() - began
        told += sum(meter.told(stream, client) for stream in kept)
    return meter.spent / CHANGES / len(kept) * 1e6, told / CHANGES / len(kept)


def _memory(
    fleet: Fleet, kept: list[Stream], client: Client, chosen: argparse.Namespace
) -> dict[str, Any]:
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    first = len(kept)
    kept += [Meter().connected(fleet, first + each, client) for each in range(chosen.proxies)]
    gc.collect()
    after = tracemalloc.take_snapshot()
    tracemalloc.stop()
    found = after.compare_to(before, "lineno" if chosen.lines else "filename")
    by_file = {
        f"{Path(one.traceback[0].filename).name}:{one.traceback[0].lineno}": round(
            one.size_diff / chosen.proxies
        )
        for one in found[:MOST_FILES]
    }
    total = sum(one.size_diff for one in found) / chosen.proxies
    return {"bytes_per_proxy": round(total), "by_file": by_file}


def _held(stream: Stream) -> int:
    return hash(
        tuple(
            (kind, name, one.version)
            for kind in LED_TO
            for name, one in sorted(stream.watch.snapshot().of(kind).items())
        )
    )


def _node(number: int) -> nodes.Node:
    return nodes.Node(
        id=f"sidecar~{_address(number)}~p{number}.{SHOP}~{SHOP}.svc.cluster.local",
        kind=ProxyKind.SIDECAR,
        name=f"p{number}.{SHOP}",
        pod=f"p{number}",
        namespace=SHOP,
        domain=f"{SHOP}.svc.cluster.local",
        addresses=(_address(number),),
        network=NetworkId(""),
    )


def _address(number: int) -> str:
    return f"100.64.{number >> 8}.{number & 255}"


def _slice(number: int, endpoints: int) -> objects.EndpointSlice:
    members = [
        objects.SliceEndpoint(
            addresses=(f"10.{number >> 8}.{number & 255}.{one + 1}",),
            conditions=objects.EndpointConditions(ready=True),
        )
        for one in range(endpoints)
    ]
    name = f"s{number}"
    meta = shapes.metadata(f"{name}-1", SHOP, {"kubernetes.io/service-name": name})
    return shapes.slice_of(meta, members=members, ports={"http": PORT})


async def _main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale.watches", description=__doc__)
    for name, usual in {
        "services": 1_000,
        "endpoints": 10,
        "proxies": 100,
        "deployments": 1,
    }.items():
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--sotw", action="store_true", help="the older form of the protocol")
    parser.add_argument("--again", action="store_true", help="proxies have all from another stream")
    parser.add_argument("--lines", action="store_true", help="memory by line")
    print(json.dumps(measured(parser.parse_args()), indent=1))


if __name__ == "__main__":
    asyncio.run(_main())
