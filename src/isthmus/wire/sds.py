"""Serves secrets to the Envoy beside us: its certificate with key, and the mesh's roots.

Answers what is asked for as soon as it is there, and again whenever it changes, so that a new
certificate reaches a running proxy without a restart. Both flavours of the protocol are spoken:
state of the world and delta.

Source: spec section 1.5; Envoy's documentation of SDS.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field

import grpc
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from envoy.service.discovery.v3 import discovery_pb2

from isthmus.base import logs, tasks

SERVICE = "envoy.service.secret.v3.SecretDiscoveryService"
TYPE = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"
CERTIFICATE = "default"
ROOTS = "ROOTCA"
MOST_READ = 1000

_LOG = logs.Log("isthmus.sds")


@dataclass(frozen=True, slots=True)
class Secret:
    """One secret as Envoy takes it, and the version of its content."""

    version: str
    body: bytes = field(repr=False)


def certificate(name: str, *, chain_pem: str, key_pem: str, version: str) -> Secret:
    """Write a certificate chain with its private key.

    As bytes, as Istio does: `istioctl proxy-config secret` reads nothing else.
    """
    secret = secret_pb2.Secret(name=name)
    secret.tls_certificate.certificate_chain.inline_bytes = chain_pem.encode()
    secret.tls_certificate.private_key.inline_bytes = key_pem.encode()
    return Secret(version, secret.SerializeToString())


def roots(name: str, *, roots_pem: str, version: str) -> Secret:
    """Write what a peer's certificate is verified against."""
    secret = secret_pb2.Secret(name=name)
    secret.validation_context.trusted_ca.inline_bytes = roots_pem.encode()
    return Secret(version, secret.SerializeToString())


def renamed(body: bytes, *, name: str, version: str) -> Secret:
    """Take a secret that somebody else wrote, under another name.

    Raises:
        DecodeError: It is none.
    """
    secret = secret_pb2.Secret.FromString(body)
    secret.name = name
    return Secret(version, secret.SerializeToString())


class Shelf:
    """The secrets that there are now; streams wait for them and for their changes.

    What is not put there is looked for by `read`, when it is asked for and at each refreshment.
    """

    def __init__(self, read: Callable[[str], Secret | None] = lambda _: None) -> None:
        self._read = read
        self._put: Mapping[str, Secret] = {}
        self._asked: dict[str, Secret | None] = {}
        self._wakers: set[Callable[[], None]] = set()

    @property
    def secrets(self) -> Mapping[str, Secret]:
        """All secrets by name."""
        found = {name: secret for name, secret in self._asked.items() if secret is not None}
        return {**found, **self._put}

    def put(self, secrets: Mapping[str, Secret]) -> None:
        """Replace all secrets but those that are read, and tell every stream."""
        self._put = dict(secrets)
        self._tell()

    def ask(self, names: Iterable[str]) -> None:
        """Look for secrets that were not asked for before."""
        for name in names:
            if name not in self._put and name not in self._asked and len(self._asked) < MOST_READ:
                self._asked[name] = self._read(name)

    def refresh(self) -> None:
        """Look again for all that was asked for; what is gone is kept as it was."""
        fresh = {name: self._read(name) or old for name, old in self._asked.items()}
        if fresh != self._asked:
            self._asked = fresh
            self._tell()

    def _tell(self) -> None:
        for wake in tuple(self._wakers):
            wake()

    def add(self, secrets: Mapping[str, Secret]) -> None:
        """Put or replace some secrets and tell every stream."""
        self.put({**self._put, **secrets})

    def drop(self, name: str) -> None:
        """Forget a secret; whoever has it keeps it."""
        self._put = {one: held for one, held in self._put.items() if one != name}

    def follow(self, wake: Callable[[], None]) -> Callable[[], None]:
        """Call `wake` at each change, until the returned function is called."""
        self._wakers.add(wake)
        return lambda: self._wakers.discard(wake)


