"""Configuration for two proxies on loopback, one calling the other over mutual TLS."""

T = "type.googleapis.com/"
TLS = T + "envoy.extensions.transport_sockets.tls.v3."
OPTIONS = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


def address(port: int) -> dict:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def cluster(name: str, port: int, **more) -> dict:
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(port)}}]}],
        },
        **more,
    }


def listener(name: str, port: int, *, to: str, chain: dict | None = None, **connections) -> dict:
    manager = {
        "@type": T
        + "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": name,
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"cluster": to}}],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": T + "envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
        **connections,
    }
    filters = [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]
    return {
        "name": name,
        "address": address(port),
        "filter_chains": [{"filters": filters, **(chain or {})}],
    }


def secrets(*, peer: str) -> dict:
    source = {
        "api_config_source": {
            "api_type": "GRPC",
            "transport_api_version": "V3",
            "grpc_services": [{"envoy_grpc": {"cluster_name": "sds-grpc"}}],
        },
        "resource_api_version": "V3",
        "initial_fetch_timeout": "0s",
    }
    names = [
        {"san_type": "URI", "matcher": {"exact": f"spiffe://cluster.local/ns/sample/sa/{peer}"}}
    ]
    return {
        "tls_certificate_sds_secret_configs": [{"name": "default", "sds_config": source}],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": names},
            "validation_context_sds_secret_config": {"name": "ROOTCA", "sds_config": source},
        },
    }


def delta(configuration: dict) -> dict:
    """Turn the sources of secrets in `configuration` to the delta flavour."""
    for secret in configuration["tls_certificate_sds_secret_configs"]:
        secret["sds_config"]["api_config_source"]["api_type"] = "DELTA_GRPC"
    return configuration


def server_side(port: int, *, application: int, caller: str) -> dict:
    transport = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": TLS + "DownstreamTlsContext",
            "common_tls_context": secrets(peer=caller),
            "require_client_certificate": True,
        },
    }
    return {
        "clusters": [cluster("application", application)],
        "listeners": [
            listener(
                "inbound",
                port,
                to="application",
                chain={"transport_socket": transport},
                forward_client_cert_details="APPEND_FORWARD",
                set_current_client_cert_details={"uri": True},
            )
        ],
    }


def client_side(port: int, *, server: int, callee: str) -> dict:
    transport = {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": TLS + "UpstreamTlsContext",
            "common_tls_context": delta(secrets(peer=callee)),
        },
    }
    # One request per connection: every request shakes hands anew, with the newest certificate.
    options = {
        "@type": T + OPTIONS,
        "common_http_protocol_options": {"max_requests_per_connection": 1},
        "explicit_http_config": {"http_protocol_options": {}},
    }
    return {
        "clusters": [
            cluster(
                "server",
                server,
                transport_socket=transport,
                typed_extension_protocol_options={OPTIONS: options},
            )
        ],
        "listeners": [listener("outbound", port, to="server")],
    }


def captured() -> dict:
    """Configuration that passes whatever was redirected on to where it was going."""
    original = {
        "name": "envoy.filters.listener.original_dst",
        "typed_config": {
            "@type": T + "envoy.extensions.filters.listener.original_dst.v3.OriginalDst"
        },
    }

    def passing(name: str, port: int) -> dict:
        proxy = {
            "@type": T + "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": name,
            "cluster": name,
        }
        tcp = {"name": "envoy.filters.network.tcp_proxy", "typed_config": proxy}
        listening = {"address": "0.0.0.0", "port_value": port}
        return {
            "name": name,
            "address": {"socket_address": listening},
            "listener_filters": [original],
            "filter_chains": [{"filters": [tcp]}],
        }

    def onward(name: str, **more) -> dict:
        return {
            "name": name,
            "type": "ORIGINAL_DST",
            "lb_policy": "CLUSTER_PROVIDED",
            "connect_timeout": "5s",
            **more,
        }

    own = {"source_address": {"address": "127.0.0.6", "port_value": 0}}
    return {
        "clusters": [onward("outbound"), onward("inbound", upstream_bind_config=own)],
        "listeners": [passing("outbound", 15001), passing("inbound", 15006)],
    }
