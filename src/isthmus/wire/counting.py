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
        self.send_time = registered.histogram(
            "pilot_xds_send_time",
            "Seconds until an offer was written.",
            bounds=(0.01, 0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0),
        )
        self.size = registered.histogram(
            "pilot_xds_config_size_bytes",
            "Size of offers.",
            "type",
            bounds=(1.0, 1e4, 1e6, 4e6, 1e7, 4e7),
        )
        self.convergence = registered.histogram(
            "pilot_proxy_convergence_time",
            "Seconds from a change to the last offer that tells a proxy of it.",
            bounds=(0.1, 0.5, 1.0, 3.0, 5.0, 10.0, 20.0, 30.0),
        )
        self.refused = registered.counter(
            "isthmus_xds_streams_refused_total", "Streams that ended with a status.", "status"
        )
