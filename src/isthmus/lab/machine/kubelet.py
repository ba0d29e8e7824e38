"""The nodes of one cluster: says that they are there and well, and gives each pod a worker.

Decides which pods run here; what a pod does is its worker's business.
"""

import asyncio
import os
from typing import Any

from isthmus.base import logs, tasks
from isthmus.lab import topology as topologies
from isthmus.lab.apiserver import discovery, mirrors
from isthmus.lab.machine import environment, pods, status, volumes

Obj = dict[str, Any]

_LOG = logs.Log("isthmus.lab.kubelet")
_LEASE_S = 40
_RENEW_S = 10.0
_VERSION = discovery.VERSION["gitVersion"]
_KINDS = {"configmaps": environment.CONFIG_MAP, "secrets": environment.SECRET}


class Objects:
    """Finds ConfigMaps and Secrets in copies that follow the API."""

    def __init__(self, follow: mirrors.Mirrors) -> None:
        self._mirrors = {kind: follow.of(resource) for resource, kind in _KINDS.items()}

    def find(self, kind: str, namespace: str, name: str) -> Obj | None:
        """Return one object, or nothing."""
        return self._mirrors[kind].get(name, namespace)

    async def synced(self) -> None:
        """Wait until every object that exists has arrived."""
        for mirror in self._mirrors.values():
            await mirror.synced()


class Kubelet:
    """Runs the pods of all nodes of one cluster."""

    def __init__(
        self, machine: pods.Machine, *, follow: mirrors.Mirrors, nursery: tasks.Nursery
    ) -> None:
        self._machine = machine
        self._nursery = nursery
        self._workers: dict[str, pods.PodWorker] = {}
        self._users: dict[tuple[str, str, str], set[str]] = {}
        self._follow = follow

    async def start(self) -> None:
        """Register the nodes and begin to run pods."""
        for node in self._machine.cluster.nodes:
            await self._register(node)
        _ = self._nursery.keep("node heartbeats", self._beat)
        for resource, kind in _KINDS.items():
            self._follow.of(resource).listen(self._notice(kind))
        self._follow.of("pods").listen(self._on_pod)

    def worker(self, namespace: str, name: str) -> pods.PodWorker:
        """Return the worker of a pod.

        Raises:
            LookupError: No node of this cluster runs such a pod.
        """
        for worker in self._workers.values():
            metadata = worker.pod["metadata"]
            if (metadata["namespace"], metadata["name"]) == (namespace, name):
                return worker
        raise LookupError(f"no node runs pod {namespace}/{name}")

    def _notice(self, kind: str) -> mirrors.Listener:
        def listener(old: Obj | None, new: Obj | None) -> None:
            metadata = (new or old or {})["metadata"]
            key = (kind, metadata.get("namespace", ""), metadata["name"])
            for uid in self._users.get(key, ()):
                if uid in self._workers:
                    self._workers[uid].touch()

        return listener

    def _on_pod(self, old: Obj | None, new: Obj | None) -> None:
        if new is None:
            self._on_removed(old or {})
            return
        uid = new["metadata"]["uid"]
        if uid in self._workers:
            self._workers[uid].update(new)
        elif self._is_ours(new):
            self._begin(uid, new)

    def _on_removed(self, old: Obj) -> None:
        worker = self._workers.get(old["metadata"]["uid"])
        if worker is not None:
            worker.remove()

    def _is_ours(self, pod: Obj) -> bool:
        finished = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        here = pod["spec"].get("nodeName") in self._machine.wires.nodes
        return here and not finished

    def _begin(self, uid: str, pod: Obj) -> None:
        worker = self._workers[uid] = pods.PodWorker(pod, self._machine)
        namespace = pod["metadata"]["namespace"]
        for kind, name in volumes.references(pod):
            self._users.setdefault((kind, namespace, name), set()).add(uid)
        if "deletionTimestamp" in pod["metadata"]:
            worker.update(pod)
        _ = self._nursery.start(
            f"pod {namespace}/{pod['metadata']['name']}", self._run(uid, worker)
        )

    async def _run(self, uid: str, worker: pods.PodWorker) -> None:
        try:
            await worker.run()
        finally:
            del self._workers[uid]
            for users in self._users.values():
                users.discard(uid)

    # Nodes.

    async def _register(self, node: topologies.Node) -> None:
        now = status.stamp(self._machine.clock.now())
        labels = {
            "kubernetes.io/hostname": node.name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": _architecture(),
            "topology.kubernetes.io/region": node.region,
            "topology.kubernetes.io/zone": node.zone,
        }
        await self._machine.api.create(
            "nodes",
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": node.name, "labels": labels},
                "spec": {"podCIDR": node.pods, "podCIDRs": [node.pods]},
            },
        )
        await self._machine.api.patch(
            "nodes", node.name, {"status": _node_status(node, now)}, subresource="status"
        )
        await self._machine.api.create("leases.coordination.k8s.io", _lease(node.name, now))

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(_RENEW_S)
            moment = self._machine.clock.now().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
            for node in self._machine.cluster.nodes:
                await self._machine.api.patch(
                    "leases.coordination.k8s.io",
                    node.name,
                    {"spec": {"renewTime": moment}},
                    namespace="kube-node-lease",
                )


def _architecture() -> str:
    """Return the machine's kind of processor as Kubernetes names it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def _node_status(node: topologies.Node, now: str) -> Obj:
    amounts = {"cpu": "8", "memory": "16Gi", "pods": "240", "ephemeral-storage": "16Gi"}
    fine = (
        ("MemoryPressure", "SufficientMemory", "sufficient memory available"),
        ("DiskPressure", "NoDiskPressure", "no disk pressure"),
        ("PIDPressure", "SufficientPID", "sufficient PID available"),
    )
    conditions = [
        *(
            (name, "False", f"KubeletHas{enough}", f"kubelet has {told}")
            for name, enough, told in fine
        ),
        ("Ready", "True", "KubeletReady", "kubelet is posting ready status"),
    ]
    return {
        "addresses": [
            {"type": "InternalIP", "address": node.address},
            {"type": "ExternalIP", "address": node.transit},
            {"type": "Hostname", "address": node.name},
        ],
        "capacity": amounts,
        "allocatable": amounts,
        "conditions": [
            {
                "type": kind,
                "status": value,
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": now,
                "lastTransitionTime": now,
            }
            for kind, value, reason, message in conditions
        ],
        "nodeInfo": {
            "kubeletVersion": _VERSION,
            "kubeProxyVersion": _VERSION,
            "operatingSystem": "linux",
            "architecture": _architecture(),
            "osImage": "Isthmus lab",
            "kernelVersion": os.uname().release,
            "containerRuntimeVersion": "isthmus-lab://1",
            "bootID": "",
            "machineID": node.name,
            "systemUUID": "",
        },
    }


def _lease(name: str, now: str) -> Obj:
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": name, "namespace": "kube-node-lease"},
        "spec": {
            "holderIdentity": name,
            "leaseDurationSeconds": _LEASE_S,
            "acquireTime": now.replace("Z", ".000000Z"),
            "renewTime": now.replace("Z", ".000000Z"),
        },
    }
