"""The control plane's settings."""

import pytest

from isthmus.runtime import assembly, settings


def test_the_environment_that_the_installer_writes_is_read():
    found = settings.read(
        {"CLUSTER_ID": "cluster1", "EXTERNAL_ISTIOD": "true", "POD_NAME": "istiod-1"},
        ["--domain", "cluster.local"],
    )

    assert (found.cluster, found.manages_remotes, found.pod) == ("cluster1", True, "istiod-1")


@pytest.mark.parametrize(("text", "seconds"), [("24h", 86400), ("1h30m", 5400), ("500ms", 0.5)])
def test_durations_are_read_as_go_writes_them(text, seconds):
    assert settings.duration_s(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "h", "1x", "1h2", "one"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(settings.SettingRefused):
        settings.duration_s(text)


def test_a_switch_that_is_neither_on_nor_off_is_refused_by_name():
    with pytest.raises(settings.SettingRefused, match="EXTERNAL_ISTIOD"):
        settings.read({"EXTERNAL_ISTIOD": "maybe"}, [])


def test_lifetimes_and_ages_are_as_istio_names_them():
    found = settings.read(
        {"DEFAULT_WORKLOAD_CERT_TTL": "1h", "MAX_WORKLOAD_CERT_TTL": "48h"},
        ["--keepaliveMaxServerConnectionAge", "10m"],
    )

    assert (found.default_ttl_s, found.max_ttl_s, found.stream_age_s) == (3600, 172800, 600)
    assert settings.read({}, []).stream_age_s == 1800


def test_node_proxies_are_served_where_somebody_wants_that():
    assert not settings.read({"PILOT_ENABLE_AMBIENT": "false"}, []).node_accounts
    usual = settings.read({"PILOT_ENABLE_AMBIENT": "true", "POD_NAMESPACE": "mesh"}, [])
    chosen = settings.read({"CA_TRUSTED_NODE_ACCOUNTS": "a/x, b/y"}, [])

    assert (usual.serves_node_proxies, usual.node_accounts) == (True, (("mesh", "ztunnel"),))
    assert (chosen.serves_node_proxies, chosen.node_accounts) == (False, (("a", "x"), ("b", "y")))


@pytest.mark.parametrize("text", ["ztunnel", "/ztunnel", "a/", "c/a/x"])
def test_an_account_of_node_proxies_that_is_none_is_refused(text):
    with pytest.raises(settings.SettingRefused, match="CA_TRUSTED_NODE_ACCOUNTS"):
        settings.read({"CA_TRUSTED_NODE_ACCOUNTS": text}, [])


def test_addresses_are_written_down_and_chosen_where_somebody_says_so():
    prefix = "PILOT_IP_AUTOALLOCATE"
    said = {
        "PILOT_ENABLE_IP_AUTOALLOCATE": "true",
        f"{prefix}_IPV4_PREFIX": "198.18.0.0/20",
        f"{prefix}_IPV6_PREFIX": "fd00::/64",
    }

    found, usual = settings.read(said, []), settings.read({}, [])

    assert (found.writes_addresses, str(found.ranges.ipv4)) == (True, "198.18.0.0/20")
    assert found.ranges.twin_of("198.18.0.5") == "fd00::5"
    assert (usual.writes_addresses, str(usual.ranges.ipv4)) == (False, "240.240.0.0/16")


@pytest.mark.parametrize("text", ["everywhere", "240.240.0.0/31", "::/64"])
def test_a_range_that_cannot_be_used_is_refused(text):
    with pytest.raises(settings.SettingRefused, match="IPV4_PREFIX"):
        settings.read({"PILOT_IP_AUTOALLOCATE_IPV4_PREFIX": text}, [])


@pytest.mark.parametrize(
    ("environment", "begins", "ends"),
    [
        ({}, False, False),
        ({"PILOT_ENABLE_AMBIENT": "true"}, True, True),
        ({"PILOT_ENABLE_AMBIENT": "true", "PILOT_ENABLE_SENDING_HBONE": "false"}, False, True),
        ({"PILOT_ENABLE_SIDECAR_LISTENING_HBONE": "true"}, False, True),
    ],
)
def test_sidecars_speak_hbone_where_ambient_mode_is_on(environment, begins, ends):
    found = settings.read(environment, []).tunnelling

    assert (found.begins, found.ends) == (begins, ends)


@pytest.mark.parametrize(("text", "most"), [("", None), ("0", 0), ("50", 50), ("1000000", 10**6)])
def test_how_many_tunnels_one_caller_may_begin_can_be_said(text, most):
    found = settings.read({"ISTHMUS_TUNNELS_PER_CALLER": text} if text else {}, [])
    assert found.most_tunnels == (1000 if most is None else most)

    mesh = assembly.assemble(
        config_cluster=found.cluster,
        revision="default",
        system_namespace="istio-system",
        domain="cluster.local",
        ways=assembly.Ways(most_tunnels=found.most_tunnels),
    )
    assert mesh.graph.value(mesh.model.settings).most_tunnels == found.most_tunnels


@pytest.mark.parametrize("text", ["-1", "many", "1000001", "9" * 5000, "²"])
def test_a_number_of_tunnels_that_is_none_is_refused(text):
    with pytest.raises(settings.SettingRefused, match="TUNNELS_PER_CALLER"):
        settings.read({"ISTHMUS_TUNNELS_PER_CALLER": text}, [])


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("ISTHMUS_TUNNELS_PER_CALLER", "any number"),
        ("ISTHMUS_LEDS_AFTER", "all sets of endpoints"),
        ("ISTHMUS_PUSH_WORKERS", "none"),
    ],
)
def test_who_gives_a_count_wrongly_hears_what_zero_stands_for(name, meaning):
    with pytest.raises(settings.SettingRefused, match=name) as refused:
        settings.read({name: "-1"}, [])

    assert meaning in refused.value.hint
    assert settings.read({name: ""}, []) == settings.read({}, [])


@pytest.mark.parametrize("text", ["Reno!", "a" * 16, "../bbr", "reno cubic"])
def test_a_congestion_control_that_cannot_be_one_is_refused(text):
    with pytest.raises(settings.SettingRefused, match="CONGESTION_CONTROL"):
        settings.read({"ISTHMUS_XDS_CONGESTION_CONTROL": text}, [])

    assert settings.read({"ISTHMUS_XDS_CONGESTION_CONTROL": "reno"}, []).sends_by == "reno"
    assert settings.read({}, []).sends_by == ""
