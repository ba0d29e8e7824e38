"""What is done to a mesh without sidecars: one thing each, and the wait until all is well again.

Everything is asked for as a user would: by objects, by commands, and by killing processes.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from drill import mesh as meshes
from drill.ambient import observing, records
from isthmus.kube import client, kinds, problems

GATEWAYS: Final = "istio-gateways"
GATEWAY, NODE_PROXY, ENROLLER = "istio-eastwest", "ztunnel", "istio-cni-node"
WAYPOINT: Final = "drill"
VERSIONS: Final = {"cluster1": "v1", "cluster2": "v2", "cluster3": "v1"}
PATIENCE_S: Final = 60.0
CALM_S: Final = 3.0
"""What is wrong shows after an order, too: so long each step goes on when all seems well."""
_POLL_S: Final = 0.1
_GLANCE_S: Final = 0.01
_CLOSING_S: Final = 1.0
"""So long before its end a process may have begun to close what it has open."""

Places = Mapping[str, frozenset[str]]


class NotInTimeError(Exception):
    """Something did not come about in time."""


class Faults:
    """Does things to a mesh, and writes down what and when.

    Attributes:
        away: Clusters whose own copy was taken away.
    """

    def __init__(
        self, mesh: meshes.Mesh, record: records.Record, observer: observing.Observer
    ) -> None:
        self._mesh = mesh
        self._record = record
        self._observer = observer
        self._tell: Callable[[records.Step], None] = lambda _: None
        self.away: set[str] = set()

    def telling(self, tell: Callable[[records.Step], None]) -> None:
        """Tell of each step when it begins."""
        self._tell = tell

    def places(self) -> dict[str, frozenset[str]]:
        """Return who should answer each caller: its own cluster, or all that can."""
        there = frozenset(self._mesh.clusters) - self.away
        return {
            each: there if each in self.away else frozenset({each}) for each in self._mesh.clusters
        }

    @contextlib.asynccontextmanager
    async def step(self, name: str, text: str, *heard: str) -> AsyncIterator[records.Step]:
        """Write down what is done in here, and listen to the pods of some clusters meanwhile.

        It ends well when everybody is answered as they should be, some time after.
        """
        step = records.Step(name, text, time.time())
        self._record.steps.append(step)
        self._tell(step)
        is_done = False
        async with self._observer.listening(step, *heard):
            try:
                yield step
                is_done = True
            except* (NotInTimeError, meshes.CommandFailedError, problems.ApiError) as errors:
                reasons = ", ".join(map(str, errors.exceptions))
                self._record.notes.append((time.time(), f"{text}: {reasons}"))
            places = dict(step.places) or self.places()
            is_well = await self._observer.until_answered(places, PATIENCE_S)
            await asyncio.sleep(CALM_S)
        if is_well and is_done:
            step.ended = time.time()

    # --- copies ---------------------------------------------------------------------------------

    async def take_away(self, cluster: str) -> None:
        """Scale the copy of a cluster to no pod."""
        text = f"own copy of {cluster} to 0"
        async with self.step("copy-away", text, cluster) as step:
            self.away.add(cluster)
            step.places = {cluster: self.places()[cluster]}
            step.since = time.time()
            pod = await self._mesh.pod(cluster, meshes.SAMPLE, observing.SERVER)
            pids = self._mesh.processes(pod)
            await self._scale(cluster, 0)
            step.endings.append(await _ended(pids))
            await self._until(lambda: not self._observer.pods[cluster], text)

    async def bring_back(self, cluster: str) -> None:
        """Scale it to one pod; what is counted begins when that is ready."""
        text = f"own copy of {cluster} back"
        async with self.step("copy-back", text, cluster) as step:
            await self._scale(cluster, 1)
            await self._until(lambda: self._observer.is_ready(cluster), text)
            step.since = time.time()
            self.away.discard(cluster)
            step.places = {cluster: self.places()[cluster]}

    async def _scale(self, cluster: str, count: int) -> None:
        await self._mesh.clients[cluster].patch(
            kinds.DEPLOYMENT,
            f"{observing.SERVER}-{VERSIONS[cluster]}",
            {"spec": {"replicas": count}},
            namespace=meshes.SAMPLE,
        )

    # --- pods that requests pass ----------------------------------------------------------------

    async def kill(self, name: str, text: str, cluster: str, pods: Iterable[str]) -> None:
        """Kill all processes of pods; the kubelet starts them again."""
        async with self.step(name, text, cluster) as step:
            found = list(pods)
            before = {pod: await self._restarts(cluster, pod) for pod in found}
            began = time.time()
            pids = [pid for pod in found for pid in self._mesh.kill_pod(pod.rpartition("/")[2])]
            # A process that is killed closes what it has open before it is gone.
            _, until = await _ended(pids)
            step.killed.append((began, until))
            for pod in found:
                await self._until_restarted(cluster, pod, before[pod])

    async def delete(self, name: str, text: str, cluster: str, pods: Iterable[str]) -> None:
        """Delete pods at once, with no time to end."""
        async with self.step(name, text, cluster) as step:
            found = list(pods)
            kept = await self._ready_of(cluster, found[0])
            pids = [pid for pod in found for pid in self._mesh.processes(pod.rpartition("/")[2])]
            began = time.time()
            for pod in found:
                namespace, _, named = pod.partition("/")
                path = kinds.POD.path(named, namespace=namespace)
                await self._mesh.clients[cluster].raw(
                    "DELETE", path, body={"gracePeriodSeconds": 0}
                )
            # The kubelet hears of it and kills; nobody else can tell when.
            _, until = await _ended(pids)
            step.killed.append((began, until))
            await self._until_ready_but(cluster, found, len(kept))

    async def roll_out(
        self, name: str, text: str, cluster: str, kind: kinds.Kind, place: str
    ) -> None:
        """Replace the pods of a Deployment or DaemonSet, `NAMESPACE/NAME`, one after the other."""
        async with self.step(name, text, cluster) as step:
            namespace, _, named = place.partition("/")
            found = await self._mesh.clients[cluster].list_(kinds.POD, namespace=namespace)
            names = [each["metadata"]["name"] for each in found]
            former = [each for each in names if each.startswith(f"{named}-")]
            async with asyncio.TaskGroup() as group:
                for each in former:
                    group.create_task(_followed(self._mesh.processes(each), step))
                await self._roll_out(cluster, kind, place)

    async def _roll_out(self, cluster: str, kind: kinds.Kind, place: str) -> None:
        namespace, _, named = place.partition("/")
        stamp = {"kubectl.kubernetes.io/restartedAt": f"{time.time()}"}
        patch = {"spec": {"template": {"metadata": {"annotations": stamp}}}}
        reached = self._mesh.clients[cluster]
        await reached.patch(kind, named, patch, namespace=namespace)
        await _until(lambda: _is_rolled_out(reached, kind, named, namespace), place)

    async def pods(self, cluster: str, namespace: str, labels: str, *, node: str = "") -> list[str]:
        """Return pods as `NAMESPACE/NAME`, of one node if it is named."""
        fields = f"spec.nodeName={node}" if node else ""
        found = await self._mesh.clients[cluster].list_(
            kinds.POD, namespace=namespace, labels=labels, fields=fields
        )
        return [f"{namespace}/{each['metadata']['name']}" for each in found]

    async def node_of(self, cluster: str, app: str) -> str:
        """Return the node on which the one pod of an application is."""
        name = await self._mesh.pod(cluster, meshes.SAMPLE, app)
        pod = await self._mesh.clients[cluster].get(kinds.POD, name, namespace=meshes.SAMPLE)
        return str(pod["spec"]["nodeName"])

    # --- control planes and links ---------------------------------------------------------------

    async def roll_out_control_planes(self, clusters: Iterable[str]) -> None:
        """Replace the control planes of clusters, all at the same time."""
        named = list(clusters)
        text = f"control planes of {' and '.join(named)} rolled out"
        place = f"{meshes.SYSTEM}/{meshes.CONTROL_PLANE}"
        async with self.step("control-planes-rolled", text, named[0]), asyncio.TaskGroup() as group:
            for each in named:
                group.create_task(self._roll_out(each, kinds.DEPLOYMENT, place))

    async def kill_control_planes(self, clusters: Iterable[str]) -> None:
        """Kill the control planes of clusters at once."""
        named = list(clusters)
        text = f"control planes of {' and '.join(named)} killed"
        async with self.step("control-planes-killed", text, named[0]):
            pods = {each: await self._control_plane(each) for each in named}
            before = {each: await self._restarts(each, pods[each]) for each in named}
            for each in named:
                self._mesh.kill_pod(pods[each].rpartition("/")[2])
            for each in named:
                await self._until_restarted(each, pods[each], before[each])

    async def _control_plane(self, cluster: str) -> str:
        name = await self._mesh.pod(cluster, meshes.SYSTEM, meshes.CONTROL_PLANE)
        return f"{meshes.SYSTEM}/{name}"

    async def scale_control_plane(self, cluster: str, count: int) -> None:
        """Have so many of a cluster's control plane."""
        patch = {"spec": {"replicas": count}}
        await self._mesh.clients[cluster].patch(
            kinds.DEPLOYMENT, meshes.CONTROL_PLANE, patch, namespace=meshes.SYSTEM
        )

    async def until_heard(self, watcher: str, cluster: str, *, is_heard: bool) -> None:
        """Wait until a cluster says that it hears another, or does not."""
        wanted = "True" if is_heard else "False"
        await _until(lambda: self._says(watcher, cluster, wanted), f"link to {cluster}")

    async def _says(self, watcher: str, cluster: str, wanted: str) -> bool:
        link = await self._mesh.clients[watcher].get(
            kinds.KUBERNETES_GATEWAY, f"istio-remote-{cluster}", namespace=GATEWAYS
        )
        conditions = (link.get("status") or {}).get("conditions") or ()
        return any(each["type"] == "Connected" and each["status"] == wanted for each in conditions)

    async def unlink(self, watcher: str, cluster: str) -> None:
        """Let one cluster hear another no more, while its own copy is away; link it again."""
        pair = ("--contexts", f"{watcher},{cluster}", "--namespace", GATEWAYS)
        text = f"{watcher} and {cluster} unlinked"
        async with self.step("unlink", text, watcher) as step:
            step.places = {watcher: self.places()[watcher] - {cluster}}
            step.since = time.time()
            await self._mesh.command("multicluster", "unlink", *pair)
        async with self.step("relink", text.replace("unlinked", "linked again"), watcher) as step:
            await self._mesh.command("multicluster", "link", *pair)
            await self.until_heard(watcher, cluster, is_heard=True)
            await self.until_heard(cluster, watcher, is_heard=True)

    # --- taking part ----------------------------------------------------------------------------

    async def leave_and_join(self, cluster: str) -> None:
        """Take the pod that answers out of the mesh while it runs, and let it in again."""
        name = await self._mesh.pod(cluster, meshes.SAMPLE, observing.SERVER)
        async with self.step("leave", f"called pod of {cluster} leaves"):
            await self._label(cluster, name, "none")
            await _until(lambda: self._is_enrolled(cluster, name, wanted=False), "leave")
        async with self.step("join", f"called pod of {cluster} joins again"):
            await self._label(cluster, name, None)
            await _until(lambda: self._is_enrolled(cluster, name, wanted=True), "join")

    async def _label(self, cluster: str, pod: str, mode: str | None) -> None:
        patch = {"metadata": {"labels": {"istio.io/dataplane-mode": mode}}}
        await self._mesh.clients[cluster].patch(kinds.POD, pod, patch, namespace=meshes.SAMPLE)

    async def _is_enrolled(self, cluster: str, name: str, *, wanted: bool) -> bool:
        pod = await self._mesh.clients[cluster].get(kinds.POD, name, namespace=meshes.SAMPLE)
        marks = pod["metadata"].get("annotations") or {}
        return (marks.get("ambient.istio.io/redirection") == "enabled") == wanted

    async def waypoint(self, cluster: str) -> None:
        """Put a waypoint before the service, and take it away."""
        reached = self._mesh.clients[cluster]
        async with self.step("waypoint-added", f"waypoint before {cluster}'s service", cluster):
            await reached.create(kinds.KUBERNETES_GATEWAY, _WAYPOINT)
            await _until(lambda: self._has_ready(cluster, WAYPOINT), "waypoint")
            await self._use(cluster, WAYPOINT)
        async with self.step("waypoint-removed", f"waypoint of {cluster} removed", cluster):
            await self._use(cluster, None)
            await asyncio.sleep(CALM_S)
            await reached.delete(kinds.KUBERNETES_GATEWAY, WAYPOINT, namespace=meshes.SAMPLE)

    async def _use(self, cluster: str, waypoint: str | None) -> None:
        patch = {"metadata": {"labels": {"istio.io/use-waypoint": waypoint}}}
        await self._mesh.clients[cluster].patch(
            kinds.SERVICE, observing.SERVER, patch, namespace=meshes.SAMPLE
        )

    async def _has_ready(self, cluster: str, gateway: str) -> bool:
        labels = f"gateway.networking.k8s.io/gateway-name={gateway}"
        found = await self._mesh.clients[cluster].list_(
            kinds.POD, namespace=meshes.SAMPLE, labels=labels
        )
        return any(map(meshes.is_ready, found))

    # --- waiting --------------------------------------------------------------------------------

    async def _restarts(self, cluster: str, place: str) -> int:
        pod = await self._pod(cluster, place)
        statuses = ((pod or {}).get("status") or {}).get("containerStatuses") or ()
        return sum(each["restartCount"] for each in statuses)

    async def _pod(self, cluster: str, place: str) -> dict[str, Any] | None:
        namespace, _, name = place.partition("/")
        return await self._mesh.clients[cluster].find(kinds.POD, name, namespace=namespace)

    async def _until_restarted(self, cluster: str, place: str, before: int) -> None:
        async def is_back() -> bool:
            pod = await self._pod(cluster, place)
            if pod is None or not meshes.is_ready(pod):
                return False
            return await self._restarts(cluster, place) > before

        await _until(is_back, place)

    async def _ready_of(self, cluster: str, place: str) -> list[str]:
        """Return the ready pods of the same owner's."""
        namespace, _, name = place.partition("/")
        owner = name.rpartition("-")[0]
        found = await self._mesh.clients[cluster].list_(kinds.POD, namespace=namespace)
        return [
            f"{namespace}/{each['metadata']['name']}"
            for each in found
            if each["metadata"]["name"].startswith(f"{owner}-") and meshes.is_ready(each)
        ]

    async def _until_ready_but(self, cluster: str, gone: list[str], count: int) -> None:
        async def is_back() -> bool:
            found = await self._ready_of(cluster, gone[0])
            return len(set(found) - set(gone)) >= count

        await _until(is_back, ", ".join(gone))

    async def _until(self, holds: Callable[[], bool], what: str) -> None:
        if not await observing.until(holds, PATIENCE_S):
            raise NotInTimeError(f"{what}: not within {PATIENCE_S:g} s")


