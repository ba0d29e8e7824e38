"""Options and the objects that follow from them."""

import pytest
import yaml

from isthmus.cli import gen_eastwest_gateway
from isthmus.fleet import generations
from isthmus.install import manifests, operator, options, rights
from isthmus.runtime import key_sets, leadership, rootcerts

PRIMARY = """
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  values:
    global:
      meshID: mesh1
      multiCluster:
        clusterName: cluster1
      network: network1
"""
REMOTE = """
apiVersion: install.istio.io/v1alpha1
kind: IstioOperator
spec:
  profile: remote
  values:
    istiodRemote:
      injectionPath: /inject/cluster/cluster2/net/network2
    global:
      remotePilotAddress: {address}
"""


def chosen(text, *flags):
    return options.of_spec(operator.read([("file.yaml", text)], flags=flags))


def objects(text, *flags):
    found = manifests.of_options(chosen(text, *flags))
    return {manifests.identity(manifest): manifest for manifest in found}


def test_roots_of_issuers_are_where_the_control_plane_looks_for_them():
    given = f"{PRIMARY}    pilot:\n      jwksResolverExtraRootCA: PEM\n"
    found, place = objects(given), ("ConfigMap", "istio-system", "pilot-jwks-extra-cacerts")
    pod = found["Deployment", "istio-system", "istiod"]["spec"]["template"]["spec"]
    (mount,) = (
        one for one in pod["containers"][0]["volumeMounts"] if one["name"] == "extracacerts"
    )
    folder, name = key_sets.MORE_ROOTS.rsplit("/", 1)

    assert found[place]["data"] == {name: "PEM"}
    assert mount["mountPath"] == folder
    assert {"name": mount["name"], "configMap": {"name": place[2]}} in pod["volumes"]
    assert place not in objects(PRIMARY)


def test_a_primary_has_the_objects_that_istios_users_know():
    names = set(objects(PRIMARY))

    assert {
        ("Deployment", "istio-system", "istiod"),
        ("Service", "istio-system", "istiod"),
        ("ServiceAccount", "istio-system", "istiod"),
        ("ConfigMap", "istio-system", "istio"),
        ("ConfigMap", "istio-system", "istio-sidecar-injector"),
        ("ServiceAccount", "istio-system", "istio-reader-service-account"),
        ("MutatingWebhookConfiguration", "", "istio-sidecar-injector"),
        ("ClusterRole", "", "istiod-clusterrole-istio-system"),
        ("Deployment", "istio-system", "istio-ingressgateway"),
        ("Service", "istio-system", "istio-ingressgateway"),
        ("CustomResourceDefinition", "", "gateways.networking.istio.io"),
    } <= names


def test_settings_reach_the_control_plane_as_environment():
    found = objects(PRIMARY, "values.pilot.env.EXTERNAL_ISTIOD=true")
    pod = found["Deployment", "istio-system", "istiod"]["spec"]["template"]["spec"]
    env = {entry["name"]: entry.get("value") for entry in pod["containers"][0]["env"]}

    assert env["CLUSTER_ID"] == "cluster1"
    assert env["EXTERNAL_ISTIOD"] == "true"


def test_a_remote_cluster_has_an_istiod_service_that_leads_to_the_gateway_of_the_primary():
    found = objects(REMOTE.format(address="172.30.0.9"))
    slice_ = found["EndpointSlice", "istio-system", "istiod"]

    assert ("Deployment", "istio-system", "istiod") not in found
    assert "selector" not in found["Service", "istio-system", "istiod"]["spec"]
    assert slice_["metadata"]["labels"]["kubernetes.io/service-name"] == "istiod"
    assert slice_["endpoints"] == [{"addresses": ["172.30.0.9"], "conditions": {"ready": True}}]
    assert {port["port"] for port in slice_["ports"]} == {15012, 15017}


def test_a_remote_control_plane_with_a_host_name_is_an_external_name():
    service = objects(REMOTE.format(address="gw.example.com"))["Service", "istio-system", "istiod"]

    assert service["spec"]["type"] == "ExternalName"
    assert service["spec"]["externalName"] == "gw.example.com"


def test_the_webhook_of_a_remote_cluster_carries_cluster_and_network_in_its_path():
    webhook = objects(REMOTE.format(address="172.30.0.9"))[
        "MutatingWebhookConfiguration", "", "istio-sidecar-injector"
    ]

    paths = {hook["clientConfig"]["service"]["path"] for hook in webhook["webhooks"]}
    assert paths == {"/inject/cluster/cluster2/net/network2"}


