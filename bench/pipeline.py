"""What the rooms cost by themselves, in this process: no sockets, no lab."""

import datetime
import functools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from bench import measures
from isthmus.base import memory
from isthmus.ca import shapes, signing
from isthmus.engine import reader
from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.resources import building, snapshot
from isthmus.runtime import catalog
from isthmus.testing import builders, certificates
from isthmus.testing import shapes as builder_shapes
from isthmus.views import view
from isthmus.wire import encoding
from isthmus.xds import messages, session
from isthmus.xds.messages import Flavour

_CHANGES: Final = 100
_PROXIES: Final = 500
_PUSHES: Final = 20
_ENDPOINTS: Final = 100
_REQUESTS: Final = 300
_PORTS: Final = {"http": 80, "tcp": 9000}


def measure(results: measures.Results) -> None:
    """Measure every part once."""
    memory.collect_rarely()  # as the control plane does
    for size in measures.SIZES:
        found = compiled(size)
        results.add(f"compile/{size}/whole", found.whole_s * 1000)
        results.add(f"compile/{size}/change", found.change_s * 1e6)
        results.add(f"compile/{size}/nodes", found.nodes)
    results.add("push/proxy", pushed_s() * 1e6)
    results.add("csr/rate", 1 / signed_s())


@dataclass(frozen=True, slots=True)
class Compiled:
    """What two clusters cost: all of them, then one endpoint's change and functions run for it."""

    whole_s: float
    change_s: float
    nodes: int


def _timed(act: Callable[[], object]) -> float:
    """Return the CPU time that something takes: others on this machine do not count."""
    began = time.process_time()
    act()
    return time.process_time() - began


# --- from objects to encoded resources ------------------------------------------------------------


def compiled(size: int) -> Compiled:
    """Compute the configuration of two clusters of `size` services; then change one endpoint."""
    mesh = builders.Mesh()
    clusters = [mesh.cluster("east", network="n1"), mesh.cluster("west", network="n2")]
    mesh.graph.derive("resources", mesh.views.slices, _encoded)
    for number, cluster in enumerate(clusters):
        cluster.gateway(external=f"172.30.0.1{number}")
    mesh.expose_services()
    for path in ("east/default/client", "east/other/client", "west/default/client"):
        mesh.scopes_of(mesh.proxy(path).pod)
    for external in ("172.30.0.10", "172.30.0.11"):
        gateway = mesh.pod_at(external, network="")
        assert gateway is not None
        mesh.scopes_of(gateway)
    with mesh.graph.transaction():
        pass
    whole_s = _whole(mesh, clusters, size)
    clusters[0].pod("s7-more", address="10.0.250.7", labels={"app": "s7"})
    flips = [_slice(clusters[0], 7, address) for address in ("10.0.0.8", "10.0.250.7")]
    key = ObjectKey(clusters[0].id, builder_shapes.DEFAULT, flips[0].metadata.name)
    times = []
    for number in range(_CHANGES):
        put = functools.partial(mesh.put, mesh.sources.endpoint_slices, key, flips[number % 2])
        times.append(_timed(put))
    return Compiled(whole_s, statistics.median(times), mesh.graph.recomputed())


def _whole(mesh: builders.Mesh, clusters: list[builders.Cluster], size: int) -> float:
    """Tell the mesh of all services at once; return how long the computing took."""
    with mesh.one_change():
        for number, cluster in enumerate(clusters):
            for index in range(size):
                address = f"10.{number}.{index // 250}.{index % 250 + 1}"
                cluster.service(f"s{index}", ready=[address], ports=_PORTS)
        began = time.process_time()
    return time.process_time() - began


def _slice(cluster: builders.Cluster, index: int, address: str) -> objects.EndpointSlice:
    name = f"s{index}"
    meta = builder_shapes.metadata(
        f"{name}-1", builder_shapes.DEFAULT, {"kubernetes.io/service-name": name}
    )
    pod = cluster.mesh.pod_at(address, network=cluster.network)
    assert pod is not None
    member = objects.SliceEndpoint(
        addresses=(address,),
        conditions=objects.EndpointConditions(ready=True),
        target_ref=objects.ObjectReference(kind="Pod", name=pod.name, namespace=pod.namespace),
    )
    return builder_shapes.slice_of(meta, members=[member], ports=_PORTS)


def _encoded(
    read: reader.Reader, key: view.SliceKey, slice_: view.Slice
) -> Iterator[tuple[view.SliceKey, snapshot.Resource]]:
    del read
    yield key, building.build(slice_)


# --- from an encoded resource to every proxy's message ---------------------------------------------


def pushed_s() -> float:
    """Return the time for one proxy to be told of one changed endpoint set."""
    shelves = catalog.Catalog[view.Scope]()
    scope = view.OutboundScope(ClusterId("east"), NetworkId("n1"), "default")
    key = view.SliceKey(scope, view.Kind.ENDPOINTS, "outbound|80||s0.default.svc.cluster.local")
    versions = [_endpoints(key.name, number) for number in range(2)]
    shelves.change([(key, snapshot.ENDPOINTS, versions[0])])
    woken: list[session.Session] = []
    for _ in range(_PROXIES):
        _connected(shelves, scope, key, woken)
    times = []
    for number in range(_PUSHES):
        fresh = versions[(number + 1) % 2]
        times.append(_timed(functools.partial(_push, shelves, key, fresh, woken)))
    return statistics.median(times) / _PROXIES


def _connected(
    shelves: catalog.Catalog[view.Scope],
    scope: view.OutboundScope,
    key: view.SliceKey,
    woken: list[session.Session],
) -> None:
    talk = session.Session(Flavour.DELTA)
    talk.heard(messages.Request(snapshot.ENDPOINTS, subscribe=(key.name,)))
    seen = shelves.snapshot((scope,))
    talk.given(seen)
    _told(talk)

    def wake(changed: Mapping[snapshot.TypeUrl, frozenset[str]]) -> None:
        talk.given(seen, changed)
        woken.append(talk)

    shelves.read((scope,), wake)


def _push(
    shelves: catalog.Catalog[view.Scope],
    key: view.SliceKey,
    fresh: snapshot.Resource,
    woken: list[session.Session],
) -> None:
    woken.clear()
    shelves.change([(key, snapshot.ENDPOINTS, fresh)])
    for talk in woken:
        _told(talk)
    assert len(woken) == _PROXIES


def _told(talk: session.Session) -> None:
    offer = talk.next()
    assert offer is not None
    encoding.response(offer, flavour=Flavour.DELTA)
    talk.heard(messages.Request(snapshot.ENDPOINTS, nonce=offer.nonce))


def _endpoints(name: str, number: int) -> snapshot.Resource:
    """Return an endpoint set as large as one of 100 pods."""
    return snapshot.Resource(snapshot.ENDPOINTS, name, f"v{number}", b"x" * 150 * _ENDPOINTS)


# --- certificates ---------------------------------------------------------------------------------


def signed_s() -> float:
    """Return the time for one certificate, from the request's text to the answer's."""
    signer = certificates.signer()
    request = certificates.request()

    def sign() -> None:
        key = signing.requested_key(request)
        leaf = signing.workload(
            key,
            identity=certificates.SLEEP,
            signer=signer,
            stamp=shapes.Stamp(certificates.NOW, 7),
            life=datetime.timedelta(days=1),
        )
        signing.answer(leaf, signer=signer)

    return statistics.median(_timed(sign) for _ in range(_REQUESTS))
