"""What a socket did not take: it waits, and is joined to larger parts or split into smaller ones.

Few connections have one, and those for a moment.
"""

from collections import deque
from typing import Final

JOINED_BYTES: Final = 64 * 1024

Part = bytes | memoryview


class Backlog:
    """Parts that wait to be written, in order.

    Attributes:
        size: Of all of them, in bytes.
    """

    __slots__ = ("_parts", "size")

    def __init__(self) -> None:
        self._parts: deque[Part] = deque()
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._parts)

    def add(self, *parts: Part) -> None:
        """Let more wait, behind all else."""
        self._parts.extend(parts)
        self.size += sum(map(len, parts))

    def put_back(self, part: Part) -> None:
        """Let what was taken and not written wait, before all else."""
        self._parts.appendleft(part)
        self.size += len(part)

    def take(self) -> Part:
        """Take what should be written next; there must be something."""
        part = self._parts.popleft()
        if len(part) > JOINED_BYTES:
            view = memoryview(part)
            self._parts.appendleft(view[JOINED_BYTES:])
            part = view[:JOINED_BYTES]
        elif self._parts:
            part = self._joined(part)
        self.size -= len(part)
        return part

    def _joined(self, part: Part) -> Part:
        parts, size = [part], len(part)
        while self._parts and size + len(self._parts[0]) <= JOINED_BYTES:
            parts.append(self._parts.popleft())
            size += len(parts[-1])
        return b"".join(parts) if len(parts) > 1 else part
