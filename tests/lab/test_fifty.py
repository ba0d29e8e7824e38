"""Many clusters under one control plane: everything converges, and one change reaches a proxy.

Fifty of them where `make topologies` runs this, a dozen otherwise.
"""

import json
import time

import features
import meshes
import pytest
import traffic

from isthmus.testing import pace

pytestmark = pytest.mark.lab

PATCH = '[{"op": "replace", "path": "/endpoints/0/addresses/0", "value": "%s"}]'
SOON_S = 5.0


@pytest.fixture(scope="module")
def lab():
    """The lab as its walkthrough leaves it; one person is enough for so many processes."""
    booted = meshes.MeshLab(as_ordinary_user=True)
    try:
        booted.boot("fifty", clusters=features.MANY)
        yield booted
    finally:
        booted.close()


def address_in(number, *, host=1):
    """Return an address that was written by hand into a cluster."""
    return f"10.{number + 9}.200.{host}"


def known(lab):
    """Return the endpoints that a proxy in the last cluster has."""
    words = "exec -n sample deploy/sleep -c istio-proxy -- pilot-agent request GET clusters"
    return lab.kubectl(f"cluster{features.MANY}", words)


@pytest.mark.topology
def test_many_clusters_are_one_mesh(lab, record_property):
    features.held(lab, "fifty", record_property)


def test_a_service_has_its_endpoints_in_all_clusters(lab):
    command = "exec -n istio-system deploy/istiod -- pilot-discovery request GET /v1/registration"
    found = lab.kubectl("cluster1", command)

    for number in range(1, features.MANY + 1):
        assert f"10.{number + 9}.200." in found, number


def test_an_endpoint_that_changes_in_one_cluster_reaches_a_proxy_in_another_soon(lab):
    number = features.MANY - 3
    address = address_in(number, host=9)
    began = time.monotonic()
    patch = f"patch endpointslice ledger-by-hand -n sample --type=json -p '{PATCH % address}'"
    lab.kubectl(f"cluster{number}", patch)
    traffic.until(lambda: address in known(lab))

    assert time.monotonic() - began < pace.promised(SOON_S)


def test_a_cluster_that_is_removed_takes_its_endpoint_along_and_no_other(lab):
    gone = features.MANY - 2
    lab.kubectl("cluster1", f"delete secret -n istio-system istio-remote-secret-cluster{gone}")
    traffic.until(lambda: address_in(gone) not in known(lab))

    near = range(features.MANY // 2 + 1, features.MANY + 1)
    found, left = known(lab), lab.json("isthmus --context cluster1 remote-clusters -o json")
    assert all(f"10.{number + 9}.200." in found for number in near if number != gone)
    assert len(left) == features.MANY - 1
    assert json.dumps(left).count('"synced"') == len(left)
