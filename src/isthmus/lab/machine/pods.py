"""One pod's life on its node: sandbox, volumes, init containers, containers, end.

Decides what happens when, as Kubernetes documents it; tells the API server by the pod's status.
Refuses to know how a container is started (`containers`), what is in volumes (`volumes`) and how
health is asked (`health`).
"""

import asyncio
import contextlib
import pathlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from isthmus.base import clock, errors, logs, tasks
from isthmus.lab import images
from isthmus.lab import topology as topologies
from isthmus.lab.apiserver import api as apis
from isthmus.lab.controllers import events
from isthmus.lab.machine import (
    containers,
    credentials,
    environment,
    etc,
    health,
    logbook,
    network,
    nodefiles,
    roots,
    spawning,
    status,
    volumes,
)

Obj = dict[str, Any]

_LOG = logs.Log("isthmus.lab.pods")
_LONGEST_DELAY_S = 30.0
_STEADY_S = 60.0
_RETRY_S = 1.0
_NETWORK_LASTS_S = 0.3
"""A pod's network goes later than its processes, whose ends others still have to be told of."""
_LONGEST_MESSAGE = 2048


@dataclass(frozen=True, slots=True)
class Machine:
    """What pods share.

    Attributes:
        folder: Where pods' volumes are; kept in memory.
        many_users: Whether containers may run as users of their own.
        files: Each node's own files, by its name.
    """

    api: apis.Api
    cluster: topologies.Cluster
    wires: network.ClusterNetwork
    spawner: spawning.Spawning
    lookup: environment.Lookup
    recorder: events.Recorder
    clock: clock.Clock
    folder: pathlib.Path
    many_users: bool
    files: Mapping[str, nodefiles.NodeFiles]


