"""Which pods take part in ambient mode: the rules, and that the first one that applies holds."""

import pytest

from isthmus.kube import objects
from isthmus.node.cni import membership

AMBIENT = {"istio.io/dataplane-mode": "ambient"}
NONE = {"istio.io/dataplane-mode": "none"}
ODD = {"istio.io/dataplane-mode": "sidecar"}
SIDECAR = {"sidecar.istio.io/status": "{}"}
EXCLUDED = {"kube-system", "istio-system"}


def pod(*, labels=None, annotations=None, phase="Running", namespace="default", host=False):
    metadata = objects.Metadata("p", namespace, "u", labels=labels, annotations=annotations)
    spec = objects.PodSpec(host_network=host)
    return objects.Pod(metadata, spec, objects.PodStatus(phase=phase))


CASES = [
    # what the pod is, labels of its namespace, whether it takes part, a word of the reason
    ({}, {}, False, "neither"),
    ({}, AMBIENT, True, "namespace's label"),
    ({"labels": AMBIENT}, {}, True, "pod's label"),
    ({"labels": AMBIENT}, NONE, True, "pod's label"),
    ({"labels": NONE}, AMBIENT, False, "pod's label"),
    ({"labels": ODD}, AMBIENT, True, "namespace's label"),
    ({"labels": ODD}, {}, False, "neither"),
    ({}, NONE, False, "neither"),
    ({}, ODD, False, "neither"),
    ({"labels": AMBIENT}, None, False, "not known"),
    ({"phase": "Pending"}, AMBIENT, True, "namespace's label"),
    ({"phase": "Succeeded"}, AMBIENT, False, "ended"),
    ({"phase": "Failed"}, AMBIENT, False, "ended"),
    ({"host": True, "labels": AMBIENT}, AMBIENT, False, "node's network"),
    ({"annotations": SIDECAR, "labels": AMBIENT}, AMBIENT, False, "proxy of its own"),
    ({"namespace": "kube-system", "labels": AMBIENT}, AMBIENT, False, "left out"),
    ({"namespace": "istio-system"}, AMBIENT, False, "left out"),
    ({"labels": {"app": "ztunnel", **AMBIENT}}, AMBIENT, False, "agent"),
    ({"labels": {"k8s-app": "istio-cni-node"}}, AMBIENT, False, "agent"),
]


@pytest.mark.parametrize(("made", "namespace", "takes_part", "why"), CASES)
def test_who_takes_part(made, namespace, takes_part, why):
    found = membership.verdict_of(pod(**made), namespace=namespace, excluded=EXCLUDED)

    assert found.takes_part == takes_part
    assert why in found.why


@pytest.mark.parametrize(
    ("annotations", "captured"),
    [
        (None, False),
        ({"ambient.istio.io/redirection": "enabled"}, True),
        ({"ambient.istio.io/redirection": "pending"}, True),
        ({"ambient.istio.io/redirection": "disabled"}, False),
        # Rules in there are the sidecar's own.
        ({"ambient.istio.io/redirection": "enabled", **SIDECAR}, False),
    ],
)
def test_whose_network_may_hold_rules_of_ours(annotations, captured):
    assert membership.was_captured(pod(annotations=annotations)) == captured


@pytest.mark.parametrize(
    ("said", "usual", "captured"),
    [
        (None, True, True),
        (None, False, False),
        ("false", True, False),
        ("true", False, True),
        ("perhaps", True, True),
    ],
)
def test_a_pod_decides_about_its_questions_for_names(said, usual, captured):
    annotations = {"ambient.istio.io/dns-capture": said} if said else None

    assert membership.captures_dns(pod(annotations=annotations), usual=usual) == captured


@pytest.mark.parametrize(
    ("said", "captured"), [(None, True), ("true", False), ("false", True), ("perhaps", True)]
)
def test_a_pod_may_take_plain_calls_itself(said, captured):
    annotations = {"ambient.istio.io/bypass-inbound-capture": said} if said else None

    assert membership.captures_arriving(pod(annotations=annotations)) == captured
