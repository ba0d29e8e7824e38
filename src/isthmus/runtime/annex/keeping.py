"""Keeps the annex running, tells it what to work with, and asks it for signatures.

When it ends it is started again, and asked again what it had not answered: a signature that nobody
got harms nobody. Who asks while it starts waits a little, and is then told to come again.

Source: docs/decisions/0044.
"""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import Callable
from typing import Final

import msgspec

from isthmus.base import clock, errors, logs
from isthmus.runtime import children, framing
from isthmus.runtime.annex import messages
from isthmus.wire import notary, webhook

MOST_WAITING: Final = 4096
"""Questions for signatures at one time; what comes beyond is told to come again."""

MOST_UNREAD_BYTES: Final = 8 << 20
"""What a process that does not read may have before it; who asks then is told to come again."""

PATIENCE_S: Final = 5.0
LOOK_EVERY_S: Final = 0.5
LOOK_SOONER_S: Final = 0.05
HANG_S: Final = 60.0
"""One that was asked and has said nothing for so long is ended."""
STARTING: Final = 10
"""So many times as long one has that has said nothing yet: starting takes some seconds."""

_LOG = logs.Log("isthmus.annex")
_BUSY: Final = notary.Unsigned(notary.COME_AGAIN, "CA_NOT_READY", "too busy now; come again")


class AnnexEnded(errors.IsthmusError):
    """The process that signs and injects has ended by itself."""

    code = "ISM-RUN-031"


class Annex:
    """The process, as the control plane sees it.

    Attributes:
        told: What it works with now; None while it is not there.
        pid: Of the process that is there, or was last.
    """

    def __init__(
        self,
        heard: socket.socket,
        *,
        state: Callable[[], messages.State],
        counters: webhook.Counters,
        log_level: str,
        system_clock: clock.Clock,
        hang_s: float = HANG_S,
    ) -> None:
        self._heard = heard
        self._hang_s = hang_s
        self._silent_since: float | None = None
        self._has_spoken = False
        self._state = state
        self._counters = counters
        self._log_level = log_level
        self._clock = system_clock
        self._numbers = itertools.count(1)
        self._waiting: dict[int, tuple[notary.Wanted, asyncio.Future[messages.Signed]]] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._is_due = asyncio.Event()
        self._seen: messages.State | None = None
        self._tellable: messages.State | None = None
        self._is_listening = self._has_begun = False
        self.told: messages.State | None = None
        self.pid = 0

    async def sign(self, wanted: notary.Wanted) -> notary.Signed | notary.Unsigned:
        """Have a certificate signed."""
        if len(self._waiting) >= MOST_WAITING or self._unread() > MOST_UNREAD_BYTES:
            return _BUSY
        number = next(self._numbers)
        answered: asyncio.Future[messages.Signed] = asyncio.get_running_loop().create_future()
        self._waiting[number] = (wanted, answered)
        try:
            self._send(messages.Sign(number, wanted))
            async with asyncio.timeout(PATIENCE_S):
                signed = await answered
        except TimeoutError:
            return _BUSY
        finally:
            del self._waiting[number]
        return signed.fault or notary.Signed(signed.chain)

    def has_begun(self) -> bool:
        """Say whether it has ever answered for pods; if not, tell it soon what it may lack."""
        if not self._has_begun:
            self.look()
            told = self.told
            self._has_begun = self._is_listening and told is not None and not told.unready
        return self._has_begun

    def look(self) -> None:
        """Tell it soon what has changed, if anything has."""
        self._is_due.set()

    async def run(self) -> None:
        """Start it and serve it until it ends.

        Raises:
            AnnexEnded: It has ended, by itself or by somebody else.
        """
        process: asyncio.subprocess.Process | None = None
        ours, theirs = socket.socketpair()
        with ours, theirs:
            reader, writer = await asyncio.open_connection(sock=ours, limit=messages.MOST_BYTES)
            try:
                process = await children.started(
                    "annex", theirs, self._heard, log_level=self._log_level
                )
                theirs.close()
                self.pid, self._writer = process.pid, writer
                self._greet()
                await self._talk(reader, process)
            finally:
                self._writer, self._seen, self.told = None, None, None
                writer.close()
                if process is not None:
                    await children.ended(process)
        raise AnnexEnded(
            f"the process that signs and injects has ended with status {process.returncode}",
            still_working="proxies are told of changes; pods and certificates wait",
            hint="it is started again; if it ends again and again, the log says why, above",
        )

    async def _talk(
        self, reader: asyncio.StreamReader, process: asyncio.subprocess.Process
    ) -> None:
        async with asyncio.TaskGroup() as group:
            telling = group.create_task(self._tell(process), name="tell the annex")
            decoder = msgspec.msgpack.Decoder[messages.Told](messages.Told)
            async for message in framing.heard(reader, decoder, most_bytes=messages.MOST_BYTES):
                self._silent_since, self._has_spoken = None, True
                self._take(message)
            telling.cancel()

    def _greet(self) -> None:
        """Say first what to work with, then what was asked meanwhile."""
        self._silent_since, self._has_spoken = None, False
        self._tell_now()
        for number, (wanted, _) in self._waiting.items():
            self._send(messages.Sign(number, wanted))

    async def _tell(self, process: asyncio.subprocess.Process) -> None:
        while True:
            if self._hangs():
                _LOG.error("the process that signs and injects hangs and is ended", pid=self.pid)
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._is_due.wait()
                await self._clock.sleep(LOOK_SOONER_S)
            except TimeoutError:
                pass
            self._is_due.clear()
            self._tell_now()

    def _hangs(self) -> bool:
        since = self._silent_since
        most_s = self._hang_s if self._has_spoken else self._hang_s * STARTING
        return since is not None and self._clock.monotonic() - since > most_s

    def _tell_now(self) -> None:
        state = self._state()
        if state != self._seen:
            self._seen = state
            self.told = self._that_can_be_told(state)
            self._send(self.told)

    def _that_can_be_told(self, state: messages.State) -> messages.State:
        """Return the state, if need be with the last settings for injection that can be told."""
        try:
            messages.check(state)
        except messages.Untellable as error:
            _LOG.error("settings not taken", reason=error.happened, detail=error.detail)
            last = self._tellable.injection if self._tellable is not None else None
            return msgspec.structs.replace(state, injection=last)
        self._tellable = state
        return state

    def _unread(self) -> int:
        return 0 if self._writer is None else self._writer.transport.get_write_buffer_size()

    def _send(self, message: messages.Asked) -> None:
        if self._writer is not None:
            self._writer.write(framing.framed(message))
            if self._silent_since is None and isinstance(message, messages.Sign):
                self._silent_since = self._clock.monotonic()

    def _take(self, message: messages.Told) -> None:
        if isinstance(message, messages.Listening):
            self._is_listening = True
            return
        if isinstance(message, messages.Counted):
            own = self._counters
            own.requests.add(message.requests)
            own.success.add(message.success)
            own.failure.add(message.failure)
            own.skip.add(message.skip)
            return
        _, answered = self._waiting.get(message.number, (None, None))
        if answered is not None and not answered.done():
            answered.set_result(message)
