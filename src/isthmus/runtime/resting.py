"""Has what proxies are told folded while nobody asks for it.

It decides when, and nothing about how. What is told again is unfolded by whoever tells it, and
folded again some seconds later.
"""

from typing import Final

from isthmus.base import clock, memory
from isthmus.resources import snapshot

EVERY_S: Final = 15.0
AT_ONCE: Final = 256 << 10
"""So many bytes are folded in one go, in about a millisecond; then others have their turn."""


async def fold(system_clock: clock.Clock) -> None:
    """Fold what is told, time and again."""
    while True:
        await system_clock.sleep(EVERY_S)
        folded = 0
        for size in snapshot.resting():
            before, folded = folded, folded + size
            if before // AT_ONCE < folded // AT_ONCE:
                await system_clock.sleep(0)
        if folded > AT_ONCE:
            memory.trim()
