"""Climbs to a gateway of another cluster, as a client of the mesh would, and says how far it got.

Each rung has its own deadline. What answers is believed by the roots that this cluster believes, and
shown the control plane's own certificate; nothing of what is read is kept or told to anybody.

Source: spec sections 7.4 and 7.7.
"""

import asyncio
import contextlib
import ipaddress
import os
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, NoReturn

from cryptography import x509

from isthmus.mesh import probing
from isthmus.mesh.probing import Goal, Outcome, Rung, Step, Way
from isthmus.wire import pipes, tls

RUNG_S: Final = 4.0
"""How long one rung may take."""

LISTEN_S: Final = 0.3
"""How long one listens for a refusal before one speaks."""

NOBODYS: Final = "check.isthmus.invalid:80"
"""What no gateway knows, and answers that."""

BELIEVE: Final = "give both clusters one root, or list who signs: isthmus multicluster trust"

OK, REFUSED, UNKNOWN, AWAY = 200, frozenset({401, 403}), 404, 503
HTTP2: Final = ("h2",)
MESH: Final = ("istio",)

EXPIRED, NOT_YET = 10, 9
"""OpenSSL's reasons why a certificate does not count."""


class Ended(Exception):  # noqa: N818  # it is how a climb ends, and no error of anybody's
    """A rung broke; the last step says which."""


