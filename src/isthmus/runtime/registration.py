"""Services with their instances in the oldest shape that Istio's users may know.

It is what `/v1/registration` showed: for each port of a service, the addresses that answer.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from isthmus.mesh.services import Service, ServiceKey
from isthmus.mesh.workloads import Endpoint


def listing(
    services: Mapping[ServiceKey, Service], endpoints: Mapping[ServiceKey, Iterable[Endpoint]]
) -> list[Mapping[str, Any]]:
    """Return each service's ports with what stands behind them, in every cluster."""
    return [
        {
            "service-key": f"{service.hostname}|{port.name}",
            "hosts": [
                _host(endpoint)
                for endpoint in endpoints.get(key, ())
                if endpoint.port_name == port.name
            ],
        }
        for key, service in sorted(services.items())
        for port in service.ports
    ]


def _host(endpoint: Endpoint) -> Mapping[str, Any]:
    return {
        "ip_address": endpoint.address,
        "port": endpoint.port,
        "tags": {
            "cluster": endpoint.cluster,
            "network": endpoint.network,
            "version": dict(endpoint.labels).get("version", ""),
        },
    }
