"""Puts the agent together: follows the pods of its node, and answers whoever looks after it.

Decides which pods are looked at when. What is done with one is in `members`, and whether it takes
part in `membership`. What an agent has done stays when it ends: pods go on as they are until the
next one takes over, which finds out what there is.
"""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping

from isthmus.base import clock, logs, metrics, tasks
from isthmus.capture import enrolled
from isthmus.kube import access, client, informer, kinds, objects, problems
from isthmus.node import pages
from isthmus.node.cni import announcing, members, membership, networks, probing, settings

_LOG = logs.Log("isthmus.cni")
_OK, _NOT_FOUND, _UNREADY, _CONFLICT = 200, 404, 503, 409


async def run(wanted: settings.Settings) -> None:
    """Look after the pods of this node until this program is told to end.

    Raises:
        NotInCluster: No service account is mounted here (ISM-KUBE-010).
    """
    told = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    async with client.Client(access.in_cluster()) as server:
        agent = Agent(wanted, server)
        async with agent.running():
            await told.wait()


class Agent:
    """Looks after the pods of one node. Lives in one event loop."""

    def __init__(
        self,
        wanted: settings.Settings,
        server: client.Client,
        *,
        linger_s: float = members.LINGER_S,
    ) -> None:
        """Prepare to look after the pods of a node.

        Args:
            wanted: Which, and how.
            server: The API server.
            linger_s: How long a pod that leaves is served on.
        """
        self._wanted = wanted
        self._server = server
        self._clock = clock.SystemClock()
        self._members: dict[informer.Key, members.Member] = {}
        self._tasks: dict[informer.Key, asyncio.Task[None]] = {}
        self._is_ready = False
        self._nursery = tasks.Nursery()
        self._proxies = announcing.Proxies(on_answer=self._on_answer)
        self._world = members.World(
            proxies=self._proxies,
            networks=networks.Networks(wanted.networks, wanted.processes),
            probed=probing.Probed(),
            annotate=self._annotate,
            captures_dns=wanted.captures_dns,
            probed_from=(f"{enrolled.PROBED_FROM}/32",),
            clock=self._clock,
            linger_s=linger_s,
        )
        self._namespaces: informer.Informer[objects.Namespace] = informer.Informer(
            server,
            kinds.NAMESPACE,
            objects.Namespace,
            on_batch=self._on_namespaces,
            system_clock=self._clock,
        )
        self._pods: informer.Informer[objects.Pod] = informer.Informer(
            server,
            kinds.POD,
            objects.Pod,
            on_batch=self._on_pods,
            fields=f"spec.nodeName={wanted.node}",
            system_clock=self._clock,
        )
        self._registered = metrics.Metrics()
        self._gauges(self._registered)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Do it; the block begins as soon as all pods of the node are looked after."""
        async with self._nursery:
            shown = [
                await pages.serve(self._answer, host="0.0.0.0", port=port)  # noqa: S104, RUF100
                for port in (self._wanted.health_port, self._wanted.metrics_port)
            ]
            try:
                for one in (self._namespaces, self._pods):
                    _ = self._nursery.keep(f"follow {one.kind.plural}", one.run)
                await self._namespaces.synced.wait()
                await self._pods.synced.wait()
                with self._began():
                    yield
            finally:
                self._world.probed.close()
                for each in shown:
                    each.close()

    @contextlib.contextmanager
    def _began(self) -> Iterator[None]:
        known = self._pods.items.values()
        for pod in known:
            self._take(pod, begins=False)
        self._let_probe(known)
        for member in self._members.values():
            member.begin()
        with self._proxies.listening(self._wanted.socket):
            for key in tuple(self._members):
                self._look_after(key)
            self._is_ready = True
            _LOG.info("agent looks after its node", node=self._wanted.node, pods=len(known))
            try:
                yield
            finally:
                self._is_ready = False

    # What the API server tells.

    def _on_namespaces(self, changes: Mapping[informer.Key, objects.Namespace | None]) -> None:
        if self._is_ready:
            names = {name for _, name in changes}
            found = [pod for key, pod in self._pods.items.items() if key[0] in names]
            for pod in found:
                self._take(pod, begins=False)
            self._let_probe(found)

    def _on_pods(self, changes: Mapping[informer.Key, objects.Pod | None]) -> None:
        if not self._is_ready:
            return
        for key, pod in changes.items():
            known = self._members.get(key)
            if known is not None and (pod is None or pod.metadata.uid != known.pod.metadata.uid):
                self._dismiss(key)
            if pod is not None:
                self._take(pod, begins=True)
        self._let_probe(pod for pod in changes.values() if pod is not None)

    def _take(self, pod: objects.Pod, *, begins: bool) -> None:
        key = (pod.metadata.namespace, pod.metadata.name)
        verdict = self._verdict(pod)
        member = self._members.get(key)
        is_new = member is None
        if member is None:
            member = self._members[key] = members.Member(pod, self._world, begins=begins)
        if is_new or member.takes_part != verdict.takes_part:
            name = "/".join(key)
            _LOG.info("decided", pod=name, takes_part=verdict.takes_part, why=verdict.why)
        member.become(pod, takes_part=verdict.takes_part)
        if is_new and self._is_ready:
            self._look_after(key)

    def _let_probe(self, pods: Iterable[objects.Pod]) -> None:
        """Have all these asked by the node in one step; each sees to itself if that fails."""
        taking = (pod for pod in pods if self._verdict(pod).takes_part)
        with contextlib.suppress(OSError):
            self._world.probed.include({pod.status.pod_ip for pod in taking} - {""})

    def _verdict(self, pod: objects.Pod) -> membership.Verdict:
        namespace = self._namespaces.items.get(("", pod.metadata.namespace))
        labels = (namespace.metadata.labels or {}) if namespace is not None else None
        return membership.verdict_of(pod, namespace=labels, excluded=self._wanted.excluded)

    def _look_after(self, key: informer.Key) -> None:
        member = self._members[key]
        self._tasks[key] = self._nursery.keep(f"pod {'/'.join(key)}", member.run)

    def _dismiss(self, key: informer.Key) -> None:
        self._tasks.pop(key).cancel()
        self._members.pop(key).vanish()

    def _on_answer(self, uid: str) -> None:
        for member in self._members.values():
            if member.pod.metadata.uid == uid:
                member.touch()

    # What it tells.

    async def _annotate(self, pod: objects.Pod, word: str | None) -> None:
        metadata = pod.metadata
        # With its UID, so that no pod of the same name is meant; by its status, for which less
        # power is needed than for the pod itself.
        body = {
            "metadata": {"uid": metadata.uid, "annotations": {membership.REDIRECTION: word}},
        }
        try:
            await self._server.patch(
                kinds.POD, metadata.name, body, namespace=metadata.namespace, subresource="status"
            )
        except problems.ApiError as error:
            if not error.is_missing and error.status != _CONFLICT:
                raise

    async def _answer(self, request: pages.Request) -> pages.Answer:
        match request.path:
            case "/readyz":
                return pages.Answer(_OK if self._is_ready else _UNREADY, b"")
            case "/healthz":
                return pages.Answer(_OK, b"")
            case "/metrics":
                return pages.Answer(_OK, self._registered.text().encode())
            case _:
                return pages.Answer(_NOT_FOUND, b"not found\n")

    def _gauges(self, registered: metrics.Metrics) -> None:
        connected = registered.gauge("ztunnel_connected", "Proxies of the node that are connected.")
        pods = registered.gauge(
            "isthmus_cni_pods", "Pods of the node, by what became of them.", "state"
        )

        def refresh() -> None:
            connected.set(self._proxies.count)
            found = list(self._members.values())
            wanted = [each for each in found if each.takes_part]
            pods.set(len(found) - len(wanted), "outside")
            pods.set(sum(each.is_served for each in wanted), "served")
            pods.set(sum(not each.is_served for each in wanted), "waiting")
            pods.set(sum(bool(each.trouble) for each in found), "failing")

        registered.before_each(refresh)
