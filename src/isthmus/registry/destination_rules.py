"""DestinationRule objects: how clients talk to a service and its subsets.

Source: spec sections 3.4, 8.1 and 8.2.
"""

import dataclasses
from typing import Final

from isthmus.kube import objects
from isthmus.mesh.policies import (
    ClientTls,
    DestinationRule,
    LoadBalancer,
    OutlierDetection,
    Subset,
    TrafficPolicy,
)
from isthmus.registry import config, fields, naming

TLS_MODES: Final = {mode.value: mode for mode in ClientTls if mode is not ClientTls.AUTO}
BALANCERS: Final = {
    "UNSPECIFIED": LoadBalancer.LEAST_REQUEST,
    "LEAST_REQUEST": LoadBalancer.LEAST_REQUEST,
    "LEAST_CONN": LoadBalancer.LEAST_REQUEST,
    "ROUND_ROBIN": LoadBalancer.ROUND_ROBIN,
    "RANDOM": LoadBalancer.RANDOM,
}
MOST: Final = 2**31 - 1


def read(
    origin: config.Origin, object_: objects.FreeForm, problems: fields.Problems
) -> DestinationRule | None:
    """Say what a DestinationRule means; None without a host."""
    spec = fields.Fields(object_.spec, path="spec", problems=problems)
    host = spec.text("host")
    if not host:
        spec.problem("host", "must name a service")
        return None
    spec.refuse_others({"host", "trafficPolicy", "subsets", "exportTo"})
    policy = _policy(spec.part("trafficPolicy"), over=TrafficPolicy())
    return DestinationRule(
        namespace=origin.namespace,
        name=origin.name,
        host=naming.qualified(host, namespace=origin.namespace, domain=origin.domain),
        policy=policy,
        subsets=_subsets(spec, policy),
        export_to=spec.texts("exportTo"),
    )


def _subsets(spec: fields.Fields, policy: TrafficPolicy) -> tuple[Subset, ...]:
    """Return the subsets; of one name the first counts."""
    found: dict[str, Subset] = {}
    for part in spec.parts("subsets"):
        name = part.text("name")
        if not name or name in found:
            part.problem("name", "must name each subset once")
            continue
        part.refuse_others({"name", "labels", "trafficPolicy"})
        own = part.part("trafficPolicy")
        found[name] = Subset(name, part.pairs("labels"), _policy(own, over=policy) if own else None)
    return tuple(found.values())


def _policy(part: fields.Fields, *, over: TrafficPolicy) -> TrafficPolicy:
    """Return the policy that `part` makes of the one above it."""
    part.refuse_others({"tls", "loadBalancer", "outlierDetection", "connectionPool"})
    policy = over
    if "tls" in part:
        mode = part.part("tls").choice("mode", TLS_MODES, default=ClientTls.AUTO)
        policy = dataclasses.replace(policy, tls=mode)
    if "loadBalancer" in part:
        balancer = part.part("loadBalancer")
        balancer.refuse_others({"simple"})
        policy = dataclasses.replace(
            policy, balancer=balancer.choice("simple", BALANCERS, default=over.balancer)
        )
    if "outlierDetection" in part:
        policy = dataclasses.replace(policy, outlier=_outlier(part.part("outlierDetection")))
    if "connectionPool" in part:
        policy = dataclasses.replace(policy, max_connections=_connections(part))
    return policy


def _outlier(part: fields.Fields) -> OutlierDetection:
    part.refuse_others(
        {
            "consecutive5xxErrors",
            "consecutiveErrors",
            "consecutiveGatewayErrors",
            "interval",
            "baseEjectionTime",
            "maxEjectionPercent",
        }
    )
    return OutlierDetection(
        consecutive_5xx=_limit(part, "consecutive5xxErrors"),
        consecutive_gateway_errors=_limit(part, "consecutiveGatewayErrors")
        if "consecutiveGatewayErrors" in part
        else _limit(part, "consecutiveErrors"),
        interval_s=part.seconds("interval", default=10.0),
        base_ejection_s=part.seconds("baseEjectionTime", default=30.0),
        max_ejection_percent=part.number("maxEjectionPercent", default=10, least=0, most=100),
    )


def _limit(part: fields.Fields, key: str) -> int | None:
    number = part.number(key, default=-1, least=0, most=MOST)
    return None if number < 0 else number


def _connections(part: fields.Fields) -> int:
    pool = part.part("connectionPool")
    pool.refuse_others({"tcp"})
    tcp = pool.part("tcp")
    tcp.refuse_others({"maxConnections"})
    return tcp.number("maxConnections", default=0, least=0, most=MOST)
