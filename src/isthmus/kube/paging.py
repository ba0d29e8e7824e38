"""When a list is followed no further: a server may go on telling pages for ever.

Decides by what was told so far; refuses to know what objects are.
"""

from dataclasses import dataclass
from typing import Final

from isthmus.kube import problems

MOST_PAGES: Final = 1_000
"""Half a million objects of one kind, thrice the most pods that Kubernetes is made for."""

MOST_BYTES: Final = 2 << 30
"""Of all pages together, as JSON."""

MOST_IDLE: Final = 3
"""So many pages in a row without anything new, and the next one will have nothing, either."""


@dataclass(slots=True)
class Pages:
    """The pages of one list, of which each says that another one follows."""

    _count: int = 0
    _idle: int = 0
    _bytes: int = 0

    def leads_on(self, *, has_news: bool, size_bytes: int = 0) -> bool:
        """Count a page that is not the last; say whether the next one is worth asking for."""
        self._count += 1
        self._bytes += size_bytes
        self._idle = 0 if has_news else self._idle + 1
        is_small = self._count < MOST_PAGES and self._bytes < MOST_BYTES
        return is_small and self._idle < MOST_IDLE


def endless(title: str) -> problems.ListEndless:
    """Return the error that a person sees for a list of a kind without end."""
    return problems.ListEndless(
        f"the list of `{title}` has no end",
        detail=f"each page says that another one follows; {MOST_PAGES} pages, {MOST_BYTES >> 30} "
        f"GiB, or {MOST_IDLE} with nothing new are the most",
        still_working="what was known of it before",
        hint="look at the API server, or at the proxy before it",
    )
