"""Objects that were just decoded share what is equal in them, and say the same as before."""

import itertools
import json
import sys

import msgspec
import pytest

from isthmus.kube import objects, packed, sharing

POD = {
    "metadata": {
        "name": "web-1",
        "namespace": "shop",
        "labels": {"app": "web", "version": "v1"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "web-7d4b"}],
    },
    "spec": {"nodeName": "n1", "containers": [{"name": "main", "ports": [{"containerPort": 80}]}]},
    "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]},
}
SLICE = {
    "metadata": {"name": "web-x", "namespace": "shop"},
    "endpoints": [
        {
            "addresses": ["10.0.0.1"],
            "conditions": {"ready": True},
            "targetRef": {"kind": "Pod", "name": "web-1", "namespace": "shop"},
        }
    ],
}


def decoded(kind, fields, **metadata):
    text = json.dumps({**fields, "metadata": {**fields["metadata"], **metadata}})
    return msgspec.json.decode(text, type=kind)


def test_pods_of_one_owner_share_all_but_name_and_address():
    one, other = (sharing.shared(decoded(objects.Pod, POD, name=name)) for name in "ab")

    assert one.metadata.labels is other.metadata.labels
    assert one.metadata.owner_references is other.metadata.owner_references
    assert one.spec.containers is other.spec.containers
    assert one.spec.node_name is other.spec.node_name


@pytest.mark.parametrize(("kind", "fields"), [(objects.Pod, POD), (objects.EndpointSlice, SLICE)])
def test_what_is_shared_says_the_same(kind, fields):
    plain, shared = decoded(kind, fields), sharing.shared(decoded(kind, fields))

    if kind is objects.Pod:
        # One address is said once.
        assert shared.status.pod_ips == ()
        msgspec.structs.force_setattr(shared.status, "pod_ips", plain.status.pod_ips)
    assert shared == plain


def test_labels_of_one_pod_are_not_those_of_another():
    one = sharing.shared(decoded(objects.Pod, POD, labels={"app": "web"}))
    other = sharing.shared(decoded(objects.Pod, POD, labels={"app": "pay"}))

    assert (one.metadata.labels, other.metadata.labels) == ({"app": "web"}, {"app": "pay"})


def test_several_addresses_stay():
    status = {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}
    pod = sharing.shared(decoded(objects.Pod, {**POD, "status": status}))

    assert [one.ip for one in pod.status.pod_ips] == ["10.0.0.1", "fd00::1"]


@pytest.mark.parametrize(("kind", "fields"), [(objects.Pod, POD), (objects.EndpointSlice, SLICE)])
def test_what_no_mesh_is_made_of_makes_no_difference(kind, fields):
    seen = [
        sharing.lean(
            decoded(
                kind,
                fields,
                uid=word,
                creationTimestamp=word,
                ownerReferences=[{"kind": "ReplicaSet", "name": "web-7d4b", "uid": word}],
                annotations={
                    "cni.example/address": word,
                    "ambient.istio.io/redirection": "enabled",
                },
            )
        )
        for word in ("one", "another")
    ]

    assert seen[0] == seen[1]
    assert seen[0].metadata.annotations == {"ambient.istio.io/redirection": "enabled"}
    assert seen[0].metadata.owner_references[0].name == "web-7d4b"


def test_pods_of_owners_of_one_name_in_two_clusters_share_what_they_have_alike():
    one, other = (
        sharing.lean(decoded(objects.Pod, POD, ownerReferences=[{"name": "web", "uid": uid}]))
        for uid in ("in-east", "in-west")
    )

    assert packed.shared_in(one) is packed.shared_in(other)


def test_how_old_a_service_is_stays_known():
    fields = {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"app": "web"}},
    }
    one = sharing.lean(decoded(objects.Service, fields, creationTimestamp="2026-01-01T00:00:00Z"))

    assert one.metadata.creation_timestamp == "2026-01-01T00:00:00Z"
    assert one.spec.selector == {"app": "web"}


