"""IstioOperator files: which fields exist, and what a mistake is answered with."""

import json

import pytest

from isthmus.cli import gen_eastwest_gateway
from isthmus.install import operator, options, settings_check

HEAD = "apiVersion: install.istio.io/v1alpha1\nkind: IstioOperator\n"


def read(body, *flags):
    return operator.read([("file.yaml", HEAD + body)], flags=flags)


def test_the_file_of_the_primary_cluster_in_the_walkthrough_is_read_unchanged():
    spec = read(
        "spec:\n  values:\n    global:\n      meshID: mesh1\n"
        "      multiCluster:\n        clusterName: cluster1\n      network: network1\n"
    )

    assert spec["values"]["global"]["multiCluster"] == {"clusterName": "cluster1"}


def test_flags_lie_over_files_and_environment_variables_stay_texts():
    spec = read(
        "spec:\n  values:\n    global:\n      network: a\n",
        "values.global.network=b",
        "values.pilot.env.EXTERNAL_ISTIOD=true",
    )

    assert spec["values"]["global"]["network"] == "b"
    assert spec["values"]["pilot"]["env"] == {"EXTERNAL_ISTIOD": "true"}


@pytest.mark.parametrize(
    ("body", "path", "near"),
    [
        ("spec:\n  profil: empty\n", "spec.profil", "profile"),
        (
            "spec:\n  values:\n    global:\n      netwrok: n\n",
            "spec.values.global.netwrok",
            "network",
        ),
        ("spec:\n  components:\n    pilots: {}\n", "spec.components.pilots", "pilot"),
        (
            "spec:\n  components:\n    ingressGateways:\n    - nam: x\n",
            "spec.components.ingressGateways.nam",
            "name",
        ),
        ("specs: {}\n", "file.yaml.specs", "spec"),
    ],
)
def test_a_field_that_does_not_exist_is_named_with_the_nearest_that_does(body, path, near):
    with pytest.raises(operator.OptionsRefused) as refusal:
        read(body)

    assert path in refusal.value.happened
    assert f"did you mean `{near}`?" in refusal.value.hint
    assert refusal.value.still_working == "nothing was changed in the cluster"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: [", "is not YAML"),
        ("[" * 5000, "is not YAML"),
        ("since: 2026-13-45", "is not YAML"),
        ("just words", "holds no object"),
        ("apiVersion: v1\nkind: Service\n", "of kind `Service`"),
        ("spec: {}\n", "of kind `none` in `no apiVersion`, not IstioOperator"),
        (HEAD + "spec: 3\n", "must hold fields"),
        (HEAD + "spec:\n  values:\n    global: 3\n", "must hold fields"),
    ],
)
def test_a_broken_file_is_refused_with_its_reason(text, reason):
    with pytest.raises(operator.OptionsRefused, match=reason):
        operator.read([("file.yaml", text)])


def test_a_flag_without_a_value_is_refused():
    with pytest.raises(operator.OptionsRefused, match="wants path=value"):
        operator.read([], flags=["values.global.network"])


@pytest.mark.parametrize(
    ("flag", "refusal"),
    [
        ("values.pilot.replicaCount=many", "`spec.values.pilot.replicaCount` must hold a whole"),
        ("values.pilot.replicaCount=true", "must hold a whole number, but is: `True`"),
        ("values.pilot.autoscaleEnabled=maybe", "must hold true or false"),
        ("values.global.network=no", "must hold a text, but is: `False`"),
        ("values.global.meshID=[a]", "`spec.values.global.meshID` must hold a text"),
        ("values.global.imagePullSecrets=one", "must hold a list"),
        ("values.pilot.env=x", "must hold fields"),
        ("values.global.hub=[", "is not YAML"),
        ("values.global.hub=2026-13-45", "is not YAML"),
        ("components.ingressGateways={name: x}", "must hold a list"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_with_its_path(flag, refusal):
    with pytest.raises(operator.OptionsRefused) as caught:
        operator.read([], flags=[flag])

    assert refusal in caught.value.happened
    assert caught.value.still_working == "nothing was changed in the cluster"


def test_what_is_accepted_but_not_obeyed_is_said_once():
    spec = read(
        "spec:\n  values:\n    cni:\n      chained: true\n    telemetry: {}\n"
        "  components:\n    ingressGateways:\n"
        "    - {name: a, k8s: {affinity: {x: 1}}}\n    - {name: b, k8s: {affinity: {x: 1}}}\n"
    )

    said = [finding.subject for finding in settings_check.warnings_for(options.of_spec(spec))]

    assert said == [
        "spec.values.cni.chained",
        "spec.components.ingressGateways.k8s.affinity",
    ]


def test_the_eastwest_gateway_of_the_walkthrough_has_no_field_without_effect():
    document = gen_eastwest_gateway.document(network="network1", revision="")
    spec = operator.read([("-", json.dumps(document))])

    assert list(settings_check.warnings_for(options.of_spec(spec))) == []


def test_flags_reach_into_lists_place_by_place():
    spec = read(
        "spec: {}\n",
        "values.global.meshNetworks.n2.endpoints[0].fromRegistry=cluster2",
        "values.global.meshNetworks.n2.endpoints[1].fromCidr=10.0.0.0/16",
        "values.global.meshNetworks.n2.gateways[0].address=0.0.0.0",
        "values.global.meshNetworks.n2.gateways[0].port=15443",
    )

    assert spec["values"]["global"]["meshNetworks"]["n2"] == {
        "endpoints": [{"fromRegistry": "cluster2"}, {"fromCidr": "10.0.0.0/16"}],
        "gateways": [{"address": "0.0.0.0", "port": 15443}],
    }


@pytest.mark.parametrize("place", ["[x]", "[-1]", "[1", "[1000000]"])
def test_a_place_in_a_list_that_is_none_is_refused(place):
    with pytest.raises(operator.OptionsRefused, match="wants a place in a list"):
        read("spec: {}\n", f"values.global.meshNetworks.n2.gateways{place}.port=1")
