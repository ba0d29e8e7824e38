"""Objects as keys of short memories, each equal to itself alone.

Whoever computes one thing for several places from the same objects need not compare these field by
field: a hundred endpoints are hashed in the time in which they are put in order. A memory that is
asked by `Same` keeps the objects that it was asked with, so that none of them makes room for another
one at its address.
"""

from typing import Generic, TypeVar

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
