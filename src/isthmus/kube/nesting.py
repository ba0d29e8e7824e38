"""What a JSON text says without what is nested too deeply for anybody to read.

Decoders go down into a text level by level, and end where the stack does: then nothing at all can
be read, and of a list not the objects beside the one that is at fault either. It decides where a
text is cut; what a cut object means is its reader's matter.

Source: design rule 7; security rule XA-5.
"""

import re
from typing import Final

MOST_LEVELS: Final = 100
"""No object of the mesh has a fifth of it."""

CUT: Final = b'"\\u0000cut: nested too deeply"'
"""Stands in the place of what was cut. Who writes it himself cuts his own object."""

_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*+"|[\[\]{}]', re.DOTALL)


def cut(text: bytes, *, most_levels: int = MOST_LEVELS) -> bytes:
    """Return a JSON text without what is nested deeper."""
    kept: list[bytes] = []
    level, begin = 0, 0
    for token in _TOKEN.finditer(text):
        what = token[0]
        if what in b"[{":
            level += 1
            if level == most_levels + 1:
                kept += (text[begin : token.start()], CUT)
        elif what in b"]}":
            level -= 1
            if level == most_levels:
                begin = token.end()
    if level <= most_levels:
        kept.append(text[begin:])
    return b"".join(kept)


def is_deep(tree: object, *, most_levels: int = MOST_LEVELS) -> bool:
    """Say whether a decoded value is nested deeper."""
    level = [tree]
    for _ in range(most_levels):
        level = [child for one in level for child in _children(one)]
        if not level:
            return False
    return True


def _children(one: object) -> "list[object]":
    if isinstance(one, dict):
        return list(one.values())
    return one if isinstance(one, list) else []
