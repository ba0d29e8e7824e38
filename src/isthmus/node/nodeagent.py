"""Puts the agent of a node together: its Envoy, what that asks for, and who tells of pods.

Source: spec section 7.2.
"""

import asyncio
import contextlib
import json
import os
import pathlib
import signal
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from isthmus.base import clock, logs, metrics, tasks
from isthmus.node import (
    answering,
    certificates,
    enrolment,
    envoy,
    hosts,
    joining,
    listening,
    nodebootstrap,
    nodesettings,
    pages,
    relay,
    resolvers,
    settings,
    zds,
)
from isthmus.wire import dialing

BOOTSTRAP = "envoy-bootstrap.json"
DRAIN = "/drain_listeners?skip_exit"
"""Closes listeners at once: whoever takes over listens already, and open connections stay."""
LIVE = '"state": "LIVE"'
OK, UNREADY, NOT_FOUND = 200, 503, 404
ANY_ADDRESS = "0.0.0.0"  # noqa: S104, RUF100  # kubelet and Prometheus ask

_LOG = logs.Log("isthmus.nodeagent")


async def run(wanted: nodesettings.NodeSettings) -> None:
    """Run the proxy of a node and look after it until this program is told to end.

    Raises:
        EnvoyMissing: No Envoy is installed here (ISM-NODE-004).
        EnvoyTooOld: It is older than the floor (ISM-NODE-005).
    """
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    system_clock = clock.SystemClock()
    habits = _habits(wanted)
    command = (str(envoy.found()), *envoy.arguments(habits, bootstrap=_written(wanted)))
    proxy = envoy.Envoy(command, habits=habits, system_clock=system_clock)
    await proxy.start()
    try:
        async with tasks.Nursery() as nursery:
            _ = nursery.start("proxy", proxy.watch())
            async with _looked_after(wanted, proxy=proxy, nursery=nursery) as pods:
                await told.wait()
                # Whoever comes after us takes what is new. Without one, pods wait for us to go.
                is_followed = pods.is_shared(wanted.concurrency)
                _LOG.info("agent is told to end", another_listens=is_followed)
                await (proxy.leave() if is_followed else proxy.stop())
    finally:
        await proxy.stop()


def _habits(wanted: nodesettings.NodeSettings) -> envoy.Habits:
    admin = pages.Question("", 0, "/", deadline_s=envoy.ADMIN_S, socket=wanted.admin_socket)
    return envoy.Habits(
        admin,
        settings.Draining(wait_s=0.0, until_idle=True, spread_s=joining.LISTENERS_LAST_S),
        concurrency=wanted.concurrency,
        drain=DRAIN,
        longest_s=wanted.grace_s,
    )


def _written(wanted: nodesettings.NodeSettings) -> pathlib.Path:
    # A container that starts again finds the sockets of its former life.
    former = map(pathlib.Path, (wanted.discovery_socket, wanted.admin_socket))
    for stale in (*former, *wanted.folder.glob("istiod-*")):
        stale.unlink(missing_ok=True)
    document = nodebootstrap.document(
        wanted.node.name, socket=wanted.discovery_socket, admin_socket=wanted.admin_socket
    )
    path = wanted.folder / BOOTSTRAP
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


@contextlib.asynccontextmanager
async def _looked_after(
    wanted: nodesettings.NodeSettings, *, proxy: envoy.Envoy, nursery: tasks.Nursery
) -> AsyncIterator[joining.Joining]:
    """Serve what the proxy asks for, and follow who tells of pods, while this is entered."""
    system_clock = clock.SystemClock()
    counted = metrics.Metrics()
    targets = Targets(wanted)
    servers = [await relay.serve(pathlib.Path(path), to=to) for to, path in targets.relays.items()]
    agent = enrolment.Enrolment(_enrolled(wanted), targets=targets, system_clock=system_clock)
    answered = _Answered(wanted.names, agent.hosts, answering.Counters(counted), nursery)
    pods = joining.Joining(
        agent,
        cluster=wanted.node.cluster,
        folder=wanted.folder / "pods",
        own=joining.Own(answered.served, lambda: _listeners(wanted)),
        nursery=nursery,
        system_clock=system_clock,
    )
    _ = nursery.keep("enrolment", agent.run)
    _ = nursery.keep(
        "pods of the node",
        lambda: zds.follow(wanted.pod_agent, pods=pods, system_clock=system_clock),
    )
    shown = _Shown(wanted, proxy, agent, pods, counted)
    servers += [
        await pages.serve(shown.answer, host=ANY_ADDRESS, port=port)
        for port in (wanted.ports.ready, wanted.ports.stats)
    ]
    _LOG.info("agent serves", ready_port=wanted.ports.ready, stats_port=wanted.ports.stats)
    try:
        yield pods
    finally:
        await pods.close()
        for server in servers:
            server.close()


