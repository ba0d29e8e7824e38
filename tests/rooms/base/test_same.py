"""Objects as keys of short memories."""

import functools

from isthmus.base.same import Same


def test_an_object_is_known_by_itself_and_not_by_what_it_is_equal_to():
    asked = []

    @functools.lru_cache(maxsize=2)
    def length(one):
        asked.append(one.it)
        return len(one.it)

    first, second = [1, 2], [1, 2]

    assert [length(Same(one)) for one in (first, first, second)] == [2, 2, 2]
    assert len(asked) == 2
