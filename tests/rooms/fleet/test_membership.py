"""Which clusters belong to the mesh, decided from remote secrets."""

import base64
import itertools

import pytest

from isthmus.fleet import membership
from isthmus.kube import objects, problems

OWN = "cluster1"


def secret(name, *, created="2026-01-01T00:00:00Z", **clusters):
    data = {
        key.replace("_", "-"): base64.b64encode(text.encode()).decode()
        for key, text in clusters.items()
    }
    metadata = objects.Metadata(name=name, namespace="istio-system", creation_timestamp=created)
    return objects.Secret(metadata=metadata, data=data)


def parse(text):
    if text.startswith("bad"):
        raise problems.KubeconfigRefused("kubeconfig is not allowed: exec is not allowed")
    return text


def decide(*secrets, in_use=None):
    return membership.of_secrets(secrets, own=OWN, parse=parse, in_use=in_use or {})


def test_each_key_of_a_secret_is_a_cluster():
    found = decide(secret("s", cluster2="two", cluster3="three"))

    assert {key: one.reached_by for key, one in found.wanted.items()} == {
        "cluster2": "two",
        "cluster3": "three",
    }
    assert found.findings == ()


@pytest.mark.parametrize("encoded", ["%", "LS0ö", "gICA", "\ud800"])
def test_what_is_no_text_keeps_no_other_secret_from_being_judged(encoded):
    metadata = objects.Metadata(name="a", namespace="istio-system")
    odd = objects.Secret(metadata=metadata, data={"cluster2": encoded})

    found = decide(odd, secret("b", cluster3="three"))

    assert list(found.wanted) == ["cluster3"]
    assert [finding.code for finding in found.findings] == ["ISM-FLEET-014"]


def test_the_key_is_the_id_whatever_the_secret_is_called():
    assert list(decide(secret("n2-k8s-secret", n2_k8s_config="x")).wanted) == ["n2-k8s-config"]


def test_our_own_cluster_cannot_be_claimed():
    found = decide(secret("s", cluster1="mine", cluster2="two"))

    assert list(found.wanted) == ["cluster2"]
    assert [finding.code for finding in found.findings] == ["ISM-FLEET-012"]


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_the_oldest_secret_wins_in_every_order(order):
    secrets = [
        secret("b", created="2026-01-01T00:00:00Z", cluster2="oldest"),
        secret("a", created="2026-01-02T00:00:00Z", cluster2="younger"),
        secret("c", created="2026-01-01T00:00:00Z", cluster2="same age, later name"),
    ]

    found = decide(*(secrets[index] for index in order))

    assert found.wanted["cluster2"].reached_by == "oldest"
    assert [finding.code for finding in found.findings] == ["ISM-FLEET-013"] * 2


def test_the_younger_secret_takes_over_when_the_older_goes():
    assert decide(secret("a", cluster2="younger")).wanted["cluster2"].secret == "istio-system/a"


def test_a_bad_kubeconfig_does_not_touch_the_good_ones_beside_it():
    found = decide(secret("s", cluster2="bad", cluster3="three"))

    assert list(found.wanted) == ["cluster3"]
    assert found.findings[0].code == "ISM-FLEET-014"
    assert "exec is not allowed" in found.findings[0].happened


def test_a_bad_update_keeps_the_connection_in_use():
    before = decide(secret("s", cluster2="good")).wanted

    found = decide(secret("s", cluster2="bad"), in_use=before)

    assert found.wanted == before
    assert found.findings[0].still_working == "cluster `cluster2` is followed as before"


def test_a_good_update_after_a_bad_one_is_used():
    before = decide(secret("s", cluster2="good")).wanted
    broken = decide(secret("s", cluster2="bad"), in_use=before).wanted

    assert decide(secret("s", cluster2="better"), in_use=broken).wanted["cluster2"].reached_by == (
        "better"
    )


def test_a_bad_kubeconfig_in_the_oldest_secret_still_holds_the_id():
    found = decide(
        secret("a", created="2026-01-01T00:00:00Z", cluster2="bad"),
        secret("b", created="2026-01-02T00:00:00Z", cluster2="good"),
    )

    assert found.wanted == {}
    assert [finding.code for finding in found.findings] == ["ISM-FLEET-014", "ISM-FLEET-013"]


@pytest.mark.parametrize("key", ["UPPER", "a.b", "-a", "a" * 64, "a b", "é"])
def test_a_key_that_is_no_label_is_refused(key):
    assert [finding.code for finding in decide(secret("s", **{key: "x"})).findings] == [
        "ISM-FLEET-011"
    ]


def test_equal_bytes_are_not_judged_again():
    before = decide(secret("s", cluster2="good")).wanted

    found = membership.of_secrets(
        [secret("s", cluster2="good")], own=OWN, parse=lambda text: 1 / 0, in_use=before
    )

    assert found.wanted == before


def test_a_kubeconfig_that_is_no_text_is_a_finding():
    broken = objects.Secret(
        metadata=objects.Metadata(name="s", namespace="n"), data={"cluster2": "%%%"}
    )

    assert decide(broken).findings[0].code == "ISM-FLEET-014"