@dataclass(slots=True)
class Climb:
    """One climb.

    Attributes:
        port: To connect to instead of the goal's, where that is somewhere else; else 0.
        rung_s: How long one rung may take.
    """

    goal: Goal
    proof: tls.Certificate | None
    port: int = 0
    rung_s: float = RUNG_S
    steps: list[Step] = field(default_factory=list)

    async def run(self) -> tuple[Step, ...]:
        """Climb as far as it goes, and return all rungs."""
        with contextlib.suppress(Ended):
            await self._climb()
        tried = {step.rung for step in self.steps}
        for rung in probing.RUNGS[self.goal.way]:
            if rung not in tried:
                self.steps.append(Step(rung, Outcome.SKIPPED, "not reached"))
        return tuple(self.steps)

    async def connect(self) -> tuple[Step, ...]:
        """Climb the rungs below TLS, and return them."""
        with contextlib.suppress(Ended):
            (await self._connected(await self._named())).close()
        return tuple(self.steps)

    async def _climb(self) -> None:
        raw = await self._connected(await self._named())
        goal = self.goal
        sni = {Way.DISCOVERY: goal.expected, Way.TUNNELS: ""}.get(goal.way, _server_name(goal))
        if goal.way is Way.MUTUAL_TLS and goal.shared is None:
            raw.close()
            for rung in (Rung.TLS, Rung.IDENTITY, Rung.HTTP):
                self._skip(rung, "no service behind it is known that takes mutual TLS")
            return
        reader, writer = await asyncio.open_connection(sock=raw)
        below = pipes.SocketPipe(reader, writer)
        try:
            pipe = await self._encrypted(below, sni)
            self._recognized(pipe.certificate)
            await self._beyond(pipe)
        finally:
            await below.close()

    # --- rungs

    async def _named(self) -> str:
        try:
            ipaddress.ip_address(self.goal.address)
        except ValueError:
            pass
        else:
            self._good(Rung.DNS, "an address, which needs no name")
            return self.goal.address
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self.rung_s):
                found = await loop.getaddrinfo(self.goal.address, None, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError) as error:
            reason = getattr(error, "strerror", None) or "no answer in time"
            self._break(
                Rung.DNS,
                f"the name `{self.goal.address}` of the gateway is not known here: {reason}",
                "check the load balancer's name, and the DNS servers of this cluster",
            )
        self._good(Rung.DNS, str(found[0][4][0]))
        return str(found[0][4][0])

    async def _connected(self, address: str) -> socket.socket:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        raw = socket.socket(family, socket.SOCK_STREAM)
        raw.setblocking(False)
        port = self.port or self.goal.port
        place = f"{address}:{self.goal.port}"
        try:
            async with asyncio.timeout(self.rung_s):
                await asyncio.get_running_loop().sock_connect(raw, (address, port))
        except TimeoutError:
            raw.close()
            self._break(
                Rung.TCP,
                f"nothing answers at {place} within {self.rung_s:g} s",
                f"open port {self.goal.port} from this cluster to the gateway: firewall, routes, "
                "the load balancer's allowed sources",
            )
        except OSError as error:
            raw.close()
            self._break(
                Rung.TCP,
                f"{place} cannot be connected to: {os.strerror(error.errno or 0).lower()}",
                "check that the gateway runs, that its Service has this port, and that the address "
                "is still its own",
            )
        self._good(Rung.TCP, f"connected to {place}")
        return raw

    async def _encrypted(self, below: pipes.Pipe, sni: str) -> pipes.TlsPipe:
        alpn = HTTP2 if self.goal.way is not Way.MUTUAL_TLS else MESH
        pipe = pipes.TlsPipe(below, self._context(alpn), server_name=sni)
        try:
            async with asyncio.timeout(self.rung_s):
                await pipe.handshake()
        except ssl.SSLError as error:
            self._break(*_of_handshake(error))
        except (pipes.Broken, OSError, TimeoutError) as error:
            text = f"the connection ended in the handshake: {_reason(error)}"
            self._break(Rung.TLS, text, _closed(self.goal))
        return pipe

    def _recognized(self, der: bytes) -> None:
        self._good(Rung.TLS, "a certificate that this cluster believes")
        wanted = self._identities()
        shown = _names(der)
        if wanted and not wanted & shown:
            self._break(
                Rung.IDENTITY,
                f"it is {', '.join(sorted(shown)) or 'nobody'}, and not {', '.join(sorted(wanted))}",
                "the address is another gateway's, or the link names another account or trust "
                "domain: link again, or correct the Gateway that says it",
            )

    def _identities(self) -> frozenset[str]:
        if self.goal.way is Way.MUTUAL_TLS:
            return frozenset(self.goal.shared.identities if self.goal.shared else ())
        return frozenset([self.goal.expected] if self.goal.expected else ())

    async def _beyond(self, pipe: pipes.Pipe) -> None:
        match self.goal.way:
            case Way.TUNNELS:
                await self._tunnelled(pipe)
            case Way.MUTUAL_TLS:
                self._good(Rung.IDENTITY, ", ".join(sorted(self._identities())))
                await self._asked(pipe)
            case Way.DISCOVERY:
                tunnel = pipes.Tunnel(pipe)
                await self._spoken(tunnel)

    async def _spoken(self, tunnel: pipes.Tunnel) -> None:
        """Say hello in HTTP/2. In TLS 1.3 a client only hears then that it is refused."""
        try:
            async with asyncio.timeout(self.rung_s):
                await tunnel.begin(listens_s=LISTEN_S)
        except ssl.SSLError as error:
            self._break(
                Rung.IDENTITY,
                f"it does not believe this cluster's certificate: {_reason(error)}",
                BELIEVE,
            )
        except (pipes.HungUp, OSError):
            self._break(
                Rung.IDENTITY,
                "it hung up as soon as it saw this cluster's certificate",
                BELIEVE,
            )
        except (pipes.Broken, TimeoutError) as error:
            rung = Rung.HBONE if self.goal.way is Way.TUNNELS else Rung.IDENTITY
            if rung is Rung.HBONE:
                self._good(Rung.IDENTITY, self.goal.expected)
            self._break(
                rung,
                f"what listens there is no end of tunnels: {_reason(error)}"
                if rung is Rung.HBONE
                else f"what listens there is no control plane: {_reason(error)}",
                "check that the gateway's listener is of protocol HBONE, and the address its own",
            )
        self._good(Rung.IDENTITY, self.goal.expected)

    async def _tunnelled(self, pipe: pipes.Pipe) -> None:
        shared = self.goal.shared
        outer = pipes.Tunnel(pipe)
        await self._spoken(outer)
        authority = f"{shared.host}:{shared.port}" if shared is not None else NOBODYS
        status = await self._status(Rung.HBONE, outer, authority)
        if shared is None:
            if status != UNKNOWN:
                self._break(
                    Rung.HBONE,
                    f"a tunnel to what nobody shares is answered with {status}",
                    "what listens there is no gateway between networks; check the address",
                )
            self._good(Rung.HBONE, "tunnels are answered")
            self._skip(Rung.HTTP, "nothing is shared there that could be called")
            return
        if status != OK:
            self._break(Rung.HBONE, *_of_gateway(status, authority))
        self._good(Rung.HBONE, f"a tunnel to {authority}")
        await self._through(outer, shared)

    async def _status(self, rung: Rung, tunnel: pipes.Tunnel, authority: str) -> int:
        try:
            async with asyncio.timeout(self.rung_s):
                return await tunnel.ask(authority)
        except (pipes.Broken, OSError, ssl.SSLError, TimeoutError) as error:
            reason = error.happened if isinstance(error, pipes.Broken) else "it says nothing"
            self._break(
                rung,
                f"a tunnel to {authority} is not answered: {reason}",
                "what listens there ends no tunnels; check that the gateway has a listener of "
                "protocol HBONE",
            )

    async def _through(self, outer: pipes.Tunnel, shared: probing.Shared) -> None:
        inner = pipes.TlsPipe(outer, self._context(HTTP2))
        place = f"{shared.host}:{shared.port}"
        try:
            async with asyncio.timeout(self.rung_s):
                await inner.handshake()
                tunnel = pipes.Tunnel(inner)
                shown = _names(inner.certificate)
                if shared.identities and not shown & set(shared.identities):
                    self._break(
                        Rung.HTTP,
                        f"behind the gateway answers {', '.join(sorted(shown))}, who is none of "
                        f"{place}",
                        "the service accounts of the service are told by its cluster: is what it "
                        "told up to date?",
                    )
                await tunnel.begin()
                status = await tunnel.ask(place)
        except (pipes.Broken, OSError, ssl.SSLError, TimeoutError) as error:
            self._break(
                Rung.HTTP,
                f"no pod of {place} ends the inner tunnel: {_reason(error)}",
                "check the node proxy (or sidecar) of its pods, and that their certificates have "
                "a root that this cluster believes",
            )
        if status in REFUSED:
            self._good(Rung.HTTP, f"{place} answers; a policy refuses the control plane")
        elif status != OK:
            self._break(Rung.HTTP, *_of_pod(status, place))
        else:
            await self._asked(tunnel)

    async def _asked(self, pipe: pipes.Pipe) -> None:
        shared = self.goal.shared
        assert shared is not None  # nothing else gets here
        place = f"{shared.host}:{shared.port}"
        if not shared.is_http:
            self._good(Rung.HTTP, f"{place} is reached; it is not known to speak HTTP")
            return
        asking = f"GET / HTTP/1.1\r\nhost: {place}\r\nuser-agent: isthmus-check\r\n"
        try:
            async with asyncio.timeout(self.rung_s):
                await pipe.write(asking.encode() + b"connection: close\r\n\r\n")
                answer = await pipe.read()
        except (pipes.Broken, OSError, ssl.SSLError, TimeoutError) as error:
            answer, reason = b"", _reason(error)
        else:
            reason = "it hung up"
        if not answer.startswith(b"HTTP/"):
            self._break(
                Rung.HTTP,
                f"{place} does not answer a request: {reason}",
                "the way is there, the application is not: look at its pods",
            )
        said = answer.split(b"\r\n", 1)[0].decode(errors="replace")[:60]
        self._good(Rung.HTTP, f"{place} answers {said}")

    def _context(self, alpn: tuple[str, ...]) -> ssl.SSLContext:
        assert self.proof is not None  # who has none only connects
        return tls.client_context(self.proof, alpn=alpn)

    # --- what is noted

    def _good(self, rung: Rung, found: str) -> None:
        self.steps.append(Step(rung, Outcome.GOOD, found))

    def _skip(self, rung: Rung, found: str) -> None:
        self.steps.append(Step(rung, Outcome.SKIPPED, found))

    def _break(self, rung: Rung, found: str, fix: str) -> NoReturn:
        self.steps.append(Step(rung, Outcome.BROKEN, found[:400], fix))
        raise Ended


