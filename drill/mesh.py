"""The mesh that a drill is about: its clusters, their API servers, its commands and processes.

It knows the mesh as a user does: by its commands, its Kubernetes objects and its processes.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from bench import usage

from drill import records
from isthmus.kube import access, client, kinds

SYSTEM: Final = "istio-system"
SAMPLE: Final = "sample"
CONTROL_PLANE: Final = "istiod"
GATEWAY: Final = "istio-eastwestgateway"
PROXY: Final = "istio-proxy"
_LIMIT_S: Final = 300.0


def is_ready(pod: Mapping[str, Any]) -> bool:
    """Whether a pod is ready, and is to stay."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    is_ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    return is_ready and "deletionTimestamp" not in pod["metadata"]


class CommandFailedError(Exception):
    """A command ended with a failure."""


class Mesh:
    """Three clusters in a lab, joined into one mesh by the demo.

    Attributes:
        clusters: Their names.
        clients: For each of them a client of its API server.
        root: The lab's first process.
    """

    def __init__(self, environment: Mapping[str, str], lab: str) -> None:
        self._environment = dict(environment)
        self._lab = lab
        self.root = 0
        self.clusters: tuple[str, ...] = ()
        self.clients: dict[str, client.Client] = {}
        self._described: list[dict[str, Any]] = []

    async def __aenter__(self) -> Self:
        found = json.loads(await self.command("lab", "status", "--name", self._lab, "-o", "json"))
        (lab,) = found["labs"]
        self.root = int(lab["pid"])
        self._described = lab["clusters"]
        self.clusters = tuple(each["name"] for each in self._described)
        for name in self.clusters:
            reached = access.from_kubeconfig(lab["kubeconfig"], context=name)
            self.clients[name] = client.Client(reached)
            self.clients[name].open()
        self._environment["KUBECONFIG"] = lab["kubeconfig"]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for each in self.clients.values():
            await each.close()

    async def command(self, *words: str, limit_s: float = _LIMIT_S) -> str:
        """Run `isthmus`; return what it wrote. It is killed when it takes longer.

        Raises:
            CommandFailedError: With what it said.
        """
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "isthmus",
            *words,
            env=self._environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(limit_s):
                output, errors = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                _ = await process.wait()
        if process.returncode:
            raise CommandFailedError(f"isthmus {' '.join(words)}: {errors.decode()}")
        return output.decode()

    async def api_server(self, cluster: str, order: str, *words: str) -> None:
        """Let an API server fail for all that is in the lab, or work again."""
        where = ("--name", self._lab, "--cluster", cluster)
        await self.command("lab", "api-server", order, *where, *words)

    # --- what there is --------------------------------------------------------------------------

    def others(self, cluster: str) -> tuple[str, ...]:
        """Return the other clusters."""
        return tuple(each for each in self.clusters if each != cluster)

    async def owners(self) -> dict[str, str]:
        """Return for each range of addresses the cluster that it leads to."""
        found: dict[str, str] = {}
        for each in self._described:
            found[each["pods"]] = each["name"]
            found[each["api"].removeprefix("https://").rpartition(":")[0]] = each["name"]
        for cluster, reached in self.clients.items():
            for service in await reached.list_(kinds.SERVICE):
                ingress = (service.get("status") or {}).get("loadBalancer", {}).get("ingress", ())
                found |= {one["ip"]: cluster for one in ingress if "ip" in one}
        return found

    async def proxies(self) -> list[records.Proxy]:
        """Return every pod that has a proxy, as `NAMESPACE/NAME`."""
        found = []
        for cluster, reached in self.clients.items():
            for pod in await reached.list_(kinds.POD):
                spec = pod["spec"]
                containers = [*spec["containers"], *(spec.get("initContainers") or ())]
                if any(each["name"] == PROXY for each in containers):
                    named = f"{pod['metadata']['namespace']}/{pod['metadata']['name']}"
                    found.append(records.Proxy(cluster, named))
        return found

    async def pod(self, cluster: str, namespace: str, app: str) -> str:
        """Return the name of the one pod of an application."""
        found = await self.clients[cluster].list_(
            kinds.POD, namespace=namespace, labels=f"app={app}"
        )
        (name,) = [p["metadata"]["name"] for p in found if "deletionTimestamp" not in p["metadata"]]
        return str(name)

    async def standing(self, cluster: str) -> tuple[int, bool]:
        """Return how often a cluster's control plane was started again, and whether it is ready."""
        found = await self.clients[cluster].list_(
            kinds.POD, namespace=SYSTEM, labels=f"app={CONTROL_PLANE}"
        )
        statuses = [
            each
            for pod in found
            for each in (pod.get("status") or {}).get("containerStatuses") or ()
        ]
        return sum(each["restartCount"] for each in statuses), any(e["ready"] for e in statuses)

    async def asked(self, cluster: str, page: str) -> str:
        """Return a page of a control plane, such as `/debug/clusterz`."""
        pod = await self.pod(cluster, SYSTEM, CONTROL_PLANE)
        argv = ["pilot-discovery", "request", "GET", page]
        ended = await self.clients[cluster].exec(SYSTEM, pod, argv)
        if ended.code:
            raise CommandFailedError(f"{cluster}: {page}: {ended.stderr.decode()}")
        return ended.stdout.decode()

    # --- processes ------------------------------------------------------------------------------

    def control_plane(self, cluster: str) -> int:
        """Return the process of a cluster's control plane; 0 while there is none."""
        for each in usage.of_part(usage.below(self.root), "control-plane"):
            with contextlib.suppress(OSError):
                environment = Path(f"/proc/{each.pid}/environ").read_bytes().split(b"\0")
                if f"CLUSTER_ID={cluster}".encode() in environment:
                    return each.pid
        return 0

    def kill_control_plane(self, cluster: str) -> None:
        """Kill a cluster's control plane, if there is one just now."""
        pid = self.control_plane(cluster)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self, pod: str) -> list[int]:
        """Return the processes of a pod that know its name."""
        found = []
        wanted = {f"{key}={pod}".encode() for key in ("POD_NAME", "HOSTNAME")}
        for each in usage.below(self.root):
            with contextlib.suppress(OSError):
                if wanted & {*Path(f"/proc/{each.pid}/environ").read_bytes().split(b"\0")}:
                    found.append(each.pid)
        return found

    def kill_pod(self, pod: str) -> list[int]:
        """Kill all processes of a pod that know its name, at once; return them."""
        found = self.processes(pod)
        for pid in found:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return found

    def holding(self, cluster: str, pid: int, *, at: float) -> records.Holding | None:
        """Return what a control plane holds now; None when it has ended."""
        memory = usage.memory(pid)
        with contextlib.suppress(OSError):
            files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
            threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
            if memory is not None:
                return records.Holding(cluster, pid, at, memory.pss, files, threads)
        return None