def test_only_a_remote_cluster_lets_the_reader_write_root_certificates_and_webhooks():
    def verbs(found):
        role = found["ClusterRole", "", "istio-reader-clusterrole-istio-system"]
        return {
            verb
            for rule in role["rules"]
            if "configmaps" in rule["resources"]
            or "mutatingwebhookconfigurations" in rule["resources"]
            for verb in rule["verbs"]
        }

    assert {"create", "update"} <= verbs(objects(REMOTE.format(address="172.30.0.9")))
    assert not verbs(objects(PRIMARY))


def test_the_names_in_the_roles_are_those_that_the_control_plane_uses():
    assert rights.ROOTS == rootcerts.NAME
    assert rights.LOCK == leadership.NAMESPACE_LOCK


def test_no_role_grants_everything_of_a_kind_or_the_making_of_rights():
    for manifest in [
        *objects(PRIMARY).values(),
        *objects(REMOTE.format(address="1.2.3.4")).values(),
    ]:
        for rule in manifest.get("rules", []):
            assert "*" not in {*rule["apiGroups"], *rule["resources"], *rule["verbs"]}
            assert not {"impersonate", "bind", "escalate", "delete"} & {*rule["verbs"]}
            assert "secrets" not in rule["resources"] or manifest["kind"] == "Role"


def test_a_remote_profile_without_an_address_is_refused_with_the_next_step():
    with pytest.raises(options.OptionsRefused, match="remotePilotAddress") as refusal:
        chosen(
            "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {profile: remote}"
        )

    assert "istio-eastwestgateway" in refusal.value.hint


def test_the_printed_east_west_gateway_installs_a_gateway_and_nothing_else():
    text = yaml.safe_dump(gen_eastwest_gateway.document(network="network1", revision=""))
    found = objects(text)
    service = found["Service", "istio-system", "istio-eastwestgateway"]
    pod = found["Deployment", "istio-system", "istio-eastwestgateway"]["spec"]["template"]

    assert {kind for kind, _, _ in found} == {
        "ServiceAccount", "Service", "Deployment", "PodDisruptionBudget",
    }  # fmt: skip
    assert service["metadata"]["labels"]["topology.istio.io/network"] == "network1"
    assert {port["port"] for port in service["spec"]["ports"]} == {15021, 15443, 15012, 15017}
    assert pod["metadata"]["annotations"]["inject.istio.io/templates"] == "gateway"
    assert pod["spec"]["containers"][0]["env"] == [
        {"name": "ISTIO_META_REQUESTED_NETWORK_VIEW", "value": "network1"}
    ]


def test_a_revision_is_part_of_names_labels_and_selectors():
    found = objects(PRIMARY.replace("spec:\n", "spec:\n  revision: canary\n", 1))
    deployment = found["Deployment", "istio-system", "istiod-canary"]

    assert deployment["metadata"]["labels"]["istio.io/rev"] == "canary"
    assert deployment["spec"]["selector"]["matchLabels"]["istio.io/rev"] == "canary"


@pytest.mark.parametrize("other", ["", "stable"])
def test_no_control_plane_selects_the_pods_of_another_revision(other):
    pods = objects(PRIMARY, "revision=canary")["Deployment", "istio-system", "istiod-canary"]
    labels = pods["spec"]["template"]["metadata"]["labels"]
    beside = objects(PRIMARY, *([f"revision={other}"] if other else []))

    for (kind, _, name), manifest in beside.items():
        selector = manifest.get("spec", {}).get("selector")
        if name.startswith("istiod") and selector:
            wanted = selector.get("matchLabels", selector)
            assert not wanted.items() <= labels.items(), (kind, name)


def test_the_default_revision_may_be_named():
    assert objects(PRIMARY, "revision=default") == objects(PRIMARY)


def test_every_object_can_be_found_again_by_its_labels():
    for manifest in objects(PRIMARY).values():
        labels = manifest["metadata"]["labels"]
        assert labels["operator.istio.io/managed"] == "Reconcile"
        assert labels["install.operator.istio.io/owning-resource"] == "installed-state"


def test_an_unknown_profile_is_refused_with_those_that_exist():
    with pytest.raises(options.OptionsRefused) as refusal:
        chosen("apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\nspec: {profile: big}")

    assert "minimal" in refusal.value.hint


def test_roles_grant_what_the_control_plane_follows_and_no_more():
    def following(rules):
        return {
            (group, resource)
            for rule in rules
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            if {"list", "watch"} <= set(rule["verbs"])
        }

    def kinds_of(followed):
        return {(one.kind.group, one.kind.plural) for one in followed if not one.system_only}

    assert following(rights.followed()) == kinds_of(generations.EVERYWHERE)
    assert following(rights.configured()) == kinds_of(generations.CONFIGURATION)
