"""What a worker's server asks of the control plane: who calls, what proxies see, certificates.

It takes the compiler's place behind the same server. What scopes hold was told before it is asked
for; whoever waits for an answer longer than it may is told to come again.

Source: docs/decisions/0051.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Final, TypeVar

from typing_extensions import override

from isthmus.base import metrics
from isthmus.resources.snapshot import TypeUrl
from isthmus.runtime import authentication, catalog, watching
from isthmus.runtime.fanout import messages
from isthmus.wire import ads, callers, csr, debugstreams, nodes, streams, talks
from isthmus.xds import messages as xds

A = TypeVar("A", messages.Proven, messages.Opened, messages.Certified, messages.Answered)
Send = Callable[[messages.Said], None]

ANSWER_S: Final = 20.0
"""Longer than the control plane takes for anything that it is asked."""


class SaidNoError(Exception):
    """The control plane's no."""

    def __init__(self, said: messages.Refused) -> None:
        super().__init__(said.happened)
        self.said = said


class NotAnsweredError(SaidNoError):
    """The control plane's silence."""


class Line:
    """Questions, and answers by number."""

    def __init__(self, send: Send, *, patience_s: float = ANSWER_S) -> None:
        self.send = send
        self._patience_s = patience_s
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[messages.Answer]] = {}

    async def ask(self, asked: Callable[[int], messages.Said], kind: type[A]) -> A:
        """Ask, and return the answer.

        Raises:
            SaidNoError: The answer is no.
            NotAnsweredError: There is none in time.
        """
        number = next(self._numbers)
        answered: asyncio.Future[messages.Answer] = asyncio.get_running_loop().create_future()
        self._waiting[number] = answered
        try:
            self.send(asked(number))
            async with asyncio.timeout(self._patience_s):
                answer = await answered
        except TimeoutError as error:
            text = "the control plane does not answer; come again"
            silence = messages.Refused(number, ads.NotReady.code, "UNAVAILABLE", text)
            raise NotAnsweredError(silence) from error
        finally:
            del self._waiting[number]
        if isinstance(answer, messages.Refused):
            raise SaidNoError(answer)
        assert isinstance(answer, kind)
        return answer

    def take(self, answer: messages.Answer) -> bool:
        """Take in an answer; return whether anybody waits for it."""
        answered = self._waiting.get(answer.number)
        if answered is None or answered.done():
            return False
        answered.set_result(answer)
        return True


class Place:
    """Where a resource stands, by the number of its scope."""

    __slots__ = ("name", "scope")

    def __init__(self, scope: int, name: str) -> None:
        self.scope = scope
        self.name = name


class Authenticator(callers.Authenticator):
    """Asks who calls."""

    def __init__(self, line: Line) -> None:
        self._line = line

    @override
    async def authenticate(self, credentials: callers.Credentials) -> callers.Caller:
        try:
            answer = await self._line.ask(
                lambda number: messages.Prove(number, credentials), messages.Proven
            )
        except SaidNoError as refusal:
            said = refusal.said
            if said.code == callers.CallerRefused.code:
                raise callers.CallerRefused(said.happened, detail=said.detail) from refusal
            raise authentication.NobodyJudges(said.happened, detail=said.detail) from refusal
        return answer.caller


