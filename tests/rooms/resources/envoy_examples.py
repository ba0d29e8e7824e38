"""One slice of each kind, as the views would hand them over."""

from isthmus.mesh.localities import Locality
from isthmus.mesh.policies import MtlsMode
from isthmus.mesh.services import Protocol
from isthmus.mesh.traffic import (
    ConnectionPool,
    HashKey,
    HashOf,
    Http2,
    Keepalive,
    LoadBalancer,
    OutlierDetection,
    Warmup,
)
from isthmus.mesh.workloads import Health
from isthmus.views import view

HOST = "helloworld.sample.svc.cluster.local"
NAME = f"outbound|5000||{HOST}"
SNI = f"outbound_.5000_._.{HOST}"
SERVICE = (HOST, "helloworld", "sample")
IDENTITIES = ("spiffe://cluster.local/ns/sample/sa/default",)

AUTO = view.ClusterSlice(
    name=NAME,
    discovery=view.Discovery.EDS,
    tls=view.UpstreamTls.AUTO,
    sni=SNI,
    sans=IDENTITIES,
    protocol=Protocol.HTTP,
    service=SERVICE,
)
CLUSTERS = (
    AUTO,
    view.ClusterSlice(
        name=f"outbound|5001|v1|{HOST}",
        discovery=view.Discovery.EDS,
        tls=view.UpstreamTls.MUTUAL,
        sni=f"outbound_.5001_.v1_.{HOST}",
        protocol=Protocol.GRPC,
        balancer=LoadBalancer.ROUND_ROBIN,
        warmup=Warmup(30.0),
        weighs_places=True,
        outlier=OutlierDetection(
            consecutive_5xx=0,
            consecutive_gateway_errors=3,
            splits_local=True,
            consecutive_local_failures=2,
            least_healthy_percent=40,
        ),
        pool=ConnectionPool(
            max_connections=7,
            connect_timeout_s=2.0,
            keepalive=Keepalive(probes=1, time_s=2, interval_s=3),
            max_duration_s=60.0,
            tcp_idle_s=5.0,
            max_pending=11,
            max_requests=12,
            max_requests_per_connection=13,
            max_retries=14,
            http_idle_s=6.0,
            max_streams=15,
            http2=Http2.UPGRADED,
        ),
    ),
    view.ClusterSlice(
        name=f"outbound|5003|v1|{HOST}",
        discovery=view.Discovery.EDS,
        balancer=LoadBalancer.RING_HASH,
        weighs_places=True,
        pool=ConnectionPool(http_idle_s=6.0),
    ),
    view.ClusterSlice(
        name=f"outbound|5004||{HOST}",
        discovery=view.Discovery.EDS,
        protocol=Protocol.HTTP,
        leads_through_gateways=True,
        marks_sockets=True,
    ),
    view.ClusterSlice(
        name=f"outbound|5003|v2|{HOST}",
        discovery=view.Discovery.EDS,
        balancer=LoadBalancer.MAGLEV,
        ring_size=101,
    ),
    view.ClusterSlice(
        name=f"outbound|5003|v3|{HOST}",
        discovery=view.Discovery.EDS,
        warmup=Warmup(30.0, 0.0, 2.0),
    ),
    view.ClusterSlice(
        name=f"outbound|5002||{HOST}",
        discovery=view.Discovery.EDS,
        protocol=Protocol.AUTO,
        balancer=LoadBalancer.RANDOM,
    ),
    view.ClusterSlice(
        name="outbound|80||outside.sample.svc.cluster.local",
        discovery=view.Discovery.STRICT_DNS,
        dns_name="example.com",
        dns_port=80,
        protocol=Protocol.HTTP,
    ),
    view.ClusterSlice(name=SNI, discovery=view.Discovery.EDS),
    view.ClusterSlice(name="BlackHoleCluster", discovery=view.Discovery.STATIC_EMPTY),
    view.ClusterSlice(name="PassthroughCluster", discovery=view.Discovery.ORIGINAL_DST),
    view.ClusterSlice(
        name="InboundPassthroughCluster",
        discovery=view.Discovery.ORIGINAL_DST,
        bind_address="127.0.0.6",
    ),
    *(
        view.ClusterSlice(
            name=f"inbound|{port}||",
            discovery=view.Discovery.ORIGINAL_DST,
            bind_address="127.0.0.6",
        )
        for port in range(9001, 9010)
    ),
)

