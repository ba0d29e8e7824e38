"""IstioOperator files: which fields exist, and what a mistake is answered with."""

import pytest

from isthmus.install import operator

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
        ("just words", "holds no object"),
        ("apiVersion: v1\nkind: Service\n", "of kind `Service`"),
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
