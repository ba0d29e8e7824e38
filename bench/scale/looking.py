"""What the proxies of a fleet look for at the moment, and what they have found; no sockets.

What many of them hold is one object, and is looked at once.
"""

from typing import TYPE_CHECKING

from bench.scale import crowds, talks

if TYPE_CHECKING:
    from array import array


class Looked:
    """What clients look for at the moment, and what they have found."""

    def __init__(self) -> None:
        self.needle = b""
        self.name = ""
        self.leaving: dict[str, tuple[bytes, ...]] = {}
        self.seen: dict[int, int] = {}
        self.arrived: dict[bytes, array[int]] | None = None
        self.found: dict[object, bool] = {}

    def is_in(self, answer: talks.Answer) -> bool:
        """Say whether a message holds what is looked for; each is looked at once."""
        found = self.found.get(answer)
        if found is None:
            found = any(self.needle in one.body for _, one in answer.resources)
            self.found[answer] = found
        return found

    def has_left(self, cluster: str, held: crowds.Crowds) -> bool:
        """Say whether the addresses are gone that leave a cluster."""
        found = self.found.get(held)
        if found is None:
            found = not any(map(held.holds, self.leaving[cluster]))
            self.found[held] = found
        return found

    def take_seen(self) -> list[int]:
        """Return when each client had found what was looked for, and look for nothing."""
        seen, self.seen = self.seen, {}
        self.needle = b""
        self.name, self.leaving, self.found = "", {}, {}
        return sorted(seen.values())
