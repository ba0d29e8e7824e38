"""Memories of what was made of objects, each of which is equal to itself alone.

Whoever computes one thing for several places from the same objects need not compare these field by
field: a hundred endpoints are hashed in the time in which they are put in order. What a memory was
asked with it keeps, so that none of it makes room for another object at its address.
"""

from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar, cast

from typing_extensions import override

Kind = TypeVar("Kind")


class Same(Generic[Kind]):
    """Stands for one object, whatever it is equal to."""

    __slots__ = ("it",)

    def __init__(self, it: Kind) -> None:
        self.it = it

    @override
    def __hash__(self) -> int:
        return id(self.it)

    @override
    def __eq__(self, other: object) -> bool:
        return isinstance(other, Same) and self.it is other.it


MOST: Final = 16
"""So many answers are remembered of one object: more than there are ways to look at most of them."""

Answer = TypeVar("Answer")
NOTHING: Final[tuple[object, ...]] = ()


class Memory:
    """What was made of an object, to be kept in it: it is forgotten with the object."""

    __slots__ = ("_answers", "_basis")

    def __init__(self) -> None:
        self._basis = NOTHING
        self._answers: dict[Hashable, object] = {}

    def answer(
        self, basis: tuple[object, ...], question: Hashable, make: Callable[[], Answer]
    ) -> Answer:
        """Return what was made of these very objects when this was asked last, or make it.

        When the basis is another, all that was made of the last one is forgotten.
        """
        if len(basis) != len(self._basis) or any(map(_differs, basis, self._basis)):
            self._basis = basis
            self._answers.clear()
        if question not in self._answers:
            if len(self._answers) >= MOST:
                self._answers.clear()
            self._answers[question] = make()
        return cast("Answer", self._answers[question])


def _differs(one: object, other: object) -> bool:
    return one is not other
