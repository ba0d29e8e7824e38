"""A control plane and applications on loopback, for agents and Envoys that are real."""

import asyncio
import contextlib
import datetime
import json
import os
import pathlib
import socket
import sys

import aiohttp
import grpc
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401  # for Any
from envoy.extensions.filters.listener.original_dst.v3 import original_dst_pb2  # noqa: F401  # for Any
from envoy.extensions.filters.network.http_connection_manager.v3 import (  # noqa: F401  # for Any
    http_connection_manager_pb2,
)
from envoy.extensions.filters.network.tcp_proxy.v3 import tcp_proxy_pb2  # noqa: F401  # for Any
from envoy.extensions.transport_sockets.tls.v3 import tls_pb2  # noqa: F401  # for Any
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2  # noqa: F401  # for Any
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import json_format

from isthmus.base import clock, metrics
from isthmus.mesh import identities
from isthmus.testing import certificates, pace
from isthmus.wire import callers, csr, grpc_tls, tls, xdsproxy
from isthmus_proto.istio.networking.nds.v1 import nds_pb2

DOMAIN = identities.TrustDomain("cluster.local")
T = "type.googleapis.com/"
TYPES = {
    T + "envoy.config.cluster.v3.Cluster": ("clusters", cluster_pb2.Cluster),
    T + "envoy.config.listener.v3.Listener": ("listeners", listener_pb2.Listener),
    T + "istio.networking.nds.v1.NameTable": ("names", nds_pb2.NameTable),
}


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in held]


class Tokens:
    """Takes `token-<account>` as proof of that account."""

    def __init__(self):
        self.seen = []

    async def authenticate(self, credentials: callers.Credentials) -> callers.Caller:
        self.seen.append(credentials)
        if not credentials.token.startswith("token-"):
            raise callers.CallerRefused("unknown token")
        account = credentials.token.removeprefix("token-")
        return callers.Caller(
            identities.ClusterId(credentials.claimed_cluster), "sample", account, pod=account
        )


class ControlPlane:
    """Signs, and hands each proxy the configuration that the test wrote for its account."""

    def __init__(self):
        self.tokens = Tokens()
        self.configurations = {}
        self.accepted = []
        self.signer = certificates.signer(now=self._now())
        self.serving = tls.Serving(
            tls.issue(self.signer, names=("istiod.istio-system.svc",), now=self._now())
        )
        self.metrics = metrics.Metrics()
        self.host = "127.0.0.1"
        self.port = 0

    @staticmethod
    def _now():
        # Whole seconds, cut to the hour: one root for all tests of a run.
        now = clock.SystemClock().now()
        return now.replace(minute=0, second=0, microsecond=0) - datetime.timedelta(hours=1)

    @contextlib.asynccontextmanager
    async def listening(self, port: int = 0):
        signing = csr.handler(
            self.tokens,
            authority=lambda: self.signer,
            trust_domain=lambda: DOMAIN,
            system_clock=clock.SystemClock(),
            registered=metrics.Metrics(),
        )
        discovery = grpc.method_handlers_generic_handler(
            xdsproxy.SERVICE,
            {
                "DeltaAggregatedResources": grpc.stream_stream_rpc_method_handler(
                    self._deltas,
                    request_deserializer=discovery_pb2.DeltaDiscoveryRequest.FromString,
                    response_serializer=discovery_pb2.DeltaDiscoveryResponse.SerializeToString,
                )
            },
        )
        server = grpc.aio.server(handlers=(signing, discovery))
        self.port = server.add_secure_port(
            f"{self.host}:{port}", grpc_tls.server_credentials(self.serving)
        )
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)

    async def _deltas(self, requests, context):
        shown = dict(context.invocation_metadata())
        account = shown["authorization"].removeprefix("Bearer token-")
        async for request in requests:
            if request.error_detail.message:
                raise AssertionError(request.error_detail.message)
            self.accepted += [request.type_url] if request.response_nonce else []
            if request.response_nonce or request.type_url not in TYPES:
                continue
            key, kind = TYPES[request.type_url]
            answer = discovery_pb2.DeltaDiscoveryResponse(type_url=request.type_url, nonce="1")
            for document in self.configurations[account].get(key, ()):
                made = json_format.ParseDict(document, kind())
                entry = answer.resources.add(name=getattr(made, "name", ""), version="1")
                entry.resource.Pack(made)
            await context.write(answer)


class Agent:
    """One agent as a program of its own, with its Envoy."""

    def __init__(self, account: str, *, control: ControlPlane, folder: pathlib.Path, **environment):
        self.admin, self.status, self.health, self.prometheus = free_ports(4)
        self.folder = folder / account
        self.folder.mkdir()
        (self.folder / "token").write_text(f"token-{account}")
        (self.folder / "roots.pem").write_text(control.signer.roots_pem)
        proxy = {
            "discoveryAddress": f"{control.host}:{control.port}",
            "proxyAdminPort": self.admin,
            "statusPort": self.status,
            "terminationDrainDuration": "0s",
            "proxyStatsMatcher": {
                "inclusionSuffixes": ["fail_verify_san"],
                "inclusionPrefixes": ["tcp."],
            },
        }
        self.environment = {
            **os.environ,
            "TMPDIR": str(self.folder),
            "PROXY_CONFIG": json.dumps(proxy),
            "ISTIOD_SAN": "istiod.istio-system.svc",
            "XDS_ROOT_CA": str(self.folder / "roots.pem"),
            "ISTHMUS_TOKEN_FILE": str(self.folder / "token"),
            "ENVOY_STATUS_PORT": str(self.health),
            "ENVOY_PROMETHEUS_PORT": str(self.prometheus),
            "POD_NAME": account,
            "POD_NAMESPACE": "sample",
            "ISTIO_META_CLUSTER_ID": "cluster1",
            **environment,
        }
        self.log = self.folder / "log"

    @contextlib.asynccontextmanager
    async def running(self):
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "isthmus.node", "proxy", "sidecar"),
                env=self.environment,
                stdout=log,
                stderr=log,
            )
        try:
            yield self
        finally:
            if self.process.returncode is None:
                self.process.terminate()
            await asyncio.wait_for(self.process.wait(), pace.patience(15))

    async def ready(self) -> None:
        async with asyncio.timeout(pace.patience(20)):
            while await self.get(f"http://127.0.0.1:{self.health}/healthz/ready") != 200:
                assert self.process.returncode is None, self.log.read_text()
                await asyncio.sleep(0.05)

    async def logged(self, text: str) -> None:
        async with asyncio.timeout(pace.patience(20)):
            while text not in self.log.read_text():  # noqa: ASYNC110  # another program writes
                await asyncio.sleep(0.05)

    async def get(self, url: str) -> int:
        try:
            async with aiohttp.request("GET", url) as answer:
                return answer.status
        except aiohttp.ClientError:
            return 0
