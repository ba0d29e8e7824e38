"""Words whose hash is asked for all the time: by every look-up of every derivation.

Python's own enumerations compute it in Python at each look-up; a `Word` is hashed by what it is,
without running Python.
"""

import enum


class Word(enum.Enum):
    """An enumeration whose members are keys, or parts of keys: each exists once."""

    __hash__ = object.__hash__
