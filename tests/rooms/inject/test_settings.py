"""Settings come from the ConfigMaps that the installer writes."""

from isthmus.inject import settings
from isthmus.mesh.settings import MeshSettings


def test_what_is_absent_has_its_default():
    assert settings.read({}, config={}, mesh=MeshSettings()) == settings.InjectionSettings()


def test_settings_are_read_from_istios_values():
    found = settings.read(
        {
            "global": {
                "hub": "example.org/istio",
                "tag": "1.2",
                "network": "network1",
                "meshID": "mesh1",
                "multiCluster": {"clusterName": "cluster1"},
                "caAddress": "ca:15012",
                "imagePullSecrets": ["secret"],
                "proxy": {
                    "statusPort": 15999,
                    "logLevel": "debug",
                    "resources": {"requests": {"cpu": "10m"}},
                },
            },
            "revision": "canary",
            "sidecarInjectorWebhook": {"rewriteAppHTTPProbe": False},
        },
        config={"policy": "disabled", "neverInjectSelector": [{"matchLabels": {"a": "b"}}]},
        mesh=MeshSettings(),
        default_config={
            "discoveryAddress": "istiod:15012",
            "holdApplicationUntilProxyStarts": True,
            "proxyMetadata": {"A": 1, "B": True},
        },
    )

    assert found.image == "example.org/istio/proxyv2:1.2"
    assert (found.cluster, found.network, found.mesh_id) == ("cluster1", "network1", "mesh1")
    assert (found.status_port, found.log_level, found.resources.cpu) == (15999, "debug", "10m")
    assert (found.policy_enabled, found.rewrites_probes) == (False, False)
    assert (found.holds_application, found.proxy_metadata) == (
        True,
        (("A", "1"), ("B", "true")),
    )
    assert (found.discovery_address, found.ca_address) == ("istiod:15012", "ca:15012")
    assert (found.revision_label, found.pull_secrets) == ("canary", ("secret",))
    assert found.never == ({"matchLabels": {"a": "b"}},)


def test_an_image_with_a_registry_stands_as_it_is():
    found = settings.read(
        {"global": {"hub": "h", "proxy": {"image": "r/p:1"}}}, config={}, mesh=MeshSettings()
    )

    assert found.image == "r/p:1"


def test_values_of_another_type_count_as_absent():
    found = settings.read(
        {"global": {"proxy": "odd", "imagePullSecrets": "odd"}},
        config={"neverInjectSelector": "odd"},
        mesh=MeshSettings(),
    )

    assert found == settings.InjectionSettings()


def test_labels_that_yaml_makes_numbers_of_are_text():
    selectors = [{"matchLabels": {1: "a", False: "b"}}]

    found = settings.read({}, config={"neverInjectSelector": selectors}, mesh=MeshSettings())

    assert found.never == ({"matchLabels": {"1": "a", "false": "b"}},)
