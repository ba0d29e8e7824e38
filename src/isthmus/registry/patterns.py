"""How texts are matched in routes: `exact`, `prefix` or `regex`.

Regular expressions are RE2's, compared with the whole text. One that RE2 does not take is refused
here: Envoy would refuse with it all routes of the port. They are never run here.
"""

import functools
from typing import Final

import re2

from isthmus.registry import fields, texts

KINDS: Final = ("exact", "prefix", "regex")
PRESENT: Final = "present:"
MOST_MEMORY: Final = 1 << 20


def read(part: fields.Fields, key: str, *, may_be_empty: bool = False) -> str:
    """Return `exact:x`, `prefix:x` or `regex:x`; nothing when absent or, noted, not understood.

    An empty pattern, where it `may_be_empty`, wants only that there is a text: `present:`.
    """
    if key not in part:
        return ""
    pattern = part.part(key)
    if may_be_empty and not pattern.names():
        return PRESENT
    found = of(pattern)
    if not found:
        part.problem(
            key, "must be `exact`, `prefix` or a `regex` of RE2, so that this match is left out"
        )
    return found


def of(pattern: fields.Fields) -> str:
    """Return the pattern that a part is; nothing when it is none."""
    for kind in KINDS:
        text = pattern.text(kind) if pattern.names() == (kind,) else ""
        if text and texts.is_printable(text) and (kind != "regex" or is_regex(text)):
            return f"{kind}:{text}"
    return ""


@functools.lru_cache(maxsize=1024)
def is_regex(text: str) -> bool:
    """Say whether a text is a pattern that Envoy takes."""
    options = re2.Options()
    options.log_errors = False
    options.max_mem = MOST_MEMORY
    try:
        re2.compile(text, options=options)
    except re2.error:
        return False
    return True
