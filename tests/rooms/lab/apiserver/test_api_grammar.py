"""Selectors, patterns and protobuf: small languages that clients speak."""

import time

import pytest

from isthmus.lab.apiserver import cells, patterns, protobuf, requests, selectors
from isthmus.lab.apiserver.errors import ApiError
from isthmus.testing import pace

LABELS = {"app": "web", "tier": "front", "n": "5"}


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("app=web", True),
        ("app==web,tier=front", True),
        ("app!=web", False),
        ("missing!=web", True),
        ("app in (web, other)", True),
        ("app in (other)", False),
        ("app notin (web)", False),
        ("missing notin (web),app", True),
        ("app", True),
        ("!app", False),
        ("!missing", True),
        ("n>4,n<6", True),
        ("n>5", False),
        ("istio.io/rev!=x", True),
    ],
)
def test_a_label_selector_says_which_labels_match(text, result):
    assert selectors.of_labels(text)(LABELS) is result


@pytest.mark.parametrize("text", ["app in web", "app in (a", "a b", "=x", ","])
def test_a_broken_label_selector_is_refused(text):
    with pytest.raises(ApiError, match="unable to parse requirement"):
        selectors.of_labels(text)


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("metadata.name=a", True),
        ("metadata.name!=a", False),
        ("spec.nodeName=n1,status.phase!=Failed", True),
        ("spec.nodeName=", False),
        ("metadata.namespace=", True),
        ("spec.unschedulable=false", True),
    ],
)
def test_a_field_selector_says_which_objects_match(text, result):
    obj = {"metadata": {"name": "a"}, "spec": {"nodeName": "n1", "unschedulable": False}}
    assert selectors.parse(fields=text)(obj) is result


def test_booleans_are_read_as_clients_of_every_language_write_them():
    assert selectors.go_bool("True")
    assert selectors.go_bool("1")
    assert not selectors.go_bool("false")
    assert not selectors.go_bool(None)
    with pytest.raises(ApiError, match="ParseBool"):
        selectors.go_bool("yes")


def test_patterns_match_anywhere_as_in_kubernetes():
    assert patterns.matches("b", "abc")
    assert not patterns.matches("^b", "abc")
    assert not patterns.matches("^[a-z]+$", "abc\n")


def test_the_usual_nested_pattern_of_names_is_checked():
    name = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"
    assert patterns.matches(name, "a.b-c.d")
    assert not patterns.matches(name, "a..b")


@pytest.mark.parametrize(
    "pattern",
    [
        "^(a+)+$",
        "^(a|a)*$",
        "^(a*)*$",
        "^(aa[a-z]+)*$",
        "^(a?){30}a{30}$",
        "^([a-z]{1,9}){1,9}!x",
        "(x+x+)+y",
    ],
)
def test_a_pattern_that_could_hang_the_server_does_not(pattern):
    began = time.perf_counter()
    patterns.matches(pattern, "a" * 40 + "!")
    patterns.matches(pattern, "x" * 40)
    assert time.perf_counter() - began < pace.patience(1)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (330, "5m30s"),
        (660, "11m"),
        (10_800, "3h"),
        (12_000, "3h20m"),
        (90_000, "25h"),
        (172_800, "2d"),
        (262_800, "3d1h"),
        (864_000, "10d"),
        (73_008_000, "2y115d"),
    ],
)
def test_ages_read_as_in_kubectl(seconds, shown):
    assert cells.duration(seconds) == shown


def test_the_first_form_that_is_served_is_chosen():
    table = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
    assert requests.form(table).kind == "Table"
    assert requests.form("application/vnd.kubernetes.protobuf,application/json").kind == ""
    with pytest.raises(ApiError) as caught:
        requests.form("application/vnd.kubernetes.protobuf")
    assert caught.value.code == 406


def field(number, value):
    """Encode one field of a protobuf message."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    raw = value.encode() if isinstance(value, str) else value
    return bytes([number << 3 | 2, len(raw)]) + raw


def body(kind, raw):
    meta = field(1, "v1") + field(2, kind)
    return protobuf.MAGIC + field(1, meta) + field(2, raw)


def test_protobuf_becomes_the_json_that_would_have_been_sent():
    meta = field(1, "s") + field(2, "") + field(11, field(1, "a") + field(2, "b")) + field(8, b"")
    raw = field(1, meta) + field(2, field(1, "key") + field(2, b"\x00\x01")) + field(3, "Opaque")

    assert protobuf.decoded(body("Secret", raw)) == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "labels": {"a": "b"}},
        "data": {"key": "AAE="},
        "type": "Opaque",
    }


def test_a_zero_that_means_something_is_kept():
    raw = field(1, field(1, "d")) + field(2, field(1, 0) + field(7, 0))
    assert protobuf.decoded(body("Deployment", raw))["spec"] == {"replicas": 0}


def test_a_field_that_is_not_known_is_refused_rather_than_lost():
    with pytest.raises(ApiError, match="field 9 of ConfigMap") as caught:
        protobuf.decoded(body("ConfigMap", field(9, "x")))
    assert caught.value.code == 415


@pytest.mark.parametrize(
    "raw", [b"", b"k8s\0", b"k8s\0\xff", b"k8s\0\x0a\x7f", b"k8s\0\x12\x01\x0f"]
)
def test_damaged_protobuf_is_a_client_error(raw):
    with pytest.raises(ApiError) as caught:
        protobuf.decoded(raw)
    assert caught.value.code in (400, 415)