PLAIN = {**POD, "metadata": {**POD["metadata"], "annotations": {"x.istio.io/y": "z"}}}
ODD = {"metadata": {"name": "odd", "deletionTimestamp": "2026-01-01T00:00:00Z"}}
DUAL = {"status": {"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}}
STRANGERS = {
    **SLICE,
    "endpoints": [
        {"addresses": ["192.0.2.1"], "nodeName": "n1", "zone": "z1", "hostname": "db-0"},
        {"addresses": ["192.0.2.2"], "conditions": {"ready": True, "terminating": True}},
        {"addresses": [], "targetRef": {"kind": "Pod", "name": "web-2"}, "hostname": "web-2"},
        {"addresses": ["192.0.2.3"], "targetRef": {"kind": "Machine", "name": "m"}, "zone": "z2"},
    ],
}
SERVICE = {
    "metadata": {"name": "web", "creationTimestamp": "2026-01-01T00:00:00Z", **POD["metadata"]},
    "spec": {
        "clusterIP": "172.16.0.1",
        "clusterIPs": ["172.16.0.1", "fd00::1"],
        "selector": {"app": "web"},
        "ports": [{"port": 80, "name": "http", "targetPort": "main"}],
    },
    "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}},
}
KEPT = [
    *((objects.Pod, one) for one in (POD, PLAIN, ODD, {**POD, **DUAL})),
    *((objects.EndpointSlice, one) for one in (STRANGERS, ODD, {**SLICE, "endpoints": None})),
    *((objects.Service, one) for one in (SERVICE, ODD)),
]


@pytest.mark.parametrize(("kind", "fields"), KEPT)
def test_what_is_packed_says_the_same(kind, fields):
    kept, plain = sharing.lean(decoded(kind, fields)), sharing.shared(decoded(kind, fields))

    assert type(kept) is not kind
    assert (kept.metadata, kept.metadata.name) == (plain.metadata, plain.metadata.name)
    if kind is not objects.EndpointSlice:
        assert (kept.spec, kept.status, kept.whole()) == (plain.spec, plain.status, plain)
    else:
        assert (kept.ports, kept.address_type) == (plain.ports, plain.address_type)
        assert kept.whole().endpoints == (plain.endpoints or ())


def test_slices_keep_of_pods_what_these_do_not_say_themselves():
    member = {**SLICE["endpoints"][0], "nodeName": "n1", "zone": "z1"}
    reference = {**member["targetRef"], "uid": "1234"}
    slices = [{**member, "targetRef": reference}, SLICE["endpoints"][0]]
    kept = [
        sharing.lean(decoded(objects.EndpointSlice, {**SLICE, "endpoints": [one]}))
        for one in slices
    ]

    [found] = kept[0].endpoints
    assert kept[0] == kept[1]
    assert (found.addresses, found.conditions.ready) == (("10.0.0.1",), True)
    assert (found.target_ref.kind, found.target_ref.name) == ("Pod", "web-1")


def test_services_of_one_name_share_all_but_their_addresses_and_their_age():
    one, other = (
        sharing.lean(decoded(objects.Service, {**SERVICE, "spec": {**SERVICE["spec"], **own}}))
        for own in ({}, {"clusterIP": "172.16.0.2", "clusterIPs": ["172.16.0.2"]})
    )

    assert one != other
    assert one.name is other.name
    assert one.metadata.labels is other.metadata.labels
    assert one.spec.ports is other.spec.ports
    assert other.spec.cluster_ips == ("172.16.0.2",)


def test_packed_pods_differ_in_whatever_they_differ():
    kept = [
        sharing.lean(decoded(objects.Pod, {**POD, **other}, **own))
        for other, own in (
            ({}, {}),
            ({}, {"name": "b"}),
            ({}, {"labels": {"app": "pay"}}),
            ({"spec": {**POD["spec"], "nodeName": "n2"}}, {}),
            ({"status": {**POD["status"], "podIP": "10.0.0.9"}}, {}),
            ({"status": {**POD["status"], "phase": "Failed"}}, {}),
        )
    ]

    assert kept[0] == sharing.lean(decoded(objects.Pod, POD))
    assert all(one != other for one, other in itertools.combinations(kept, 2))


def test_packed_pods_of_one_owner_hold_name_address_and_node_alone():
    one, other = (sharing.lean(decoded(objects.Pod, POD, name=name)) for name in "ab")
    size = sum(sys.getsizeof(part) for part in (one, one.name, one.address, one.node))

    assert one.metadata.labels is other.metadata.labels
    assert one.spec.containers is other.spec.containers
    assert size < 256
