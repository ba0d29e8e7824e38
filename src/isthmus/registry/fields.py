"""Reads free-form objects field by field; what is wrong names its field and stops nothing else.

A wrong field counts as absent. Whether the rest is still safe to use is for the caller to say.
"""

import enum
import itertools
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

E = TypeVar("E", bound=enum.Enum | None)

UNITS_S: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001, "us": 0.000001, "ns": 0.000000001}
DIGITS: Final = frozenset("0123456789.")
MOST_DURATION: Final = 40
LONGEST_S: Final = 10 * 365 * 86400.0
"""What is longer overflows durations on the way to a proxy."""
SHORTEST_S: Final = 0.001
"""What is shorter, but for nothing at all, is nothing to Envoy."""
PERCENT: Final = 100
MILLION: Final = 1_000_000
MOST_PROBLEMS: Final = 20
MOST_TEXT: Final = 1024
MOST_ROWS: Final = 5000


class Problems:
    """What was wrong while one object was read; it lives no longer than that.

    Attributes:
        count: How often something was; of very many only the first are kept.
    """

    def __init__(self) -> None:
        self._texts: list[str] = []
        self.count = 0

    def add(self, field: str, happened: str) -> None:
        """Note what is wrong with a field."""
        self.count += 1
        if len(self._texts) < MOST_PROBLEMS:
            self._texts.append(f"`{field}` {happened}")

    def texts(self) -> tuple[str, ...]:
        """Return all that was noted, in order."""
        return tuple(self._texts)


class Fields:
    """One part of a free-form object."""

    def __init__(self, content: object, *, path: str, problems: Problems) -> None:
        self.path = path
        self._problems = problems
        self._content: Mapping[object, object] = {}
        if isinstance(content, Mapping):
            self._content = content
        elif content is not None:
            problems.add(path, "must be a mapping")

    def __bool__(self) -> bool:
        return bool(self._content)

    def __contains__(self, key: str) -> bool:
        return self._content.get(key) is not None

    @property
    def noted(self) -> int:
        """How much is known to be wrong with the object by now."""
        return self._problems.count

    def names(self) -> tuple[str, ...]:
        """Return the names of all fields, in order."""
        return tuple(str(name)[:MOST_TEXT] for name in self._content)

    def problem(self, key: str, happened: str) -> None:
        """Note what is wrong with a field."""
        self._problems.add(self._at(key), happened)

    def refuse_others(self, known: Iterable[str], happened: str = "is not supported") -> bool:
        """Note all fields that are not `known`, and return whether there were any."""
        others = [key for key in self.names() if key not in frozenset(known) and key in self]
        for key in others:
            self.problem(key, happened)
        return bool(others)

    def text(self, key: str, default: str = "", *, most: int = MOST_TEXT) -> str:
        """Return a text of at most `most` characters."""
        value = self._content.get(key)
        if value is None:
            return default
        if not isinstance(value, str) or len(value) > most:
            self.problem(key, f"must be a text of at most {most} characters")
            return default
        return value

    def flag(self, key: str, *, default: bool) -> bool:
        """Return true or false."""
        value = self._content.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            self.problem(key, "must be true or false")
            return default
        return value

    def number(self, key: str, *, default: int, least: int, most: int) -> int:
        """Return a whole number from `least` to `most`."""
        value = self._content.get(key)
        if value is None:
            return default
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            self.problem(key, f"must be a whole number from {least} to {most}")
            return default
        return value

    def amount(self, key: str, *, default: float, least: float, most: float) -> float:
        """Return a number from `least` to `most`."""
        value = self._content.get(key)
        if value is None:
            return default
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not least <= value <= most
        ):
            self.problem(key, f"must be a number from {least:g} to {most:g}")
            return default
        return float(value)

    def share(self, key: str, *, default: int) -> int:
        """Return a percentage, written as `{value: 12.5}`, in millionths."""
        if key not in self:
            return default
        part = self.part(key)
        part.refuse_others({"value"})
        percent = part.amount("value", default=0.0, least=0.0, most=PERCENT)
        return round(percent * MILLION / PERCENT)

    def seconds(self, key: str, *, default: float, least: float = 0.0) -> float:
        """Return a duration, written such as `1m30s`, in seconds."""
        text = self.text(key)
        if not text:
            return default
        seconds = seconds_of(text)
        if seconds is None:
            self.problem(key, f"must be a duration such as `10s`: `{text[:40]}`")
            return default
        least = max(least, SHORTEST_S if seconds else 0.0)
        if not least <= seconds <= LONGEST_S:
            self.problem(key, f"must be at least {least:g} s and at most ten years")
            return default
        return seconds

    def choice(self, key: str, among: Mapping[str, E], *, default: E) -> E:
        """Return what a text stands for."""
        text = self.text(key)
        if not text:
            return default
        if text not in among:
            self.problem(key, f"is unknown: `{text[:40]}`")
            return default
        return among[text]

    def part(self, key: str) -> "Fields":
        """Return a mapping; empty when it is absent."""
        return Fields(self._content.get(key), path=self._at(key), problems=self._problems)

    def parts(self, key: str) -> tuple["Fields", ...]:
        """Return a list of mappings."""
        return tuple(
            Fields(item, path=f"{self._at(key)}[{n}]", problems=self._problems)
            for n, item in enumerate(self._rows(key))
        )

    def texts(self, key: str) -> tuple[str, ...]:
        """Return a list of texts; wrong ones are left out."""
        found = []
        for n, item in enumerate(self._rows(key)):
            if isinstance(item, str) and len(item) <= MOST_TEXT:
                found.append(item)
            else:
                self.problem(f"{key}[{n}]", "must be a text")
        return tuple(found)

    def pairs(self, key: str) -> tuple[tuple[str, str], ...]:
        """Return a mapping of texts as sorted pairs; wrong ones are left out."""
        part = self.part(key)
        return tuple(sorted((name, part.text(name)) for name in part.names() if name in part))

    def _rows(self, key: str) -> list[object]:
        value = self._content.get(key)
        if value is None:
            return []
        if not isinstance(value, list | tuple) or len(value) > MOST_ROWS:
            self.problem(key, f"must be a list of at most {MOST_ROWS}")
            return []
        return list(value)

    def _at(self, key: str) -> str:
        return f"{self.path}.{key}" if self.path else key


def seconds_of(text: str) -> float | None:
    """Read a duration as Go and protobuf write it, such as `1m30s`; None when it is none."""
    runs = ["".join(run) for _, run in itertools.groupby(text, key=DIGITS.__contains__)]
    numbers, units = runs[::2], runs[1::2]
    is_one = (
        0 < len(text) <= MOST_DURATION
        and len(numbers) == len(units)
        and all(number.replace(".", "", 1).isdecimal() for number in numbers)
        and all(unit in UNITS_S for unit in units)
    )
    if not is_one:
        return None
    return sum(float(number) * UNITS_S[unit] for number, unit in zip(numbers, units, strict=True))
