"""Small charts as SVG text: crisp at any size, in print, and without colour (line styles and marks differ too).

Classes are coloured by the page's style sheet; every chart has a title and a description for those who cannot see it.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 900, 360
LEFT, RIGHT, TOP, BOTTOM = 62, 96, 14, 46
MARK = 4.5

Point = tuple[float, float]


@dataclass(frozen=True)
class Scale:
    """Where values of one axis lie on the page, in pixels; logarithmic if asked."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    @classmethod
    def around(
        cls, values: Iterable[float], start: float, end: float, *, is_log: bool = False, margin: float = 0.06
    ) -> "Scale":
        """A scale that holds all values with a margin on both sides (a share of their range)."""
        plain = [math.log10(value) if is_log else value for value in values] or [0.0, 1.0]
        low, high = min(plain), max(plain)
        room = (high - low) * margin if high > low else max(abs(high) * 0.1, 0.5 if is_log else 0.01)
        low, high = low - room, high + room
        return cls(10**low if is_log else low, 10**high if is_log else high, start, end, is_log)

    def __call__(self, value: float) -> float:
        """The pixel of a value."""
        low, high, at = (math.log10(v) if self.is_log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        """At most so many round values on the scale."""
        if self.is_log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            for digits in ((1, 2, 5), (1, 3), (1,)):
                ticks = [digit * 10.0**power for power in decades for digit in digits]
                ticks = [tick for tick in ticks if self.low <= tick <= self.high]
                if len(ticks) <= most:
                    return ticks
            return ticks[:: math.ceil(len(ticks) / most)]
        # A step of span / most still puts most + 1 ticks on a scale that begins at one: take the first that does not.
        size = 10.0 ** math.floor(math.log10((self.high - self.low) / most))
        while True:
            for step in (size, 2 * size, 5 * size):
                first, last = math.ceil(self.low / step), math.floor(self.high / step)
                if last - first < most:
                    return [round(index * step, 12) for index in range(first, last + 1)]
            size *= 10


def chart(
    title: str,
    description: str,
    x: Scale,
    y: Scale,
    body: str,
    *,
    x_title: str,
    y_title: str,
    width: int = WIDTH,
    height: int = HEIGHT,
    x_ticks: Sequence[tuple[float, str]] | None = None,
    y_ticks: Sequence[tuple[float, str]] | None = None,
) -> str:
    """A chart with axes, grid and titles; ``body`` is what is drawn in it."""
    parts = []
    for value, label in y_ticks if y_ticks is not None else [(value, number(value)) for value in y.ticks()]:
        at = y(value)
        parts.append(f'<line class="grid" x1="{x.start:.1f}" x2="{x.end:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>')
        parts.append(text(x.start - 8, at + 4, label, anchor="end", kind="tick"))
    parts.append(foot(x, y.start, x_title, x_ticks))
    middle = (y.start + y.end) / 2
    if y_title:
        turned = f' transform="rotate(-90 14 {middle:.1f})"'
        parts.append(text(14, middle, y_title, anchor="middle", kind="name", attributes=turned))
    return picture(title, description, width, height, "".join(parts) + body)


def foot(x: Scale, at: float, title: str, ticks: Sequence[tuple[float, str]] | None = None) -> str:
    """An axis along the bottom, at a height of ``at`` pixels, with ticks and a title below it."""
    if ticks is None:
        ticks = [(value, number(value)) for value in x.ticks(max(2, int((x.end - x.start) // 50)))]
    parts = [f'<line class="axis" x1="{x.start:.1f}" x2="{x.end:.1f}" y1="{at:.1f}" y2="{at:.1f}"/>']
    for value, label in ticks:
        parts.append(upright(x(value), at, at + 5, "axis"))
        parts.append(text(x(value), at + 18, label, anchor="middle", kind="tick"))
    return "".join(parts) + text((x.start + x.end) / 2, at + 38, title, anchor="middle", kind="name")


def upright(x: float, start: float, end: float, kind: str) -> str:
    """A line straight up or down."""
    return f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{start:.1f}" y2="{end:.1f}"/>'


def picture(title: str, description: str, width: float, height: float, body: str) -> str:
    """An SVG element that screen readers announce with its title and description."""
    return (
        f'<svg role="img" aria-label="{escape(title)}. {escape(description)}" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'style="max-width: {width:.0f}px">{body}</svg>'
    )


def text(x: float, y: float, content: str, *, anchor: str = "start", kind: str = "label", attributes: str = "") -> str:
    """Text at a place; escaped."""
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{attributes}>{escape(content)}</text>'


def line(points: Sequence[Point], kind: str) -> str:
    """A line through points given in pixels."""
    return f'<polyline class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in points)}"/>'


def stairs(points: Sequence[Point], end: float, kind: str) -> str:
    """A line that keeps its height until the next point, and the last until ``end``."""
    corners: list[Point] = []
    for x, y in points:
        if corners:
            corners.append((x, corners[-1][1]))
        corners.append((x, y))
    return line([*corners, (end, corners[-1][1])], kind) if corners else ""


def mark(x: float, y: float, kind: str, hint: str = "", size: float = MARK) -> str:
    """A disc (complete), a cross (pruned), a square (running) or a triangle, with a hint for the mouse."""
    title = f"<title>{escape(hint)}</title>" if hint else ""
    if kind.startswith("complete"):
        return f'<circle class="mark {kind}" cx="{x:.1f}" cy="{y:.1f}" r="{size}">{title}</circle>'
    if kind.startswith("pruned"):
        path = f"M{x - size:.1f},{y - size:.1f}l{2 * size},{2 * size}m0,{-2 * size}l{-2 * size},{2 * size}"
    elif kind.startswith("running"):
        path = f"M{x - size:.1f},{y - size:.1f}h{2 * size}v{2 * size}h{-2 * size}z"
    else:
        path = f"M{x:.1f},{y - size * 1.2:.1f}l{size * 1.2},{size * 2.2}h{-size * 2.4}z"
    return f'<path class="mark {kind}" d="{path}">{title}</path>'


def with_room(heights: Sequence[float], gap: float) -> list[float | None]:
    """Heights for labels, the most important first: each its own, or near it, or None where there is no room."""
    taken: list[float] = []
    places: list[float | None] = []
    for height in heights:
        near = (height + gap * shift for shift in (0, 0.25, -0.25, 0.5, -0.5))
        place = next((at for at in near if all(abs(at - other) >= gap for other in taken)), None)
        places.append(place)
        taken += [place] if place is not None else []
    return places


def number(value: float) -> str:
    """A number as short as it can be said: 0.0003, 1.2e-05, 12."""
    if value == int(value) and abs(value) < 1e6:
        return str(int(value))
    return f"{value:.3g}"


def compact(value: float) -> str:
    """An amount in three digits: 950, 12.5k, 3.2M."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size * 0.9995 and abs(value) >= 1e4 * 0.9995:
            return f"{value / size:.3g}{letter}"
    return number(value)


def band(low: Sequence[Point], high: Sequence[Point], kind: str) -> str:
    """The area between two lines of pixels."""
    corners = [*low, *reversed(high)]
    return f'<polygon class="{kind}" points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in corners)}"/>'
