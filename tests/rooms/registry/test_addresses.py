"""Which addresses traffic may be sent to."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from isthmus.registry import addresses


def judged(text):
    """Say the same as `fault_of`, one address at a time and slowly."""
    address = ipaddress.ip_address(text)
    if int(address) >> 24 == 0:
        return "unspecified"
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    return "multicast" if address.is_multicast or int(address) == 2**32 - 1 else ""


@given(st.ip_addresses(v=4))
def test_every_address_of_version_4_is_judged_by_what_it_is(address):
    assert addresses.fault_of(str(address)) == judged(str(address))


def test_what_only_looks_like_an_address_is_none():
    for text in (
        "10.0.0.256",
        "10.0.0.01",
        "10.0.0",
        "10.0.0.1\n",
        "10.0.0.1.2",
        " 10.0.0.1",
        "٣.0.0.1",
    ):
        assert addresses.fault_of(text) == "no IP address"
