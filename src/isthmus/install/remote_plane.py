"""The objects of a cluster whose control plane is in another cluster.

Its `istiod` is a Service without a selector: the address behind it is the primary cluster's
gateway, so that proxies keep the name that the control plane's certificate carries. A cluster
that a mesh is configured in also holds the account by which that control plane reads it.

Source: spec sections 6.2, 6.3 and 6.5.
"""

import ipaddress
from collections.abc import Sequence

from isthmus.install import control_plane, labels, webhook
from isthmus.install.control_plane import Manifest
from isthmus.install.options import REMOTE_DISCOVERY, Options

PORTS = (("tcp-istiod", 15012, 15012), ("tcp-webhook", 443, 15017))


def objects(options: Options) -> list[Manifest]:
    """Return the objects that stand for the control plane."""
    name = f"istiod{options.suffix}"
    return [
        *(control_plane.account(options, name) if options.is_config_cluster else ()),
        *([control_plane.mesh_config_map(options)] if options.shares_mesh_config else ()),
        *(_address(options, name, PORTS) if options.remote_address else ()),
        webhook.manifest(options),
    ]


def discovery(options: Options) -> list[Manifest]:
    """Return what leads proxies to another control plane although there is one here.

    The one here injects, signs and keeps roots; the other one alone configures proxies.
    """
    return _address(options, REMOTE_DISCOVERY, PORTS[:1])


def _address(options: Options, name: str, wanted: Sequence[tuple[str, int, int]]) -> list[Manifest]:
    ports = [
        {"name": port, "port": number, "targetPort": target, "protocol": "TCP"}
        for port, number, target in wanted
    ]
    metadata = labels.metadata(options, name, component="Pilot", app="istiod")
    try:
        address = ipaddress.ip_address(options.remote_address)
    except ValueError:
        spec = {"type": "ExternalName", "externalName": options.remote_address, "ports": ports}
        return [{"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}]
    return [
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}},
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": labels.metadata(
                options,
                name,
                component="Pilot",
                extra={"kubernetes.io/service-name": name},
            ),
            "addressType": f"IPv{address.version}",
            "endpoints": [{"addresses": [str(address)], "conditions": {"ready": True}}],
            "ports": [
                {"name": port, "port": target, "protocol": "TCP"} for port, _, target in wanted
            ],
        },
    ]
