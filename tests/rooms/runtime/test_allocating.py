"""Addresses of shared services and of users' entries, written down in the lab's own API server."""

import contextlib

import pytest

from fakes import lab_cluster
from isthmus.base import clock, tasks
from isthmus.fleet.sources import ObjectKey
from isthmus.install import crds, rights
from isthmus.kube import access, apply, client, informer, kinds, objects
from isthmus.lab.apiserver import pki
from isthmus.mesh import allocations
from isthmus.mesh.identities import ClusterId
from isthmus.runtime import allocating, assembly

C1 = ClusterId("c1")
SYSTEM = "istio-system"
ENTRIES = "serviceentries.networking.istio.io"
OURS = "autogen.shop.web"
HOST = "web.shop.mesh.internal"


@pytest.fixture
async def cluster(tmp_path):
    async with lab_cluster.running_cluster() as found, lab_cluster.served(found):
        await found.namespace(SYSTEM)
        await found.namespace("shop")
        found.file = tmp_path / "config"
        found.file.write_text(pki.kubeconfig(found.authority, name="c1", server=found.url))
        async with opened(found) as writes:
            wanted = [
                one
                for one in crds.manifests()
                if one["metadata"]["name"].startswith("serviceentries.")
            ]
            await apply.apply(writes, wanted)
        yield found


def opened(cluster):
    return client.Client(access.from_kubeconfig(str(cluster.file), context=None))


class Late(clock.SystemClock):
    """A clock that somebody sets forward."""

    ahead_s = 0.0

    def monotonic(self):
        return super().monotonic() + self.ahead_s


class Setting:
    """A control plane that writes, and what it knows of its cluster."""

    def __init__(self, writes, may_write=lambda: True, *, time=None):
        self.mesh = assembly.assemble(
            config_cluster=C1, revision="", system_namespace=SYSTEM, domain="cluster.local"
        )
        self.writes, self.may_write = writes, may_write
        self.addresses = allocating.Addresses(self.mesh, system_clock=time)
        self.followed = informer.Informer(
            writes, kinds.SERVICE_ENTRY, objects.ServiceEntry, on_batch=self._heard
        )

    def _heard(self, changes):
        with self.mesh.graph.transaction() as transaction:
            for (namespace, name), found in changes.items():
                key = ObjectKey(C1, namespace, name)
                if found is None:
                    transaction.delete(self.mesh.sources.service_entries, key)
                else:
                    transaction.put(self.mesh.sources.service_entries, key, found)

    @contextlib.asynccontextmanager
    async def at_work(self):
        async with tasks.Nursery() as nursery:
            _ = nursery.keep("follow", self.followed.run)
            await self.followed.synced.wait()
            yield nursery.keep("write", lambda: self.addresses.run(self.writes, self.may_write))

    def share(self, name="web", scope="global", port=80):
        labels = {"solo.io/service-scope": scope} if scope else {}
        service = objects.Service(
            objects.Metadata(name=name, namespace="shop", labels=labels),
            objects.ServiceSpec(
                cluster_ip="10.96.0.9", ports=(objects.ServicePort(port=port, name="http"),)
            ),
        )
        with self.mesh.graph.transaction() as transaction:
            transaction.put(self.mesh.sources.services, ObjectKey(C1, "shop", name), service)

    def address_of(self, namespace, host):
        known = self.mesh.graph.items(self.mesh.views.facts.allocated)
        return next(
            value for key, value in known.items() if (key.namespace, key.name) == (namespace, host)
        )


def entry(name, *, hosts=("db.example.com",), namespace="shop", labels=None, **spec):
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": namespace, "labels": labels or {}},
        "spec": {
            "hosts": list(hosts),
            "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
            "resolution": "DNS",
            **spec,
        },
    }


def pairs(found):
    return [(one["host"], one["value"]) for one in found.get("status", {}).get("addresses", ())]


async def written(cluster, name, namespace=SYSTEM):
    return await cluster.until(
        ENTRIES, lambda each: each["metadata"]["name"] == name and pairs(each), namespace
    )


async def test_a_shared_service_is_written_down_with_its_addresses(cluster):
    async with opened(cluster) as writes:
        setting = Setting(writes)
        setting.share()
        async with setting.at_work():
            found = await written(cluster, OURS)

    address = setting.address_of("shop", HOST)
    assert pairs(found) == [(HOST, address), (HOST, allocations.USUAL.twin_of(address))]
    assert found["spec"] == {
        "hosts": [HOST],
        "location": "MESH_INTERNAL",
        "resolution": "STATIC",
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
    }
    assert found["metadata"]["annotations"] == {"isthmus.dev/shared-service": "shop/web"}


async def test_what_is_written_down_makes_no_second_service(cluster):
    async with opened(cluster) as writes:
        setting = Setting(writes)
        setting.share()
        before = set(setting.mesh.graph.items(setting.mesh.model.services))
        async with setting.at_work():
            await written(cluster, OURS)
            setting.share("other")
            await written(cluster, "autogen.shop.other")

    after = set(setting.mesh.graph.items(setting.mesh.model.services))
    assert {one.name for one in after - before} == {"other", "other.shop.mesh.internal"}
    assert not setting.mesh.graph.items(setting.mesh.model.findings)


async def test_it_goes_with_the_last_who_shares_and_follows_its_ports(cluster):
    async with opened(cluster) as writes:
        setting = Setting(writes)
        setting.share()
        async with setting.at_work():
            await written(cluster, OURS)
            setting.share(port=8080)
            await cluster.until(
                ENTRIES, lambda each: each["spec"]["ports"][0]["number"] == 8080, SYSTEM
            )
            setting.share(scope="")
            await cluster.until_gone(ENTRIES, OURS, SYSTEM)


