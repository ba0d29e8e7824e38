"""When a node's proxy lets go of the network of a pod that has left."""

import pytest

from isthmus.base import namespaces, netlink
from isthmus.node import joining


def connected_while(*, deleted):
    """Say whether a pod counts as connected, before and after its link is gone or it has left."""

    def work():
        namespaces.unshare(namespaces.NEWNET)
        (pod,) = namespaces.fresh(namespaces.NEWNET)
        netlink.send([netlink.veth("host0", peer="eth0", peer_network=pod)])
        before = joining.is_connected(pod)
        if deleted:
            netlink.send([netlink.delete_link(netlink.index_of("host0"))])
        return before, joining.is_connected(pod)

    try:
        return namespaces.in_thread(work)
    except PermissionError:
        pytest.skip("needs the right to make network namespaces")


def test_a_pod_that_left_the_mesh_can_still_be_found_by_its_callers_tunnels():
    assert connected_while(deleted=False) == (True, True)


def test_a_pod_that_was_deleted_is_let_go():
    assert connected_while(deleted=True) == (True, False)
