"""A shop: its services, and the pods that come for what they are to know of them."""

from isthmus.kube import objects
from isthmus.mesh.identities import NetworkId
from isthmus.mesh.proxies import ProxyKind
from isthmus.wire import nodes


def node(pod="a-1", namespace="shop", kind=ProxyKind.SIDECAR, network="n1", **more):
    """Return who a proxy says that it is."""
    return nodes.Node(
        id="n",
        kind=kind,
        name=f"{pod}.{namespace}",
        pod=pod,
        namespace=namespace,
        domain=f"{namespace}.svc.cluster.local",
        addresses=("10.0.0.7",),
        network=NetworkId(network),
        **more,
    )


def service(name):
    spec = objects.ServiceSpec(
        cluster_ip="10.96.0.9",
        cluster_ips=("10.96.0.9",),
        ports=(objects.ServicePort(port=80, name="http"),),
    )
    return objects.Service(objects.Metadata(name=name, namespace="shop"), spec)
