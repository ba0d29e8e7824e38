"""Values whose hash is asked for all the time: by every look-up of every derivation.

Python's own enumerations compute it in Python at each look-up, and so do dataclasses. A `Word` is
hashed by what it is, without running Python; a `Remembering` value computes its hash once. What is
`Renderable` keeps what was made of it, for the one function that makes anything of it, and what is
`Keeping` the last thing that was made of it, for one maker that looks whether it still fits.
"""

import dataclasses
import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

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


@dataclass(frozen=True, slots=True, eq=False)
class Renderable(Remembering):
    """What remembers the bytes that it is said in; they are no part of its value."""

    _said: bytes | None = field(default=None, init=False, repr=False, compare=False)

    def said_by(self, say: Callable[[Self], bytes]) -> bytes:
        """Return what `say`, always the same pure function, makes of this; it is called once."""
        if self._said is None:
            object.__setattr__(self, "_said", say(self))
        return self._said or b""


@dataclass(frozen=True, slots=True, eq=False)
class Keeping:
    """What remembers something that was made of it; that is no part of its value."""

    _kept: object = field(default=None, init=False, repr=False, compare=False)

    @property
    def kept(self) -> object:
        """What was made of it last, or None."""
        return self._kept

    def keep(self, made: object) -> None:
        """Remember what was made; it must not refer to this value."""
        object.__setattr__(self, "_kept", made)
