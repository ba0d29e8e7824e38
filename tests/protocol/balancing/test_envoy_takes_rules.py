"""Whatever DestinationRules say, what comes of them is clusters and endpoints that Envoy takes."""

import hypothesis
from hypothesis import strategies

from isthmus.resources import consistency
from isthmus.testing import builders, envoys, shapes

RULES = 12
"""So many in each mesh: to start Envoy takes longer than to make them."""

HOSTS = 8
"""Several rules hold for some of them."""

PORTS = {"http": 80, "grpc": 81, "tcp": 82, "auto": 83}
TEXTS = strategies.one_of(
    strategies.text(max_size=12),
    strategies.sampled_from(["", "*", "a" * 1025, "x-user", ":path", "a b", "a\r\nb: c", "\0"]),
)
NUMBERS = strategies.one_of(
    strategies.integers(-1, 200),
    strategies.sampled_from([0, 2**31 - 1, 2**31, 2**32, 2**64, 65537, 5000011, 8388608]),
    strategies.floats(),
)
DURATIONS = strategies.one_of(
    TEXTS,
    strategies.sampled_from(
        ["0s", "1ms", "1.5s", "0.9s", "1h", "87600h", "9999999h", "0.0000001s", "-1s"]
    ),
)
PLACES = strategies.sampled_from(
    [
        "",
        "*",
        "*/*",
        "r1",
        "r1/*",
        "r1/z1",
        "r1/z1/*",
        "r2/*",
        "r2",
        "r*",
        "/",
        "r1/z1/s/t",
        "nowhere",
    ]
)
LABELS = strategies.dictionaries(
    strategies.sampled_from(["app", "topology.istio.io/cluster", "topology.istio.io/network", ""]),
    strategies.sampled_from(["web", "far", "home", "n1", ""]),
    max_size=2,
)
PRIORITIES = strategies.sampled_from(
    [
        "topology.istio.io/network",
        "topology.istio.io/cluster",
        "topology.kubernetes.io/region",
        "version=v1",
        "=",
        "app",
        "",
    ]
)
TRUTHS = strategies.booleans()


def some(**fields):
    return strategies.fixed_dictionaries({}, optional=fields)


