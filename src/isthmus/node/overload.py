"""What Envoy does when there is more work than memory.

A gateway serves strangers: one that is killed for its memory takes every connection with it, so it
turns away new ones first, and never takes more of them than it has memory for. A sidecar takes what
its application would take.

Source: Envoy's advice for proxies at the edge; security rule GW-6.
"""

from isthmus.node import settings

TYPE = "type.googleapis.com/envoy.extensions.resource_monitors."
SHRINKS_AT = 0.90
REFUSES_AT = 0.95
LOOK_EVERY = "0.25s"

CONNECTION_BYTES = 64 * 1024
"""What a connection may need: two buffers of 32 KiB."""


def _connections(most: int) -> dict[str, object]:
    return {
        "name": "envoy.resource_monitors.global_downstream_max_connections",
        "typed_config": {
            "@type": TYPE + "downstream_connections.v3.DownstreamConnectionsConfig",
            "max_active_downstream_connections": str(most),
        },
    }


UNLIMITED = _connections(2**31 - 1)
"""It is said so that Envoy does not warn that there is no limit."""

_HEAP = "envoy.resource_monitors.fixed_heap"


def manager(wanted: settings.Settings) -> dict[str, object]:
    """Build the overload manager of a bootstrap."""
    if wanted.kind == "sidecar" or not wanted.memory_bytes:
        return {"resource_monitors": [UNLIMITED]}
    heap = {
        "name": _HEAP,
        "typed_config": {
            "@type": TYPE + "fixed_heap.v3.FixedHeapConfig",
            "max_heap_size_bytes": str(wanted.memory_bytes),
        },
    }
    return {
        "refresh_interval": LOOK_EVERY,
        "resource_monitors": [_connections(wanted.memory_bytes // CONNECTION_BYTES), heap],
        "actions": [
            _action("shrink_heap", SHRINKS_AT),
            # Refused rather than left waiting: who is refused tries another gateway at once.
            _action("reject_incoming_connections", REFUSES_AT),
        ],
    }


def _action(name: str, share: float) -> dict[str, object]:
    return {
        "name": f"envoy.overload_actions.{name}",
        "triggers": [{"name": _HEAP, "threshold": {"value": share}}],
    }
