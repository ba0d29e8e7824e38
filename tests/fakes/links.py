"""Linked clusters for meshes under construction: the link, and what the other cluster tells."""

import msgspec

from isthmus.fleet.sources import ObjectKey
from isthmus.kube import gateway_api
from isthmus.mesh import peering
from isthmus.mesh.identities import ClusterId, NetworkId
from isthmus.mesh.localities import Locality
from isthmus.mesh.services import Protocol, ServiceKey, ServicePort
from isthmus.registry import exports

PLACE = Locality("r", "z")


def put(mesh, *, peer, network, address="203.0.113.2", domain="cluster.local"):
    """Link the mesh's own cluster to another one."""
    written = {
        "metadata": {
            "name": f"istio-remote-{peer}",
            "namespace": "istio-gateways",
            "labels": {
                "topology.istio.io/network": network,
                "topology.istio.io/cluster": peer,
            },
            "annotations": {"isthmus.dev/trust-domain": domain},
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "gatewayClassName": "istio-remote",
            "addresses": [{"type": "IPAddress", "value": address}],
            "listeners": [
                {"name": "cross-network", "port": 15008, "protocol": "HBONE"},
                {"name": "xds-tls", "port": 15012, "protocol": "TLS"},
            ],
        },
    }
    home = next(iter(mesh.clusters.values()))
    key = ObjectKey(home.id, "istio-gateways", f"istio-remote-{peer}")
    mesh.put(mesh.sources.kubernetes_gateways, key, msgspec.convert(written, gateway_api.Gateway))


def tell(mesh, peer, service, scope, *, place=PLACE, pods=1, ports=(80,)):
    """Tell of a service, `<namespace>/<name>`, what a linked cluster tells; 0 pods are none."""
    namespace, _, name = service.partition("/")
    key = ServiceKey(namespace, name)
    network = next(
        one.network for one in mesh.graph.items(mesh.model.peers.links).values() if one.peer == peer
    )
    export = peering.Export(
        service=key,
        scope=scope,
        hosts=exports.hosts_of(key, scope, domain="cluster.local"),
        ports=tuple(ServicePort(f"http-{one}", one, Protocol.HTTP) for one in ports),
        capacity=(peering.Capacity(NetworkId(network), place, pods),) if pods else (),
        identities=(f"spiffe://cluster.local/ns/{namespace}/sa/{name}",),
    )
    told = peering.ImportKey(ClusterId(peer), namespace, name)
    mesh.put(mesh.model.peers.told, told, export)


def withdraw(mesh, peer, service):
    """Tell that a linked cluster shares a service no more."""
    namespace, _, name = service.partition("/")
    with mesh.graph.transaction() as transaction:
        transaction.delete(
            mesh.model.peers.told, peering.ImportKey(ClusterId(peer), namespace, name)
        )
