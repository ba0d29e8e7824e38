"""Follows what one linked cluster tells, over one delta stream at a time.

Keeps the version of each record, so that after a broken stream only what differs is sent again, and
what has gone meanwhile is told as removed: nothing else ever is. Every few seconds it asks again who
the other is; the answer shows that it is still there, and the question carries the nonce of what is
in use here. A record that does not count is refused by its name; the others of its message are taken.

Source: spec section 7.7; security rules XA-1 and TD.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import message as protobuf

from isthmus.base import clock, errors, tasks
from isthmus.resources import peering as records
from isthmus.wire import ads

METHOD: Final = f"/{ads.SERVICE}/DeltaAggregatedResources"
GREETING: Final = (("isthmus-peering", "1"),)
"""What a control plane says that lets us in; before, writing would hide why one does not."""

FIRST_DELAY_S, LONGEST_DELAY_S = 0.5, 10.0
LARGEST_MESSAGE_BYTES: Final = 16 << 20
MOST_RECORDS: Final = 10_000
MOST_DETAIL: Final = 300
MOST_NAME: Final = 512
MOST_NAMED: Final = 200
"""Records that are refused by name in one answer; of the others the other side hears no reason."""

PAUSE_S: Final = 0.02
"""After each message, so that who talks without end costs us a bounded share of our time."""

INVALID_ARGUMENT: Final = 3

OF_BEFORE: Final = "of before"
"""As which version what was not told by the other in our time is known: it is told again, or gone."""


class StreamBroken(errors.IsthmusError):
    """A linked cluster cannot be heard now."""

    code = "ISM-XDS-011"


@dataclass(frozen=True, slots=True)
class Pace:
    """How often both sides say that they are there.

    Attributes:
        beat_s: Seconds between two questions.
        silence_s: Seconds without a word after which a stream counts as broken.
    """

    beat_s: float = 5.0
    silence_s: float = 15.0


USUAL: Final = Pace()


@dataclass(frozen=True, slots=True)
class Target:
    """Where a linked cluster is told of, and what proves us there.

    Attributes:
        server_name: Whose certificate is expected, wherever the connection leads.
        roots_pem: Who may vouch for that certificate.
        cluster: Our own.
    """

    address: str
    server_name: str
    roots_pem: str = field(repr=False)
    chain_pem: str = field(repr=False)
    key_pem: str = field(repr=False)
    cluster: str


class Listener(Protocol):
    """Takes in what a linked cluster tells."""

    def speaker(self, found: records.Speaker) -> str:
        """Say why whoever speaks is not who should; empty when it is."""

    def take(self, told: Mapping[str, bytes], removed: tuple[str, ...]) -> Mapping[str, str]:
        """Take in records; return why some do not count, by name."""

    def heard(self) -> None:
        """Note that the other is there."""

    def complete(self) -> None:
        """Note that all of its records have been told."""

    def broken(self, reason: str) -> None:
        """Note that it cannot be heard."""


@dataclass(slots=True)
class Talk:
    """What one linked cluster has told, over as many streams as it takes; without a socket.

    Attributes:
        versions: Of the records that are in use.
        applied: The nonce of the last message about records that is in use.
        version: Of that message.
        has_asked: Whether it was asked on this stream what it shares.
        most: So many records count.
    """

    listener: Listener
    node_id: str
    cluster: str
    versions: dict[str, str] = field(default_factory=dict)
    applied: str = ""
    version: str = ""
    has_asked: bool = False
    most: int = MOST_RECORDS

    def remember(self, names: Iterable[str]) -> None:
        """Count records as known that were told to somebody before us; on the next stream they count.

        The other tells them all again, and as removed which of them there are no more.
        """
        self.versions.update(dict.fromkeys(names, OF_BEFORE))

    def begin(self) -> list[bytes]:
        """Return the first request on a new stream: who are you?"""
        self.applied, self.has_asked = "", False
        who = discovery_pb2.DeltaDiscoveryRequest(
            type_url=records.CLUSTER, resource_names_subscribe=[records.CLUSTER_NAME]
        )
        who.node.id = self.node_id
        who.node.metadata.update({"CLUSTER_ID": self.cluster})
        return [who.SerializeToString()]

    def beat(self) -> list[bytes]:
        """Return what to say when nothing was said for a while."""
        who = discovery_pb2.DeltaDiscoveryRequest(
            type_url=records.CLUSTER, resource_names_subscribe=[records.CLUSTER_NAME]
        )
        said = [who.SerializeToString()]
        if self.applied:
            what = discovery_pb2.DeltaDiscoveryRequest(
                type_url=records.SERVICE, response_nonce=self.applied
            )
            said.append(what.SerializeToString())
        return said

    def hear(self, content: bytes) -> list[bytes]:
        """Take an answer in and return what to say to it; once it said who it is, what is asked.

        Raises:
            StreamBroken: Somebody else speaks than should, or no answer at all (ISM-XDS-011).
        """
        try:
            said = discovery_pb2.DeltaDiscoveryResponse.FromString(content)
        except protobuf.DecodeError as error:
            raise StreamBroken("it says what is no answer") from error
        self.listener.heard()
        faults: Mapping[str, str] = {}
        if said.type_url == records.CLUSTER:
            self._check_speaker(said)
        elif said.type_url == records.SERVICE:
            faults = self._taken(said)
        answers = [self._answer(said, faults)]
        if not self.has_asked:
            self.has_asked = True
            what = discovery_pb2.DeltaDiscoveryRequest(
                type_url=records.SERVICE, initial_resource_versions=self.versions
            )
            answers.append(what.SerializeToString())
        return answers

    def _check_speaker(self, said: Any) -> None:  # noqa: ANN401  # generated messages have no types
        for one in said.resources:
            try:
                reason = self.listener.speaker(records.read_cluster(one.resource.value))
            except records.RecordMalformed as error:
                reason = f"what it says of itself {error.happened}"
            if reason:
                raise StreamBroken(reason)
        if said.removed_resources:
            raise StreamBroken("it does not say who it is")

    def _taken(self, said: Any) -> Mapping[str, str]:  # noqa: ANN401  # generated messages have no types
        told = {one.name: one.resource.value for one in said.resources}
        longest = max(map(len, (*told, *said.removed_resources)), default=0)
        if longest > MOST_NAME:
            raise StreamBroken(f"it calls a record by {longest} characters")
        versions = {one.name: one.version for one in said.resources}
        gone = tuple(said.removed_resources)
        room = self.most - len(self.versions.keys() - set(gone))
        fresh = [name for name in sorted(told) if name not in self.versions]
        over = dict.fromkeys(fresh[max(room, 0) :], f"is beyond the {self.most} that count")
        faults = {
            **over,
            **self.listener.take(
                {name: body for name, body in told.items() if name not in over}, gone
            ),
        }
        for name in gone:
            self.versions.pop(name, None)
        self.versions.update((name, one) for name, one in versions.items() if name not in faults)
        self.applied, self.version = said.nonce, said.system_version_info
        self.listener.complete()
        return faults

    def _answer(self, said: Any, faults: Mapping[str, str]) -> bytes:  # noqa: ANN401  # as above
        answer = discovery_pb2.DeltaDiscoveryRequest(
            type_url=said.type_url, response_nonce=said.nonce
        )
        if faults:
            answer.error_detail.code = INVALID_ARGUMENT
            answer.error_detail.message = "; ".join(
                f"{name}: {why}" for name, why in sorted(faults.items())[:MOST_NAMED]
            )
        reply: bytes = answer.SerializeToString()
        return reply


async def follow(
    talk: Talk,
    *,
    target: Callable[[], Target | None],
    system_clock: clock.Clock,
    pace: Pace = USUAL,
) -> None:
    """Follow for ever; streams that break are opened again, later and later.

    Args:
        talk: What has been heard.
        target: Tells anew where the other is and what proves us to it; None while nothing does.
        system_clock: Measures the delays.
        pace: How often both sides say that they are there.
    """
    delay_s = FIRST_DELAY_S
    while True:
        chosen = target()
        if chosen is None:
            await system_clock.sleep(FIRST_DELAY_S)
            continue
        began = system_clock.monotonic()
        try:
            await _one_stream(talk, chosen, system_clock, pace)
            reason = "it ended the stream"
        except StreamBroken as error:
            reason = error.happened
        talk.listener.broken(reason)
        lasted = system_clock.monotonic() - began
        delay_s = FIRST_DELAY_S if lasted > pace.silence_s else min(delay_s * 2, LONGEST_DELAY_S)
        await system_clock.sleep(delay_s)


async def _one_stream(talk: Talk, chosen: Target, system_clock: clock.Clock, pace: Pace) -> None:
    async with channel(chosen) as opened:
        call = opened.stream_stream(METHOD)(metadata=(("clusterid", chosen.cluster),))
        line = _Line(call, pace)
        try:
            async with tasks.Nursery(system_clock=system_clock) as nursery:
                await line.connected()
                await line.say(talk.begin())
                _ = nursery.start("beat", _beat(talk, line, system_clock))
                while (content := await line.hear()) is not None:
                    await line.say(talk.hear(content))
                    await system_clock.sleep(PAUSE_S)
        finally:
            call.cancel()


async def _beat(talk: Talk, line: "_Line", system_clock: clock.Clock) -> None:
    while True:
        await system_clock.sleep(line.pace.beat_s)
        with contextlib.suppress(StreamBroken):  # Whoever listens notices as well.
            await line.say(talk.beat())


@dataclass(slots=True)
class _Line:
    """One call: a bounded wait for each message, and one way to say that it is broken."""

    call: Any
    pace: Pace
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def say(self, messages: Iterable[bytes]) -> None:
        async with self.turn:
            for message in messages:
                await self._within(self.call.write(message))

    async def connected(self) -> None:
        """Wait until we are let in."""
        if not is_greeted(await self._within(self.call.initial_metadata())):
            await self.hear()
            raise StreamBroken("whoever answers there is no control plane that tells others")

    async def hear(self) -> bytes | None:
        content = await self._within(self.call.read())
        return None if content is grpc.aio.EOF else bytes(content)

    async def _within(self, awaited: Awaitable[Any]) -> Any:  # noqa: ANN401  # gRPC's calls have no types
        try:
            async with asyncio.timeout(self.pace.silence_s):
                return await awaited
        except TimeoutError:
            raise StreamBroken(f"it has not answered for {self.pace.silence_s:g} s") from None
        except asyncio.InvalidStateError as error:
            code, details = await self.call.code(), await self.call.details()
            raise StreamBroken(_shown(code.name, details)) from error
        except grpc.aio.AioRpcError as error:
            raise StreamBroken(_shown(error.code().name, error.details())) from error


def is_greeted(metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
    """Say whether what came first lets us in."""
    return set(GREETING) <= {(str(key), value) for key, value in metadata or ()}


def _shown(code: str, details: str | None) -> str:
    return f"{code}: {(details or '')[:MOST_DETAIL]}"


def channel(target: Target) -> grpc.aio.Channel:
    """Open a channel; it connects with its first call."""
    return grpc.aio.secure_channel(
        target.address,
        grpc.ssl_channel_credentials(
            target.roots_pem.encode(), target.key_pem.encode(), target.chain_pem.encode()
        ),
        options=(
            ("grpc.ssl_target_name_override", target.server_name),
            ("grpc.default_authority", target.server_name),
            ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
            ("grpc.keepalive_time_ms", 10_000),
            ("grpc.keepalive_timeout_ms", 5_000),
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ),
    )