NEARNESS = some(
    enabled=TRUTHS,
    distribute=strategies.lists(
        strategies.fixed_dictionaries(
            {
                "from": PLACES,
                "to": strategies.one_of(
                    PLACES.map(lambda place: {place: 100}),
                    strategies.tuples(PLACES, PLACES).map(lambda two: {two[0]: 99, two[1]: 1}),
                    strategies.dictionaries(PLACES, NUMBERS, max_size=3),
                ),
            }
        ),
        max_size=2,
    ),
    failover=strategies.lists(
        strategies.fixed_dictionaries({"from": PLACES, "to": PLACES}), max_size=2
    ),
    failoverPriority=strategies.lists(PRIORITIES, max_size=4),
)
BALANCING = some(
    simple=strategies.sampled_from(
        ["", "UNSPECIFIED", "ROUND_ROBIN", "LEAST_CONN", "RANDOM", "PASSTHROUGH", "ODD"]
    ),
    consistentHash=some(
        httpHeaderName=TEXTS,
        httpCookie=some(name=TEXTS, path=TEXTS, ttl=DURATIONS),
        httpQueryParameterName=TEXTS,
        useSourceIp=TRUTHS,
        ringHash=some(minimumRingSize=NUMBERS),
        maglev=some(tableSize=NUMBERS),
        minimumRingSize=NUMBERS,
    ),
    localityLbSetting=NEARNESS,
    warmup=some(duration=DURATIONS, minimumPercent=NUMBERS, aggression=NUMBERS),
    warmupDurationSecs=DURATIONS,
)
POOL = some(
    tcp=some(
        maxConnections=NUMBERS,
        connectTimeout=DURATIONS,
        maxConnectionDuration=DURATIONS,
        idleTimeout=DURATIONS,
        tcpKeepalive=some(probes=NUMBERS, time=DURATIONS, interval=DURATIONS),
    ),
    http=some(
        http1MaxPendingRequests=NUMBERS,
        http2MaxRequests=NUMBERS,
        maxRequestsPerConnection=NUMBERS,
        maxRetries=NUMBERS,
        idleTimeout=DURATIONS,
        h2UpgradePolicy=strategies.sampled_from(["UPGRADE", "DO_NOT_UPGRADE", "ODD"]),
        useClientProtocol=TRUTHS,
        maxConcurrentStreams=NUMBERS,
    ),
)
OUTLIERS = some(
    consecutive5xxErrors=NUMBERS,
    consecutiveErrors=NUMBERS,
    consecutiveGatewayErrors=NUMBERS,
    consecutiveLocalOriginFailures=NUMBERS,
    splitExternalLocalOriginErrors=TRUTHS,
    interval=DURATIONS,
    baseEjectionTime=DURATIONS,
    maxEjectionPercent=NUMBERS,
    minHealthPercent=NUMBERS,
)
TLS = some(
    mode=strategies.sampled_from(["DISABLE", "ISTIO_MUTUAL", "SIMPLE", "MUTUAL", "ODD"]),
    sni=TEXTS,
    subjectAltNames=strategies.lists(
        strategies.one_of(TEXTS, strategies.sampled_from(["*.a", "::1", "10.0.0.1", "spiffe://a"])),
        max_size=2,
    ),
    caCertificates=TEXTS,
    clientCertificate=TEXTS,
    privateKey=TEXTS,
    credentialName=TEXTS,
    insecureSkipVerify=TRUTHS,
)
PARTS = {
    "loadBalancer": BALANCING,
    "connectionPool": POOL,
    "outlierDetection": OUTLIERS,
    "tls": TLS,
}
POLICIES = some(
    **PARTS,
    retryBudget=some(percent=NUMBERS, minRetryConcurrency=NUMBERS),
    portLevelSettings=strategies.lists(
        some(port=some(number=strategies.sampled_from([80, 81, 82, 83, 0])), **PARTS), max_size=2
    ),
)
NAMES = strategies.one_of(TEXTS, strategies.sampled_from(["v1", "V1", "*.a", "a.b", "a_b", "|"]))
SUBSETS = some(name=NAMES, labels=LABELS, trafficPolicy=POLICIES)
RULE = some(
    trafficPolicy=POLICIES,
    subsets=strategies.lists(SUBSETS, max_size=2),
    workloadSelector=some(matchLabels=strategies.sampled_from([{}, {"app": "client"}, {"a": ""}])),
)


def meshed():
    """Return a mesh of two networks and three places, a client and a gateway."""
    mesh = builders.Mesh()
    home = mesh.cluster("home", network="n1")
    far = mesh.cluster("far", network="n2")
    gateway = far.gateway(external="172.30.0.2")
    mesh.expose_services()
    home.node("a", region="r1", zone="z1")
    far.node("b", region="r2", zone="z1")
    far.node("c", region="r1", zone="z2")
    for number in range(HOSTS):
        names = {"labels": {"app": "web"}}
        for cluster, node, host in (
            (home, "a", f"10.0.0.{number + 1}"),
            (far, "b", f"10.1.0.{number + 1}"),
            (far, "c", f"10.1.1.{number + 1}"),
        ):
            cluster.pod(f"p-{host}", address=host, shape=shapes.Shape(node=node), **names)
        home.service(f"web-{number}", ready=[f"10.0.0.{number + 1}"], ports=PORTS)
        there = [f"10.1.0.{number + 1}", f"10.1.1.{number + 1}"]
        far.service(f"web-{number}", ready=there, ports=PORTS)
    client = home.pod("client", shape=shapes.Shape(node="a"))
    return mesh, client, gateway


@hypothesis.settings(
    max_examples=5,
    phases=[hypothesis.Phase.generate],  # to shrink many rules takes minutes
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(strategies.lists(RULE, min_size=RULES, max_size=RULES))
def test_rules_by_chance_are_taken(tmp_path_factory, rules):
    mesh, client, gateway = meshed()
    with mesh.one_change():
        for number, spec in enumerate(rules):
            mesh.destination_rule(f"rule-{number}", {"host": f"web-{number % HOSTS}", **spec})

    for proxy in (client, gateway):
        seen = mesh.snapshot_of(proxy)
        told = [one for kind in envoys.MESSAGES for one in seen.of(kind).values()]

        assert not consistency.missing(seen)
        complaint = envoys.complaint_about(told, directory=tmp_path_factory.mktemp("rules"))
        assert complaint == ""
