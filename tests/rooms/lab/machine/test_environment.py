"""A container's environment, as Kubernetes documents it."""

import base64

import pytest

from isthmus.lab.machine import environment

PLACE = environment.Place("10.0.0.9", "192.168.1.3", "10.96.0.1", 443)


class Lookup:
    def __init__(self, **found):
        self._found = found

    def find(self, kind, namespace, name):
        return self._found.get(f"{kind}_{name}")


SETTINGS = {"data": {"mode": "fast", "bad key": "x"}}
CREDENTIALS = {"data": {"password": base64.b64encode(b"secret").decode()}}
LOOKUP = Lookup(configmap_settings=SETTINGS, secret_credentials=CREDENTIALS)


def pod(**metadata):
    return {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", **metadata},
        "spec": {"nodeName": "n1", "containers": []},
    }


def of(*, lookup=LOOKUP, image=None, **container):
    return environment.of_container(
        {"name": "c", **container}, pod=pod(), image=image or {}, lookup=lookup, place=PLACE
    )


def test_values_refer_to_what_came_before_them():
    env = [
        {"name": "A", "value": "1"},
        {"name": "B", "value": "$(A)$(C)$$(A)"},
        {"name": "C", "value": "3"},
    ]

    assert of(env=env)["B"] == "1$(C)$(A)"


def test_a_pod_learns_where_its_api_server_is():
    assert of()["KUBERNETES_SERVICE_HOST"] == "10.96.0.1"


def test_own_values_win_over_those_of_objects_and_the_image():
    env = of(
        image={"mode": "slow", "LEVEL": "1"},
        envFrom=[{"configMapRef": {"name": "settings"}}],
        env=[{"name": "LEVEL", "value": "2"}],
    )

    assert (env["mode"], env["LEVEL"]) == ("fast", "2")
    assert "bad key" not in env


def test_values_come_from_fields_resources_and_secrets():
    env = of(
        resources={"limits": {"cpu": "1500m", "memory": "64Mi"}},
        env=[
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "CPU", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {
                "name": "MEMORY",
                "valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Mi"}},
            },
            {
                "name": "WORD",
                "valueFrom": {"secretKeyRef": {"name": "credentials", "key": "password"}},
            },
        ],
    )

    assert (env["NODE"], env["CPU"], env["MEMORY"], env["WORD"]) == ("n1", "2", "64", "secret")


def test_a_required_object_or_key_that_is_absent_is_named():
    absent = {"name": "X", "valueFrom": {"configMapKeyRef": {"name": "none", "key": "k"}}}
    keyless = {"name": "X", "valueFrom": {"secretKeyRef": {"name": "credentials", "key": "k"}}}

    with pytest.raises(environment.MissingError, match='configmap "none" not found'):
        of(env=[absent])
    with pytest.raises(environment.MissingError, match='no key "k"'):
        of(env=[keyless])


def test_an_optional_object_that_is_absent_gives_nothing():
    reference = {"name": "none", "key": "k", "optional": True}

    assert "X" not in of(env=[{"name": "X", "valueFrom": {"configMapKeyRef": reference}}])


def test_labels_are_told_line_by_line():
    labelled = pod(labels={"b": 'say "hi"', "a": "1"})

    told = environment.field("metadata.labels", pod=labelled, place=PLACE)

    assert told == 'a="1"\nb="say \\"hi\\""'
    assert environment.field("metadata.labels['a']", pod=labelled, place=PLACE) == "1"


@pytest.mark.parametrize(
    ("text", "value"), [("100m", 0.1), ("2", 2.0), ("1Gi", 2.0**30), ("5M", 5e6), ("0.5", 0.5)]
)
def test_quantities_are_read_as_kubernetes_writes_them(text, value):
    assert environment.quantity(text) == pytest.approx(value)
