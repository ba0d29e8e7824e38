"""How fast a rollout goes: from counts of old and new pods to the next wishes.

Pure arithmetic; it refuses to know objects.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How many pods more, and how many fewer, there may be than wished."""

    surge: int
    unavailable: int


@dataclass(frozen=True, slots=True)
class Count:
    """How many pods one revision is wished to have, and how many serve."""

    wanted: int
    available: int


def pace(replicas: int, *, surge: int | str, unavailable: int | str) -> Pace:
    """Resolve percentages: surge is rounded up, unavailable down, and never both to nothing."""
    more = _resolved(surge, replicas, math.ceil)
    fewer = _resolved(unavailable, replicas, math.floor)
    return Pace(more, 1 if not more and not fewer else fewer)


def rolling(replicas: int, counts: Sequence[Count], limits: Pace) -> list[int]:
    """Return the next wish per revision; the last of `counts` is the new revision."""
    *old, new = counts
    total = sum(each.wanted for each in counts)
    wish = new.wanted
    if wish > replicas:
        wish = replicas
    elif wish < replicas:
        wish += max(0, min(replicas + limits.surge - total, replicas - wish))
    return [*_old_wishes(old, new, replicas - limits.unavailable), wish]


def recreate(replicas: int, counts: Sequence[Count], *, gone: bool) -> list[int]:
    """Return the next wish per revision when nothing new may start before the old has gone."""
    *old, new = counts
    return [*(0 for _ in old), replicas if gone else new.wanted]


def _old_wishes(old: Sequence[Count], new: Count, least: int) -> list[int]:
    """Take from the old: first what does not serve, then what the new already replaces."""
    total = sum(each.wanted for each in old) + new.wanted
    spare = total - least - max(0, new.wanted - new.available)
    wishes = [each.wanted for each in old]
    for index, each in enumerate(old):
        cut = min(max(0, each.wanted - each.available), max(0, spare))
        wishes[index] -= cut
        spare -= cut
    serving = sum(each.available for each in old) + new.available
    spare = max(0, serving - least)
    for index, _ in enumerate(old):
        cut = min(wishes[index], spare)
        wishes[index] -= cut
        spare -= cut
    return wishes


def _resolved(amount: int | str, replicas: int, rounded: Callable[[float], int]) -> int:
    if isinstance(amount, int):
        return amount
    return rounded(int(amount.removesuffix("%")) * replicas / 100)
