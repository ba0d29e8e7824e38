"""A cluster's objects survive in ConfigMaps, or are refused as a whole."""

import base64
import datetime

import pytest

from isthmus.fleet import slots, snapshots, sources
from isthmus.kube import objects

NOW = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)
SERVER = "f00d"


def content_of(count, cluster="cluster2"):
    def entries(kind, **more):
        made = {}
        for number in range(count):
            name = f"p-{number * 7919:x}"
            annotations = {"kubectl.kubernetes.io/last-applied-configuration": "{...}"}
            metadata = objects.Metadata(name=name, namespace="n", annotations=annotations)
            made[sources.ObjectKey(cluster, "n", name)] = kind(metadata=metadata, **more)
        return made

    return {
        "namespaces": {},
        "nodes": {},
        "services": entries(objects.Service),
        "endpoint_slices": entries(objects.EndpointSlice),
        "pods": entries(objects.Pod, status=objects.PodStatus(phase="Running", pod_ip="10.0.0.1")),
    }


def written(packed, at=NOW):
    names = slots.REMOTE.names[: len(packed.parts)]
    return [
        slots.slot(slots.REMOTE, name, packed, number, namespace="istio-system", known_at=at)
        for number, name in enumerate(names)
    ]


def test_what_is_packed_is_recalled_without_what_nobody_reads():
    packed = snapshots.pack("cluster2", content_of(3), server=SERVER)

    found, findings = snapshots.recall(written(packed))

    recalled = found["cluster2"]
    assert findings == ()
    assert (recalled.server, recalled.known_at) == (SERVER, NOW)
    assert {key: len(some) for key, some in recalled.content.items()} == {
        "namespaces": 0, "nodes": 0, "services": 3, "endpoint_slices": 3, "pods": 3,
    }  # fmt: skip
    [pod, *_] = recalled.content["pods"].values()
    assert pod.status.pod_ip == "10.0.0.1"
    assert pod.metadata.annotations is None


def damaged(parts, how):
    [one, *_] = parts
    match how:
        case "bytes":
            raw = bytearray(base64.b64decode(one["binaryData"]["part"]))
            raw[len(raw) // 2] ^= 1
            one["binaryData"]["part"] = base64.b64encode(raw).decode()
        case "no base64":
            one["binaryData"]["part"] = "%"
        case "no bytes":
            del one["binaryData"]
        case "time":
            one["metadata"]["annotations"][slots.KNOWN_AT] = "yesterday"
        case "parts":
            one["metadata"]["annotations"][slots.PART] = "1/2"
        case "many parts":
            one["metadata"]["annotations"][slots.PART] = "1/99999999999"
        case "format":
            one["metadata"]["annotations"][slots.FORMAT] = "2"
        case "cluster":
            one["metadata"]["annotations"][slots.CLUSTER] = "cluster3"
    return parts


@pytest.mark.parametrize(
    "how", ["bytes", "no base64", "no bytes", "time", "parts", "many parts", "format"]
)
def test_a_damaged_snapshot_is_refused_with_a_reason(how):
    packed = snapshots.pack("cluster2", content_of(3), server=SERVER)

    found, [finding] = snapshots.recall(damaged(written(packed), how))

    assert found == {}
    assert finding.code == "ISM-FLEET-018"


POD = b'{"metadata": {"name": "a"}, "spec": {"nodeName": %b}}'


@pytest.mark.parametrize("text", [b'"\xff"', b"[" * 3000 + b"]" * 3000])
def test_what_no_control_plane_writes_is_refused(text):
    kinds = ("namespaces", "nodes", "services", "endpoint_slices")
    listed = b"{%b, %b}" % (
        b", ".join(b'"%b": []' % kind.encode() for kind in kinds),
        b'"pods": [%b]' % (POD % text),
    )
    found, [finding] = snapshots.recall(written(slots.pack("cluster2", listed, server=SERVER)))

    assert (found, finding.code) == ({}, "ISM-FLEET-018")


def test_the_newest_whole_snapshot_counts():
    old = written(snapshots.pack("cluster2", content_of(1), server=SERVER))
    newer = written(
        snapshots.pack("cluster2", content_of(2), server=SERVER),
        NOW + datetime.timedelta(minutes=1),
    )
    newest = damaged(
        written(
            snapshots.pack("cluster2", content_of(4), server=SERVER),
            NOW + datetime.timedelta(minutes=2),
        ),
        "bytes",
    )

    found, findings = snapshots.recall([*newest, *old, *newer])

    assert len(found["cluster2"].content["pods"]) == 2
    assert len(findings) == 1


def test_an_empty_slot_is_nothing():
    assert snapshots.recall(
        [slots.empty(slots.REMOTE, "istio-remote-snapshot-0", namespace="n")]
    ) == ({}, ())


def test_a_large_snapshot_never_overwrites_the_one_that_is_there():
    names = slots.REMOTE.names

    assert slots.room_for(slots.REMOTE, 1, held=names[:1], taken=names[:1]) == names[:1]
    assert slots.room_for(slots.REMOTE, 2, held=names[:1], taken=names[:1]) == names[1:3]
    assert slots.room_for(slots.REMOTE, 2, held=names[:2], taken=names[:2]) == names[2:4]
    assert slots.room_for(slots.REMOTE, 1, held=names[:2], taken=names[:2]) == names[2:3]
    assert slots.room_for(slots.REMOTE, 40, held=names[:40], taken=names[:40]) is None
