"""Follows what node proxies are told, over one delta stream at a time; the other end of `wire.ads`.

Keeps the version of each resource, so that after a broken stream only what differs is sent again,
and what has gone meanwhile is told as removed. What is known stays known while nobody answers. A
resource that cannot be read is refused with its name; the others of its message are taken.

Source: spec section 7.2.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import grpc
from envoy.service.discovery.v3 import discovery_pb2

from isthmus.base import clock, logs
from isthmus.resources.snapshot import ADDRESSES, AUTHORIZATIONS, SECRETS, TypeUrl
from isthmus.wire import ads, dialing

METHOD: Final = f"/{ads.SERVICE}/DeltaAggregatedResources"
TYPES: Final = (AUTHORIZATIONS, ADDRESSES)
"""Of which everything is wanted."""
TRUST: Final = "trust-bundles"
"""The secret that says who vouches for which trust domain."""
FIRST_DELAY_S, LONGEST_DELAY_S = 0.2, 5.0
INVALID_ARGUMENT: Final = 3

_LOG = logs.Log("isthmus.wdsclient")


@dataclass(frozen=True, slots=True)
class News:
    """What one message tells about one type.

    Attributes:
        bodies: Resources that are new or have changed, by name.
        removed: Names of those that are gone.
    """

    type_url: TypeUrl
    bodies: Mapping[str, bytes]
    removed: tuple[str, ...]


Take = Callable[[News], Mapping[str, str]]
"""Takes news in; returns why resources cannot be read, by name."""


@dataclass(slots=True)
class Talk:
    """What one client has heard, over as many streams as it opens; without a socket.

    Attributes:
        take: Takes what is told.
        complete: Called once, as soon as each type has been told of.
    """

    take: Take
    complete: Callable[[], None]
    versions: dict[TypeUrl, dict[str, str]] = field(
        default_factory=lambda: {kind: {} for kind in TYPES}
    )
    heard: set[TypeUrl] = field(default_factory=set)

    def begin(self, node: Mapping[str, Any]) -> list[bytes]:
        """Return the first requests on a new stream."""
        asked = [
            discovery_pb2.DeltaDiscoveryRequest(
                type_url=kind, initial_resource_versions=self.versions[kind]
            )
            for kind in TYPES
        ]
        trust = discovery_pb2.DeltaDiscoveryRequest(
            type_url=SECRETS, initial_resource_versions=self.versions.get(SECRETS, {})
        )
        trust.resource_names_subscribe.append(TRUST)
        asked.append(trust)
        asked[0].node.id = node["id"]
        asked[0].node.metadata.update(node["metadata"])
        return [one.SerializeToString() for one in asked]

    def hear(self, content: bytes) -> bytes:
        """Take an answer in and return what to say to it."""
        said = discovery_pb2.DeltaDiscoveryResponse.FromString(content)
        kind = TypeUrl(said.type_url)
        told = {one.name: one for one in said.resources}
        bodies = {name: one.resource.value for name, one in told.items()}
        faults = self.take(News(kind, bodies, tuple(said.removed_resources)))
        known = self.versions.setdefault(kind, {})
        for name in said.removed_resources:
            known.pop(name, None)
        known.update({name: one.version for name, one in told.items() if name not in faults})
        self._note(kind)
        answer = discovery_pb2.DeltaDiscoveryRequest(type_url=kind, response_nonce=said.nonce)
        if faults:
            answer.error_detail.code = INVALID_ARGUMENT
            answer.error_detail.message = "; ".join(
                f"{name}: {why}" for name, why in faults.items()
            )
        reply: bytes = answer.SerializeToString()
        return reply

    def _note(self, kind: TypeUrl) -> None:
        if kind not in self.heard:
            self.heard.add(kind)
            if self.heard >= set(TYPES):
                self.complete()


async def follow(
    talk: Talk,
    *,
    target: Callable[[], dialing.Target],
    node: Mapping[str, Any],
    system_clock: clock.Clock,
) -> None:
    """Follow for ever; streams that break are opened again, later and later.

    Args:
        talk: What has been heard.
        target: Reads anew where the control plane is and what proves us to it.
        node: Our id and metadata.
        system_clock: Measures the delays.
    """
    delay_s = FIRST_DELAY_S
    while True:
        heard_any = await _one_stream(talk, target(), node)
        delay_s = FIRST_DELAY_S if heard_any else min(delay_s * 2, LONGEST_DELAY_S)
        await system_clock.sleep(delay_s)


async def _one_stream(talk: Talk, chosen: dialing.Target, node: Mapping[str, Any]) -> bool:
    """Talk until the stream ends; say whether anything was heard."""
    heard_any = False
    async with dialing.channel(chosen) as channel:
        call = channel.stream_stream(METHOD)(metadata=chosen.metadata())
        try:
            for request in talk.begin(node):
                await call.write(request)
            async for content in call:
                heard_any = True
                await call.write(talk.hear(content))
        except grpc.aio.AioRpcError as error:
            _LOG.warning(
                "workload discovery broke; what is known stays",
                server=chosen.server_name,
                status=error.code().name,
                reason=error.details(),
            )
        finally:
            call.cancel()
    return heard_any
