"""What Envoy starts with: where it asks for the rest, and what it offers to those who watch it.

Source: spec section 4.3.
"""

from collections.abc import Mapping

from isthmus.node import overload, settings

TYPE = "type.googleapis.com/"
MARK = 1337
_SOL_SOCKET, _SO_MARK = 1, 36

STATS_PREFIXES = ("cluster_manager", "listener_manager", "server.", "cluster.xds-grpc")
STATS_SUFFIXES = ("downstream_cx_active",)
"""What this agent reads itself; everything else only costs memory until somebody asks for it."""

RUNTIME = {
    "name": "static",
    # Policies must see all values of a header at once: one that fits does not excuse the others.
    "static_layer": {"envoy.reloadable_features.rbac_match_headers_individually": False},
}


GUARDS = {
    # An orderly end of a tunnel is followed by a reset of its stream without an error. This Envoy
    # takes that for a broken connection and breaks the caller's, which loses what was on its way.
    "envoy.reloadable_features.propagate_upstream_rst_through_tunneled_tcp_proxy": False,
    "envoy.reloadable_features.map_http_stream_reset_to_tcp_rst": False,
}


def document(wanted: settings.Settings, *, may_mark: bool) -> dict[str, object]:
    """Build the bootstrap.

    Args:
        wanted: What the agent was told.
        may_mark: Whether sockets can be marked here; packet rules tell Envoy's own by that.
    """
    built: dict[str, object] = {
        "node": _node(wanted.node, may_mark=may_mark),
        "admin": {
            "address": _address("127.0.0.1", wanted.ports.admin),
            "profile_path": "/dev/null",
        },
        "dynamic_resources": DYNAMIC,
        "static_resources": {"listeners": _pages(wanted.ports), "clusters": _clusters(wanted)},
        "layered_runtime": {"layers": [*_runtime(wanted), {"name": "admin", "admin_layer": {}}]},
        "overload_manager": overload.manager(wanted),
        "bootstrap_extensions": [INTERNAL_LISTENERS],
        "stats_config": _stats(wanted.stats),
    }
    if may_mark:
        built["cluster_manager"] = {"upstream_bind_config": _MARKED}
    return built


def _node(node: Mapping[str, object], *, may_mark: bool) -> dict[str, object]:
    """Say who Envoy is, and that the control plane must not take the mark from its sockets.

    Options of a cluster's own replace those of all clusters.
    """
    if not may_mark:
        return dict(node)
    told = node.get("metadata")
    metadata = told if isinstance(told, Mapping) else {}
    return {**node, "metadata": {**metadata, "MARKS_SOCKETS": "true"}}


def _runtime(wanted: settings.Settings) -> list[dict[str, object]]:
    told = wanted.node.get("metadata")
    speaks_tunnels = isinstance(told, Mapping) and told.get("ENABLE_HBONE") == "true"
    layers: list[dict[str, object]] = [{**RUNTIME}]
    if speaks_tunnels or wanted.kind == "waypoint":
        layers.append({"name": "tunnels", "static_layer": GUARDS})
    return layers


def _pages(ports: settings.Ports) -> list[dict[str, object]]:
    return [
        _page("health", port=ports.health, path="/healthz/ready", cluster="agent"),
        _page(
            "prometheus",
            port=ports.prometheus,
            path="/stats/prometheus",
            cluster="prometheus_stats",
        ),
    ]


def _clusters(wanted: settings.Settings) -> list[dict[str, object]]:
    return [
        cluster("xds-grpc", {"pipe": {"path": wanted.discovery_socket}}, http2=True),
        cluster("sds-grpc", {"pipe": {"path": wanted.secrets_socket}}, http2=True),
        cluster("agent", _address("127.0.0.1", wanted.ports.status)),
        cluster("prometheus_stats", _address("127.0.0.1", wanted.ports.admin)),
    ]


_ADS = {"ads": {}, "initial_fetch_timeout": "0s", "resource_api_version": "V3"}

_DISCOVERY = {
    "envoy_grpc": {
        "cluster_name": "xds-grpc",
        # The agent listens a moment after Envoy starts, so the first failures are retried quickly.
        "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "3s"}},
    },
}

DYNAMIC = {
    "ads_config": {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [_DISCOVERY],
    },
    "cds_config": _ADS,
    "lds_config": _ADS,
}

INTERNAL_LISTENERS = {
    "name": "envoy.bootstrap.internal_listener",
    "typed_config": {
        "@type": TYPE + "envoy.extensions.bootstrap.internal_listener.v3.InternalListener"
    },
}

_MARKED = {
    "source_address": {"address": "0.0.0.0", "port_value": 0},  # noqa: S104, RUF100  # any
    "socket_options": [
        {
            "description": "tell the proxy's own connections from its application's",
            "level": _SOL_SOCKET,
            "name": _SO_MARK,
            "int_value": MARK,
            "state": "STATE_PREBIND",
        }
    ],
}


def _address(host: str, port: int) -> dict[str, object]:
    return {"socket_address": {"address": host, "port_value": port}}


def cluster(name: str, address: object, *, http2: bool = False) -> dict[str, object]:
    """Build the cluster of somebody beside the proxy."""
    built: dict[str, object] = {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "priority": priority,
                    "max_connections": 100000,
                    "max_pending_requests": 100000,
                    "max_requests": 100000,
                }
                for priority in ("DEFAULT", "HIGH")
            ]
        },
    }
    if http2:
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        built["typed_extension_protocol_options"] = {
            options: {
                "@type": TYPE + options,
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    return built


def _page(name: str, *, port: int, path: str, cluster: str) -> dict[str, object]:
    """Build a listener that shows one page of somebody who listens on loopback only."""
    route = {"match": {"path": path}, "route": {"cluster": cluster}}
    return {
        "name": name,
        "address": _address("0.0.0.0", port),  # noqa: S104, RUF100  # kubelet and Prometheus ask
        "ignore_global_conn_limit": True,
        "filter_chains": [
            {
                "filters": [
                    {
                        "name": "envoy.filters.network.http_connection_manager",
                        "typed_config": {
                            "@type": TYPE + "envoy.extensions.filters.network."
                            "http_connection_manager.v3.HttpConnectionManager",
                            "stat_prefix": name,
                            "codec_type": "AUTO",
                            "route_config": {
                                "virtual_hosts": [
                                    {"name": name, "domains": ["*"], "routes": [route]}
                                ]
                            },
                            "http_filters": [
                                {
                                    "name": "envoy.filters.http.router",
                                    "typed_config": {
                                        "@type": TYPE
                                        + "envoy.extensions.filters.http.router.v3.Router"
                                    },
                                }
                            ],
                        },
                    }
                ]
            }
        ],
    }


def _stats(asked: Mapping[str, object]) -> dict[str, object]:
    """Narrow the statistics to what is read, and what the proxy's configuration asks for."""
    patterns: list[dict[str, object]] = [{"prefix": each} for each in STATS_PREFIXES]
    patterns += [{"suffix": each} for each in STATS_SUFFIXES]
    patterns += [{"prefix": each} for each in _texts(asked.get("inclusionPrefixes"))]
    patterns += [{"suffix": each} for each in _texts(asked.get("inclusionSuffixes"))]
    patterns += [{"safe_regex": {"regex": each}} for each in _texts(asked.get("inclusionRegexps"))]
    return {
        "use_all_default_tags": False,
        "stats_matcher": {"inclusion_list": {"patterns": patterns}},
    }


def _texts(value: object) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list) else []