class PodWorker:
    """Runs one pod from when its node gets it until it is gone."""

    def __init__(self, pod: Obj, machine: Machine) -> None:
        self.pod = pod
        self.containers: dict[str, containers.Container] = {}
        self.previous: dict[str, logbook.Logbook] = {}
        self._machine = machine
        self._began = machine.clock.now()
        self._states = {state.name: state for state in status.states_of(pod)}
        self._begun = {name: asyncio.Event() for name in self._states}
        self._wires: network.PodNetwork | None = None
        self._folder = machine.folder / pod["metadata"]["uid"]
        self._tokens = credentials.Tokens(pod, machine.api, machine.clock)
        self._changed = asyncio.Event()
        self._touched = asyncio.Event()
        self._ending = asyncio.Event()
        self._removed = False
        self._final = False

    # What others tell.

    def update(self, pod: Obj) -> None:
        """Take the pod as it is now."""
        before, self.pod = self.pod, pod
        # Its own status comes back this way too, and changes nothing of what it needs.
        if _needs(before) != _needs(pod):
            self.touch()
        if "deletionTimestamp" in pod["metadata"]:
            self._ending.set()

    def remove(self) -> None:
        """End at once: the pod is gone from the API server."""
        self._removed = True
        self._ending.set()

    def touch(self) -> None:
        """Look again at what the pod refers to: something changed."""
        self._touched.set()

    @property
    def network(self) -> network.PodNetwork | None:
        """The pod's namespaces, once it has them."""
        return self._wires

    # Its life.

    async def run(self) -> None:
        """Run the pod until it has been deleted."""
        async with tasks.Nursery() as nursery:
            _ = nursery.keep(f"status of {self._name}", self._publish)
            life = nursery.keep(f"pod {self._name}", self._live)
            await self._ending.wait()
            life.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await life
            await self._end()
        if not self._removed:
            await self._confirm()
            await self._machine.clock.sleep(_NETWORK_LASTS_S)
        self._clean()

    @property
    def _name(self) -> str:
        return f"{self.pod['metadata']['namespace']}/{self.pod['metadata']['name']}"

    async def _live(self) -> None:
        if self._wires is None:
            self._attach()
        await self._fill()
        async with tasks.Nursery() as nursery:
            _ = nursery.keep(f"volumes of {self._name}", self._renew, first_delay_s=_RETRY_S)
            if await self._initialize(nursery):
                await self._run_main(nursery)
                await self._stop_helpers()
            self._final = True
            self._changed.set()
            await asyncio.Event().wait()

    def _attach(self) -> None:
        spec, metadata = self.pod["spec"], self.pod["metadata"]
        if spec.get("hostNetwork"):
            self._wires = self._machine.wires.share(spec["nodeName"])
        else:
            hostname = (spec.get("hostname") or metadata["name"])[:63]
            self._wires = self._machine.wires.attach(spec["nodeName"], hostname)
            self._files.show(metadata["uid"], self._wires.network)
        self._changed.set()

    async def _initialize(self, nursery: tasks.Nursery) -> bool:
        for spec in self.pod["spec"].get("initContainers") or ():
            state = self._states[spec["name"]]
            state.waiting = (status.INITIALIZING, "")
            work = nursery.start(f"container {spec['name']}", self._supervise(spec["name"]))
            if state.helper:
                await self._begun[spec["name"]].wait()
                continue
            await asyncio.wait([work])
            if state.ended is None or state.ended.code != 0:
                return False
        return True

    async def _run_main(self, nursery: tasks.Nursery) -> None:
        running = []
        for spec in self.pod["spec"]["containers"]:
            name = spec["name"]
            running.append(nursery.start(f"container {name}", self._supervise(name)))
            await self._begun[name].wait()
        await asyncio.wait(running)

    async def _supervise(self, name: str) -> None:
        state = self._states[name]
        delay_s = 0.0
        while True:
            ended = await self._run_once(name)
            state.running_since, state.ready, state.started = None, False, False
            state.ended = ended
            self._changed.set()
            if not self._again(state, ended):
                self._begun[name].set()
                return
            if (ended.ended - ended.began).total_seconds() > _STEADY_S:
                delay_s = 0.0
            if delay_s:
                state.waiting = ("CrashLoopBackOff", f"back-off {delay_s:g}s restarting {name}")
                state.last, state.ended = ended, None
                await self._event(
                    "Warning", "BackOff", f"Back-off restarting failed container {name}"
                )
                self._changed.set()
                await self._machine.clock.sleep(delay_s)
            delay_s = min(max(1.0, delay_s * 2), _LONGEST_DELAY_S)
            state.last, state.ended = ended, None
            state.restarts += 1

    def _again(self, state: status.ContainerState, ended: status.Ended) -> bool:
        policy = "Always" if state.helper else self.pod["spec"].get("restartPolicy") or "Always"
        if state.initial and not state.helper and policy == "Always":
            policy = "OnFailure"
        return policy == "Always" or (policy == "OnFailure" and ended.code != 0)

    async def _run_once(self, name: str) -> status.Ended:
        clock_, state = self._machine.clock, self._states[name]
        plan = await self._planned(name)
        container = containers.Container(plan, self._machine.spawner, clock_)
        if name in self.containers:
            self.previous[name] = self.containers[name].log
        self.containers[name] = container
        began = clock_.now()
        failure = await container.start()
        if failure:
            await container.wait()
            await self._event("Warning", "Failed", f"Error: {failure}")
            return status.Ended(128, "StartError", failure, began, clock_.now())
        state.running_since, state.waiting = began, ("", "")
        self._changed.set()
        async with tasks.Nursery() as nursery:
            _ = nursery.start(f"health of {name}", self._look_after(name, container, nursery))
            code = await container.wait()
        return self._ended(container, code, began)

    def _ended(
        self, container: containers.Container, code: int, began: clock.Instant
    ) -> status.Ended:
        reason = "Completed" if code == 0 else "Error"
        message = container.log.tail(_LONGEST_MESSAGE) if code else ""
        return status.Ended(code, reason, message, began, self._machine.clock.now())

    async def _look_after(
        self, name: str, container: containers.Container, nursery: tasks.Nursery
    ) -> None:
        assert self._wires is not None
        spec, state = self._spec(name), self._states[name]
        await self._event("Normal", "Started", f"Started container {name}")
        node = self._machine.wires.nodes[self.pod["spec"]["nodeName"]]
        care = health.Care(
            spec=spec,
            container=container,
            target=health.target(spec, container, node.network, self._wires.ip),
            grace_s=self._grace_s(),
            clock=self._machine.clock,
            event=self._event,
        )
        await care.after_start()
        await care.until_started()
        state.started = True
        if "readinessProbe" not in spec:
            state.ready = True
        self._begun[name].set()
        self._changed.set()

        async def judged(good: bool) -> None:
            state.ready = good
            self._changed.set()

        if "readinessProbe" in spec:
            _ = nursery.start(f"readiness of {name}", care.readiness(judged))
        if "livenessProbe" in spec:
            _ = nursery.start(f"liveness of {name}", care.liveness())

    # What a container needs before it can start.

    def _spec(self, name: str) -> Obj:
        spec = self.pod["spec"]
        everyone: list[Obj] = [*(spec.get("initContainers") or ()), *spec["containers"]]
        return next(each for each in everyone if each["name"] == name)

    async def _planned(self, name: str) -> containers.Plan:
        state = self._states[name]
        while True:
            self._touched.clear()
            spec = self._spec(name)
            try:
                return await self._plan(spec)
            except images.UnknownImageError as error:
                await self._no_image(state, spec, error)
            except environment.MissingError as error:
                state.waiting = ("CreateContainerConfigError", error.happened)
                await self._event("Warning", "Failed", f"Error: {error.happened}")
            except errors.IsthmusError as error:
                state.waiting = ("CreateContainerError", error.happened)
                await self._event("Warning", "Failed", f"Error: {error.happened}")
            self._changed.set()
            await self._wait_for_touch(_LONGEST_DELAY_S)

    async def _no_image(
        self, state: status.ContainerState, spec: Obj, error: images.UnknownImageError
    ) -> None:
        again = state.waiting[0] in ("ErrImagePull", "ImagePullBackOff")
        message = f"{error.happened}; {error.hint}"
        state.waiting = ("ImagePullBackOff" if again else "ErrImagePull", message)
        await self._event("Warning", "Failed", f'Failed to pull image "{spec["image"]}": {message}')

    async def _plan(self, spec: Obj) -> containers.Plan:
        assert self._wires is not None
        image = images.find(spec["image"])
        place = self._place()
        env = environment.of_container(
            spec, pod=self.pod, image=image.env, lookup=self._machine.lookup, place=place
        )
        root = roots.Root(
            place=str(self._machine.folder),
            files=etc.files(
                self.pod,
                ip=self._wires.ip,
                dns=self._machine.cluster.dns_service,
            ),
            binds=volumes.binds(spec, self._folder, env),
            read_only=bool((spec.get("securityContext") or {}).get("readOnlyRootFilesystem")),
        )
        pulled = f'Container image "{spec["image"]}" already present on machine'
        await self._event("Normal", "Pulled", pulled)
        await self._event("Normal", "Created", f"Created container: {spec['name']}")
        return containers.plan(
            spec,
            pod=self.pod,
            env=env,
            root=root,
            pod_namespaces=self._wires.namespaces(),
            many_users=self._machine.many_users,
        )

    @property
    def _files(self) -> nodefiles.NodeFiles:
        return self._machine.files[self.pod["spec"]["nodeName"]]

    def _place(self) -> environment.Place:
        node = self._machine.wires.nodes[self.pod["spec"]["nodeName"]].node
        return environment.Place(
            pod_ip=self._wires.ip if self._wires else "",
            host_ip=node.address,
            service_host=self._machine.cluster.api_service,
            service_port=443,
        )

    # Volumes.

    async def _fill(self) -> None:
        while True:
            self._touched.clear()
            try:
                await self._fill_once()
            except (errors.IsthmusError, apis.ApiError) as error:
                await self._event("Warning", "FailedMount", f"MountVolume.SetUp failed: {error}")
                await self._wait_for_touch(_RETRY_S)
            else:
                return

    async def _fill_once(self) -> None:
        source = volumes.Source(
            self.pod, self._machine.lookup, self._place(), self._tokens.issue, self._files.volume
        )
        await volumes.fill(self._folder, source)

    async def _renew(self) -> None:
        """Write volumes anew when what they show has changed or a token gets old."""
        lives = [life * credentials.RENEW_AT for life in volumes.token_lives(self.pod)]
        while True:
            await self._wait_for_touch(min(lives, default=3600.0))
            self._touched.clear()
            with contextlib.suppress(environment.MissingError):
                await self._fill_once()

    async def _wait_for_touch(self, longest_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(longest_s):
                await self._touched.wait()

    # Its end.

    async def _stop_helpers(self) -> None:
        names = [state.name for state in self._states.values() if state.helper]
        for name in reversed(names):
            if name in self.containers:
                await self.containers[name].stop(self._grace_s())

    def _grace_s(self) -> float:
        metadata, spec = self.pod["metadata"], self.pod["spec"]
        grace = metadata.get("deletionGracePeriodSeconds")
        if grace is None:
            grace = spec.get("terminationGracePeriodSeconds")
        return 0.0 if self._removed else float(30 if grace is None else grace)

    async def _end(self) -> None:
        deadline = self._machine.clock.monotonic() + self._grace_s()
        main = [state for state in self._states.values() if not state.helper]
        helpers = [state for state in self._states.values() if state.helper]
        async with asyncio.TaskGroup() as group:
            for state in main:
                group.create_task(self._end_one(state, deadline))
        for state in reversed(helpers):
            await self._end_one(state, deadline)
        self._final = True
        self._changed.set()

    async def _end_one(self, state: status.ContainerState, deadline: float) -> None:
        container = self.containers.get(state.name)
        if container is None or not container.is_running:
            return
        monotonic = self._machine.clock.monotonic
        await self._event("Normal", "Killing", f"Stopping container {state.name}")
        if deadline > monotonic():
            await self._before_stop(state.name, container, deadline - monotonic())
        await container.stop(max(0.0, deadline - monotonic()))
        began = state.running_since or self._began
        state.ended = self._ended(container, await container.wait(), began)
        state.running_since, state.ready = None, False

    async def _before_stop(
        self, name: str, container: containers.Container, limit_s: float
    ) -> None:
        assert self._wires is not None
        node = self._machine.wires.nodes[self.pod["spec"]["nodeName"]]
        spec = self._spec(name)
        target = health.target(spec, container, node.network, self._wires.ip)
        hook = (spec.get("lifecycle") or {}).get("preStop")
        if hook:
            await health.act(hook, target, limit_s=limit_s, clock_=self._machine.clock)

    async def _confirm(self) -> None:
        metadata = self.pod["metadata"]
        with contextlib.suppress(apis.ApiError):
            await self._patch()
        with contextlib.suppress(apis.ApiError):
            await self._machine.api.delete(
                "pods", metadata["name"], metadata["namespace"], grace_s=0
            )

    def _clean(self) -> None:
        if self._wires is not None:
            self._files.hide(self.pod["metadata"]["uid"])
            self._machine.wires.release(self.pod["spec"]["nodeName"], self._wires)
            self._wires = None
        shutil.rmtree(self._folder, ignore_errors=True)

    # What it tells.

    async def _publish(self) -> None:
        while True:
            try:
                await self._patch()
            except apis.ApiError as error:
                if error.code == 404:
                    return
                _LOG.debug("status not written", pod=self._name, error=error.message)
                await self._machine.clock.sleep(_RETRY_S)
                continue
            await self._changed.wait()
            self._changed.clear()

    async def _patch(self) -> None:
        pod = self.pod
        node = self._machine.wires.nodes[pod["spec"]["nodeName"]].node
        sandbox = status.Sandbox(self._wires.ip if self._wires else "", node.address, self._began)
        wanted = status.of_pod(
            pod,
            list(self._states.values()),
            sandbox=sandbox,
            final=self._final,
            now=self._machine.clock.now(),
        )
        current = pod.get("status") or {}
        if all(current.get(key) == value for key, value in wanted.items()):
            return
        metadata = pod["metadata"]
        changed = await self._machine.api.patch(
            "pods",
            metadata["name"],
            {"metadata": {"uid": metadata["uid"]}, "status": wanted},
            namespace=metadata["namespace"],
            subresource="status",
        )
        if self.pod is pod:
            self.pod = changed

    async def _event(self, kind: str, reason: str, message: str) -> None:
        await self._machine.recorder.record(self.pod, kind=kind, reason=reason, message=message)


def _needs(pod: Obj) -> tuple[object, ...]:
    metadata = pod["metadata"]
    return pod["spec"], metadata.get("labels"), metadata.get("annotations")