_WAYPOINT: Final = {
    "apiVersion": "gateway.networking.k8s.io/v1",
    "kind": "Gateway",
    "metadata": {"name": WAYPOINT, "namespace": meshes.SAMPLE},
    "spec": {
        "gatewayClassName": "istio-waypoint",
        "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
    },
}


async def _is_rolled_out(
    reached: client.Client, kind: kinds.Kind, name: str, namespace: str
) -> bool:
    found = await reached.get(kind, name, namespace=namespace)
    status, wanted = found.get("status") or {}, found["metadata"]["generation"]
    if status.get("observedGeneration", 0) < wanted:
        return False
    if kind is kinds.DAEMON_SET:
        count = status["desiredNumberScheduled"]
        return status.get("updatedNumberScheduled") == status.get("numberReady") == count  # type: ignore[no-any-return]  # a document
    count = found["spec"]["replicas"]
    names = ("replicas", "updatedReplicas", "readyReplicas")
    return all(status.get(each) == count for each in names)


async def prepare(mesh: meshes.Mesh) -> None:
    """Make the sample such as real applications are: asked whether it is ready, and slow to end.

    The pod that is called gets a node of its own where there are several, so that proxies of one
    side can be killed alone.
    """
    async with asyncio.TaskGroup() as group:
        for cluster in mesh.clusters:
            group.create_task(_prepare(mesh, cluster))


