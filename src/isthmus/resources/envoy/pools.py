"""How many connections and requests at once, and for how long, in Envoy's words.

Source: spec sections 4.8 and 8.2.
"""

import functools
from collections.abc import Mapping
from typing import Final

from envoy.config.cluster.v3 import circuit_breaker_pb2, cluster_pb2
from envoy.config.core.v3 import socket_option_pb2
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2
from google.protobuf import any_pb2, message

from isthmus.mesh.services import Protocol
from isthmus.mesh.traffic import ConnectionPool, Keepalive, RetryBudget
from isthmus.resources.envoy import messages

UNLIMITED: Final = 2**32 - 1
HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

# A peer that vanished without a word is noticed within half a minute of silence. Without probes
# a connection through a gateway that is gone would be kept until the kernel gives up, after
# a quarter of an hour and more.
TIME_S: Final = 15
INTERVAL_S: Final = 5
PROBES: Final = 3

# From Linux's headers; proxies run nowhere else.
_SOL_SOCKET, _SO_MARK = 1, 36
_IPPROTO_TCP, _TCP_USER_TIMEOUT = 6, 18
MARK: Final = 1337
"""By it packet rules know a proxy's own connections where it has no user of its own."""


@functools.lru_cache(maxsize=1024)
def limits(pool: ConnectionPool, *, budget: RetryBudget | None) -> message.Message:
    """Return the circuit breakers of a cluster; a budget counts before a number of retries."""
    threshold = {
        "max_connections": _limit(pool.max_connections),
        "max_pending_requests": _limit(pool.max_pending),
        "max_requests": _limit(pool.max_requests),
        "max_retries": _limit(pool.max_retries),
        "track_remaining": True,
        **_budget(budget),
    }
    result: message.Message = circuit_breaker_pb2.CircuitBreakers(thresholds=[threshold])
    return result


def _budget(budget: RetryBudget | None) -> messages.Fields:
    if budget is None:
        return {}
    percent = {"value": budget.percent}
    least = {"value": budget.least}
    return {"retry_budget": {"budget_percent": percent, "min_retry_concurrency": least}}


def _limit(amount: int | None) -> messages.Fields:
    return {"value": UNLIMITED if amount is None else amount}


@functools.lru_cache(maxsize=1024)
def http_options(
    protocol: Protocol, pool: ConnectionPool, *, asks_as_requested: bool = False
) -> Mapping[str, any_pb2.Any]:
    """Return what version of HTTP is spoken, and the limits of its connections.

    TLS may ask for the host that each request names, and hold the server to it.
    """
    version, common = _version(protocol, pool), _common(pool)
    upstream = {"auto_sni": True, "auto_san_validation": True} if asks_as_requested else None
    if not version and not common and not upstream:
        return {}
    chosen = http_protocol_options_pb2.HttpProtocolOptions(
        **(version or {"explicit_http_config": {"http_protocol_options": {}}}),
        common_http_protocol_options=common or None,
        upstream_http_protocol_options=upstream,
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
    return {"upstream_connection_options": _keepalive(*_probing(pool))}


@functools.lru_cache(maxsize=1024)
def _keepalive(time_s: int, interval_s: int, probes: int) -> message.Message:
    probing = {
        "keepalive_time": time_s,
        "keepalive_interval": interval_s,
        "keepalive_probes": probes,
    }
    result: message.Message = cluster_pb2.UpstreamConnectionOptions(
        tcp_keepalive={name: {"value": amount} for name, amount in probing.items()}
    )
    return result


def _probing(pool: ConnectionPool) -> tuple[int, int, int]:
    """Return after how long of silence a peer is probed, how often then, and how many times."""
    said = pool.keepalive or Keepalive()
    return said.time_s or TIME_S, said.interval_s or INTERVAL_S, said.probes or PROBES


def impatience(pool: ConnectionPool, *, marks_sockets: bool) -> messages.Fields:
    """Return that a connection ends whose peer takes no byte for as long as it may be silent.

    Probes are only sent while nothing waits for an acknowledgement: without this, a request that
    was on its way when the path broke would be repeated by the kernel for a quarter of an hour.
    """
    time_s, interval_s, probes = _probing(pool)
    limit_ms = (time_s + interval_s * probes) * 1000
    options = [_option(_IPPROTO_TCP, _TCP_USER_TIMEOUT, limit_ms)]
    if marks_sockets:
        # Options of a cluster replace those that the proxy was started with.
        options.append(_option(_SOL_SOCKET, _SO_MARK, MARK))
    return {"upstream_bind_config": {"socket_options": options}}


def _option(level: int, name: int, value: int) -> messages.Fields:
    when = socket_option_pb2.SocketOption.STATE_PREBIND
    return {"level": level, "name": name, "int_value": value, "state": when}
