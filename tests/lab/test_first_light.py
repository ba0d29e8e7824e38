"""Two clusters, two networks, one mesh: what the demo promises, on real Envoys."""

import features
import pytest
import traffic

pytestmark = [pytest.mark.lab, pytest.mark.people]


@pytest.mark.topology
def test_the_topology_has_every_feature(mesh, record_property):
    features.held(mesh, "primary-remote", record_property)


def test_gateways_refuse_plain_text(mesh):
    report = mesh.json("isthmus verify --requests 20 -o json")

    assert len(report["refused_plaintext"]) == 2


def test_every_proxy_is_known_to_the_one_control_plane_and_no_other(mesh):
    command = "isthmus --context cluster1 proxy-status -o json"

    traffic.until(lambda: len(mesh.json(command)) == 7)
