"""A client of discovery, of gRPC's own making."""

import asyncio

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2

from isthmus.testing import pace
from isthmus.wire import ads

GOOD = (("authorization", "Bearer good"), ("clusterid", "c1"))
NODE = "sidecar~10.0.0.1~sleep-1.default~default.svc.cluster.local"


class Stream:
    """One client, in either form of the protocol."""

    def __init__(self, channel, *, delta=True, metadata=GOOD):
        self.delta = delta
        name = "DeltaAggregatedResources" if delta else "StreamAggregatedResources"
        self.call = channel.stream_stream(f"/{ads.SERVICE}/{name}")(metadata=metadata)

    async def say(self, type_url, *names, node=NODE, nonce="", error=None, metadata=None, has=()):
        """Say something; `has` are names with versions that it has from another stream, in delta."""
        if self.delta:
            message = discovery_pb2.DeltaDiscoveryRequest(
                resource_names_subscribe=names, initial_resource_versions=dict(has)
            )
        else:
            message = discovery_pb2.DiscoveryRequest(resource_names=names)
        message.type_url = type_url
        message.response_nonce = nonce
        if node:
            message.node.id = node
            message.node.metadata.update(metadata or {})
        if error:
            message.error_detail.CopyFrom(status_pb2.Status(code=3, message=error))
        await self.call.write(message.SerializeToString())

    async def hear(self):
        content = await asyncio.wait_for(self.call.read(), pace.patience(5))
        kind = (
            discovery_pb2.DeltaDiscoveryResponse if self.delta else discovery_pb2.DiscoveryResponse
        )
        return kind.FromString(content)

    async def ended(self):
        try:
            while await asyncio.wait_for(self.call.read(), pace.patience(5)) is not grpc.aio.EOF:
                continue
        except grpc.aio.AioRpcError as error:
            return error
        raise AssertionError("the stream ended without a status")
