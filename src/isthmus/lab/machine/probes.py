"""Asks a container whether it is alive, ready or started.

Decides what counts as an answer and how often is asked: until a container has first succeeded,
every 100 ms, so that nobody waits for a period in a lab; afterwards as the probe says. Refuses to
know what follows from the answers.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from isthmus.base import clock, namespaces

Obj = dict[str, Any]

Execute = Callable[[list[str], float], Awaitable[int]]
"""Runs a program in the container, for at most some seconds; returns its exit code."""

EAGER_S = 0.1
_GOOD = range(200, 400)
_LONGEST_HEAD = 64 << 10


@dataclass(frozen=True, slots=True)
class Target:
    """Where a container is asked.

    Attributes:
        network: The namespace of its node, from which it is asked.
        ports: The container's named ports.
        execute: Runs a program in it.
    """

    network: int
    pod_ip: str
    ports: dict[str, int]
    execute: Execute

    def port(self, wanted: int | str) -> int:
        """Return the number of a port that is given by number or name."""
        text = str(wanted)
        return int(text) if text.isdigit() else self.ports[text]


@dataclass(frozen=True, slots=True)
class Answer:
    """What a container answered; the message says why not."""

    good: bool
    message: str = ""


async def ask(probe: Obj, target: Target) -> Answer:
    """Ask once, within the probe's own time limit."""
    limit_s = float(probe.get("timeoutSeconds") or 1)
    try:
        async with asyncio.timeout(limit_s):
            return await _asked(probe, target, limit_s)
    except TimeoutError:
        return Answer(good=False, message=f"no answer within {limit_s:g} s")
    except (OSError, KeyError, ValueError) as error:
        return Answer(good=False, message=str(error) or type(error).__name__)


async def _asked(probe: Obj, target: Target, limit_s: float) -> Answer:
    if "httpGet" in probe:
        return await _http(probe["httpGet"], target)
    if "exec" in probe:
        code = await target.execute(list(probe["exec"].get("command") or ()), limit_s)
        return Answer(code == 0, "" if code == 0 else f"command ended with {code}")
    wanted = probe.get("tcpSocket") or probe.get("grpc")
    if wanted is None:
        return Answer(good=True)
    host = wanted.get("host") or target.pod_ip
    link = await dial(target.network, host, target.port(wanted["port"]))
    link.close()
    return Answer(good=True)


async def dial(network: int, host: str, port: int) -> socket.socket:
    """Connect to an address from inside a network namespace."""
    with namespaces.entered(network):
        link = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(link, (host, port))
    except BaseException:
        link.close()
        raise
    return link


async def _http(wanted: Obj, target: Target) -> Answer:
    host, port = wanted.get("host") or target.pod_ip, target.port(wanted["port"])
    path = wanted.get("path") or "/"
    headers = {"Host": f"{host}:{port}", "User-Agent": "kube-probe/1.32", "Accept": "*/*"}
    headers.update({each["name"]: each["value"] for each in wanted.get("httpHeaders") or ()})
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    link = await dial(target.network, host, port)
    context = _unchecked() if wanted.get("scheme") == "HTTPS" else None
    reader, writer = await asyncio.open_connection(
        sock=link, ssl=context, server_hostname=host if context else None, limit=_LONGEST_HEAD
    )
    try:
        text = f"GET {path if path.startswith('/') else '/' + path} HTTP/1.1\r\n{lines}Connection: close\r\n\r\n"
        writer.write(text.encode())
        first = await reader.readline()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    status = int(first.split()[1]) if len(first.split()) > 1 else 0
    good = status in _GOOD
    return Answer(good, "" if good else f"HTTP probe failed with statuscode: {status}")


def _unchecked() -> ssl.SSLContext:
    # As Kubernetes does: a probe asks whether the server works, not who it is.
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


Judged = Callable[[bool, str], Awaitable[None]]
"""Told whether a container is good, and if not, why."""


async def until_good(
    probe: Obj, target: Target, *, failed: Callable[[str], Awaitable[None]], time: clock.Clock
) -> None:
    """Ask every 100 ms until the answer is good; tell of failures once in a period."""
    period_s = _period_s(probe)
    told = time.monotonic()
    while not (answer := await ask(probe, target)).good:
        if time.monotonic() - told >= period_s:
            told = time.monotonic()
            await failed(answer.message)
        await time.sleep(EAGER_S)


async def follow(
    probe: Obj, target: Target, *, was_good: bool, judged: Judged, time: clock.Clock
) -> None:
    """Ask once in a period, for ever; tell when enough answers in a row change the verdict.

    A bad verdict is told again whenever there were as many bad answers once more.
    """
    needed = {
        True: int(probe.get("successThreshold") or 1),
        False: int(probe.get("failureThreshold") or 3),
    }
    verdict = last = was_good
    row = 0
    while True:
        await time.sleep(_period_s(probe))
        answer = await ask(probe, target)
        row = row + 1 if answer.good is last else 1
        last = answer.good
        if row >= needed[answer.good] and not (answer.good and verdict):
            verdict, row = answer.good, 0
            await judged(answer.good, answer.message)


def _period_s(probe: Obj) -> float:
    return float(probe.get("periodSeconds") or 10)
