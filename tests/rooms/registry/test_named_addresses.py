"""Addresses that slices name take four bytes each, and are found again, whatever they are."""

from hypothesis import given
from hypothesis import strategies as st

from isthmus.mesh import addresses

usual = st.ip_addresses(v=4).map(str)
near = st.builds(lambda *parts: ".".join(map(str, parts)), *[st.integers(0, 2)] * 4)
"""Of few different bytes, so that one is found across the border of two others."""

written = st.one_of(usual, near, st.ip_addresses(v=6).map(str), st.text(max_size=12))


@given(st.lists(written, max_size=12), st.lists(written, max_size=4))
def test_just_those_are_among_several_that_were_put_there(found, others):
    packed = addresses.packed(found)

    for one in [*found, *others]:
        assert addresses.is_among(addresses.brief(one), packed) is (one in found)
    assert sorted(map(repr, addresses.unpacked(packed))) == sorted(
        repr(addresses.brief(one)) for one in set(found)
    )


@given(st.lists(written, max_size=12))
def test_the_same_addresses_are_equal_in_any_order(found):
    assert addresses.packed(found) == addresses.packed([*reversed(found), *found])


@given(written, written)
def test_what_stands_for_an_address_stands_for_no_other(one, other):
    assert (addresses.brief(one) == addresses.brief(other)) is (one == other)


def test_many_addresses_of_ipv4_take_four_bytes_each():
    found = [f"10.{number >> 8}.{number & 255}.7" for number in range(1000)]

    assert len(addresses.packed(found)) == 4000


def test_one_that_lies_across_the_border_of_two_is_not_among_them():
    packed = addresses.packed(["1.2.3.4", "5.6.7.8"])

    assert not addresses.is_among(addresses.brief("3.4.5.6"), packed)
    assert not addresses.is_among(addresses.brief("9.9.9.9"), packed)
