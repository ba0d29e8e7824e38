"""What nodes' proxies wrote of tunnels that ended at pods: who called, and from where.

Envoy's usual text of an access log, as nodes' proxies write it; whatever else is in a log is passed
over.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

LINE: Final = re.compile(
    r'^\[(?P<at>[^\]]+)\] "CONNECT - HTTP/2" (?P<status>\d+) .* tunnelled '
    r"\S+ (?P<pod>[\d.]+):15008 (?P<caller>[\d.]+):\d+ \S+ \S+ \"(?P<peer>[^\"]*)\"$"
)


@dataclass(frozen=True, slots=True)
class Ended:
    """A tunnel that was asked for and has ended.

    Attributes:
        at: When it began, as the log has it; texts of this form are in order of time.
        pod: The address of the pod at which it ended.
        caller: The address from which it came: a pod, or a gateway.
        peer: Who proved to be at the other end.
    """

    at: str
    pod: str
    caller: str
    peer: str


def read(lines: Iterable[str], *, after: str = "") -> Iterator[Ended]:
    """Yield the tunnels that ended well and began after a moment."""
    for line in lines:
        found = LINE.match(line)
        if found is not None and found["status"] == "200" and found["at"] > after:
            yield Ended(found["at"], found["pod"], found["caller"], found["peer"])


def last(lines: Iterable[str]) -> str:
    """Return when the last tunnel began; empty if none did."""
    return max((one.at for one in read(lines)), default="")