ENDPOINTS = view.EndpointsSlice(
    cluster_name=NAME,
    groups=(
        view.LocalityGroup(
            locality=Locality("r1", "z1"),
            weight=2,
            endpoints=(
                view.LbEndpoint(
                    "10.1.0.5",
                    5000,
                    1,
                    speaks_mtls=True,
                    workload="helloworld-v1;sample;helloworld;v1;cluster1",
                ),
                view.LbEndpoint("10.1.0.6", 5000, 1, health=Health.UNHEALTHY),
            ),
        ),
        view.LocalityGroup(
            locality=Locality("r2", "z2"),
            weight=2,
            endpoints=(
                view.LbEndpoint("34.1.2.3", 15443, 2, speaks_mtls=True, workload=";;;;cluster2"),
            ),
        ),
    ),
)

KEYS = (
    HashKey(HashOf.HEADER, "x-user"),
    HashKey(HashOf.COOKIE, "session", 0.0, "/"),
    HashKey(HashOf.COOKIE, "own"),
    HashKey(HashOf.SOURCE_IP),
    HashKey(HashOf.QUERY_PARAMETER, "q"),
)

ROUTES = view.RouteSlice(
    name="5000",
    hosts=(
        view.VirtualHost(
            name=f"{HOST}:5000",
            domains=(HOST, f"{HOST}.", "helloworld.sample", "10.96.0.50"),
            routes=(
                view.Route(
                    targets=(view.RouteTarget(NAME, 80), view.RouteTarget(NAME, 20)),
                    path="prefix:/api",
                    method="exact:GET",
                    headers=(("end-user", "exact:jason"), ("x-group", "prefix:beta")),
                    timeout_s=3.0,
                ),
                view.Route(targets=(view.RouteTarget(NAME),), path="exact:/one", has_retries=False),
                *(
                    view.Route(targets=(view.RouteTarget(NAME),), path=f"exact:/{n}", key=key)
                    for n, key in enumerate(KEYS)
                ),
                view.Route(targets=(view.RouteTarget(NAME),), operation=f"{HOST}:5000/*"),
            ),
        ),
    ),
)


def inbound(mode: MtlsMode) -> view.Inbound:
    """Return a workload that serves three protocols in one mode."""
    protocols = (Protocol.HTTP, Protocol.TCP, Protocol.AUTO)
    ports = tuple(
        view.InboundPort(9001 + index, protocol, mode, f"inbound|{9001 + index}||", 80 + index)
        for index, protocol in enumerate(protocols)
    )
    return view.Inbound(ports, mode, ("cluster.local", "old.local"), "/dev/stdout")


LISTENERS = (
    view.CatchAllOutbound(access_log_path="/dev/stdout"),
    view.OutboundHttp(
        "0.0.0.0",
        5000,
        "5000",
        access_log_path="/dev/stdout",
        sniffs=True,
        tcp_cluster="PassthroughCluster",
    ),
    view.OutboundHttp("10.96.0.51", 5000, "5000"),
    view.OutboundTcp("10.96.0.50", 5001, NAME),
    view.OutboundTcp("10.96.0.52", 5001, NAME, idle_s=5.0, binds_source=True),
    view.GatewayTls(15443, (view.SniChain((SNI,), SNI, needs_mesh_alpn=True),), "/dev/stdout"),
    view.GatewayTls(
        15012,
        (
            view.SniChain(("a.example", "b.example"), NAME, needs_mesh_alpn=False),
            view.SniChain((), NAME, needs_mesh_alpn=False),
        ),
    ),
    view.GatewayTcp(9000, NAME),
    view.GatewayHttp(8080, "5000"),
)

ALL = (*CLUSTERS, ENDPOINTS, ROUTES, *LISTENERS, inbound(MtlsMode.PERMISSIVE))