def _server_name(goal: Goal) -> str:
    shared = goal.shared
    return f"outbound_.{shared.port}_._.{shared.host}" if shared is not None else ""


def _names(der: bytes) -> frozenset[str]:
    """Return the identities and names in a certificate."""
    if not der:
        return frozenset()
    try:
        found = x509.load_der_x509_certificate(der).extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        )
    except (ValueError, x509.ExtensionNotFound):
        return frozenset()
    uris = found.value.get_values_for_type(x509.UniformResourceIdentifier)
    return frozenset([*uris, *found.value.get_values_for_type(x509.DNSName)])


def _of_handshake(error: ssl.SSLError) -> tuple[Rung, str, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        if error.verify_code in {EXPIRED, NOT_YET}:
            when = "has ended" if error.verify_code == EXPIRED else "is not valid yet"
            return (
                Rung.TLS,
                f"a certificate of the gateway {when}",
                "check the clocks of both clusters, and that the other one's authority has not "
                "ended; a gateway that runs gets a new certificate by itself",
            )
        return (
            Rung.TLS,
            f"nobody whom this cluster believes has signed its certificate: {error.verify_message}",
            BELIEVE,
        )
    if _reason(error).startswith("certificate"):
        return (
            Rung.IDENTITY,
            f"it does not believe this cluster's certificate: {_reason(error)}",
            BELIEVE,
        )
    return (
        Rung.TLS,
        f"what answers there does not speak the mesh's TLS: {_reason(error)}",
        "check that the address is the gateway's, and that nothing between ends TLS",
    )


def _closed(goal: Goal) -> str:
    if goal.way is Way.TUNNELS:
        return "check that the gateway's proxy is ready, and that nothing between ends TLS"
    return "the gateway knows no such server name: check that it exposes what is asked for"


def _reason(error: BaseException) -> str:
    if isinstance(error, pipes.Broken):
        return error.happened
    if isinstance(error, ssl.SSLError):
        text = (error.reason or "refused").replace("_", " ").lower()
        for word in ("alert", "sslv3", "tlsv13", "tlsv1"):
            text = text.replace(word, "")
        return " ".join(text.split())
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return getattr(error, "strerror", None) or "the connection ended"


def _of_gateway(status: int, authority: str) -> tuple[str, str]:
    if status == UNKNOWN:
        return (
            f"the gateway knows no {authority}",
            "is the Service shared there, with this port? label it in its own cluster",
        )
    if status == AWAY:
        return (
            f"the gateway has no ready pod for {authority}",
            "are its pods ready, and do they take tunnels? enrol them: istio.io/dataplane-mode",
        )
    return (
        f"the gateway answers {status} for {authority}",
        "look at the gateway's log, and at AuthorizationPolicies that select it",
    )


def _of_pod(status: int, place: str) -> tuple[str, str]:
    return (
        f"the pod's proxy answers {status} for {place}",
        "the application does not listen on this port, or the pod's proxy knows no such service",
    )


async def connect(goal: Goal) -> tuple[Step, ...]:
    """Climb the rungs below TLS alone."""
    return await Climb(goal, None).connect()


async def climbed(
    goals: Sequence[Goal], proof: tls.Certificate, *, at_once: int = 8
) -> list[tuple[Goal, tuple[Step, ...]]]:
    """Climb to all goals, a few at a time; return each with its rungs, in order."""
    room = asyncio.Semaphore(at_once)

    async def one(goal: Goal) -> tuple[Goal, tuple[Step, ...]]:
        async with room:
            return goal, await Climb(goal, proof).run()

    async with asyncio.TaskGroup() as group:
        found = [group.create_task(one(goal)) for goal in goals]
    return [task.result() for task in found]
