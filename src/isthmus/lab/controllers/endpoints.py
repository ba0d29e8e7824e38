"""EndpointSlices and Endpoints of Services that select pods.

It decides which pods a Service has, at which ports, and what their conditions say. It refuses to
know how traffic gets there. Services without a selector are left to whoever writes their slices.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from isthmus.base import tasks
from isthmus.lab.apiserver import api as apis
from isthmus.lab.apiserver import labels, mirrors
from isthmus.lab.apiserver.errors import ApiError
from isthmus.lab.apiserver.values import Obj
from isthmus.lab.controllers import owners, reconciling

_SLICES = "endpointslices.discovery.k8s.io"
_MANAGER = "endpointslice-controller.k8s.io"
_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"
_SERVICE_NAME = "kubernetes.io/service-name"
_HEADLESS = "service.kubernetes.io/headless"
_ZONE = "topology.kubernetes.io/zone"
_LARGEST = 100

_Ports = tuple[tuple[str, int, str, str], ...]
"""Name, number, protocol and application protocol of each port."""


@dataclass(frozen=True, slots=True)
class _Wish:
    """One slice as it should be."""

    ports: _Ports
    endpoints: list[Obj]


class Endpoints:
    """Keeps the endpoints of every Service with a selector."""

    def __init__(self, api: apis.Api, follow: mirrors.Mirrors) -> None:
        self._api = api
        self._services = follow.of("services")
        self._pods = follow.of("pods")
        self._nodes = follow.of("nodes")
        self._slices = follow.of(_SLICES)
        self._loop = reconciling.Reconciler("endpoints", self._reconcile)
        self._services.listen(self._on_service)
        self._pods.listen(self._on_pod)
        self._slices.listen(self._on_slice)

    def start(self, nursery: tasks.Nursery) -> None:
        """Run in `nursery`."""
        self._loop.start(nursery)

    def _on_service(self, old: Obj | None, new: Obj | None) -> None:
        found = new or old
        if found is not None:
            self._loop.touch(mirrors.key_of(found))

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        if old is not None and new is not None and _relevant(old) == _relevant(new):
            return
        for pod in (old, new):
            if pod is None:
                continue
            has = labels.labels_of(pod)
            for service in self._services.items(pod["metadata"]["namespace"]):
                if labels.matches_map(service["spec"].get("selector"), has):
                    self._loop.touch(mirrors.key_of(service))

    def _on_slice(self, old: Obj | None, new: Obj | None) -> None:
        """A slice that somebody else changed or removed is put right."""
        for found in (old, new):
            if found is not None and _is_ours(found):
                name = labels.labels_of(found).get(_SERVICE_NAME, "")
                self._loop.touch((found["metadata"]["namespace"], name))

    async def _reconcile(self, key: mirrors.Key) -> None:
        await self._pods.synced()
        await self._nodes.synced()
        namespace, name = key
        service = self._services.get(name, namespace)
        existing = [
            each
            for each in await self._api.list(_SLICES, namespace, labels=f"{_SERVICE_NAME}={name}")
            if _is_ours(each)
        ]
        if service is None or not service["spec"].get("selector"):
            for each in existing:
                await self._delete(_SLICES, each)
            if service is None:
                await self._delete(
                    "endpoints", {"metadata": {"name": name, "namespace": namespace}}
                )
            return
        if service["spec"].get("type") == "ExternalName":
            return
        wishes = self._wishes(service)
        await self._write_slices(service, existing, wishes)
        await self._write_endpoints(service, wishes)

    def _wishes(self, service: Obj) -> list[_Wish]:
        selector = service["spec"]["selector"]
        by_ports: dict[_Ports, list[Obj]] = {}
        pods = sorted(self._pods.items(service["metadata"]["namespace"]), key=mirrors.key_of)
        for pod in pods:
            if labels.matches_map(selector, labels.labels_of(pod)) and _has_address(pod):
                ports = _ports_of(service, pod)
                by_ports.setdefault(ports, []).append(self._endpoint(service, pod))
        if not by_ports:
            return [_Wish((), [])]
        return [
            _Wish(ports, found[start : start + _LARGEST])
            for ports, found in sorted(by_ports.items())
            for start in range(0, len(found), _LARGEST)
        ]

    def _endpoint(self, service: Obj, pod: Obj) -> Obj:
        serving = owners.is_ready(pod)
        terminating = "deletionTimestamp" in pod["metadata"]
        publishes = bool(service["spec"].get("publishNotReadyAddresses"))
        node_name = pod["spec"].get("nodeName", "")
        node = self._nodes.get(node_name)
        zone = labels.labels_of(node).get(_ZONE) if node else None
        endpoint: Obj = {
            "addresses": [pod["status"]["podIP"]],
            "conditions": {
                "ready": publishes or (serving and not terminating),
                "serving": publishes or serving,
                "terminating": terminating,
            },
            "targetRef": {
                "kind": "Pod",
                "namespace": pod["metadata"]["namespace"],
                "name": pod["metadata"]["name"],
                "uid": pod["metadata"]["uid"],
            },
        }
        spec = pod["spec"]
        if spec.get("hostname") and spec.get("subdomain") == service["metadata"]["name"]:
            endpoint["hostname"] = spec["hostname"]
        if node_name:
            endpoint["nodeName"] = node_name
        if zone:
            endpoint["zone"] = zone
        return endpoint

    async def _write_slices(self, service: Obj, existing: list[Obj], wishes: list[_Wish]) -> None:
        free = list(existing)
        for wish in wishes:
            body = _slice(service, wish)
            same = next((each for each in free if _ports_in(each) == wish.ports), None)
            found = same or (free[0] if free else None)
            if found is None:
                await self._api.create(_SLICES, body)
                continue
            free.remove(found)
            await self._replace(_SLICES, found, body, ("endpoints", "ports"))
        for each in free:
            await self._delete(_SLICES, each)

    async def _write_endpoints(self, service: Obj, wishes: list[_Wish]) -> None:
        metadata = service["metadata"]
        body: Obj = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "labels": _labels_of(service, {}),
            },
        }
        subsets = [_subset(wish) for wish in wishes if wish.endpoints]
        if subsets := [
            each for each in subsets if "addresses" in each or "notReadyAddresses" in each
        ]:
            body["subsets"] = subsets
        try:
            found = await self._api.get("endpoints", metadata["name"], metadata["namespace"])
        except ApiError:
            await self._api.create("endpoints", body)
        else:
            await self._replace("endpoints", found, body, ("subsets",))

    async def _replace(self, resource: str, found: Obj, body: Obj, fields: Iterable[str]) -> None:
        same = all((found.get(field) or []) == (body.get(field) or []) for field in fields)
        if same and labels.labels_of(found) == body["metadata"]["labels"]:
            return
        changed = {**body, "metadata": {**found["metadata"], "labels": body["metadata"]["labels"]}}
        await self._api.update(resource, changed)

    async def _delete(self, resource: str, found: Obj) -> None:
        metadata = found["metadata"]
        try:
            await self._api.delete(resource, metadata["name"], metadata["namespace"])
        except ApiError as error:
            if error.code != 404:  # it is gone, as wished
                raise


def _is_ours(found: Obj) -> bool:
    return labels.labels_of(found).get(_MANAGED_BY) == _MANAGER


def _relevant(pod: Obj) -> tuple[object, ...]:
    """Return what of a pod its Services can see."""
    status = pod.get("status") or {}
    return (
        labels.labels_of(pod),
        status.get("podIP"),
        status.get("phase"),
        owners.is_ready(pod),
        "deletionTimestamp" in pod["metadata"],
        pod["spec"].get("nodeName"),
    )


def _has_address(pod: Obj) -> bool:
    status = pod.get("status") or {}
    return bool(status.get("podIP")) and status.get("phase") not in {"Succeeded", "Failed"}


def _ports_of(service: Obj, pod: Obj) -> _Ports:
    """Resolve the Service's ports at one pod; a name that the pod lacks is left out."""
    found = []
    for port in service["spec"].get("ports") or ():
        protocol = port.get("protocol", "TCP")
        number = _number(port.get("targetPort") or port["port"], protocol, pod)
        if number is not None:
            found.append((port.get("name", ""), number, protocol, port.get("appProtocol", "")))
    return tuple(found)


