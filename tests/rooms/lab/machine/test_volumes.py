"""Volumes on a real file system, without namespaces."""

import base64
import pathlib

import pytest

from isthmus.lab.machine import environment, nodefiles, volumes

PLACE = environment.Place("10.0.0.9", "192.168.1.3", "10.96.0.1", 443)


class Lookup:
    def __init__(self, found):
        self.found = found

    def find(self, kind, namespace, name):
        return self.found.get((kind, name))


async def token(audience, life_s):
    return f"token for {audience or 'api'} {life_s}"


def source(*declared, found=None, **spec):
    pod = {
        "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"app": "p"}},
        "spec": {"containers": [], "volumes": list(declared), **spec},
    }
    node = nodefiles.NodeFiles(pathlib.Path("/nowhere"))
    return volumes.Source(pod, Lookup(found or {}), PLACE, token, node.volume)


def config(**values):
    return {(environment.CONFIG_MAP, "c"): {"data": values}}


async def test_a_config_map_becomes_files(tmp_path):
    declared = {"name": "v", "configMap": {"name": "c"}}

    await volumes.fill(tmp_path, source(declared, found=config(a="1", b="2")))

    assert (tmp_path / "v" / "a").read_text() == "1"
    assert (tmp_path / "v" / "b").read_text() == "2"


async def test_items_choose_paths_and_modes(tmp_path):
    items = [{"key": "a", "path": "deep/er", "mode": 0o400}]
    declared = {"name": "v", "configMap": {"name": "c", "items": items}}

    await volumes.fill(tmp_path, source(declared, found=config(a="1", b="2")))

    found = tmp_path / "v" / "deep" / "er"
    assert found.read_text() == "1"
    assert found.stat().st_mode & 0o777 == 0o400
    assert not (tmp_path / "v" / "b").exists()


async def test_a_secret_has_the_mode_that_was_asked_for(tmp_path):
    secret = {"data": {"k": base64.b64encode(b"x").decode()}}
    declared = {"name": "v", "secret": {"secretName": "s", "defaultMode": 0o400}}

    await volumes.fill(tmp_path, source(declared, found={(environment.SECRET, "s"): secret}))

    assert (tmp_path / "v" / "k").stat().st_mode & 0o777 == 0o400


async def test_a_projected_volume_joins_tokens_objects_and_facts(tmp_path):
    parts = [
        {"serviceAccountToken": {"path": "token", "audience": "ca", "expirationSeconds": 600}},
        {"configMap": {"name": "c"}},
        {"downwardAPI": {"items": [{"path": "ip", "fieldRef": {"fieldPath": "status.podIP"}}]}},
    ]

    await volumes.fill(
        tmp_path, source({"name": "v", "projected": {"sources": parts}}, found=config(a="1"))
    )

    folder = tmp_path / "v"
    assert (folder / "token").read_text() == "token for ca 600"
    assert (folder / "ip").read_text() == "10.0.0.9"
    assert (folder / "a").read_text() == "1"


async def test_a_missing_object_is_named_unless_it_is_optional(tmp_path):
    required = {"name": "v", "configMap": {"name": "c"}}
    optional = {"name": "v", "secret": {"secretName": "s", "optional": True}}

    with pytest.raises(environment.MissingError, match='configmap "c" not found'):
        await volumes.fill(tmp_path, source(required))
    await volumes.fill(tmp_path, source(optional))
    assert [each for each in (tmp_path / "v").iterdir() if not each.name.startswith("..")] == []


async def test_a_volume_of_an_unknown_kind_is_refused(tmp_path):
    with pytest.raises(volumes.UnsupportedVolumeError, match="nfs"):
        await volumes.fill(tmp_path, source({"name": "v", "nfs": {"path": "/etc"}}))


def test_a_change_swaps_all_files_at_once(tmp_path):
    folder = tmp_path / "v"
    volumes.write(folder, {"a": volumes.File(b"1", 0o644), "b": volumes.File(b"1", 0o644)})
    before = (folder / "..data").readlink()

    changed = volumes.write(folder, {"a": volumes.File(b"2", 0o644)})

    assert changed
    assert (folder / "..data").readlink() != before
    assert not (folder / before).exists()
    assert sorted(each.name for each in folder.iterdir() if each.name[0] != ".") == ["a"]


def test_the_same_content_changes_nothing(tmp_path):
    content = {"a": volumes.File(b"1", 0o644)}
    volumes.write(tmp_path / "v", content)

    assert not volumes.write(tmp_path / "v", content)


@pytest.mark.parametrize("path", ["/etc/passwd", "../up", "a/../../b", "..data"])
def test_a_path_cannot_leave_its_volume(tmp_path, path):
    with pytest.raises(volumes.UnsupportedVolumeError):
        volumes.write(tmp_path / "v", {path: volumes.File(b"", 0o644)})


def test_a_sub_path_through_a_link_out_of_the_volume_is_refused(tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "out").symlink_to("/etc")
    container = {"volumeMounts": [{"name": "v", "mountPath": "/x", "subPath": "out/passwd"}]}

    with pytest.raises(volumes.UnsupportedVolumeError, match="leads out"):
        volumes.binds(container, tmp_path, {})


def test_mounts_come_parents_first():
    mounts = [
        {"name": "b", "mountPath": "/a/b", "readOnly": True},
        {"name": "a", "mountPath": "/a/"},
    ]

    found = volumes.binds({"volumeMounts": mounts}, pathlib.Path("/lab"), {})

    assert [(each.target, each.read_only) for each in found] == [("/a", False), ("/a/b", True)]


def test_everything_that_a_pod_refers_to_is_found():
    spec = {
        "volumes": [
            {"name": "v", "projected": {"sources": [{"secret": {"name": "s1"}}]}},
            {"name": "w", "configMap": {"name": "c1"}},
        ],
        "containers": [
            {
                "name": "c",
                "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s2", "key": "k"}}}],
                "envFrom": [{"configMapRef": {"name": "c2"}}],
            }
        ],
    }

    assert volumes.references({"spec": spec}) == {
        (environment.SECRET, "s1"),
        (environment.SECRET, "s2"),
        (environment.CONFIG_MAP, "c1"),
        (environment.CONFIG_MAP, "c2"),
    }