async def _prepare(mesh: meshes.Mesh, cluster: str) -> None:
    reached = mesh.clients[cluster]
    name = await mesh.pod(cluster, meshes.SAMPLE, observing.CLIENT)
    node = (await reached.get(kinds.POD, name, namespace=meshes.SAMPLE))["spec"]["nodeName"]
    nodes = sorted(each["metadata"]["name"] for each in await reached.list_(kinds.NODE))
    others = [each for each in nodes if each != node]
    deployment = f"{observing.SERVER}-{VERSIONS[cluster]}"
    container = {
        "name": observing.SERVER,
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": int(observing.PORT)},
            "periodSeconds": 1,
        },
        "lifecycle": {"preStop": {"exec": {"command": ["sleep", "2"]}}},
    }
    spec: dict[str, Any] = {"containers": [container]}
    if others:
        spec["nodeSelector"] = {"kubernetes.io/hostname": others[0]}
    patch = {"spec": {"template": {"spec": spec}}}
    await reached.patch(
        kinds.DEPLOYMENT, deployment, patch, namespace=meshes.SAMPLE, patch="strategic"
    )

    async def is_alone() -> bool:
        pods = await reached.list_(
            kinds.POD, namespace=meshes.SAMPLE, labels=f"app={observing.SERVER}"
        )
        rolled_out = await _is_rolled_out(reached, kinds.DEPLOYMENT, deployment, meshes.SAMPLE)
        return rolled_out and len(pods) == 1

    await _until(is_alone, f"{cluster}: {deployment}")