def _number(target: int | str, protocol: str, pod: Obj) -> int | None:
    if isinstance(target, int):
        return target
    restartable = [
        each
        for each in pod["spec"].get("initContainers") or ()
        if each.get("restartPolicy") == "Always"
    ]
    for container in [*pod["spec"]["containers"], *restartable]:
        for port in container.get("ports") or ():
            if port.get("name") == target and port.get("protocol", "TCP") == protocol:
                return int(port["containerPort"])
    return int(target) if target.isdigit() else None


def _port(name: str, number: int, protocol: str, application: str) -> Obj:
    port: Obj = {"name": name, "port": number, "protocol": protocol}
    if application:
        port["appProtocol"] = application
    return port


def _ports_in(found: Obj) -> _Ports:
    return tuple(
        (
            port.get("name", ""),
            port.get("port", 0),
            port.get("protocol", "TCP"),
            port.get("appProtocol", ""),
        )
        for port in found.get("ports") or ()
    )


def _labels_of(service: Obj, more: dict[str, str]) -> dict[str, str]:
    wanted = {**labels.labels_of(service), **more}
    if service["spec"].get("clusterIP") == "None":
        wanted[_HEADLESS] = ""
    return wanted


def _slice(service: Obj, wish: _Wish) -> Obj:
    metadata = service["metadata"]
    added = {_SERVICE_NAME: metadata["name"], _MANAGED_BY: _MANAGER}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": f"{metadata['name']}-",
            "namespace": metadata["namespace"],
            "labels": _labels_of(service, added),
            "ownerReferences": [owners.reference(service)],
        },
        "addressType": "IPv4",
        "endpoints": wish.endpoints,
        "ports": [_port(*each) for each in wish.ports],
    }


def _subset(wish: _Wish) -> Obj:
    """Return the same as the older kind says it; it has no word for ending pods."""
    subset: Obj = {}
    for endpoint in wish.endpoints:
        conditions = endpoint["conditions"]
        if conditions["terminating"]:
            continue
        field = "addresses" if conditions["ready"] else "notReadyAddresses"
        address: Obj = {"ip": endpoint["addresses"][0], "targetRef": endpoint["targetRef"]}
        address |= {key: endpoint[key] for key in ("hostname", "nodeName") if key in endpoint}
        subset.setdefault(field, []).append(address)
    if wish.ports:
        ports = [_port(*each) for each in wish.ports]
        subset["ports"] = [
            {key: value for key, value in port.items() if value or key != "name"} for port in ports
        ]
    return subset
