"""What Istio's own metrics count about discovery, under their names.

Source: spec section 9.4.
"""

from isthmus.base import metrics


class Counters:
    """What Istio's own metrics count about discovery."""

    def __init__(self, registered: metrics.Metrics) -> None:
        self.connected = registered.gauge("pilot_xds", "Proxies that are connected.", "version")
        self.pushes = registered.counter("pilot_xds_pushes", "Offers that were sent.", "type")
        self.rejects = registered.counter(
            "pilot_total_xds_rejects", "Offers that proxies refused.", "type"
        )
        self.write_timeouts = registered.counter(
            "pilot_xds_write_timeout", "Streams that ended because a proxy did not read."
        )
        self.refused = registered.counter(
            "isthmus_xds_streams_refused_total", "Streams that ended with a status.", "status"
        )
