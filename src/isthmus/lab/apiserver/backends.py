"""From a Service and a port to one address that answers.

It decides which endpoint is taken. It refuses to know how the address is reached.
"""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import errors
from isthmus.lab.apiserver.values import Obj


class NoBackendError(Exception):
    """The Service, its port or a ready endpoint is missing; worded as Kubernetes does."""


@dataclass(frozen=True, slots=True)
class Backend:
    """Where to connect.

    Attributes:
        address: An IP address, or a name for a Service of type ExternalName.
        pod: The name of the pod behind it, or empty.
    """

    address: str
    port: int
    pod: str = ""


async def backend_of(api: apis.Api, *, namespace: str, name: str, port: int | str) -> Backend:
    """Return a ready endpoint of a Service, any of them.

    Args:
        api: Where Services and EndpointSlices are.
        namespace: The Service's namespace.
        name: Its name.
        port: The number or name of a port of the Service; empty for its only one.

    Raises:
        NoBackendError: There is none.
    """
    try:
        service = await api.get("services", name, namespace)
    except errors.ApiError as error:
        raise NoBackendError(f'service "{name}" not found') from error
    found = _port_of(service, port)
    if service["spec"].get("type") == "ExternalName":
        return Backend(service["spec"]["externalName"], found["port"])
    slices = await api.list(
        "endpointslices.discovery.k8s.io", namespace, labels=f"kubernetes.io/service-name={name}"
    )
    backends = list(_backends(slices, found.get("name", "")))
    if not backends:
        raise NoBackendError(f'no endpoints available for service "{name}"')
    return random.choice(backends)


def _port_of(service: Obj, wanted: int | str) -> Obj:
    ports: list[Obj] = service["spec"].get("ports") or []
    for each in ports:
        if wanted in {each["port"], str(each["port"]), each.get("name") or each["port"]}:
            return each
    if not wanted and len(ports) == 1:
        return ports[0]
    if service["spec"].get("type") == "ExternalName" and isinstance(wanted, int):
        return {"port": wanted}
    raise NoBackendError(
        f'no service port {wanted} found for service "{service["metadata"]["name"]}"'
    )


def _backends(slices: Iterable[Obj], port_name: str) -> Iterator[Backend]:
    for each in slices:
        number = next(
            (
                port["port"]
                for port in each.get("ports") or ()
                if (port.get("name") or "") == port_name and port.get("port")
            ),
            None,
        )
        if number is None:
            continue
        for endpoint in each.get("endpoints") or ():
            # A condition that is not given counts as true.
            if (endpoint.get("conditions") or {}).get("ready") is False:
                continue
            target = endpoint.get("targetRef") or {}
            pod = target.get("name", "") if target.get("kind") == "Pod" else ""
            yield Backend(endpoint["addresses"][0], number, pod)
