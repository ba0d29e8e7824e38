"""Reads a `trafficPolicy`: how clients balance, limit, probe and encrypt.

A setting that is not understood is left out, and named; the others hold.

Source: spec sections 4.11, 8.1 and 8.2.
"""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Final

from isthmus.mesh.traffic import (
    Balancing,
    ClientTls,
    ConnectionPool,
    Encryption,
    HashKey,
    HashOf,
    Http2,
    Keepalive,
    LoadBalancer,
    OutlierDetection,
    RetryBudget,
    TrafficPolicy,
    Warmup,
)
from isthmus.registry import fields, locality_settings, texts

TLS_MODES: Final = {mode.value: mode for mode in ClientTls if mode is not ClientTls.AUTO}
BALANCERS: Final = {
    "UNSPECIFIED": None,
    "LEAST_REQUEST": LoadBalancer.LEAST_REQUEST,
    "LEAST_CONN": LoadBalancer.LEAST_REQUEST,
    "ROUND_ROBIN": LoadBalancer.ROUND_ROBIN,
    "RANDOM": LoadBalancer.RANDOM,
    "PASSTHROUGH": LoadBalancer.PASSTHROUGH,
}
UPGRADES: Final = {
    "DEFAULT": Http2.AS_DECLARED,
    "DO_NOT_UPGRADE": Http2.AS_DECLARED,
    "UPGRADE": Http2.UPGRADED,
}
PARTS: Final = {"tls", "loadBalancer", "outlierDetection", "connectionPool"}
FOREIGN_TLS: Final = frozenset(
    {
        "mode",
        "sni",
        "subjectAltNames",
        "caCertificates",
        "clientCertificate",
        "privateKey",
        "credentialName",
        "insecureSkipVerify",
    }
)
MOST: Final = 2**31 - 1
MOST_PORT: Final = 65535
MOST_RING: Final = 8 * 1024 * 1024
MOST_TABLE: Final = 5000011
SHORTEST_S: Final = 0.001


def read(part: fields.Fields) -> TrafficPolicy:
    """Say what a traffic policy means, with what holds for single ports."""
    part.refuse_others({*PARTS, "portLevelSettings", "retryBudget"})
    policy = _policy(part)
    ports = dict[int, TrafficPolicy]()
    for entry in part.parts("portLevelSettings"):
        entry.refuse_others({*PARTS, "port"})
        port = entry.part("port").number("number", default=0, least=1, most=MOST_PORT)
        if not port or port in ports:
            entry.problem("port", "must name each port once")
            continue
        ports[port] = _policy(entry)
    return TrafficPolicy(
        policy.tls,
        policy.balancing,
        policy.outlier,
        policy.pool,
        tuple(sorted(ports.items(), key=_port)),
        _budget(part.part("retryBudget")) if "retryBudget" in part else None,
    )


def _port(item: tuple[int, TrafficPolicy]) -> int:
    return item[0]


def _policy(part: fields.Fields) -> TrafficPolicy:
    return TrafficPolicy(
        tls=_encryption(part.part("tls")) if "tls" in part else None,
        balancing=_balancing(part.part("loadBalancer")) if "loadBalancer" in part else None,
        outlier=_outlier(part.part("outlierDetection")) if "outlierDetection" in part else None,
        pool=_pool(part.part("connectionPool")) if "connectionPool" in part else None,
    )


def _encryption(part: fields.Fields) -> Encryption:
    mode = part.choice("mode", TLS_MODES, default=ClientTls.AUTO)
    found = Encryption(
        mode,
        _checked(part, "sni", texts.is_server_name),
        tuple(sorted({name for name in part.texts("subjectAltNames") if name})),
    )
    if not found.is_foreign:
        part.refuse_others({"mode", "sni", "subjectAltNames"}, "is for SIMPLE and MUTUAL alone")
        return found
    part.refuse_others(FOREIGN_TLS)
    certificate, key = _own_certificate(part, mode)
    return dataclasses.replace(
        found,
        authorities=_path(part, "caCertificates"),
        certificate=certificate,
        key=key,
        credential=_checked(part, "credentialName", texts.is_object_name),
        verifies=_verifies(part),
    )


def _own_certificate(part: fields.Fields, mode: ClientTls) -> tuple[str, str]:
    """Return the paths of what a client shows; without, servers that demand it turn it away."""
    certificate, key = _path(part, "clientCertificate"), _path(part, "privateKey")
    if mode is ClientTls.SIMPLE:
        if certificate or key:
            part.problem("clientCertificate", "is for MUTUAL alone, and shown to nobody")
        return "", ""
    if certificate and key:
        return certificate, key
    if "credentialName" not in part:
        part.problem("clientCertificate", "and `privateKey` must name files: nothing is shown")
    return "", ""


