"""What a DestinationRule means, field by field."""

import pytest

from isthmus.mesh import traffic
from isthmus.mesh.traffic import ClientTls, HashKey, HashOf, LoadBalancer

HOST = "web.default.svc.cluster.local"


def ruled(world, **spec):
    world.istio(world.sources.destination_rules, **{"host": "web", **spec})
    return world.only(world.model.destination_rules)


def said(world, **policy):
    return ruled(world, trafficPolicy=policy).policy


def test_a_rule_says_how_clients_talk(world):
    found = ruled(
        world,
        trafficPolicy={
            "tls": {"mode": "ISTIO_MUTUAL", "sni": "s", "subjectAltNames": ["b", "a"]},
            "loadBalancer": {"simple": "ROUND_ROBIN"},
            "connectionPool": {"tcp": {"maxConnections": 7}},
            "outlierDetection": {"consecutive5xxErrors": 1, "interval": "1s"},
        },
        exportTo=["."],
    )

    assert (found.host, found.export_to) == (HOST, (".",))
    assert found.policy == traffic.TrafficPolicy(
        tls=traffic.Encryption(ClientTls.ISTIO_MUTUAL, "s", ("a", "b")),
        balancing=traffic.Balancing(LoadBalancer.ROUND_ROBIN),
        outlier=traffic.OutlierDetection(consecutive_5xx=1, interval_s=1.0),
        pool=traffic.ConnectionPool(max_connections=7),
    )
    assert world.findings == []


@pytest.mark.parametrize(
    ("selector", "meant"),
    [
        (None, None),
        ({"matchLabels": {"b": "2", "a": "1"}}, (("a", "1"), ("b", "2"))),
        ({"matchLabels": {}}, ()),
    ],
)
def test_clients_are_selected_by_their_labels(world, selector, meant):
    assert ruled(world, workloadSelector=selector).selector == meant
    assert world.findings == []


def test_tls_to_strangers_is_read_with_its_files(world):
    files = {"caCertificates": "/r", "clientCertificate": "/c", "privateKey": "/k"}
    found = said(world, tls={"mode": "MUTUAL", "sni": "s", **files})

    assert found.tls == traffic.Encryption(
        ClientTls.MUTUAL, "s", authorities="/r", certificate="/c", key="/k"
    )
    assert world.findings == []


@pytest.mark.parametrize("more", [{"caCertificates": "/r"}, {"subjectAltNames": ["a"]}])
def test_verifying_is_never_left_out_where_something_says_by_what(world, more):
    assert not said(world, tls={"mode": "SIMPLE", "insecureSkipVerify": True}).tls.verifies
    found = said(world, tls={"mode": "SIMPLE", "insecureSkipVerify": True, **more})

    assert found.tls.verifies
    assert "spec.trafficPolicy.tls.insecureSkipVerify" in world.findings[0]


def test_all_limits_of_connections_are_read(world):
    pool = said(
        world,
        connectionPool={
            "tcp": {
                "connectTimeout": "30ms",
                "maxConnectionDuration": "1h",
                "idleTimeout": "2m",
                "tcpKeepalive": {"probes": 3, "time": "75s", "interval": "7s"},
            },
            "http": {
                "http1MaxPendingRequests": 1,
                "http2MaxRequests": 2,
                "maxRequestsPerConnection": 3,
                "maxRetries": 4,
                "idleTimeout": "5s",
                "h2UpgradePolicy": "UPGRADE",
                "maxConcurrentStreams": 6,
            },
        },
    ).pool

    assert pool == traffic.ConnectionPool(
        connect_timeout_s=0.03,
        keepalive=traffic.Keepalive(3, 75, 7),
        max_duration_s=3600.0,
        tcp_idle_s=120.0,
        max_pending=1,
        max_requests=2,
        max_requests_per_connection=3,
        max_retries=4,
        http_idle_s=5.0,
        max_streams=6,
        http2=traffic.Http2.UPGRADED,
    )
    assert world.findings == []


def test_all_of_outlier_detection_is_read(world):
    outlier = said(
        world,
        outlierDetection={
            "consecutive5xxErrors": 0,
            "consecutiveGatewayErrors": 2,
            "splitExternalLocalOriginErrors": True,
            "consecutiveLocalOriginFailures": 3,
            "interval": "4s",
            "baseEjectionTime": "5s",
            "maxEjectionPercent": 60,
            "minHealthPercent": 7,
        },
    ).outlier

    assert outlier == traffic.OutlierDetection(0, 2, 4.0, 5.0, 60, True, 3, 7)
    assert world.findings == []


