"""A node's own files, as `hostPath` volumes lead to them, on a real file system."""

import socket

import pytest

from isthmus.lab.machine import environment, nodefiles, volumes


@pytest.fixture
def node(tmp_path):
    (tmp_path / "node").mkdir()
    return nodefiles.NodeFiles(tmp_path / "node")


@pytest.mark.parametrize("kind", ["", "DirectoryOrCreate"])
def test_a_folder_is_made_below_the_node(node, tmp_path, kind):
    found = node.volume({"path": "/var/lib/agent", "type": kind})

    assert found == tmp_path / "node" / "var" / "lib" / "agent"
    assert found.is_dir()


def test_var_run_is_run(node):
    assert node.volume({"path": "/var/run/agent"}) == node.volume({"path": "/run/agent"})


@pytest.mark.parametrize("kind", ["Directory", "File", "Socket"])
def test_what_is_to_be_there_is_waited_for(node, kind):
    with pytest.raises(environment.MissingError, match="type check failed: /run/it is not a"):
        node.volume({"path": "/run/it", "type": kind})


def test_a_folder_is_no_socket_and_no_file(node):
    node.volume({"path": "/run/it"})

    for kind in ("Socket", "File", "FileOrCreate"):
        with pytest.raises(environment.MissingError):
            node.volume({"path": "/run/it", "type": kind})


def test_a_socket_is_one(node, tmp_path):
    folder = node.volume({"path": "/run"})
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "it.sock"))

        assert node.volume({"path": "/run/it.sock", "type": "Socket"}).is_socket()


@pytest.mark.parametrize("path", ["", "etc", "/../etc", "/run/../../etc"])
def test_a_path_is_absolute_and_stays_below(node, path):
    with pytest.raises(volumes.UnsupportedVolumeError):
        node.volume({"path": path})


def test_a_link_that_a_pod_made_leads_nowhere_else(node, tmp_path):
    (node.volume({"path": "/data"}) / "out").symlink_to("/etc")

    with pytest.raises(volumes.UnsupportedVolumeError, match="leads out"):
        node.volume({"path": "/data/out"})


def test_devices_are_refused(node):
    with pytest.raises(volumes.UnsupportedVolumeError, match="BlockDevice"):
        node.volume({"path": "/dev/sda", "type": "BlockDevice"})


def test_a_container_sees_the_place_itself(node, tmp_path):
    place = node.volume({"path": "/data"})
    (tmp_path / "pod").mkdir()
    (tmp_path / "pod" / "v").symlink_to(place)
    mount = {"name": "v", "mountPath": "/d", "mountPropagation": "HostToContainer"}

    (found,) = volumes.binds({"volumeMounts": [mount]}, tmp_path / "pod", {})

    assert (found.source, found.target, found.follows) == (str(place), "/d", True)


def test_nothing_is_mounted_for_the_node_to_see(tmp_path):
    mount = {"name": "v", "mountPath": "/d", "mountPropagation": "Bidirectional"}

    with pytest.raises(volumes.UnsupportedVolumeError, match="show its mounts"):
        volumes.binds({"volumeMounts": [mount]}, tmp_path, {})
