"""Figures as drawings: lines over two logarithmic axes, written as SVG by hand.

Knows nothing of what is measured. A drawing has its own colours for light and for dark pages.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax import saxutils

WIDTH, HEIGHT = 720, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 200, 30, 50
COLOURS: Final = ("#3366cc", "#dc3912", "#109618", "#990099", "#b77b00")
STYLE: Final = (
    "text{font:12px sans-serif;fill:#444}.axis{stroke:#888}.grid{stroke:#8884}"
    "@media(prefers-color-scheme:dark){text{fill:#ccc}}"
)

Line = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Axis:
    """A logarithmic axis: which values it shows, and where."""

    least: float
    most: float
    begin: float
    end: float

    def at(self, value: float) -> float:
        """Return where a value is drawn."""
        share = math.log(value / self.least) / math.log(self.most / self.least)
        return self.begin + share * (self.end - self.begin)

    def marks(self) -> Iterator[float]:
        """Yield the values that are written beside it: 1, 2 and 5 of each power of ten."""
        for power in range(
            math.floor(math.log10(self.least)), math.ceil(math.log10(self.most)) + 1
        ):
            for digit in (1, 2, 5):
                value = float(digit * 10.0**power)
                if self.least <= value <= self.most:
                    yield value


def axis(values: Sequence[float], begin: float, end: float) -> Axis:
    """Return an axis that shows all values, with a little room."""
    least, most = min(values) / 1.3, max(values) * 1.3
    return Axis(least, most, begin, end)


def drawing(title: str, lines: Mapping[str, Line], *, across: str, up: str) -> str:
    """Return the drawing of several lines, each with its name at its end."""
    places = [place for line in lines.values() for place in line]
    x = axis([one for one, _ in places], LEFT, WIDTH - RIGHT)
    y = axis([other for _, other in places], HEIGHT - BOTTOM, TOP)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}">',
            f"<title>{saxutils.escape(title)}</title><style>{STYLE}</style>",
            *_frame(x, y, across=across, up=up),
            *_lines(x, y, lines),
            "</svg>\n",
        ]
    )


def _frame(x: Axis, y: Axis, *, across: str, up: str) -> Iterator[str]:
    for value in x.marks():
        at = x.at(value)
        yield f'<path class="grid" d="M{at:.1f} {y.end}V{y.begin}"/>'
        yield _text(at, y.begin + 18, _number(value), anchor="middle")
    for value in y.marks():
        at = y.at(value)
        yield f'<path class="grid" d="M{x.begin} {at:.1f}H{x.end}"/>'
        yield _text(x.begin - 8, at + 4, _number(value), anchor="end")
    yield f'<path class="axis" fill="none" d="M{x.begin} {y.end}V{y.begin}H{x.end}"/>'
    yield _text((x.begin + x.end) / 2, y.begin + 38, across, anchor="middle")
    yield _text(x.begin, y.end - 12, up, anchor="start")


def _lines(x: Axis, y: Axis, lines: Mapping[str, Line]) -> Iterator[str]:
    heights = _apart([y.at(line[-1][1]) for line in lines.values()])
    for number, (name, line) in enumerate(lines.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(f"{x.at(one):.1f},{y.at(other):.1f}" for one, other in line)
        yield f'<polyline fill="none" stroke="{colour}" stroke-width="2" points="{points}"/>'
        for one, other in line:
            yield f'<circle cx="{x.at(one):.1f}" cy="{y.at(other):.1f}" r="3" fill="{colour}"/>'
        swatch = f'<circle cx="{x.end + 14}" cy="{heights[number]:.1f}" r="4" fill="{colour}"/>'
        yield swatch + _text(x.end + 24, heights[number] + 4, name, anchor="start")


def _apart(heights: Sequence[float]) -> list[float]:
    """Return heights near the given ones at which names do not cover each other."""
    found, last = list(heights), -math.inf
    for number in sorted(range(len(heights)), key=heights.__getitem__):
        found[number] = last = max(heights[number], last + 16)
    return found


def _text(x: float, y: float, text: str, *, anchor: str) -> str:
    words = saxutils.escape(text)
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1 else f"{value:g}"