@pytest.mark.parametrize(
    ("hashed", "balancer", "key", "size"),
    [
        ({"httpHeaderName": "X-User"}, "RING_HASH", HashKey(HashOf.HEADER, "x-user"), 0),
        (
            {"httpCookie": {"name": "s", "ttl": "0s", "path": "/"}, "minimumRingSize": 5},
            "RING_HASH",
            HashKey(HashOf.COOKIE, "s", 0.0, "/"),
            5,
        ),
        ({"httpCookie": {"name": "s"}}, "RING_HASH", HashKey(HashOf.COOKIE, "s"), 0),
        (
            {"useSourceIp": True, "ringHash": {"minimumRingSize": 9}},
            "RING_HASH",
            HashKey(HashOf.SOURCE_IP),
            9,
        ),
        (
            {"httpQueryParameterName": "q", "maglev": {"tableSize": 101}},
            "MAGLEV",
            HashKey(HashOf.QUERY_PARAMETER, "q"),
            101,
        ),
    ],
)
def test_requests_are_bound_by_a_property(world, hashed, balancer, key, size):
    found = said(world, loadBalancer={"consistentHash": hashed}).balancing

    assert found == traffic.Balancing(LoadBalancer[balancer], key, size)
    assert world.findings == []


@pytest.mark.parametrize(
    ("balancer", "warmup"),
    [
        ({"warmupDurationSecs": "30s"}, traffic.Warmup(30.0)),
        (
            {"warmup": {"duration": "1m", "minimumPercent": 0, "aggression": 2}},
            traffic.Warmup(60.0, 0.0, 2.0),
        ),
    ],
)
def test_new_endpoints_may_warm_up(world, balancer, warmup):
    assert said(world, loadBalancer=balancer).balancing.warmup == warmup
    assert world.findings == []


def test_single_ports_have_policies_of_their_own(world):
    found = said(
        world,
        tls={"mode": "DISABLE"},
        portLevelSettings=[{"port": {"number": 80}, "loadBalancer": {"simple": "LEAST_CONN"}}],
    )

    assert found.on(81).mode is ClientTls.DISABLE
    fewest = traffic.Balancing(traffic.LoadBalancer.LEAST_REQUEST)
    assert found.on(80) == traffic.TrafficPolicy(balancing=fewest)
    assert world.findings == []


def test_a_locality_setting_is_read(world):
    found = said(
        world,
        loadBalancer={
            "localityLbSetting": {
                "failover": [{"from": "us", "to": "eu"}],
                "failoverPriority": ["topology.istio.io/network", "version=v1"],
            }
        },
    ).balancing.locality

    assert found == traffic.LocalityPreference(
        failover=(("us", "eu"),), labels=(("topology.istio.io/network", None), ("version", "v1"))
    )
    assert world.findings == []


def test_traffic_is_distributed_over_places(world):
    to = {"us/a/*": 80, "eu/*": 20}
    setting = {"distribute": [{"from": "us/a/*", "to": to}]}

    found = said(world, loadBalancer={"localityLbSetting": setting}).balancing.locality

    assert found.distribute == (traffic.Distribution("us/a/*", (("us/a/*", 80), ("eu/*", 20))),)
    assert world.findings == []


@pytest.mark.parametrize(
    ("setting", "field", "kept"),
    [
        (
            {
                "distribute": [{"from": "us", "to": {"us": 100}}],
                "failover": [{"from": "us", "to": "eu"}],
            },
            "failover",
            traffic.LocalityPreference(
                distribute=(traffic.Distribution("us", (("us", 100),)),),
            ),
        ),
        (
            {
                "failover": [{"from": "us", "to": "eu"}],
                "failoverPriority": ["topology.kubernetes.io/region"],
            },
            "failoverPriority",
            traffic.LocalityPreference(failover=(("us", "eu"),)),
        ),
        (
            {"distribute": [{"from": "us", "to": {"us": 70, "eu": 20}}]},
            "distribute[0].to",
            traffic.LocalityPreference(),
        ),
        (
            {"distribute": [{"from": "us", "to": {"us/*": 50, "us/a": 50}}]},
            "distribute[0].to",
            traffic.LocalityPreference(),
        ),
        (
            {"failover": [{"from": "us", "to": "us"}]},
            "failover[0].to",
            traffic.LocalityPreference(),
        ),
        (
            {"failover": [{"from": "us/a", "to": "eu"}], "enabled": False},
            "failover[0].to",
            traffic.LocalityPreference(is_enabled=False),
        ),
    ],
)
def test_what_contradicts_itself_is_named_and_the_rest_holds(world, setting, field, kept):
    found = said(world, loadBalancer={"localityLbSetting": setting}).balancing.locality

    assert found == kept
    assert f"loadBalancer.localityLbSetting.{field}`" in world.findings[0]


def test_a_subset_says_what_differs(world):
    found = ruled(
        world,
        subsets=[
            {"name": "v1", "labels": {"version": "v1"}},
            {"name": "v2", "trafficPolicy": {"loadBalancer": {"simple": "RANDOM"}}},
        ],
    )

    first, second = found.subsets
    assert (first.labels, first.policy) == ((("version", "v1"),), None)
    assert second.policy == traffic.TrafficPolicy(balancing=traffic.Balancing(LoadBalancer.RANDOM))


