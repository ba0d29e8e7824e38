import json

import pytest

from isthmus.node import bootstrap, durations, envoy, folders, metadata, probes, settings

INJECTED = {
    "PROXY_CONFIG": '{"discoveryAddress": "istiod-canary.istio-system.svc:15012", "concurrency": 2}',
    "CA_ADDR": "istiod.istio-system.svc:15012",
    "POD_NAME": "helloworld-v1-abc",
    "POD_NAMESPACE": "sample",
    "INSTANCE_IP": "10.1.0.5",
    "SERVICE_ACCOUNT": "default",
    "ISTIO_META_CLUSTER_ID": "cluster2",
    "ISTIO_META_NETWORK": "network2",
    "ISTIO_META_POD_PORTS": '[{"containerPort":5000}]',
    "ISTIO_METAJSON_EXTRA": '{"A": {"b": 1}}',
}


@pytest.fixture
def pod(tmp_path):
    (tmp_path / "labels").write_text('app="helloworld"\nversion="v1"\nodd="a\\"b\\\\c"\n')
    return tmp_path


@pytest.fixture
def read(pod):
    def reading(*argv, **environment):
        return settings.read(argv, environment=INJECTED | environment, folder=pod, pod_folder=pod)

    return reading


def test_the_injected_environment_is_understood(read):
    found = read("sidecar", "--domain", "sample.svc.cluster.local", "--unknown=1")

    assert found.kind == "sidecar"
    assert found.discovery == settings.Address("istiod-canary.istio-system.svc", 15012)
    assert found.authority == settings.Address("istiod.istio-system.svc", 15012)
    assert found.server_name == "istiod-canary.istio-system.svc"
    assert found.cluster == "cluster2"
    assert found.concurrency == 2


def test_the_node_says_who_it_is(read):
    node = read("sidecar", "--domain", "sample.svc.cluster.local").node

    assert node["id"] == "sidecar~10.1.0.5~helloworld-v1-abc.sample~sample.svc.cluster.local"
    assert node["cluster"] == "helloworld.sample"
    facts = node["metadata"]
    assert facts["NETWORK"] == "network2"
    assert facts["LABELS"] == {"app": "helloworld", "version": "v1", "odd": 'a"b\\c'}
    assert facts["POD_PORTS"] == '[{"containerPort":5000}]'
    assert facts["A"] == {"b": 1}
    assert facts["PROXY_CONFIG"]["concurrency"] == 2


def test_lines_that_are_no_facts_are_left_out():
    assert metadata.facts('a="1"\nnonsense\nb=plain') == {"a": "1", "b": "plain"}


def test_json_metadata_that_is_none_stays_text(read):
    assert read("router", ISTIO_METAJSON_X="{").node["metadata"]["X"] == "{"


@pytest.mark.parametrize(
    "wrong",
    [
        {"PROXY_CONFIG": "{"},
        {"PROXY_CONFIG": "[]"},
        {"CA_ADDR": "istiod"},
        {"CA_ADDR": "istiod:99999"},
        {"SECRET_TTL": "soon"},
        {"SECRET_GRACE_PERIOD_RATIO": "half"},
    ],
)
def test_what_cannot_be_read_is_refused(read, wrong):
    with pytest.raises(durations.SettingRefused):
        read("sidecar", **wrong)


@pytest.mark.parametrize(
    ("text", "level"),
    [("default:debug", "debug"), ("xds:info,default:warn", "warning"), ("info", "info")],
)
def test_log_levels_are_istios(read, text, level):
    assert read("sidecar", f"--log_output_level={text}").agent_log_level == level


def test_draining_until_idle_begins_with_the_shortest_time(read):
    found = read("router", EXIT_ON_ZERO_ACTIVE_CONNECTIONS="true", MINIMUM_DRAIN_DURATION="1s")

    assert found.draining == settings.Draining(wait_s=1.0, until_idle=True)


def test_headers_are_taken_from_the_environment(read):
    assert read("sidecar", XDS_HEADER_X_TEAM="red").xds_headers == (("x_team", "red"),)


