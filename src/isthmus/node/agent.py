"""Puts the agent together: Envoy first, because it takes longest, then everything it asks for.

What signs and serves is imported only after Envoy was started: on a small machine that saves a
tenth of a second of every pod's start.
"""

import asyncio
import contextlib
import functools
import json
import pathlib
import signal
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from isthmus.base import clock, imports, logs, metrics, tasks
from isthmus.node import (
    bootstrap,
    envoy,
    marking,
    pages,
    probes,
    relay,
    settings,
    status,
)

if TYPE_CHECKING:
    from isthmus.node import certificates
    from isthmus.wire import sds

BOOTSTRAP = "envoy-bootstrap.json"
REFRESH_S = 5.0
"""So often files that proxies asked for are read again."""

_LOG = logs.Log("isthmus.agent")


async def run(wanted: settings.Settings) -> None:
    """Run a proxy and look after it until this program is told to end.

    Raises:
        EnvoyMissing: No Envoy is installed here (ISM-NODE-004).
        EnvoyTooOld: It is older than the floor (ISM-NODE-005).
    """
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    system_clock = clock.SystemClock()
    habits = envoy.habits(wanted)
    proxy = envoy.Envoy(
        (str(envoy.found()), *envoy.arguments(habits, bootstrap=_written(wanted))),
        habits=habits,
        system_clock=system_clock,
    )
    await proxy.start()
    try:
        async with tasks.Nursery() as nursery:
            _ = nursery.start("proxy", proxy.watch())
            await look_after(
                wanted, proxy=proxy, nursery=nursery, told=told, system_clock=system_clock
            )
    finally:
        await proxy.stop()


def _written(wanted: settings.Settings) -> pathlib.Path:
    # A container that starts again finds the sockets of its former life.
    for stale in (*wanted.folder.glob("istiod-*"), wanted.folder / "XDS", wanted.folder / "SDS"):
        stale.unlink(missing_ok=True)
    path = wanted.folder / BOOTSTRAP
    may_mark = marking.is_permitted()
    path.write_text(json.dumps(bootstrap.document(wanted, may_mark=may_mark)), encoding="utf-8")
    _LOG.info(
        "bootstrap written", path=str(path), node=str(wanted.node.get("id")), may_mark=may_mark
    )
    return path


async def look_after(
    wanted: settings.Settings,
    *,
    proxy: envoy.Envoy,
    nursery: tasks.Nursery,
    told: asyncio.Event,
    system_clock: clock.Clock,
) -> None:
    """Serve what the proxy asks for until `told` to end; then let it leave."""
    # Late on purpose, see above.
    with imports.at_start():
        from isthmus.node import certificates
        from isthmus.wire import local, sds, sdsfiles

    relays = {
        address: f"{wanted.folder}/istiod-{number}"
        for number, address in enumerate(dict.fromkeys((wanted.discovery, wanted.authority)))
    }
    servers = [await relay.serve(pathlib.Path(path), to=to) for to, path in relays.items()]
    targets = certificates.Targets(
        wanted,
        discovery=f"unix:{relays[wanted.discovery]}",
        authority=f"unix:{relays[wanted.authority]}",
    )
    shelf = sds.Shelf(sdsfiles.read)
    keeper = certificates.Keeper(
        shelf, target=targets, renewing=wanted.renewing, system_clock=system_clock
    )
    registered = metrics.Metrics()
    shown = _status(wanted, proxy=proxy, keeper=keeper, told=told, registered=registered)
    try:
        async with (
            # Names first: the control plane's own is asked for here, too.
            _names_answered(wanted.dns, registered=registered, nursery=nursery) as take,
            local.serving(
                shelf,
                target=targets.discovery,
                secrets_socket=wanted.secrets_socket,
                discovery_socket=wanted.discovery_socket,
                names=take,
            ),
        ):
            _ = nursery.keep("certificate", keeper.keep)
            _ = nursery.keep(
                "files of certificates", functools.partial(_refresh, shelf, system_clock)
            )
            servers.append(
                await pages.serve(shown.answer, host="0.0.0.0", port=wanted.ports.status)  # noqa: S104, RUF100
            )
            _LOG.info("agent serves", status_port=wanted.ports.status)
            await told.wait()
            _LOG.info("agent is told to end")
            # Served while connections drain: they may still need configuration and certificates.
            await proxy.leave()
    finally:
        for server in servers:
            server.close()


async def _refresh(shelf: "sds.Shelf", system_clock: clock.Clock) -> None:
    while True:
        await system_clock.sleep(REFRESH_S)
        shelf.refresh()


@contextlib.asynccontextmanager
async def _names_answered(
    wanted: settings.Dns | None, *, registered: metrics.Metrics, nursery: tasks.Nursery
) -> AsyncIterator[Callable[[bytes], str] | None]:
    """Answer the pod's questions for names, if that is wanted; yield what takes the table."""
    if wanted is None:
        yield None
        return
    from isthmus.node import answering, listening, names, resolvers

    answers = answering.Answering(
        names.forms_of(
            namespace=wanted.namespace, domain=wanted.domain, search=wanted.resolvers.search
        ),
        resolvers.Servers(wanted.resolvers.servers),
        answering.Counters(registered),
    )
    async with listening.serving(answers, sockets=listening.alone(wanted.address), nursery=nursery):
        yield answers.take


def _status(
    wanted: settings.Settings,
    *,
    proxy: envoy.Envoy,
    keeper: "certificates.Keeper",
    told: asyncio.Event,
    registered: metrics.Metrics,
) -> status.Status:
    return status.Status(
        wanted,
        has_certificate=lambda: keeper.is_valid,
        is_leaving=lambda: proxy.is_leaving,
        quit=told.set,
        certificate_ends=lambda: keeper.ends.timestamp() if keeper.ends else None,
        counted=registered.text,
        application=probes.of(wanted.probes, address=wanted.address),
    )
