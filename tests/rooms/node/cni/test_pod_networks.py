"""Where the network namespace of a pod is found; our own stands for a node's."""

import os

import pytest

from isthmus.base import namespaces
from isthmus.node.cni import networks

UID = "1f5f2c79-0247-4e4d-8eb3-2b2ec8a01f51"


@pytest.fixture
def another():
    """A descriptor of a network namespace that is not ours."""

    def made():
        return namespaces.fresh(namespaces.NEWNET)[0]

    try:
        fd = namespaces.in_thread(made)
    except PermissionError:
        pytest.skip("needs the right to make network namespaces")
    yield fd
    os.close(fd)


@pytest.fixture
def node(tmp_path):
    for name in ("netns", "proc"):
        (tmp_path / name).mkdir()
    return networks.Networks(tmp_path / "netns", tmp_path / "proc")


def process(node, number, *, groups, network):
    folder = node.processes / str(number)
    (folder / "ns").mkdir(parents=True)
    (folder / "cgroup").write_text(groups)
    (folder / "ns" / "net").symlink_to(f"/proc/{os.getpid()}/fd/{network}")


def is_same(first, second):
    try:
        return namespaces.same(first, second)
    finally:
        os.close(first)


def test_by_its_uid_in_a_folder(node, another):
    (node.folder / UID).symlink_to(f"/proc/{os.getpid()}/fd/{another}")

    assert node.has(UID)
    assert is_same(node.open(UID), another)


@pytest.mark.parametrize(
    "groups",
    [
        f"0::/kubepods/besteffort/pod{UID}/5e2f\n",
        f"0::/../kubepods-pod{UID.replace('-', '_')}.slice/cri-5e2f.scope\n",
    ],
)
def test_by_the_processes_that_belong_to_it(node, another, groups):
    process(node, 7, groups="0::/kubepods/besteffort/podother/1\n", network=0)
    process(node, 8, groups=groups, network=another)

    assert not node.has(UID)
    assert is_same(node.open(UID), another)


def test_the_nodes_own_network_is_never_a_pods(node):
    own = namespaces.current(namespaces.NEWNET)
    process(node, 7, groups=f"0::/kubepods/pod{UID}/1\n", network=own)

    with pytest.raises(networks.NetworkMissing, match=UID) as caught:
        node.open(UID)

    os.close(own)
    assert "the node's own network" in caught.value.detail


def test_what_is_no_namespace_yet_is_none(node):
    (node.folder / UID).touch()

    assert not node.has(UID)
    with pytest.raises(networks.NetworkMissing) as caught:
        node.open(UID)
    assert "no network namespace" in caught.value.detail


@pytest.mark.parametrize("uid", ["", "../proc", "a/b"])
def test_a_uid_is_no_path(node, uid):
    with pytest.raises(networks.NetworkMissing):
        node.open(uid)