def test_a_mounted_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(durations.SettingRefused, match="istio-token"):
        settings.mounted(tmp_path / "istio-token")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("24h0m0s", 86400), ("1m30s", 90), ("100ms", 0.1), ("1.5h", 5400), ("", 0), ("5s", 5)],
)
def test_durations_are_read_as_go_writes_them(text, expected):
    assert durations.seconds(text, name="x") == pytest.approx(expected)


@pytest.mark.parametrize("text", ["5", "s", "1.2.3s", "5d", "-5s", "."])
def test_other_durations_are_refused(text):
    with pytest.raises(durations.SettingRefused, match="no duration"):
        durations.seconds(text, name="x")


def test_sockets_are_marked_only_where_that_is_permitted(read):
    wanted = read("sidecar")

    assert "cluster_manager" not in bootstrap.document(wanted, may_mark=False)
    marked = json.dumps(bootstrap.document(wanted, may_mark=True))
    assert '"int_value": 1337' in marked
    assert '"MARKS_SOCKETS": "true"' in marked
    assert "MARKS_SOCKETS" not in json.dumps(bootstrap.document(wanted, may_mark=False))


def test_a_proxy_that_speaks_hbone_keeps_what_is_on_its_way_when_a_tunnel_ends(read):
    speaking = json.dumps(
        bootstrap.document(read("sidecar", ISTIO_META_ENABLE_HBONE="true"), may_mark=False)
    )

    assert all(f'"{guard}": false' in speaking for guard in bootstrap.GUARDS)
    assert "tunneled" not in json.dumps(bootstrap.document(read("sidecar"), may_mark=False))


def test_statistics_that_the_proxy_configuration_asks_for_are_kept(read):
    proxy = '{"proxyStatsMatcher": {"inclusionRegexps": [".*upstream_rq.*"]}}'

    text = json.dumps(bootstrap.document(read("sidecar", PROXY_CONFIG=proxy), may_mark=False))

    assert ".*upstream_rq.*" in text


@pytest.mark.parametrize("version", ["1.39.9", "0.1", "1"])
def test_an_old_envoy_is_refused(version):
    with pytest.raises(envoy.EnvoyTooOld, match=version):
        envoy.check_version(version)


@pytest.mark.parametrize("version", ["1.40.0", "1.41", "2.0.0"])
def test_a_new_envoy_is_accepted(version):
    envoy.check_version(version)


def test_probes_are_read_as_the_injector_writes_them():
    found = probes.of(
        {
            "/app-health/a/readyz": {
                "httpGet": {
                    "path": "health",
                    "port": 5000,
                    "scheme": "HTTPS",
                    "httpHeaders": [{"name": "X-A", "value": "1"}],
                },
                "timeoutSeconds": 3,
            },
            "/app-health/a/livez": {"tcpSocket": {"port": 5000}},
        },
        address="10.1.0.5",
    )

    assert found["/app-health/a/readyz"] == probes.Probe(
        "10.1.0.5", 5000, "/health", tls=True, headers={"X-A": "1"}, deadline_s=3
    )
    assert found["/app-health/a/livez"] == probes.Probe("10.1.0.5", 5000, None)


@pytest.mark.parametrize("document", [{}, {"exec": {}}, {"httpGet": {"port": "http"}}, 7])
def test_other_probes_are_refused(document):
    with pytest.raises(durations.SettingRefused, match="not understood"):
        probes.of({"/app-health/a/livez": document}, address="10.1.0.5")


def test_an_agent_works_in_the_pods_volume_and_leaves_it_there(tmp_path):
    with folders.working(usual=tmp_path) as folder:
        (folder / "XDS").touch()

    assert (tmp_path / "XDS").exists()


def test_outside_of_a_pod_an_agent_leaves_no_folder_behind(tmp_path):
    with folders.working(usual=tmp_path / "missing") as folder:
        (folder / "XDS").touch()

    assert not folder.exists()
