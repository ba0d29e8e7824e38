"""How a proxy's agent reaches the control plane over gRPC.

Source: spec section 1.5.
"""

from dataclasses import dataclass, field

import grpc

LARGEST_MESSAGE_BYTES = 64 << 20
"""Configuration of a large mesh in one message."""


@dataclass(frozen=True, slots=True)
class Target:
    """The control plane, as seen from one proxy at one moment.

    Attributes:
        address: Where to connect, as gRPC writes it: `host:port` or `unix:/path`.
        server_name: Whose certificate is expected, wherever the connection leads.
        roots_pem: Who may vouch for that certificate.
        token: Proves who we are; never logged.
        cluster: The cluster that can review the token.
        headers: Further metadata, from the proxy's environment.
    """

    address: str
    server_name: str
    roots_pem: str = field(repr=False)
    token: str = field(repr=False)
    cluster: str
    headers: tuple[tuple[str, str], ...] = ()

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """List what every call carries."""
        return (
            ("authorization", f"Bearer {self.token}"),
            ("clusterid", self.cluster),
            *self.headers,
        )


def channel(target: Target) -> grpc.aio.Channel:
    """Open a channel; it connects with its first call, and again when it is cut."""
    return grpc.aio.secure_channel(
        target.address,
        grpc.ssl_channel_credentials(target.roots_pem.encode()),
        options=(
            ("grpc.ssl_target_name_override", target.server_name),
            ("grpc.default_authority", target.server_name),
            ("grpc.max_receive_message_length", LARGEST_MESSAGE_BYTES),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", 1000),
            ("grpc.max_reconnect_backoff_ms", 3000),
            # Proxies of a container environment have none between a pod and its control plane.
            ("grpc.enable_http_proxy", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ),
    )