async def _until(
    holds: Callable[[], Awaitable[bool]], what: str, *, every_s: float = _POLL_S
) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not await holds():
        if time.monotonic() > deadline:
            raise NotInTimeError(f"{what}: not within {PATIENCE_S:g} s")
        await asyncio.sleep(every_s)


async def _ended(pids: list[int]) -> tuple[float, float]:
    """Wait until processes have ended; return from when to when what they had open was closed."""

    async def are_gone() -> bool:
        return not any(map(_is_there, pids))

    await _until(are_gone, f"the end of processes {pids}", every_s=_GLANCE_S)
    return time.time() - _CLOSING_S, time.time()


async def _followed(pids: list[int], step: records.Step) -> None:
    """Write down when processes end that a request passes."""
    step.endings.append(await _ended(pids))


def _is_there(pid: int) -> bool:
    """Whether a process has something open: until its last thread has ended."""
    try:
        said = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
        threads = len(list(Path(f"/proc/{pid}/task").iterdir()))
    except OSError:
        return False
    return threads > 1 or said.rpartition(")")[2].split()[0] not in "ZX"  # known to be dead


async def rest_until(moment: float) -> None:
    """Wait for a moment of the monotonic clock."""
    await asyncio.sleep(max(0.0, moment - time.monotonic()))
