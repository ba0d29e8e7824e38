"""How much one stream may subscribe to; what bounds a client bounds nothing that exists.

Source: security rule XA-5; docs/decisions/0058.
"""

from collections.abc import Callable, Sized
from typing import Final

MOST_TYPES: Final = 32

MOST_NAMES: Final = 50_000
"""Names of one type, where fewer things exist."""

FOR_EACH: Final = 2
"""Names for each thing that there is: a client may know others that are gone by now."""

MOST_OUTSTANDING: Final = 32
"""Offers whose answers are still told apart; an answer to an older one counts as stale."""


def exceeded(names: Sized, there: Callable[[], Sized]) -> int:
    """Return how many names a client may have of a type, if it has more; 0 else.

    What there is of the type is asked for by those only who have many.
    """
    if len(names) <= MOST_NAMES:
        return 0
    most = max(MOST_NAMES, FOR_EACH * len(there()))
    return most if len(names) > most else 0