def test_of_subsets_with_one_name_the_first_counts(world):
    found = ruled(world, subsets=[{"name": "v1", "labels": {"a": "1"}}, {"name": "v1"}])

    assert [subset.labels for subset in found.subsets] == [(("a", "1"),)]
    assert "`spec.subsets[1].name`" in world.findings[0]


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"subsets": []}, "host"),
        (
            {"host": "web", "workloadSelector": {"matchLabels": {"a": 7}}},
            "workloadSelector.matchLabels.a",
        ),
    ],
)
def test_a_rule_for_nobody_knows_whom_is_left_out(world, spec, field):
    world.istio(world.sources.destination_rules, **spec)

    assert world.graph.items(world.model.destination_rules) == {}
    assert f"`spec.{field}`" in world.findings[0]


@pytest.mark.parametrize(
    ("policy", "field"),
    [
        ({"tls": {"mode": "SIMPL"}}, "tls.mode"),
        ({"tls": {"mode": "SIMPLE", "credentialName": "C_"}}, "tls.credentialName"),
        ({"tls": {"mode": "SIMPLE", "caCertificates": "a~b"}}, "tls.caCertificates"),
        ({"tls": {"mode": "SIMPLE", "clientCertificate": "/a"}}, "tls.clientCertificate"),
        ({"tls": {"mode": "MUTUAL"}}, "tls.clientCertificate"),
        ({"tls": {"mode": "MUTUAL", "clientCertificate": "/a"}}, "tls.clientCertificate"),
        ({"tls": {"mode": "SIMPLE", "caCrl": "/a"}}, "tls.caCrl"),
        ({"tls": {"mode": "ISTIO_MUTUAL", "caCertificates": "/a"}}, "tls.caCertificates"),
        ({"tls": {"mode": "DISABLE", "insecureSkipVerify": True}}, "tls.insecureSkipVerify"),
        ({"tls": {"mode": "ISTIO_MUTUAL", "sni": "a\0"}}, "tls.sni"),
        (
            {"loadBalancer": {"consistentHash": {"httpHeaderName": "a\r\nb: c"}}},
            "loadBalancer.consistentHash.httpHeaderName",
        ),
        (
            {"loadBalancer": {"consistentHash": {"httpCookie": {"name": "a", "path": "/;b"}}}},
            "loadBalancer.consistentHash.httpCookie.path",
        ),
        ({"loadBalancer": {"consistentHash": {}}}, "loadBalancer.consistentHash.httpHeaderName"),
        (
            {"loadBalancer": {"consistentHash": {"useSourceIp": True, "maglev": {"tableSize": 9}}}},
            "loadBalancer.consistentHash.maglev.tableSize",
        ),
        ({"loadBalancer": {"zoneAwareLbSetting": {}}}, "loadBalancer.zoneAwareLbSetting"),
        ({"loadBalancer": {"warmup": {}}}, "loadBalancer.warmup.duration"),
        (
            {"loadBalancer": {"warmup": {"duration": "1s", "aggression": float("nan")}}},
            "loadBalancer.warmup.aggression",
        ),
        ({"portLevelSettings": [{}]}, "portLevelSettings[0].port"),
        ({"outlierDetection": {"interval": "often"}}, "outlierDetection.interval"),
        ({"outlierDetection": {"interval": "1ns"}}, "outlierDetection.interval"),
        (
            {"connectionPool": {"tcp": {"connectTimeout": "9" * 30 + "h"}}},
            "connectionPool.tcp.connectTimeout",
        ),
        ({"tunnel": {}}, "tunnel"),
    ],
)
def test_a_wrong_part_names_its_field_and_costs_that_part_alone(world, policy, field):
    found = ruled(world, trafficPolicy=policy, subsets=[{"name": "v1"}])

    assert len(found.subsets) == 1
    assert f"`spec.trafficPolicy.{field}`" in world.findings[0]


def test_a_policy_that_is_no_mapping_is_named(world):
    assert said(world) == traffic.UNSAID
    ruled(world, trafficPolicy=[])

    assert "`spec.trafficPolicy`" in world.findings[0]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ({}, traffic.RetryBudget(20.0, 3)),
        ({"percent": 0, "minRetryConcurrency": 0}, traffic.RetryBudget(0.0, 3)),
        ({"percent": 12.5, "minRetryConcurrency": 7}, traffic.RetryBudget(12.5, 7)),
        ({"percent": 101, "minRetryConcurrency": -1}, traffic.RetryBudget(20.0, 3)),
    ],
)
def test_a_budget_of_retries_has_usual_values_where_it_says_nothing(world, written, meant):
    assert said(world, retryBudget=written).budget == meant


@pytest.mark.parametrize("name", ["V1", "", "*", "a.b", "a|b", "a\0", "a" * 64])
def test_a_subset_whose_name_would_spoil_a_gateways_server_names_is_left_out(world, name):
    found = ruled(world, subsets=[{"name": "v1"}, {"name": name}])

    assert [subset.name for subset in found.subsets] == ["v1"]
    assert "`spec.subsets[1].name`" in world.findings[0]


def test_a_request_may_be_bound_by_its_path(world):
    bound = said(world, loadBalancer={"consistentHash": {"httpHeaderName": ":path"}})

    assert bound.balancing.key == HashKey(HashOf.HEADER, ":path")
    assert world.findings == []
