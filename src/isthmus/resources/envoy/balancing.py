"""How a client picks endpoints, in Envoy's words: load balancer, warmup, outlier detection.

Source: spec sections 4.11 and 8.1.
"""

from typing import Final, assert_never

from envoy.config.cluster.v3 import cluster_pb2

from isthmus.mesh.traffic import LoadBalancer, OutlierDetection, Warmup
from isthmus.resources.envoy import messages
from isthmus.views import view

Cluster = cluster_pb2.Cluster

RING_SIZE: Final = 1024
ANY: Final = 1
"""Percent of endpoints; with fewer, which is none, all are used again."""
AGGRESSION: Final = "isthmus.warmup.aggression"
"""Where an operator of a proxy could overrule the number; Envoy demands a name."""


def of(cluster: view.ClusterSlice) -> messages.Fields:
    """Return how a client picks among the endpoints of a cluster."""
    policy: messages.Fields
    match cluster.balancer:
        case LoadBalancer.ROUND_ROBIN:
            policy = _named(Cluster.ROUND_ROBIN) | _warm("round_robin_lb_config", cluster.warmup)
        case LoadBalancer.RANDOM:
            policy = _named(Cluster.RANDOM)
        case LoadBalancer.RING_HASH:
            size = {"value": cluster.ring_size or RING_SIZE}
            policy = _named(Cluster.RING_HASH) | {
                "ring_hash_lb_config": {"minimum_ring_size": size}
            }
        case LoadBalancer.MAGLEV:
            policy = _named(Cluster.MAGLEV)
            if cluster.ring_size:
                policy["maglev_lb_config"] = {"table_size": {"value": cluster.ring_size}}
        case LoadBalancer.LEAST_REQUEST | LoadBalancer.PASSTHROUGH:
            policy = _named(Cluster.LEAST_REQUEST) | _warm(
                "least_request_lb_config", cluster.warmup
            )
        case _:
            assert_never(cluster.balancer)
    return policy | {"common_lb_config": _common(cluster)}


def _named(policy: int) -> messages.Fields:
    return {"lb_policy": policy}


def _common(cluster: view.ClusterSlice) -> messages.Fields:
    least = 0
    if cluster.outlier is not None:
        least = cluster.outlier.least_healthy_percent or ANY
    common: messages.Fields = {"healthy_panic_threshold": {"value": least}}
    if cluster.weighs_places:
        common["locality_weighted_lb_config"] = {}
    return common


def _warm(field: str, warmup: Warmup | None) -> messages.Fields:
    if warmup is None:
        return {}
    config: messages.Fields = {
        "slow_start_window": messages.seconds(warmup.duration_s),
        "aggression": {"default_value": warmup.aggression, "runtime_key": AGGRESSION},
        "min_weight_percent": {"value": warmup.least_percent},
    }
    return {field: {"slow_start_config": config}}


def outliers(outlier: OutlierDetection | None) -> messages.Fields:
    """Return when endpoints that fail get no calls for a while."""
    if outlier is None:
        return {}
    detection: messages.Fields = {
        "interval": messages.seconds(outlier.interval_s),
        "base_ejection_time": messages.seconds(outlier.base_ejection_s),
        "max_ejection_percent": {"value": outlier.max_ejection_percent},
        # A tenth of fewer than ten endpoints is none: nothing would ever be put off.
        "always_eject_one_host": {"value": True},
        "enforcing_success_rate": {"value": 0},
    }
    limits = {
        "consecutive_5xx": outlier.consecutive_5xx,
        "consecutive_gateway_failure": outlier.consecutive_gateway_errors,
    }
    if outlier.splits_local:
        detection["split_external_local_origin_errors"] = True
        detection["enforcing_local_origin_success_rate"] = {"value": 0}
        limits["consecutive_local_origin_failure"] = outlier.consecutive_local_failures
    for name, limit in limits.items():
        if limit is not None:
            detection[name] = {"value": limit}
            detection[f"enforcing_{name}"] = {"value": 100 if limit else 0}
    return {"outlier_detection": detection}
