"""Figures about the mesh, under the names of Istio's metrics."""

import datetime

from isthmus.base import clock, metrics
from isthmus.runtime import measures
from isthmus.testing import builders, certificates


class HandClock(clock.SystemClock):
    at = 0.0

    def monotonic(self):
        return self.at

    def now(self):
        return certificates.NOW + datetime.timedelta(seconds=self.at)


def measured(mesh, authority=None):
    registered = metrics.Metrics()
    hand_clock = HandClock()
    measures.Measures(
        mesh, registered=registered, authority=lambda: authority, system_clock=hand_clock
    )
    return registered, hand_clock


def values(registered):
    lines = [line for line in registered.text().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_the_mesh_is_counted_as_it_is_when_somebody_reads():
    mesh = builders.Mesh()
    east = mesh.cluster("east", network="n1")
    registered, hand_clock = measured(mesh)
    east.service("web", ready=["10.0.0.1"], unready=["10.0.0.2"])
    east.service("empty")
    hand_clock.at = 7.0

    found = values(registered)

    assert found["pilot_services"] == 2
    assert found["pilot_eds_no_instances"] == 1
    assert found["pilot_endpoint_not_ready"] == 1
    assert found["istiod_uptime_seconds"] == 7


def test_every_change_of_an_object_is_counted_once_by_kind_and_event():
    mesh = builders.Mesh()
    east = mesh.cluster("east")
    registered, _ = measured(mesh)
    east.service("web", ready=["10.0.0.1"])
    mesh.destination_rule("rule", {"host": "web"})
    mesh.destination_rule("rule", {"host": "web", "exportTo": ["."]})
    mesh.drop("east")

    found = values(registered)

    assert found['pilot_k8s_reg_events{type="Services",event="add"}'] == 1
    assert found['pilot_k8s_reg_events{type="Services",event="delete"}'] == 1
    assert found['pilot_k8s_cfg_events{type="DestinationRule",event="add"}'] == 1
    assert found['pilot_k8s_cfg_events{type="DestinationRule",event="update"}'] == 1


def test_objects_that_are_not_obeyed_are_counted():
    mesh = builders.Mesh()
    mesh.cluster("east")
    registered, _ = measured(mesh)
    assert values(registered)["pilot_total_rejected_configs"] == 0

    mesh.destination_rule("broken", {"host": 7})
    assert values(registered)["pilot_total_rejected_configs"] == 1


def test_the_ends_of_root_and_chain_are_told():
    mesh = builders.Mesh()
    mesh.cluster("east")
    authority = certificates.signer()
    registered, hand_clock = measured(mesh, authority)
    hand_clock.at = 60.0

    found = values(registered)

    root = authority.roots[0].not_valid_after_utc
    assert found["citadel_server_root_cert_expiry_timestamp"] == root.timestamp()
    left = (root - certificates.NOW).total_seconds() - 60
    assert found["citadel_server_root_cert_expiry_seconds"] == left
    assert found["citadel_server_cert_chain_expiry_seconds"] <= left
