"""What a linked cluster told becomes ConfigMaps and comes back whole, or not at all."""

import base64
import dataclasses
import datetime
import types

import msgspec
import pytest

from fakes import kube_server
from isthmus.base import clock, tasks
from isthmus.fleet import slots
from isthmus.kube import client, kinds
from isthmus.mesh import peering
from isthmus.mesh.ambient import Scope
from isthmus.mesh.identities import ClusterId, NetworkId, TrustDomain
from isthmus.mesh.services import ServiceKey, derived_host
from isthmus.resources import peering as records
from isthmus.runtime import peer_snapshots

NOW = datetime.datetime(2026, 11, 21, tzinfo=datetime.UTC)
BETA = ClusterId("beta")
LINK = peering.Link(
    "istio-gateways", "beta", BETA, NetworkId("n2"), ("192.0.2.1",), "gw", TrustDomain("beta.local")
)


def export(name, **changes):
    key = ServiceKey("sample", name)
    usual = peering.Export(key, Scope(derives=True), (derived_host(key),))
    return dataclasses.replace(usual, **changes)


def written(packed, *, at=NOW):
    return [
        slots.slot(slots.LINKED, name, packed, number, namespace="istio-system", known_at=at)
        for number, name in enumerate(slots.LINKED.names[: len(packed.parts)])
    ]


def damaged(parts, how):
    [one, *_] = parts
    raw = bytearray(base64.b64decode(one["binaryData"][slots.KEY]))
    match how:
        case "bytes":
            raw[len(raw) // 2] ^= 1
            one["binaryData"][slots.KEY] = base64.b64encode(raw).decode()
        case "part":
            one["metadata"]["annotations"][slots.PART] = "1/2"
        case "time":
            one["metadata"]["annotations"][slots.KNOWN_AT] = "yesterday"
        case "format":
            one["metadata"]["annotations"][slots.FORMAT] = "2"
        case "cluster":
            one["metadata"]["annotations"][slots.CLUSTER] = "gamma"
    return parts


def test_what_is_kept_comes_back_as_it_was_told():
    told = [export("one"), export("two", distribution="PreferClose")]
    packed = peer_snapshots.pack(LINK, told)
    found, wrong = peer_snapshots.recall(written(packed))

    assert wrong == {}
    assert found[BETA].known_at == NOW
    assert [
        records.read_service(body, name=name) for name, body in found[BETA].records.items()
    ] == told
    assert peer_snapshots.objection(found[BETA], LINK, now=NOW) == ""


@pytest.mark.parametrize("how", ["bytes", "part", "time", "format", "cluster"])
def test_what_is_not_what_was_written_is_refused_and_others_are_not(how):
    other = dataclasses.replace(LINK, peer=ClusterId("delta"))
    bad = damaged(written(peer_snapshots.pack(LINK, [export("one")])), how)
    good = written(peer_snapshots.pack(other, [export("one")]))
    found, wrong = peer_snapshots.recall([*bad, *good])

    assert list(found) == ["delta"]
    [finding] = wrong.values()
    assert finding.code == "ISM-RUN-021"


DEEP = b'{"more": ' + b"[" * 3000 + b"]" * 3000 + b"}"


@pytest.mark.parametrize(
    "text", [b"{}", b'{"peer": "beta", "records": {"a": 1}}', b"[", b"\xff", b'{"\xff": 1}', DEEP]
)
def test_what_no_control_plane_writes_is_refused(text):
    found, wrong = peer_snapshots.recall(written(slots.pack(BETA, text, server="x")))
    assert (found, list(wrong)) == ({}, ["beta"])


@pytest.mark.parametrize("how", ["bytes", "records"])
def test_what_is_too_large_is_refused(how):
    records_ = {str(number): b"" for number in range(10_001)} if how == "records" else {}
    text = msgspec.json.encode({"peer": "beta", "records": records_})
    if how == "bytes":
        text += b" " * peer_snapshots.MOST_BYTES
    found, wrong = peer_snapshots.recall(written(slots.pack(BETA, text, server="x")))
    assert found == {}
    assert wrong["beta"].happened.startswith("it is not used: it is too large")


@pytest.mark.parametrize(
    ("change", "days", "why"),
    [
        ({}, 6.9, ""),
        ({"addresses": ("192.0.2.9",), "namespaces": ("a",)}, 0, ""),
        ({"network": NetworkId("n3")}, 0, "another network"),
        ({"trust_domain": TrustDomain("other.local")}, 0, "another network or trust domain"),
        ({}, 7.1, "too long ago"),
    ],
)
def test_a_snapshot_counts_for_the_link_by_which_it_was_told_and_for_a_while(change, days, why):
    recalled, _ = peer_snapshots.recall(written(peer_snapshots.pack(LINK, [])))
    now = NOW + datetime.timedelta(days=days)
    link = dataclasses.replace(LINK, **change)
    found = peer_snapshots.objection(recalled[BETA], link, now=now)
    assert (why in found) if why else found == ""


def test_more_than_can_be_kept_is_not_kept():
    distribution = "x" * 60_000
    told = (export(f"s{number}", distribution=distribution) for number in range(600))
    assert peer_snapshots.pack(LINK, told) is None


class Talkative:
    """A linked cluster that is heard, and tells as much as it is told to."""

    is_heard = is_connected = True
    version, heard_at = 1, 0.0

    def __init__(self, services):
        self.link = LINK
        self.services = services

    def exports(self):
        return [export(f"s{one}", distribution="x" * 60_000) for one in range(self.services)]

    def status(self):
        return types.SimpleNamespace(age_s=0.0)


async def test_what_cannot_be_kept_is_named_and_what_was_kept_before_stays():
    peer = Talkative(services=1)
    heard = types.SimpleNamespace(followed=lambda: {BETA: peer})
    async with kube_server.serving() as server, client.Client(server.access()) as writes:
        keeper = peer_snapshots.Snapshots(
            heard,
            namespace="istio-system",
            system_clock=clock.SystemClock(),
            every_s=0.0,
            look_s=0.02,
        )
        async with tasks.Nursery() as nursery:
            nursery.keep("keep", lambda: keeper.run(writes, lambda: True))
            name = slots.LINKED.names[0]
            await kube_server.eventually(lambda: server.get(kinds.CONFIG_MAP, name, "istio-system"))
            kept = server.get(kinds.CONFIG_MAP, name, "istio-system")
            peer.services, peer.version = 600, 2
            await kube_server.eventually(keeper.findings)
            assert [one.code for one in keeper.findings()] == ["ISM-RUN-022"]
            assert server.get(kinds.CONFIG_MAP, name, "istio-system") == kept

            peer.services, peer.version = 2, 3
            await kube_server.eventually(lambda: not keeper.findings())
            assert server.get(kinds.CONFIG_MAP, name, "istio-system") != kept