async def _listeners(wanted: nodesettings.NodeSettings) -> frozenset[str]:
    """Return the names of the listeners at which the proxy takes connections."""
    try:
        answer = await pages.ask(pages.Question("", 0, "/listeners", socket=wanted.admin_socket))
    except pages.NoAnswer:
        return frozenset()
    lines = answer.body.decode(errors="replace").splitlines()
    return frozenset(line.partition("::")[0] for line in lines)


def _enrolled(wanted: nodesettings.NodeSettings) -> enrolment.Wanted:
    names = wanted.names
    domain = {"domain": names.domain} if names is not None else {}
    return enrolment.Wanted(
        wanted.node, wanted.claim, wanted.discovery_socket, wanted.renewing, **domain
    )


class Targets:
    """Where the control plane is, with the token and the roots of this moment."""

    def __init__(self, wanted: nodesettings.NodeSettings) -> None:
        self._wanted = wanted
        self.relays = {
            address: f"{wanted.folder}/istiod-{number}"
            for number, address in enumerate(dict.fromkeys((wanted.discovery, wanted.authority)))
        }

    def discovery(self) -> dialing.Target:
        """Return where workloads, services and policies are told.

        Raises:
            SettingRefused: Token or roots cannot be read (ISM-NODE-002).
        """
        return self._target(self._wanted.discovery)

    def authority(self) -> dialing.Target:
        """Return where certificates come from.

        Raises:
            SettingRefused: Token or roots cannot be read (ISM-NODE-002).
        """
        return self._target(self._wanted.authority)

    def _target(self, to: settings.Address) -> dialing.Target:
        return certificates.target(
            f"unix:{self.relays[to]}",
            server_name=self._wanted.server_name,
            files=(self._wanted.roots_file, self._wanted.token_file),
            cluster=str(self._wanted.node.cluster),
        )


@dataclass(frozen=True, slots=True)
class _Answered:
    """Answers pods' questions for names, if that is wanted."""

    wanted: nodesettings.Names | None
    hosts: hosts.Hosts
    counters: answering.Counters
    nursery: tasks.Nursery

    @contextlib.asynccontextmanager
    async def served(self, pod: zds.Added) -> AsyncIterator[Sequence[int]]:
        """Answer one pod's; what another can go on with is yielded."""
        if self.wanted is None:
            for each in pod.left:
                os.close(each)
            yield ()
            return
        known = hosts.names_of(self.hosts, namespace=pod.namespace)
        answers = answering.Answering(
            known.forms, resolvers.Servers(self.wanted.servers), self.counters, table=known
        )
        at = settings.Address(settings.LOOPBACK, self.wanted.port)
        sockets = listening.taken_over(pod.left) or listening.beside(at, network=pod.network)
        async with listening.serving(answers, sockets=sockets, nursery=self.nursery):
            yield sockets.descriptors


@dataclass(frozen=True, slots=True)
class _Shown:
    """What those see who look after the proxy."""

    wanted: nodesettings.NodeSettings
    proxy: envoy.Envoy
    agent: enrolment.Enrolment
    pods: joining.Joining
    counted: metrics.Metrics

    async def answer(self, request: pages.Request) -> pages.Answer:
        """Answer one request."""
        match request.path:
            case "/healthz/ready":
                reason = await self._unready()
                return pages.Answer(UNREADY if reason else OK, f"{reason or 'ready'}\n".encode())
            case "/stats/prometheus" | "/metrics":
                return await self._statistics()
            case _:
                return pages.Answer(NOT_FOUND, b"not found\n")

    async def _unready(self) -> str:
        """Say why it should not be relied on, or nothing."""
        if self.proxy.is_leaving:
            return "proxy is draining"
        if not self.agent.is_told:
            return "the control plane has not told everything yet"
        if not self.pods.is_complete:
            return f"nobody has told of the node's pods yet at {self.wanted.pod_agent}"
        try:
            found = await self._admin("/server_info")
        except pages.NoAnswer as error:
            return f"proxy does not answer: {error.detail}"
        return "" if LIVE in found.body.decode(errors="replace") else "proxy is not live yet"

    async def _statistics(self) -> pages.Answer:
        parts = [self.counted.text().encode()]
        with contextlib.suppress(pages.NoAnswer):
            parts.append((await self._admin("/stats/prometheus")).body)
        return pages.Answer(OK, b"".join(parts), "text/plain; version=0.0.4; charset=utf-8")

    async def _admin(self, path: str) -> pages.Answer:
        return await pages.ask(pages.Question("", 0, path, socket=self.wanted.admin_socket))
