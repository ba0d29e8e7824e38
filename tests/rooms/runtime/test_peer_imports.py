"""What one control plane takes of what another one tells: transcripts of both sides, no socket.

beta (n2) tells, alpha listens.
"""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isthmus.base import clock, metrics
from isthmus.mesh import peering
from isthmus.mesh.ambient import Scope
from isthmus.mesh.identities import ClusterId, NetworkId, TrustDomain
from isthmus.mesh.services import Protocol, ServiceKey, ServicePort, derived_host
from isthmus.resources import peering as records
from isthmus.resources.snapshot import Resource, Snapshot
from isthmus.runtime import assembly, peer_imports
from isthmus.wire import encoding, peerclient
from isthmus.xds import session
from isthmus.xds.messages import Flavour, Refused

BETA, N2 = ClusterId("beta"), NetworkId("n2")
DOMAIN = TrustDomain("beta.local")
LINK = peering.Link(
    "istio-gateways", "istio-remote-beta", BETA, N2, ("192.0.2.1",), "istio-eastwest", DOMAIN
)
WHO = records.Speaker(BETA, N2, DOMAIN)


def export(name="hello", *, pods=1, **changes):
    service = ServiceKey("sample", name)
    usual = peering.Export(
        service,
        Scope(derives=True),
        (derived_host(service),),
        (ServicePort("http", 80, Protocol.HTTP),),
        (peering.Capacity(N2, pods=pods),) if pods else (),
        ("spiffe://beta.local/ns/sample/sa/app",),
    )
    return dataclasses.replace(usual, **changes)


class Line:
    """Both sides, and one stream at a time between them."""

    def __init__(self):
        self.mesh = assembly.assemble(
            config_cluster=ClusterId("alpha"),
            revision="default",
            system_namespace="istio-system",
            domain="cluster.local",
        )
        self.peer = peer_imports.Peer(
            self.mesh,
            LINK,
            clock.SystemClock(),
            peer_imports.Counters(metrics.Metrics()),
            node_id="istiod~0.0.0.0~a.istio-system~istio-system.svc.cluster.local",
        )
        self.who = WHO
        self.told = {}
        self.refused = []
        self.sent = []
        self.session = None

    def connect(self, *exports):
        """Open another stream."""
        self.session = session.Session(Flavour.DELTA)
        self.told = {one.name: one for one in map(records.service_resource, exports)}
        self.session.given(self._snapshot())
        self._say(self.peer.talk.begin())
        return self._listen()

    def change(self, *exports):
        """Tell what is different from now on."""
        fresh = {one.name: one for one in map(records.service_resource, exports)}
        return self.change_to(fresh)

    def change_to(self, fresh):
        changed = frozenset(self.told.keys() | fresh.keys())
        self.told = fresh
        self.session.given(self._snapshot(), {records.SERVICE: changed})
        return self._listen()

    def known(self):
        """Return what is known of services: how many pods each has."""
        found = self.mesh.graph.items(self.mesh.model.peers.told)
        return {key.name: one.pods_in(N2) for key, one in found.items()}

    def _snapshot(self):
        cluster = records.cluster_resource(self.who)
        return Snapshot({records.CLUSTER: {cluster.name: cluster}, records.SERVICE: self.told})

    def _listen(self):
        while (offer := self.session.next()) is not None:
            if offer.type_url == records.SERVICE:
                self.sent.append((*(one.name for one in offer.resources), *offer.removed))
            self._say(self.peer.talk.hear(encoding.response(offer, flavour=Flavour.DELTA)))
        return self

    def _say(self, contents):
        for content in contents:
            request, _ = encoding.request(content, flavour=Flavour.DELTA)
            for action in self.session.heard(request):
                if isinstance(action.outcome, Refused):
                    self.refused.append(action.outcome.names)


@pytest.fixture
def line():
    return Line()


def test_all_is_told_and_then_what_changes(line):
    assert line.connect(export(), export("other")).known() == {"hello": 1, "other": 1}

    line.change(export(pods=3))
    assert line.known() == {"hello": 3}
    assert line.sent[-1] == ("sample/hello", "sample/other")


def test_another_stream_tells_the_difference_and_what_has_gone(line):
    line.connect(export(), export("same"), export("gone"))
    line.connect(export(pods=2), export("same"))

    assert line.known() == {"hello": 2, "same": 1}
    assert line.sent[-1] == ("sample/hello", "sample/gone")


def test_what_is_in_use_is_said_by_its_nonce(line):
    line.connect(export())
    who, what = (encoding.request(one, flavour=Flavour.DELTA)[0] for one in line.peer.talk.beat())
    assert (who.type_url, who.subscribe) == (records.CLUSTER, ("cluster",))
    assert (what.type_url, what.nonce) == (records.SERVICE, line.peer.talk.applied)
    assert line.session.heard(what) == []


def test_a_question_is_answered_though_nothing_has_changed(line):
    line.connect(export())
    line.peer.heard_at = None
    line._say(line.peer.talk.beat())
    line._listen()
    assert line.peer.heard_at is not None


BAD = {
    "network": export(capacity=(peering.Capacity(NetworkId("n1")),)),
    "identity": export(identities=("spiffe://alpha.local/ns/sample/sa/app",)),
    "namespace": export(identities=("spiffe://beta.local/ns/bank/sa/app",)),
    "host": export(hosts=("bank.bank.svc.cluster.local",)),
    "size": export(identities=("spiffe://beta.local/ns/sample/sa/" + "x" * 70_000,)),
}


