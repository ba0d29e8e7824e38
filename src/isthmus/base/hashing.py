"""Values whose hash is asked for all the time: by every look-up of every derivation.

Python's own enumerations compute it in Python at each look-up, and so do dataclasses. A `Word` is
hashed by what it is, without running Python; a `Remembering` value computes its hash once.
"""

import dataclasses
import enum
from dataclasses import dataclass, field

from typing_extensions import override


class Word(enum.Enum):
    """An enumeration whose members are keys, or parts of keys: each exists once."""

    __hash__ = object.__hash__


@dataclass(frozen=True, slots=True, eq=False)
class Remembering:
    """What remembers its hash. A subclass says `__hash__ = hashing.Remembering.__hash__`."""

    _hash: int = field(default=0, init=False, repr=False, compare=False)

    @override
    def __hash__(self) -> int:
        return self._hash or _remembered(self)


def _remembered(one: Remembering) -> int:
    parts = tuple(getattr(one, part.name) for part in dataclasses.fields(one) if part.compare)
    # Zero stands for "not yet known".
    found = hash((type(one).__name__, parts)) or 1
    object.__setattr__(one, "_hash", found)
    return found
