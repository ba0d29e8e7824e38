"""Values whose hash is asked for all the time."""

import dataclasses
from dataclasses import dataclass

import pytest

from isthmus.base import hashing
from isthmus.views import scopes


@dataclass(frozen=True, slots=True)
class Place(hashing.Remembering):
    """A value that counts how often its hash is computed."""

    name: object
    note: str = dataclasses.field(default="", compare=False)

    __hash__ = hashing.Remembering.__hash__


class Counted:
    """Counts how often it was hashed."""

    times = 0

    def __hash__(self):
        self.times += 1
        return 7


def test_the_hash_of_a_value_is_computed_once():
    counted = Counted()
    place = Place(counted)

    assert {hash(place), hash(place)} == {hash(place)}
    assert counted.times == 1


def test_equal_values_have_equal_hashes_and_changed_copies_their_own():
    one, other = Place("a", "x"), Place("a", "y")

    assert (one, hash(one)) == (other, hash(other))
    assert hash(dataclasses.replace(one, name="b")) == hash(Place("b")) != hash(one)


@pytest.mark.parametrize("scope", scopes.Scope.__args__)
def test_every_scope_remembers_its_hash(scope):
    assert scope.__hash__ is hashing.Remembering.__hash__


def test_scopes_of_other_kinds_are_others():
    outbound = scopes.OutboundScope("east", "n1", "default")

    assert outbound != scopes.NamesScope("east", "n1", "default")
    assert hash(outbound) == hash(scopes.OutboundScope("east", "n1", "default"))


def test_members_of_a_word_are_hashed_without_running_python():
    assert scopes.Naming.__hash__ is object.__hash__
