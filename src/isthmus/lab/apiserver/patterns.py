"""Regular expressions that strangers wrote, matched without letting them hang the server.

Kubernetes' own engine never backtracks; ours does. So a pattern or a text that is long, and a
pattern in which repetitions are nested, is not matched at all but accepted: the check exists to
help people, not to guard anything.
"""

import functools
import importlib
import re
from typing import Any, TypeAlias

# The standard parser is private, yet stable: this only reads the tree that it makes.
Tree: TypeAlias = Any
"""A node or nodes of the untyped parse tree."""

codes: Any = importlib.import_module("re._constants")
parser: Any = importlib.import_module("re._parser")

_LONGEST_PATTERN = 4096
_LONGEST_TEXT = 16_384
_MOST_STEPS = 50_000_000
_FEW = 1
_REPEATS = (codes.MAX_REPEAT, codes.MIN_REPEAT)


def matches(pattern: str, text: str) -> bool:
    """Say whether `pattern` occurs in `text`; true when it would be unsafe to look."""
    compiled, longest = _compiled(pattern)
    if compiled is None or len(text) > longest:
        return True
    return compiled.search(text) is not None


@functools.lru_cache(maxsize=2048)
def _compiled(pattern: str) -> tuple[re.Pattern[str] | None, int]:
    """Return what matches, and the longest text on which it surely ends soon."""
    if len(pattern) > _LONGEST_PATTERN:
        return None, 0
    try:
        # A dollar matches before a final newline here, but not in Kubernetes' engine.
        text = re.sub(r"(?<!\\)\$$", r"\\Z", pattern)
        tree = parser.parse(text)
        if _is_risky(tree, inside=False):
            return None, 0
        # Each repetition can multiply the work by the text's length, and so can a floating start.
        power = _repetitions(tree) + (not pattern.startswith("^"))
        longest = int(_MOST_STEPS ** (1 / power)) if power else _LONGEST_TEXT
        return re.compile(text), min(longest, _LONGEST_TEXT)
    except (re.error, RecursionError, OverflowError):
        return None, 0


def _repetitions(parsed: Tree) -> int:
    count = 0
    for op, argument in parsed:
        if op in _REPEATS:
            low, high, body = argument
            count += (high > _FEW and high != low) + _repetitions(body)
        else:
            count += sum(_repetitions(part) for part in _parts(op, argument))
    return count


def _is_risky(parsed: Tree, *, inside: bool) -> bool:
    """Say whether something that varies in length, or alternatives, are repeated."""
    for op, argument in parsed:
        if op in _REPEATS:
            low, high, body = argument
            if inside and high != low and len(body) > 0:
                return True
            repeats = high > _FEW
            # Alternatives that overlap can split a text in very many ways, too.
            if repeats and _has_alternatives(body):
                return True
            if _is_risky(body, inside=inside or repeats) and not _is_separated(body):
                return True
        elif any(_is_risky(part, inside=inside) for part in _parts(op, argument)):
            return True
    return False


def _has_alternatives(parsed: Tree) -> bool:
    return any(
        op is codes.BRANCH
        or any(
            _has_alternatives(part)
            for part in ([argument[2]] if op in _REPEATS else _parts(op, argument))
        )
        for op, argument in parsed
    )


def _is_separated(body: Tree) -> bool:
    r"""Say whether each round begins with a character that occurs nowhere else in it.

    Such as `(\.[a-z]+)*`: there is only one way to split a text into rounds.
    """
    first, rest = body[0], list(body)[1:]
    while first[0] is codes.SUBPATTERN:
        inner = list(first[1][3])
        if not inner:
            return False
        first, rest = inner[0], inner[1:] + rest
    return first[0] is codes.LITERAL and not any(_may_match(one, first[1]) for one in rest)


def _may_match(node: Tree, char: int) -> bool:
    op, argument = node
    if op is codes.AT:
        return False
    if op in (codes.LITERAL, codes.RANGE):
        low, high = (argument, argument) if op is codes.LITERAL else argument
        return bool(low <= char <= high)
    if op is codes.IN:
        return any(_may_match(one, char) for one in argument)
    nested = [argument[2]] if op in _REPEATS else _parts(op, argument)
    return not nested or any(_may_match(one, char) for part in nested for one in part)


def _parts(op: Tree, argument: Tree) -> list[Any]:
    if op is codes.SUBPATTERN:
        return [argument[3]]
    if op is codes.BRANCH:
        return list(argument[1])
    if op in (codes.ASSERT, codes.ASSERT_NOT):
        return [argument[1]]
    return []
