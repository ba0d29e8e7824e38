"""What we write by hand equals what the protobuf library writes."""

from envoy.service.discovery.v3 import discovery_pb2
from hypothesis import given
from hypothesis import strategies as st

from isthmus.resources.snapshot import Resource, TypeUrl
from isthmus.wire import encoding
from isthmus.xds.messages import Flavour, Offer

texts = st.text(max_size=300).filter(lambda text: text.isprintable())
resources = st.builds(
    Resource,
    type_url=texts.map(TypeUrl),
    name=texts,
    version=texts,
    body=st.binary(max_size=20_000),
)
offers = st.builds(
    Offer,
    type_url=texts.map(TypeUrl),
    version=texts,
    nonce=texts,
    resources=st.lists(resources, max_size=3).map(tuple),
    removed=st.lists(texts, max_size=3).map(tuple),
)


@given(offers)
def test_a_delta_response_says_what_was_offered(offer):
    read = discovery_pb2.DeltaDiscoveryResponse.FromString(
        encoding.response(offer, flavour=Flavour.DELTA)
    )

    assert (read.type_url, read.system_version_info, read.nonce) == (
        offer.type_url,
        offer.version,
        offer.nonce,
    )
    assert tuple(read.removed_resources) == offer.removed
    assert [
        (each.resource.type_url, each.name, each.version, each.resource.value)
        for each in read.resources
    ] == [(each.type_url, each.name, each.version, each.body) for each in offer.resources]


@given(offers)
def test_a_whole_response_says_what_was_offered(offer):
    read = discovery_pb2.DiscoveryResponse.FromString(
        encoding.response(offer, flavour=Flavour.STATE_OF_THE_WORLD)
    )

    assert (read.type_url, read.version_info, read.nonce) == (
        offer.type_url,
        offer.version,
        offer.nonce,
    )
    assert [(each.type_url, each.value) for each in read.resources] == [
        (each.type_url, each.body) for each in offer.resources
    ]


def test_names_that_several_ask_for_are_kept_once():
    name = "outbound|80||web.default.svc.cluster.local"
    told = discovery_pb2.DeltaDiscoveryRequest(resource_names_subscribe=[name])

    one, other = (
        encoding.request(told.SerializeToString(), flavour=Flavour.DELTA)[0] for _ in range(2)
    )

    assert one.subscribe[0] == name
    assert one.subscribe[0] is other.subscribe[0]