@pytest.mark.parametrize("what", BAD)
def test_a_record_that_oversteps_is_refused_by_name_and_the_last_good_one_stays(line, what):
    line.connect(export(), export("fine"))
    line.change(BAD[what], export("fine", pods=2))

    assert line.known() == {"hello": 1, "fine": 2}
    assert line.refused == [("sample/hello",)]
    assert {one.code for one in line.peer.findings()} == {"ISM-REG-031"}

    line.change(export(pods=4), export("fine", pods=2))
    assert (line.known(), line.peer.findings()) == ({"hello": 4, "fine": 2}, [])


def test_what_is_refused_and_then_gone_while_nobody_listens_is_gone(line):
    line.connect(export())
    line.change(BAD["network"])
    line.connect()
    assert line.known() == {}


def test_a_record_under_another_name_is_refused(line):
    line.connect(export())
    stray = dataclasses.replace(records.service_resource(export()), name="bank/vault")
    line.change_to({"bank/vault": stray})

    assert line.known() == {}
    assert line.refused == [("bank/vault",)]


def test_what_is_no_record_is_refused(line):
    line.connect()
    line.change_to({"a/b": Resource(records.SERVICE, "a/b", "1", b"\xff\xff")})
    assert line.refused == [("a/b",)]


def test_who_says_that_he_is_another_is_not_listened_to(line):
    for other in (
        dataclasses.replace(WHO, cluster=ClusterId("gamma")),
        dataclasses.replace(WHO, network=NetworkId("n1")),
        dataclasses.replace(WHO, trust_domain=TrustDomain("alpha.local")),
    ):
        line.who = other
        with pytest.raises(peerclient.StreamBroken):
            line.connect(export())
    assert line.known() == {}


def test_a_flood_of_bad_records_is_kept_in_bounds(line):
    line.connect()
    bad = {
        f"a/{number}": Resource(records.SERVICE, f"a/{number}", "1", b"\xff")
        for number in range(1500)
    }
    line.change_to(bad)

    assert len(line.peer.refused) == peer_imports.MOST_REMEMBERED
    assert len(line.peer.findings()) == peer_imports.MOST_REFUSED
    assert all(0 < len(names) <= peerclient.MOST_NAMED for names in line.refused)


def test_a_name_beyond_all_measure_ends_the_stream(line):
    line.connect()
    name = "a/" + "b" * 600
    with pytest.raises(peerclient.StreamBroken):
        line.change_to({name: Resource(records.SERVICE, name, "1", b"")})


def test_no_more_records_than_count_are_kept(line):
    line.peer.talk.most = 2
    line.connect(export("a"), export("b"), export("c"))
    assert (set(line.known()), line.refused) == ({"a", "b"}, [("sample/c",)])

    line.change(export("b"), export("c", pods=2))
    assert set(line.known()) == {"b", "c"}


NAMES = ("a", "b", "c")
WORLD = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3))


@settings(max_examples=25)
@given(st.lists(st.tuples(WORLD, st.booleans()), max_size=6))
def test_whatever_happens_both_sides_agree_in_the_end(history):
    line = Line().connect()
    for world, is_broken in history:
        exports = [export(name, pods=pods) for name, pods in world.items()]
        (line.connect if is_broken else line.change)(*exports)
        assert line.known() == world


# --- what an earlier control plane was told


def kept(*exports):
    """Return records as an earlier control plane kept them."""
    return {one.name: one.body for one in map(records.service_resource, exports)}


def test_what_was_told_before_counts_with_its_age_until_the_other_is_heard(line):
    line.peer.recall(kept(export(pods=2)), age_s=40)

    status = line.peer.status()
    assert line.known() == {"hello": 2}
    assert (status.is_known, status.is_recalled, status.is_connected) == (True, True, False)
    assert status.age_s >= 40
    [finding] = line.peer.findings()
    assert "an earlier control plane 40 s ago" in finding.still_working


def test_what_the_other_tells_replaces_what_it_told_before_in_one_step(line):
    line.peer.recall(kept(export(pods=2), export("same"), export("gone")), age_s=40)
    seen = []
    line.mesh.graph.listen(lambda _: seen.append(line.known()))
    line.connect(export(pods=3), export("same"), export("newer"))

    assert seen == [{"hello": 3, "same": 1, "newer": 1}]
    assert line.sent == [("sample/hello", "sample/newer", "sample/same", "sample/gone")]
    status = line.peer.status()
    assert (status.is_recalled, status.age_s < 40, line.peer.findings()) == (False, True, [])


def test_an_answer_without_services_makes_nothing_younger(line):
    line.peer.recall(kept(export()), age_s=40)
    line.peer.heard()
    assert line.peer.status().age_s >= 40


@pytest.mark.parametrize("what", BAD)
def test_what_was_told_before_is_judged_as_what_is_told(line, what):
    line.peer.recall(kept(BAD[what], export("fine")), age_s=40)

    assert line.known() == {"fine": 1}
    assert "ISM-REG-031" in {one.code for one in line.peer.findings()}
    line.connect(export(), export("fine"))
    assert line.known() == {"hello": 1, "fine": 1}
