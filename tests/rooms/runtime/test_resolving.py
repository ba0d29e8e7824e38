"""Gateways that are known by name."""

import pytest

from fakes import kube_server
from isthmus.base import tasks
from isthmus.fleet.sources import ObjectKey
from isthmus.kube import objects
from isthmus.mesh.identities import ClusterId
from isthmus.runtime import assembly, resolving

C2 = ClusterId("c2")
NAME = "lb.example.org"


class Setting:
    """A mesh with one gateway by name, and a name server that tests write."""

    def __init__(self):
        self.mesh = assembly.assemble(
            config_cluster=ClusterId("c1"),
            revision="",
            system_namespace="istio-system",
            domain="cluster.local",
        )
        self.served = {NAME: ("9.9.9.9", "9.9.9.8")}
        self.asked = []
        self.resolver = resolving.Resolver(self.mesh, lookup=self.look_up)
        self.gateway(NAME)

    async def look_up(self, name):
        self.asked.append(name)
        if name not in self.served:
            raise OSError("unknown")
        return self.served[name]

    def gateway(self, *names):
        metadata = objects.Metadata(
            name="ew", namespace="istio-system", labels={"topology.istio.io/network": "n2"}
        )
        spec = objects.ServiceSpec(
            type="LoadBalancer", ports=(objects.ServicePort(port=15443, name="tls"),)
        )
        ingress = tuple(objects.LoadBalancerIngress(hostname=name) for name in names)
        status = objects.ServiceStatus(objects.LoadBalancerStatus(ingress))
        with self.mesh.graph.transaction() as transaction:
            key = ObjectKey(C2, "istio-system", "ew")
            transaction.put(
                self.mesh.sources.services, key, objects.Service(metadata, spec, status)
            )

    @property
    def addresses(self):
        gateways = self.mesh.graph.value(self.mesh.model.network_gateways)
        return [gateway.address for gateway in gateways]


async def test_a_gateway_counts_once_for_each_address_of_its_name():
    setting = Setting()
    assert setting.addresses == [NAME]
    assert not setting.resolver.is_settled

    await setting.resolver.look()

    assert setting.addresses == ["9.9.9.8", "9.9.9.9"]
    assert setting.resolver.is_settled
    assert setting.resolver.findings() == []


async def test_a_name_server_that_is_away_takes_no_gateway_away():
    setting = Setting()
    await setting.resolver.look()

    setting.served.clear()
    await setting.resolver.look()

    assert setting.addresses == ["9.9.9.8", "9.9.9.9"]
    assert [one.code for one in setting.resolver.findings()] == ["ISM-RUN-007"]


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "::1", "0.0.0.0"])
async def test_an_address_that_no_traffic_may_go_to_does_not_count(address):
    setting = Setting()
    setting.served[NAME] = (address,)

    await setting.resolver.look()

    assert setting.addresses == [NAME]
    assert setting.resolver.findings()


async def test_a_name_that_leads_nowhere_holds_nobody_up():
    setting = Setting()
    setting.served.clear()

    await setting.resolver.look()

    assert setting.resolver.is_settled


async def test_a_new_name_is_looked_up_at_once():
    setting = Setting()
    async with tasks.Nursery() as nursery:
        _ = nursery.keep("look up", setting.resolver.run)
        await kube_server.eventually(lambda: setting.addresses == ["9.9.9.8", "9.9.9.9"])
        setting.served["other"] = ("8.8.8.8",)

        setting.gateway("other")

        await kube_server.eventually(lambda: setting.addresses == ["8.8.8.8"])


async def test_addresses_follow_the_name():
    setting = Setting()
    await setting.resolver.look()
    setting.served[NAME] = ("8.8.8.8",)

    await setting.resolver.look()

    assert setting.addresses == ["8.8.8.8"]


async def test_a_name_that_nobody_has_any_more_is_forgotten():
    setting = Setting()
    await setting.resolver.look()

    setting.gateway()
    await setting.resolver.look()

    assert setting.addresses == []
    assert setting.asked == [NAME]
    assert not setting.mesh.graph.items(setting.mesh.model.looked_up)