def _verifies(part: fields.Fields) -> bool:
    if not part.flag("insecureSkipVerify", default=False):
        return True
    said = [key for key in ("caCertificates", "subjectAltNames") if key in part]
    if said:
        part.problem("insecureSkipVerify", f"is left out beside `{said[0]}`, which holds")
    return bool(said)


def _path(part: fields.Fields, key: str) -> str:
    """Return the path of a file; in the name by which a proxy asks for it `~` parts two paths."""
    return _checked(part, key, lambda text: texts.is_printable(text) and "~" not in text)


# --- balancing


def _balancing(part: fields.Fields) -> Balancing:
    part.refuse_others(
        {"simple", "consistentHash", "localityLbSetting", "warmup", "warmupDurationSecs"}
    )
    hashed = _hashed(part.part("consistentHash")) if "consistentHash" in part else None
    simple = part.choice("simple", BALANCERS, default=None)
    if hashed is not None and "simple" in part:
        part.problem("simple", "has no meaning beside `consistentHash`, which holds")
    return Balancing(
        balancer=simple if hashed is None else hashed.balancer,
        key=None if hashed is None else hashed.key,
        ring_size=0 if hashed is None else hashed.ring_size,
        warmup=_warmup(part),
        locality=locality_settings.read(part.part("localityLbSetting"))
        if "localityLbSetting" in part
        else None,
    )


def _hashed(part: fields.Fields) -> Balancing | None:
    """Return consistent hashing, or None when nothing says by what."""
    part.refuse_others(
        {
            "httpHeaderName",
            "httpCookie",
            "useSourceIp",
            "httpQueryParameterName",
            "ringHash",
            "maglev",
            "minimumRingSize",
        }
    )
    key = next(iter(_keys(part)), None)
    if key is None:
        part.problem("httpHeaderName", "or another property to hash by must be named")
        return None
    if "maglev" in part:
        size = part.part("maglev").number("tableSize", default=0, least=2, most=MOST_TABLE)
        if size and not _is_prime(size):
            part.problem(
                "maglev.tableSize", "must be a prime number, so that the usual one is used"
            )
            size = 0
        return Balancing(LoadBalancer.MAGLEV, key, size)
    ring = part.part("ringHash") if "ringHash" in part else part
    size = ring.number("minimumRingSize", default=0, least=0, most=MOST_RING)
    return Balancing(LoadBalancer.RING_HASH, key, size)


def _keys(part: fields.Fields) -> Iterable[HashKey]:
    # Routes with a name that cannot be one would be refused by proxies, with all others.
    if name := _checked(
        part, "httpHeaderName", lambda text: texts.is_header(text.removeprefix(":"))
    ):
        yield HashKey(HashOf.HEADER, name.lower())
    cookie = part.part("httpCookie")
    if name := _checked(cookie, "name", texts.is_header):
        ttl_s = cookie.seconds("ttl", default=0.0) if "ttl" in cookie else None
        path = _checked(cookie, "path", lambda text: texts.is_printable(text) and ";" not in text)
        yield HashKey(HashOf.COOKIE, name, ttl_s, path)
    if part.flag("useSourceIp", default=False):
        yield HashKey(HashOf.SOURCE_IP)
    if name := _checked(part, "httpQueryParameterName", texts.is_printable):
        yield HashKey(HashOf.QUERY_PARAMETER, name)


def _checked(part: fields.Fields, key: str, is_right: Callable[[str], bool]) -> str:
    """Return a text, or nothing where it cannot be what it stands for."""
    text = part.text(key)
    if not text or is_right(text):
        return text
    part.problem(key, f"cannot be `{ascii(text[:40])[1:-1]}`")
    return ""


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _warmup(part: fields.Fields) -> Warmup | None:
    if "warmup" in part:
        warmup = part.part("warmup")
        warmup.refuse_others({"duration", "minimumPercent", "aggression"})
        duration_s = warmup.seconds("duration", default=0.0)
        if not duration_s:
            warmup.problem("duration", "must be given")
            return None
        return Warmup(
            duration_s,
            warmup.amount("minimumPercent", default=10.0, least=0.0, most=100.0),
            warmup.amount("aggression", default=1.0, least=1.0, most=1000.0),
        )
    duration_s = part.seconds("warmupDurationSecs", default=0.0)
    return Warmup(duration_s) if duration_s else None


