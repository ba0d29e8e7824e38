"""What people are shown of a control plane's state."""

import json

import pytest
import shop_objects
from envoy.admin.v3 import config_dump_pb2
from google.protobuf import json_format

from isthmus.base import errors
from isthmus.fleet import statuses
from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.mesh.identities import ClusterId
from isthmus.runtime import assembly, connections, reports
from isthmus.wire import callers, debugging
from isthmus.wire.debugging import EVERYTHING

C1, C2 = ClusterId("c1"), ClusterId("c2")
NAME = "outbound|80||web.shop.svc.cluster.local"


class Fleet:
    """Two clusters, one of which does not answer."""

    def __init__(self, known):
        self.known = known

    def clusters(self):
        return (
            statuses.ClusterStatus(C1, "", "synced", generation=1),
            statuses.ClusterStatus(
                C2,
                "istio-system/s",
                "timeout",
                1.26,
                error="refused",
                generation=3,
                known=self.known,
            ),
        )

    def findings(self):
        return (errors.Finding("ISM-FLEET-014", "Secret istio-system/s", "is odd"),)


class Setting:
    """A mesh with one service in two clusters and one proxy."""

    def __init__(self, *, known=True):
        self.mesh = assembly.assemble(
            config_cluster=C1, revision="", system_namespace="istio-system", domain="cluster.local"
        )
        for cluster, address in ((C1, "10.0.0.1"), (C2, "10.1.0.1")):
            self.serve(cluster, address)
        self.proxies = connections.Connections(
            self.mesh, authenticator=None, unready=lambda cluster: ""
        )
        self.connect(C1)
        self.reports = reports.Reports(
            self.mesh, fleet=Fleet(known), proxies=self.proxies, statuses=tuple
        )

    def connect(self, cluster):
        node = shop_objects.node()
        self.proxies.open(callers.Caller(cluster, "shop", "default", "a-1"), node)

    def serve(self, cluster, address):
        spec = objects.ServiceSpec(
            cluster_ip="10.96.0.9", ports=(objects.ServicePort(port=80, name="http"),)
        )
        slice_ = objects.EndpointSlice(
            objects.Metadata(
                name="web-1", namespace="shop", labels={"kubernetes.io/service-name": "web"}
            ),
            endpoints=(objects.SliceEndpoint(addresses=(address,)),),
            ports=(objects.EndpointPort(port=8080, name="http"),),
        )
        service = objects.Service(objects.Metadata(name="web", namespace="shop"), spec)
        with self.mesh.graph.transaction() as transaction:
            sources = self.mesh.sources
            transaction.put(sources.services, ObjectKey(cluster, "shop", "web"), service)
            transaction.put(sources.endpoint_slices, ObjectKey(cluster, "shop", "web-1"), slice_)


def test_clusters_are_shown_with_their_age_and_the_reason_of_silence():
    own, remote = Setting().reports.clusterz()

    assert (own["id"], own["syncStatus"], own["secretName"]) == ("c1", "synced", "")
    assert (remote["syncStatus"], remote["ageSeconds"], remote["error"]) == (
        "timeout",
        1.3,
        "refused",
    )


def test_a_cluster_of_which_nothing_is_known_has_no_age():
    _, remote = Setting(known=False).reports.clusterz()
    assert remote["ageSeconds"] is None


def test_endpoints_are_shown_by_cluster_under_the_name_of_their_service():
    found = Setting().reports.endpointz()["web.shop.svc.cluster.local"]["shop"]

    assert {key: one[0]["Addresses"] for key, one in found["Shards"].items()} == {
        "Kubernetes/c1": ["10.0.0.1"],
        "Kubernetes/c2": ["10.1.0.1"],
    }


def test_what_a_proxy_should_have_is_shown_and_of_a_stranger_nothing():
    made = Setting().reports

    for page in ("config_dump", "edsz"):
        for name in ("a-1.shop", "a-1.shop.c1", "a-1.shop-7", "sidecar~10.0.0.7~a-1.shop~shop.svc"):
            assert NAME in json.dumps(made.page_of(page, name, {}, EVERYTHING)), name
        for name in ("b-1.shop", "a-1.shop.c2", "a-1", ""):
            assert made.page_of(page, name, {}, EVERYTHING) is None


def test_a_dump_has_the_sections_of_envoys_own_page_and_can_be_narrowed():
    made = Setting().reports

    whole = made.page_of("config_dump", "a-1.shop", {}, EVERYTHING)["configs"]
    [narrow] = made.page_of("config_dump", "a-1.shop", {"types": "eds"}, EVERYTHING)["configs"]

    assert {one["@type"].rpartition(".")[2].removesuffix("ConfigDump") for one in whole} == {
        "Bootstrap", "Clusters", "Endpoints", "Listeners", "Routes", "ScopedRoutes", "Secrets",
    }  # fmt: skip
    assert NAME in json.dumps(narrow)
    json_format.ParseDict({"configs": whole}, config_dump_pb2.ConfigDump())


def test_pods_of_one_name_in_two_clusters_are_told_apart():
    setting = Setting()
    setting.connect(C2)
    made = setting.reports

    with pytest.raises(debugging.ProxyAmbiguous) as refused:
        made.page_of("edsz", "a-1.shop", {}, EVERYTHING)

    assert refused.value.detail.split() == ["a-1.shop.c1", "a-1.shop.c2"]
    seen = debugging.Viewer(C2, "shop")
    assert made.page_of("edsz", "a-1.shop", {}, seen) is not None
    assert made.page_of("edsz", "a-1.shop.c1", {}, seen) is None


def test_findings_come_from_every_room():
    made = Setting().reports

    assert "ISM-FLEET-014" in {one["code"] for one in made.findings()}


def test_every_report_can_be_said_as_json():
    made = Setting().reports

    for name in debugging.PAGES:
        json.dumps(made.page(name))
    assert made.registryz()[0]["hostname"] == "web.shop.svc.cluster.local"