async def test_who_leads_next_keeps_the_address_that_is_written_down(cluster):
    await cluster.api.create(ENTRIES, entry(OURS, hosts=[HOST], namespace=SYSTEM, labels=LABELS))
    said = {"status": {"addresses": [{"host": HOST, "value": "240.240.7.7"}]}}
    await cluster.api.patch(ENTRIES, OURS, said, namespace=SYSTEM, subresource="status")
    async with opened(cluster) as writes:
        setting = Setting(writes)
        setting.share()
        async with setting.at_work():
            found = await cluster.until(ENTRIES, lambda each: len(pairs(each)) > 1, SYSTEM)

    assert pairs(found) == [(HOST, "240.240.7.7"), (HOST, "2001:2::707")]
    assert setting.address_of("shop", HOST) == "240.240.7.7"


LABELS = {"isthmus.dev/derived-service": "true"}


async def test_what_nobody_has_been_heard_to_share_stays_for_a_while(cluster):
    await cluster.api.create(ENTRIES, entry(OURS, hosts=[HOST], namespace=SYSTEM, labels=LABELS))
    time = Late()
    async with opened(cluster) as writes:
        setting = Setting(writes, time=time)
        setting.share("other")
        async with setting.at_work():
            await written(cluster, "autogen.shop.other")
            assert await cluster.exists(ENTRIES, OURS, SYSTEM)

            time.ahead_s = allocating.UNHEARD_S
            await cluster.api.patch(
                ENTRIES, OURS, {"metadata": {"labels": {"touched": "yes"}}}, namespace=SYSTEM
            )
            await cluster.until_gone(ENTRIES, OURS, SYSTEM)


async def test_an_entry_of_that_name_without_our_label_is_left_alone(cluster):
    theirs = entry(OURS, namespace=SYSTEM)
    await cluster.api.create(ENTRIES, theirs)
    async with opened(cluster) as writes:
        setting = Setting(writes)
        setting.share()
        setting.share("other")
        async with setting.at_work():
            await written(cluster, "autogen.shop.other")
            (finding,) = setting.addresses.findings()

    found = await cluster.api.get(ENTRIES, OURS, SYSTEM)
    assert found["spec"] == theirs["spec"]
    assert (finding.code, finding.subject) == ("ISM-RUN-030", f"ServiceEntry {SYSTEM}/{OURS}")


async def test_an_entry_of_a_user_gets_addresses_and_loses_them_with_its_own(cluster):
    async with opened(cluster) as writes:
        setting = Setting(writes)
        async with setting.at_work():
            await cluster.api.create(ENTRIES, entry("db", hosts=["a.example.com", "b.example.com"]))
            found = await written(cluster, "db", "shop")
            assert [host for host, _ in pairs(found)] == ["a.example.com"] * 2 + [
                "b.example.com"
            ] * 2
            assert pairs(found)[0][1] == setting.address_of("shop", "a.example.com")

            own = {"spec": {"addresses": ["192.0.2.1"]}}
            await cluster.api.patch(ENTRIES, "db", own, namespace="shop")
            await cluster.until(ENTRIES, lambda each: not pairs(each), "shop")


@pytest.mark.parametrize(
    "change",
    [
        {"resolution": "NONE"},
        {"addresses": ["192.0.2.1"]},
        {"labels": {"networking.istio.io/enable-autoallocate-ip": "false"}},
        {"hosts": ["*.example.com"], "resolution": "STATIC", "endpoints": [{"address": "192.0.2.1"}]},
    ],
)  # fmt: skip
async def test_who_wants_no_address_gets_none(cluster, change):
    await cluster.api.create(ENTRIES, entry("db", **change))
    async with opened(cluster) as writes:
        setting = Setting(writes)
        async with setting.at_work():
            await cluster.api.create(ENTRIES, entry("later", hosts=["later.example.com"]))
            await written(cluster, "later", "shop")

    assert pairs(await cluster.api.get(ENTRIES, "db", "shop")) == []


async def test_who_does_not_lead_writes_nothing(cluster):
    async with opened(cluster) as writes:
        idle, leading = Setting(writes, lambda: False), Setting(writes)
        idle.share("idle")
        leading.share()
        async with idle.at_work(), leading.at_work():
            await written(cluster, OURS)

    assert not await cluster.exists(ENTRIES, "autogen.shop.idle", SYSTEM)


async def test_it_works_with_just_the_rights_that_are_granted(cluster):
    account = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
    version = "rbac.authorization.k8s.io/v1"
    read = {"apiGroups": ["networking.istio.io"], "resources": ["serviceentries"],
            "verbs": ["list", "watch"]}  # fmt: skip
    granted = []
    for kind, rules in (("ClusterRole", [*rights.given(), read]), ("Role", rights.shared())):
        metadata = {"name": "r", **({"namespace": SYSTEM} if kind == "Role" else {})}
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": "r"}
        granted += [
            {"apiVersion": version, "kind": kind, "metadata": metadata, "rules": rules},
            {"apiVersion": version, "kind": f"{kind}Binding", "metadata": metadata,
             "roleRef": role, "subjects": [account]},
        ]  # fmt: skip
    async with opened(cluster) as writes:
        await apply.apply(writes, granted)
    reached = access.Access(
        server=cluster.url, ca_pem=cluster.authority.ca_pem, token=await cluster.token()
    )
    await cluster.api.create(ENTRIES, entry("db"))
    async with client.Client(reached) as humble:
        setting = Setting(humble)
        setting.share()
        async with setting.at_work():
            await written(cluster, OURS)
            await written(cluster, "db", "shop")
            setting.share(scope="")
            await cluster.until_gone(ENTRIES, OURS, SYSTEM)