# --- outliers


def _outlier(part: fields.Fields) -> OutlierDetection:
    part.refuse_others(
        {
            "consecutive5xxErrors",
            "consecutiveErrors",
            "consecutiveGatewayErrors",
            "interval",
            "baseEjectionTime",
            "maxEjectionPercent",
            "minHealthPercent",
            "splitExternalLocalOriginErrors",
            "consecutiveLocalOriginFailures",
        }
    )
    return OutlierDetection(
        consecutive_5xx=_limit(part, "consecutive5xxErrors"),
        consecutive_gateway_errors=_limit(part, "consecutiveGatewayErrors")
        if "consecutiveGatewayErrors" in part
        else _limit(part, "consecutiveErrors"),
        interval_s=part.seconds("interval", default=10.0, least=SHORTEST_S),
        base_ejection_s=part.seconds("baseEjectionTime", default=30.0, least=SHORTEST_S),
        max_ejection_percent=part.number("maxEjectionPercent", default=10, least=0, most=100) or 10,
        splits_local=part.flag("splitExternalLocalOriginErrors", default=False),
        consecutive_local_failures=_limit(part, "consecutiveLocalOriginFailures"),
        least_healthy_percent=part.number("minHealthPercent", default=0, least=0, most=100),
    )


# --- connections


def _pool(part: fields.Fields) -> ConnectionPool:
    part.refuse_others({"tcp", "http"})
    tcp, http = part.part("tcp"), part.part("http")
    tcp.refuse_others(
        {"maxConnections", "connectTimeout", "tcpKeepalive", "maxConnectionDuration", "idleTimeout"}
    )
    http.refuse_others(
        {
            "http1MaxPendingRequests",
            "http2MaxRequests",
            "maxRequestsPerConnection",
            "maxRetries",
            "idleTimeout",
            "h2UpgradePolicy",
            "useClientProtocol",
            "maxConcurrentStreams",
        }
    )
    return ConnectionPool(
        max_connections=_some(tcp, "maxConnections"),
        connect_timeout_s=_duration(tcp, "connectTimeout"),
        keepalive=_keepalive(tcp.part("tcpKeepalive")) if "tcpKeepalive" in tcp else None,
        max_duration_s=_duration(tcp, "maxConnectionDuration"),
        tcp_idle_s=_duration(tcp, "idleTimeout"),
        max_pending=_some(http, "http1MaxPendingRequests"),
        max_requests=_some(http, "http2MaxRequests"),
        max_requests_per_connection=_said(http, "maxRequestsPerConnection"),
        max_retries=_some(http, "maxRetries"),
        http_idle_s=_duration(http, "idleTimeout"),
        max_streams=_said(http, "maxConcurrentStreams"),
        http2=_http2(http),
    )


def _budget(part: fields.Fields) -> RetryBudget:
    """Return how many requests may be repeated; 0 and nothing mean the usual least number."""
    part.refuse_others({"percent", "minRetryConcurrency"})
    usual = RetryBudget()
    return RetryBudget(
        part.amount("percent", default=usual.percent, least=0.0, most=fields.PERCENT),
        part.number("minRetryConcurrency", default=0, least=0, most=MOST) or usual.least,
    )


def _http2(http: fields.Fields) -> Http2:
    if http.flag("useClientProtocol", default=False):
        return Http2.AS_CLIENT
    return http.choice("h2UpgradePolicy", UPGRADES, default=Http2.AS_DECLARED)


def _keepalive(part: fields.Fields) -> Keepalive:
    part.refuse_others({"probes", "time", "interval"})
    time_s, interval_s = _duration(part, "time", least=1.0), _duration(part, "interval", least=1.0)
    return Keepalive(
        probes=_some(part, "probes"),
        time_s=None if time_s is None else int(time_s),
        interval_s=None if interval_s is None else int(interval_s),
    )


def _limit(part: fields.Fields, key: str) -> int | None:
    number = part.number(key, default=-1, least=0, most=MOST)
    return None if number < 0 else number


def _said(part: fields.Fields, key: str) -> int | None:
    """Return a limit, 0 for none; nothing leaves it open."""
    return part.number(key, default=0, least=0, most=MOST) if key in part else None


def _some(part: fields.Fields, key: str) -> int | None:
    """Return a limit; nothing, and 0, sets none."""
    return part.number(key, default=0, least=0, most=MOST) or None


def _duration(part: fields.Fields, key: str, *, least: float = SHORTEST_S) -> float | None:
    return part.seconds(key, default=0.0, least=least) or None
