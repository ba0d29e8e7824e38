"""Values whose hash is asked for all the time."""

import pytest

from isthmus.views import scopes


@pytest.mark.parametrize("scope", scopes.Scope.__args__)
def test_every_scope_remembers_its_hash(scope):
    assert scope.__struct_config__.cache_hash


def test_scopes_of_other_kinds_are_others():
    outbound = scopes.OutboundScope("east", "n1", "default")

    assert outbound != scopes.NamesScope("east", "n1", "default")
    assert hash(outbound) == hash(scopes.OutboundScope("east", "n1", "default"))


def test_members_of_a_word_are_hashed_without_running_python():
    assert scopes.Naming.__hash__ is object.__hash__
