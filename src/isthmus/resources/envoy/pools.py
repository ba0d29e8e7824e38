"""How many connections and requests at once, and for how long, in Envoy's words.

Source: spec sections 4.8 and 8.2.
"""

from typing import Final

from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import any_pb2

from isthmus.mesh.services import Protocol
from isthmus.mesh.traffic import ConnectionPool, Keepalive
from isthmus.resources.envoy import messages

UNLIMITED: Final = 2**32 - 1
HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# A peer that vanished without a word is noticed within half a minute of silence. Without probes
# a connection through a gateway that is gone would be kept until the kernel gives up, after
# a quarter of an hour and more.
KEEPALIVE: Final = Keepalive(probes=3, time_s=15, interval_s=5)


def limits(pool: ConnectionPool) -> messages.Fields:
    """Return the circuit breakers of a cluster."""
    return {
        "thresholds": [
            {
                "max_connections": _limit(pool.max_connections),
                "max_pending_requests": _limit(pool.max_pending),
                "max_requests": _limit(pool.max_requests),
                "max_retries": _limit(pool.max_retries),
                "track_remaining": True,
            }
        ]
    }


def _limit(amount: int | None) -> messages.Fields:
    return {"value": UNLIMITED if amount is None else amount}


def http_options(protocol: Protocol, pool: ConnectionPool) -> dict[str, any_pb2.Any]:
    """Return what version of HTTP is spoken, and the limits of its connections."""
    version, common = _version(protocol, pool), _common(pool)
    if not version and not common:
        return {}
    chosen = http_protocol_options_pb2.HttpProtocolOptions(
        **(version or {"explicit_http_config": {"http_protocol_options": {}}}),
        common_http_protocol_options=common or None,
    )
    return {HTTP_OPTIONS: messages.packed(chosen)}


def _version(protocol: Protocol, pool: ConnectionPool) -> messages.Fields:
    http2: messages.Fields = {}
    if pool.max_streams:
        http2["max_concurrent_streams"] = {"value": pool.max_streams}
    if protocol.is_http2:
        return {"explicit_http_config": {"http2_protocol_options": http2}}
    if protocol is Protocol.AUTO:
        return {"use_downstream_protocol_config": {"http2_protocol_options": http2}}
    return {}


def _common(pool: ConnectionPool) -> messages.Fields:
    common: messages.Fields = {}
    if pool.http_idle_s is not None:
        common["idle_timeout"] = messages.seconds(pool.http_idle_s)
    if pool.max_duration_s is not None:
        common["max_connection_duration"] = messages.seconds(pool.max_duration_s)
    if pool.max_requests_per_connection:
        common["max_requests_per_connection"] = {"value": pool.max_requests_per_connection}
    return common


def keepalive(pool: ConnectionPool) -> messages.Fields:
    """Return when silent connections are probed: as a rule says, else sooner than the kernel."""
    wanted = pool.keepalive or KEEPALIVE
    probes = {
        "keepalive_time": wanted.time_s or KEEPALIVE.time_s,
        "keepalive_interval": wanted.interval_s or KEEPALIVE.interval_s,
        "keepalive_probes": wanted.probes or KEEPALIVE.probes,
    }
    return {
        "upstream_connection_options": {
            "tcp_keepalive": {name: {"value": amount} for name, amount in probes.items()}
        }
    }
