"""The old listing of services with their instances."""

from isthmus.mesh.services import Protocol, Service, ServiceKey, ServicePort
from isthmus.mesh.workloads import Endpoint, Likeness
from isthmus.runtime import registration

KEY = ServiceKey("app1", "helloworld")
SERVICE = Service(
    KEY,
    "helloworld.app1.svc.cluster.local",
    (ServicePort("http", 5000, Protocol.HTTP), ServicePort("tcp", 9000, Protocol.TCP)),
)


def test_each_port_lists_what_stands_behind_it_in_every_cluster():
    v1 = Likeness(5000, "http", "cluster1", "", own=(("version", "v1"),))
    v2 = Likeness(5000, "http", "cluster2", "n2", own=(("version", "v2"),))
    near, far = Endpoint("10.10.0.1", v1), Endpoint("10.11.0.1", v2)

    http, tcp = registration.listing({KEY: SERVICE}, {KEY: (near, far)})

    assert http["service-key"] == "helloworld.app1.svc.cluster.local|http"
    assert [host["tags"]["version"] for host in http["hosts"]] == ["v1", "v2"]
    assert http["hosts"][1] == {
        "ip_address": "10.11.0.1",
        "port": 5000,
        "tags": {"cluster": "cluster2", "network": "n2", "version": "v2"},
    }
    assert tcp == {"service-key": "helloworld.app1.svc.cluster.local|tcp", "hosts": []}