@dataclass(slots=True)
class Stated:
    """One stream of the state-of-the-world flavour: what was asked and what was answered."""

    names: tuple[str, ...] = ()
    sent: Mapping[str, str] = field(default_factory=dict)
    nonce: int = 0

    def heard(self, request: discovery_pb2.DiscoveryRequest) -> None:
        """Take in a request; an acknowledgement changes nothing, new names call for an answer."""
        if request.response_nonce and request.response_nonce != str(self.nonce):
            return
        _warn_of_refusal(request.error_detail.message, request.resource_names)
        names = tuple(request.resource_names)
        if names != self.names:
            self.names, self.sent = names, {}

    def due(self, secrets: Mapping[str, Secret]) -> discovery_pb2.DiscoveryResponse | None:
        """Return the answer that is owed, if any."""
        present = {name: secrets[name] for name in self.names if name in secrets}
        versions = {name: secret.version for name, secret in present.items()}
        if versions == self.sent:
            return None
        self.sent = versions
        self.nonce += 1
        answer = discovery_pb2.DiscoveryResponse(
            version_info=max(versions.values(), default=""), type_url=TYPE, nonce=str(self.nonce)
        )
        for secret in present.values():
            answer.resources.add(type_url=TYPE, value=secret.body)
        return answer


@dataclass(slots=True)
class Deltas:
    """One stream of the delta flavour."""

    names: set[str] = field(default_factory=set)
    sent: dict[str, str] = field(default_factory=dict)
    nonce: int = 0

    def heard(self, request: discovery_pb2.DeltaDiscoveryRequest) -> None:
        """Take in what is subscribed, given up, or known from before."""
        _warn_of_refusal(request.error_detail.message, ())
        self.sent.update(request.initial_resource_versions)
        for name in request.resource_names_subscribe:
            self.names.add(name)
            if name not in request.initial_resource_versions:
                self.sent.pop(name, None)
        for name in request.resource_names_unsubscribe:
            self.names.discard(name)
            self.sent.pop(name, None)

    def due(self, secrets: Mapping[str, Secret]) -> discovery_pb2.DeltaDiscoveryResponse | None:
        """Return the answer that is owed, if any."""
        changed = {
            name: secrets[name]
            for name in sorted(self.names)
            if name in secrets and self.sent.get(name) != secrets[name].version
        }
        if not changed:
            return None
        self.nonce += 1
        answer = discovery_pb2.DeltaDiscoveryResponse(type_url=TYPE, nonce=str(self.nonce))
        for name, secret in changed.items():
            self.sent[name] = secret.version
            resource = answer.resources.add(name=name, version=secret.version)
            resource.resource.type_url = TYPE
            resource.resource.value = secret.body
        return answer


def handler(shelf: Shelf) -> grpc.GenericRpcHandler:
    """Make the service, to be added to a gRPC server on a Unix socket."""

    async def stream_secrets(
        requests: AsyncIterator[discovery_pb2.DiscoveryRequest], context: grpc.aio.ServicerContext
    ) -> None:
        await _conversation(Stated(), requests=requests, context=context, shelf=shelf)

    async def delta_secrets(
        requests: AsyncIterator[discovery_pb2.DeltaDiscoveryRequest],
        context: grpc.aio.ServicerContext,
    ) -> None:
        await _conversation(Deltas(), requests=requests, context=context, shelf=shelf)

    return grpc.method_handlers_generic_handler(
        SERVICE,
        {
            "StreamSecrets": grpc.stream_stream_rpc_method_handler(
                stream_secrets,
                request_deserializer=discovery_pb2.DiscoveryRequest.FromString,
                response_serializer=discovery_pb2.DiscoveryResponse.SerializeToString,
            ),
            "DeltaSecrets": grpc.stream_stream_rpc_method_handler(
                delta_secrets,
                request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
                response_serializer=discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
            ),
        },
    )


async def _conversation(
    state: Stated | Deltas,
    *,
    requests: AsyncIterator[object],
    context: grpc.aio.ServicerContext,
    shelf: Shelf,
) -> None:
    wake = asyncio.Event()
    ended = False

    async def listen() -> None:
        nonlocal ended
        async for request in requests:
            state.heard(request)
            wake.set()
        ended = True
        wake.set()

    unfollow = shelf.follow(wake.set)
    try:
        async with tasks.Nursery() as nursery:
            _ = nursery.start("secret requests", listen())
            while not ended:
                await wake.wait()
                wake.clear()
                shelf.ask(state.names)
                answer = state.due(shelf.secrets)
                if answer is not None and not ended:
                    await context.write(answer)
    finally:
        unfollow()


def _warn_of_refusal(text: str, names: Iterable[str]) -> None:
    if text:
        _LOG.warning("proxy refused a secret", names=",".join(names), reason=text[:500])
