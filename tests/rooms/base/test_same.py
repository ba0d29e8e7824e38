"""Memories of what was made of objects."""

import functools

from isthmus.base.same import MOST, Memory, Same


def test_an_object_is_known_by_itself_and_not_by_what_it_is_equal_to():
    asked = []

    @functools.lru_cache(maxsize=2)
    def length(one):
        asked.append(one.it)
        return len(one.it)

    first, second = [1, 2], [1, 2]

    assert [length(Same(one)) for one in (first, first, second)] == [2, 2, 2]
    assert len(asked) == 2


def test_what_was_made_of_an_object_is_remembered_until_the_basis_is_another_object():
    memory, made = Memory(), []

    def make():
        made.append(object())
        return made[-1]

    first, equal = [1], [1]
    one = memory.answer((first,), "question", make)

    assert memory.answer((first,), "question", make) is one
    assert memory.answer((first,), "another", make) is not one
    assert memory.answer((equal,), "question", make) is not one
    assert memory.answer((first,), "question", make) is not one


def test_few_answers_are_remembered():
    memory = Memory()
    answers = [memory.answer((), number, object) for number in range(MOST + 1)]

    assert memory.answer((), MOST, object) is answers[MOST]
    assert memory.answer((), 0, object) is not answers[0]
