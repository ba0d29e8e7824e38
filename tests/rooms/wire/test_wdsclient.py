"""A node's agent as a client of workload discovery, against the control plane's session."""

import pytest

from isthmus.resources.snapshot import ADDRESSES, AUTHORIZATIONS
from isthmus.testing import playbook
from isthmus.wire import encoding, wdsclient
from isthmus.xds import session
from isthmus.xds.messages import Flavour, Refused

NODE = {"id": "ztunnel~10.0.0.9~z.default~default.svc.cluster.local", "metadata": {}}


class Line:
    """A client, a control plane, and one stream at a time between them."""

    def __init__(self):
        self.unreadable = set()
        self.held = {}
        self.told = []
        self.refused = []
        self.completed_with = []
        self.talk = wdsclient.Talk(self.take, lambda: self.completed_with.append(set(self.held)))
        self.world = {AUTHORIZATIONS: {}, ADDRESSES: {}}

    def take(self, news):
        self.told.append((*sorted(news.bodies), *(f"-{name}" for name in sorted(news.removed))))
        for name in news.removed:
            self.held.pop(name, None)
        faults = {name: "unreadable" for name in news.bodies if name in self.unreadable}
        self.held.update({name: news.bodies[name] for name in news.bodies if name not in faults})
        return faults

    def connect(self):
        self.told.clear()
        self.session = session.Session(Flavour.DELTA)
        self.session.given(playbook.snapshot_of(self.world))
        for request in self.talk.begin(NODE):
            self._say(request)
        return self._listen()

    def change(self, **addresses):
        before, self.world = self.world, {**self.world, ADDRESSES: addresses}
        self.session.given(
            playbook.snapshot_of(self.world), playbook.difference(before, self.world)
        )
        return self._listen()

    def _listen(self):
        while offer := self.session.next():
            self._say(self.talk.hear(encoding.response(offer, flavour=Flavour.DELTA)))
        return self

    def _say(self, content):
        request, _ = encoding.request(content, flavour=Flavour.DELTA)
        for action in self.session.heard(request):
            if isinstance(action.outcome, Refused):
                self.refused.append(action.outcome.names)


@pytest.fixture
def line():
    return Line()


def test_all_is_told_and_then_each_change(line):
    line.world[ADDRESSES] = {"a": "1", "b": "1"}
    assert set(line.connect().held) == {"a", "b"}

    assert line.change(a="2", c="1").held == {"a": b"2", "c": b"1"}
    assert line.told[-1] == ("a", "c", "-b")


def test_what_is_known_is_not_told_again_on_another_stream(line):
    line.world[ADDRESSES] = {"a": "1", "b": "1", "c": "1"}
    line.connect()
    line.world[ADDRESSES] = {"a": "1", "b": "2"}

    assert line.connect().held == {"a": b"1", "b": b"2"}
    nobody_vouches = (f"-{wdsclient.TRUST}",)
    assert [one for one in line.told if one] == [nobody_vouches, ("b", "-c")]


def test_complete_is_said_once_and_when_everything_has_been_told(line):
    line.world = {AUTHORIZATIONS: {"p": "1"}, ADDRESSES: {"a": "1"}}
    line.connect().connect()

    assert line.completed_with == [{"p", "a"}]


def test_a_mesh_without_policies_is_complete_too(line):
    assert line.connect().completed_with == [set()]


def test_what_cannot_be_read_is_refused_by_name_and_asked_for_again(line):
    line.unreadable = {"b"}
    line.world[ADDRESSES] = {"a": "1", "b": "1"}
    line.connect()
    assert set(line.held) == {"a"}
    assert line.refused == [("b",)]

    line.unreadable = set()
    assert set(line.connect().held) == {"a", "b"}
