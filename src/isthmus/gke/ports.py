"""Sets of ports, as firewall rules write them: `5000`, `8080-8090`.

Refuses to know what listens there.
"""

from collections.abc import Iterable
from typing import Final

Span = tuple[int, int]
"""First and last port."""

Ports = tuple[Span, ...]
"""Ports in ascending spans that neither overlap nor touch; made by `united`."""

HIGHEST: Final = 65535
EVERY: Final[Ports] = ((0, HIGHEST),)
"""What a rule that names no ports means."""


def span_of(text: str) -> Span:
    """Return the ports that a text such as `5000` or `8080-8090` names.

    Raises:
        ValueError: It names none.
    """
    first, dash, last = text.strip().partition("-")
    low, high = int(first), int(last) if dash else int(first)
    if not 0 <= low <= high <= HIGHEST:
        raise ValueError(f"`{text}` is no port and no range of ports")
    return (low, high)


def united(spans: Iterable[Span]) -> Ports:
    """Return spans as one set."""
    found: list[Span] = []
    for low, high in sorted(spans):
        if found and low <= found[-1][1] + 1:
            found[-1] = (found[-1][0], max(found[-1][1], high))
        else:
            found.append((low, high))
    return tuple(found)


def covers(outer: Ports, inner: Ports) -> bool:
    """Tell whether all of `inner` is in `outer`."""
    return all(any(low <= one and two <= high for low, high in outer) for one, two in inner)


def overlaps(some: Ports, others: Ports) -> bool:
    """Tell whether any port is in both."""
    return any(low <= two and one <= high for low, high in some for one, two in others)


def count(some: Ports) -> int:
    """Return how many ports there are."""
    return sum(high - low + 1 for low, high in some)


def split(some: Ports, *, at: Iterable[Ports]) -> tuple[Ports, ...]:
    """Cut a set where any set of `at` begins or ends, so that none covers a piece in part."""
    edges = sorted({edge for ports in at for low, high in ports for edge in (low, high + 1)})
    pieces = []
    for low, high in some:
        starts = [low, *(edge for edge in edges if low < edge <= high)]
        pieces += [
            ((start, end - 1),) for start, end in zip(starts, [*starts[1:], high + 1], strict=True)
        ]
    return tuple(pieces)


def texts(some: Ports) -> tuple[str, ...]:
    """Return the spans as firewall rules write them."""
    return tuple(str(low) if low == high else f"{low}-{high}" for low, high in some)
