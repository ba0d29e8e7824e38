"""What the proxies of a fleet look for at the moment, and what they have found; no sockets.

What many of them hold is one object, and is looked at once.
"""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bench.scale import crowds, decoded

KEPT: Final = 100_000
Note = Callable[[int], None]
"""Takes the moment at which something has arrived."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a message has of what is looked for.

    Attributes:
        is_it: Whether it holds the words, or takes away the name.
        left: The sets in it that no longer have the addresses that are to go.
    """

    is_it: bool
    left: tuple[str, ...]


NOTHING: Final = Verdict(is_it=False, left=())


class Looked:
    """What clients look for at the moment, and what they have found."""

    def __init__(self) -> None:
        self.needle = b""
        self.name = ""
        self.leaving: dict[str, tuple[bytes, ...]] = {}
        self.seen: dict[int, int] = {}
        self.arrived: dict[bytes, array[int]] | None = None
        self._verdicts: dict[decoded.Answer, Verdict] = {}
        self._left: dict[crowds.Crowds, bool] = {}
        self._notes: dict[tuple[frozenset[bytes], frozenset[bytes]], tuple[Note, ...]] = {}

    @property
    def is_on(self) -> bool:
        """Whether anything is looked for in messages."""
        return bool(self.needle or self.name or self.leaving)

    def verdict(self, answer: decoded.Answer) -> Verdict:
        """Say what a message has of what is looked for; each is looked at once."""
        found = self._verdicts.get(answer)
        if found is None:
            found = self._verdicts[answer] = self._judged(answer)
        return found

    def _judged(self, answer: decoded.Answer) -> Verdict:
        is_it = bool(self.name) and self.name in answer.removed
        if self.needle:
            is_it |= any(one.holds(self.needle) for one in answer.resources.values())
        left = tuple(
            name
            for name in self.leaving.keys() & answer.markers.keys()
            if not any(map(answer.resources[name].holds, self.leaving[name]))
        )
        return Verdict(is_it, left) if is_it or left else NOTHING

    def has_left(self, cluster: str, held: crowds.Crowds) -> bool:
        """Say whether the addresses are gone that leave a cluster."""
        found = self._left.get(held)
        if found is None:
            found = not any(map(held.holds, self.leaving[cluster]))
            self._left[held] = found
        return found

    def track(self) -> None:
        """Note from now on when addresses arrive that came with events."""
        self.arrived, self._notes = {}, {}

    def notes(self, known: frozenset[bytes], now: frozenset[bytes]) -> Sequence[Note]:
        """Return who takes note of what has arrived when these addresses follow those."""
        found = self._notes.get((known, now))
        if found is None:
            if len(self._notes) >= KEPT:
                self._notes.clear()
            assert self.arrived is not None
            some = [self.arrived.setdefault(one, array("q")) for one in now - known]
            found = self._notes[known, now] = tuple(one.append for one in some)
        return found

    def take_seen(self) -> list[int]:
        """Return when each client had found what was looked for, and look for nothing."""
        seen, self.seen = self.seen, {}
        self.needle = b""
        self.name, self.leaving, self._verdicts, self._left = "", {}, {}, {}
        return sorted(seen.values())