class Discovery(ads.Discovery, watching.Source[int]):
    """What the proxies of this process should have, as it was told."""

    def __init__(self, line: Line) -> None:
        self.authenticator: callers.Authenticator = Authenticator(line)
        self._line = line
        self._catalog = catalog.Catalog[int]()
        self._watches: dict[int, watching.ProxyWatch[int]] = {}
        self._opening: set[int] = set()
        """Those that were opened, and whoever waits for them does not know it yet."""
        self._implied: dict[str, frozenset[str]] = {}
        self._types: dict[str, TypeUrl] = {}
        self._changes: list[messages.Change] = []

    @property
    @override
    def catalog(self) -> catalog.Catalog[int]:
        return self._catalog

    @override
    def open(self, caller: callers.Caller, node: nodes.Node) -> Awaitable[talks.Watch]:
        return self._opened(caller, node)

    async def _opened(self, caller: callers.Caller, node: nodes.Node) -> talks.Watch:
        asked: list[int] = []

        def question(number: int) -> messages.Said:
            asked.append(number)
            return messages.Open(number, caller, node)

        try:
            answer = await self._line.ask(question, messages.Opened)
        except (asyncio.CancelledError, NotAnsweredError) as error:
            # Nobody is there any more to be told anything.
            for number in asked:
                if number in self._watches:
                    self._watches[number].close()
                else:
                    self._line.send(messages.Close(number))
            if isinstance(error, NotAnsweredError):
                raise _refused(error.said) from error
            raise
        except SaidNoError as refusal:
            raise _refused(refusal.said) from refusal
        finally:
            self._opening.difference_update(asked)
        watch = self._watches.get(answer.number)
        if watch is None:
            raise ads.NotReady("it was told to end before it had begun")
        return watch

    def _follow(self, told: messages.Opened) -> None:
        watch = watching.ProxyWatch(self, str(told.number))
        self._watches[told.number] = watch
        self._opening.add(told.number)
        if told.implied:
            self._implied[watch.key] = frozenset(told.implied)
        watch.move(told.scopes)

    # What it is told.

    def opened(self, told: messages.Opened) -> None:
        """Follow what a proxy sees from the moment on at which it was said."""
        if self._line.take(told):
            self._follow(told)

    def changed(self, told: messages.Changed) -> None:
        """Take in what has changed in scopes, when all of it is there."""
        self._changes.extend(told.changes)
        if told.is_last:
            changes, self._changes = self._changes, []
            self._catalog.change(
                (
                    Place(each.scope, each.name),
                    self._types.setdefault(each.type_url, TypeUrl(each.type_url)),
                    None if each.held is None else messages.resource(each.held, self._types),
                )
                for each in changes
            )

    def moved(self, told: messages.Moved) -> None:
        """Let a proxy see other scopes."""
        watch = self._watches.get(told.number)
        if watch is not None:
            self._implied[watch.key] = frozenset(told.implied)
            watch.move(told.scopes)

    def forgotten(self, told: messages.Forgotten) -> None:
        """Forget scopes that nobody sees."""
        for scope in told.scopes:
            self._catalog.drop(scope)

    def ended(self, numbers: tuple[int, ...]) -> frozenset[talks.Watch]:
        """Return what follows these proxies, whose streams are to end; none begins of the others."""
        for one in self._opening.intersection(numbers):
            self._watches[one].close()
        return frozenset(self._watches[one] for one in numbers if one in self._watches)

    def numbered(
        self, found: Iterable[tuple[talks.Watch, streams.StreamStatus]]
    ) -> Iterator[tuple[int, streams.StreamStatus]]:
        """Return statuses with the numbers of their proxies."""
        for watch, status in found:
            if isinstance(watch, watching.ProxyWatch):
                yield int(watch.key), status

    # What watches ask.

    @override
    def see(self, fresh: tuple[int, ...], *, instead_of: tuple[int, ...]) -> None:
        """Nothing: the control plane knows."""

    @override
    def implied_of(self, key: str) -> frozenset[str]:
        return self._implied.get(key, frozenset())

    @override
    def close(self, key: str) -> None:
        watch = self._watches.pop(int(key), None)
        self._implied.pop(key, None)
        if watch is not None:
            watch.leave()
            self._line.send(messages.Close(int(key)))


class Asides(ads.Asides):
    """Has questions answered that are no proxy's."""

    def __init__(self, line: Line, *, own_cluster: str) -> None:
        self._line = line
        self._own_cluster = own_cluster

    @override
    def placed(self, credentials: callers.Credentials) -> callers.Credentials:
        return callers.Credentials(
            credentials.token, self._own_cluster, credentials.peer_identities, credentials.peer
        )

    @override
    async def answer(
        self, request: xds.Request, caller: callers.Caller, *, flavour: xds.Flavour
    ) -> tuple[str, bytes]:
        try:
            found = await self._line.ask(
                lambda number: messages.Aside(number, request, caller, flavour), messages.Answered
            )
        except SaidNoError as refusal:
            said = refusal.said
            raise debugstreams.Refused(said.status or "UNAVAILABLE", said.happened) from refusal
        return found.nonce, found.content


def certify(line: Line, *, registered: metrics.Metrics) -> csr.Handler:
    """Return the service of certificates, of which the control plane is the signatory."""

    async def ask(request: bytes, shown: callers.Credentials) -> tuple[str, ...]:
        try:
            answer = await line.ask(
                lambda number: messages.Certify(number, request, shown), messages.Certified
            )
        except SaidNoError as refusal:
            said = refusal.said
            raise csr.refusal(said.status or "UNAVAILABLE", said.happened) from refusal
        return answer.chain

    return csr.elsewhere(ask, counters=csr.Counters(registered))


def _refused(said: messages.Refused) -> Exception:
    if said.code == ads.NotReady.code:
        return ads.NotReady(said.happened)
    return nodes.NodeRefused(said.happened, status=said.status or "UNAVAILABLE")
