"""Tables of names are taken out of a proxy's stream, in both forms of the protocol."""

import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import any_pb2

from isthmus.wire import nametables

SOTW = "StreamAggregatedResources"
BOTH = pytest.mark.parametrize("method", [nametables.DELTA, SOTW])


class Shelf:
    def __init__(self, fault=""):
        self.fault, self.tables = fault, []

    def take(self, table):
        self.tables.append(table)
        return self.fault


def answer(method, *bodies, type_url=nametables.TYPE_URL):
    wrapped = [any_pb2.Any(type_url=type_url, value=body) for body in bodies]
    if method == SOTW:
        made = discovery_pb2.DiscoveryResponse(
            type_url=type_url, nonce="n1", version_info="v1", resources=wrapped
        )
    else:
        made = discovery_pb2.DeltaDiscoveryResponse(type_url=type_url, nonce="n1")
        for one in wrapped:
            made.resources.add(name="NameTable", version="v1").resource.CopyFrom(one)
    return made.SerializeToString()


def request(method, content):
    kind = "DiscoveryRequest" if method == SOTW else "DeltaDiscoveryRequest"
    return getattr(discovery_pb2, kind).FromString(content)


@BOTH
def test_the_table_is_asked_for_without_a_name_and_without_a_node(method):
    said = request(method, nametables.Talk(method, Shelf().take).begin())

    assert said.type_url == nametables.TYPE_URL
    assert not said.HasField("node")
    assert said.response_nonce == ""


@BOTH
def test_a_table_is_taken_and_accepted(method):
    shelf = Shelf()
    said = request(method, nametables.Talk(method, shelf.take).hear(answer(method, b"table")))

    assert shelf.tables == [b"table"]
    assert (said.response_nonce, said.HasField("error_detail")) == ("n1", False)
    assert method != SOTW or said.version_info == "v1"


@BOTH
def test_a_table_that_cannot_be_used_is_refused_with_the_reason(method):
    talk = nametables.Talk(method, Shelf("cannot be read").take)
    said = request(method, talk.hear(answer(method, b"table")))

    assert (said.response_nonce, said.error_detail.message) == ("n1", "cannot be read")
    assert method != SOTW or said.version_info == ""


@BOTH
def test_an_answer_without_a_table_is_accepted_and_changes_nothing(method):
    shelf = Shelf()
    said = request(method, nametables.Talk(method, shelf.take).hear(answer(method)))

    assert shelf.tables == []
    assert said.response_nonce == "n1"


@BOTH
@pytest.mark.parametrize(
    "content",
    [b"", b"\xff" * 9, nametables.TYPE_URL.encode(), b"type.googleapis.com/other"],
)
def test_whatever_is_no_table_is_the_proxys(method, content):
    assert nametables.Talk(method, Shelf().take).hear(content) is None


@BOTH
def test_an_answer_about_another_type_that_mentions_tables_is_the_proxys(method):
    content = answer(method, nametables.TYPE_URL.encode(), type_url="type.googleapis.com/other")

    assert nametables.Talk(method, Shelf().take).hear(content) is None
