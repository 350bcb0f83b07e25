"""Charts as SVG: lines, bands, dots, bars, and rows of dots with intervals. Colours are classes that the page's CSS fills in."""

from dataclasses import dataclass, field

import markupsafe
import numpy as np

from pcam_ssl.render import document
from pcam_ssl.render.markup import Markup, join, tag

WIDTH_PX, HEIGHT_PX = 440, 330
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 58, 14, 12, 44
ROW_PX, LABEL_PX = 20, 168
SHAPES = ("circle", "square")


@dataclass(frozen=True)
class Axis:
    """What an axis shows, and its ends; a `whole` axis has no ticks between whole numbers."""

    label: str
    low: float
    high: float
    whole: bool = False

    def share(self, value: float) -> float:
        """Where a value lies: 0 at `low`, 1 at `high`."""
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Four to seven round values within the axis."""
        rough = (self.high - self.low) / 5
        scale = 10 ** np.floor(np.log10(rough))
        step = next(scale * nice for nice in (1, 2, 5, 10) if scale * nice >= rough * 0.8)
        step = max(step, 1) if self.whole else step
        first = np.ceil(self.low / step - 1e-9) * step
        return [float(round(tick, 10)) + 0.0 for tick in np.arange(first, self.high + step * 1e-6, step)]


def spanning(label: str, values, at_least: float = 1e-3) -> Axis:
    """An axis a little wider than the values, which may hold None."""
    known = [value for value in values if value is not None and np.isfinite(value)]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    margin = max(0.05 * (high - low), at_least)
    return Axis(label, low - margin, high + margin)


@dataclass
class Chart:
    """An x-y chart; `alt` says in words and numbers what it shows."""

    x: Axis
    y: Axis
    alt: str
    parts: list[Markup] = field(default_factory=list)

    def line(self, xs, ys, colour: str, title: str | None = None, style: str = "") -> None:
        """A line through the points; a None or NaN among `ys` [N] breaks it."""
        path, pen = [], "M"
        for x, y in zip(xs, ys, strict=True):
            if y is None or not np.isfinite(y):
                pen = "M"
                continue
            path.append(f"{pen}{self._x(x)} {self._y(y)}")
            pen = "L"
        self.parts.append(tag("path", _title(title), d="".join(path), class_=f"line {colour} {style}".strip()))

    def band(self, xs, lows, highs, colour: str) -> None:
        """The area between `lows` and `highs` [N]."""
        there = [f"{self._x(x)} {self._y(y)}" for x, y in zip(xs, highs, strict=True)]
        back = [f"{self._x(x)} {self._y(y)}" for x, y in zip(xs, lows, strict=True)]
        self.parts.append(tag("path", d="M" + "L".join(there + back[::-1]) + "Z", class_=f"band {colour}"))

    def dots(self, xs, ys, colour: str, titles=None, shape: str = "circle", radius_px: float = 4) -> None:
        """A dot at each point, with a title that a pointer shows."""
        for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
            self.parts.append(_dot(self._x(x), self._y(y), colour, shape, titles[i] if titles else None, radius_px))

    def bars(self, lefts, rights, heights, colour: str, titles=None) -> None:
        """Bars from the bottom of the chart."""
        for i, (left, right, height) in enumerate(zip(lefts, rights, heights, strict=True)):
            top, bottom = self._y(height), self._y(self.y.low)
            title = _title(titles[i] if titles else None)
            place = {
                "x": self._x(left),
                "y": top,
                "width": round(self._x(right) - self._x(left), 1),
                "height": round(bottom - top, 1),
            }
            self.parts.append(tag("rect", title, class_=f"bar {colour}", **place))

    def svg(self) -> Markup:
        """The chart with its grid and labels."""
        right, bottom = WIDTH_PX - RIGHT_PX, HEIGHT_PX - BOTTOM_PX
        grid = []
        for tick in self.x.ticks():
            grid.append(tag("line", x1=self._x(tick), x2=self._x(tick), y1=TOP_PX, y2=bottom, class_="grid"))
            grid.append(tag("text", f"{tick:g}", x=self._x(tick), y=bottom + 17, class_="tick middle"))
        for tick in self.y.ticks():
            grid.append(tag("line", x1=LEFT_PX, x2=right, y1=self._y(tick), y2=self._y(tick), class_="grid"))
            grid.append(tag("text", f"{tick:g}", x=LEFT_PX - 6, y=self._y(tick) + 4, class_="tick end"))
        middle = (TOP_PX + bottom) / 2
        names = [
            tag("text", self.x.label, x=(LEFT_PX + right) / 2, y=HEIGHT_PX - 6, class_="middle"),
            tag("text", self.y.label, x=12, y=middle, class_="middle", transform=f"rotate(-90 12 {middle})"),
        ]
        return _svg(HEIGHT_PX, self.alt, grid, self.parts, names)

    def block(self) -> document.Chart:
        """The chart as a block of a document."""
        return document.Chart(markupsafe.Markup(self.svg()), self.alt)

    def _x(self, value: float) -> float:
        return round(LEFT_PX + self.x.share(value) * (WIDTH_PX - LEFT_PX - RIGHT_PX), 1)

    def _y(self, value: float) -> float:
        bottom = HEIGHT_PX - BOTTOM_PX
        return round(bottom - self.y.share(value) * (bottom - TOP_PX), 1)


@dataclass(frozen=True)
class Mark:
    """A value in a row, with its interval where there is one."""

    value: float
    colour: str
    title: str
    low: float | None = None
    high: float | None = None
    shape: str = "circle"


def dot_rows(rows: list[tuple[str, list[Mark]]], axis: Axis, alt: str, reference: float | None = None) -> Markup:
    """One row for each (label, marks), values across; `reference` draws an upright line."""
    top, right = 6, WIDTH_PX - RIGHT_PX
    bottom = top + ROW_PX * len(rows)

    def place(value: float) -> float:
        return round(LABEL_PX + axis.share(value) * (right - LABEL_PX), 1)

    parts = []
    for tick in axis.ticks():
        parts.append(tag("line", x1=place(tick), x2=place(tick), y1=top, y2=bottom, class_="grid"))
        parts.append(tag("text", f"{tick:g}", x=place(tick), y=bottom + 16, class_="tick middle"))
    if reference is not None and axis.low <= reference <= axis.high:
        parts.append(tag("line", x1=place(reference), x2=place(reference), y1=top, y2=bottom, class_="reference"))
    for i, (label, marks) in enumerate(rows):
        y = top + ROW_PX * (i + 0.5)
        parts.append(tag("text", _title(label), shortened(label), x=LABEL_PX - 8, y=y + 4, class_="end"))
        parts.append(tag("line", x1=LABEL_PX, x2=right, y1=y, y2=y, class_="grid"))
        for mark in marks:
            if mark.low is not None:
                parts.append(tag("line", x1=place(mark.low), x2=place(mark.high), y1=y, y2=y, class_=f"whisker {mark.colour}"))
            parts.append(_dot(place(mark.value), y, mark.colour, mark.shape, mark.title, 4.5))
    parts.append(tag("text", axis.label, x=(LABEL_PX + right) / 2, y=bottom + 34, class_="middle"))
    return _svg(bottom + 42, alt, parts)


def dot_chart(rows: list[tuple[str, list[Mark]]], axis: Axis, alt: str, reference: float | None = None) -> document.Chart:
    """`dot_rows` as a block of a document."""
    return document.Chart(markupsafe.Markup(dot_rows(rows, axis, alt, reference)), alt)


def shortened(text: str, length: int = 22) -> str:
    """The text, its middle left out where it is longer than `length`."""
    return text if len(text) <= length else f"{text[: length - 9]}…{text[-8:]}"


def legend(entries: list[tuple[str, str, str]]) -> Markup:
    """What the colours mean, from (kind, colour, label); a kind is `line`, `dashed`, `bar`, or a dot's shape."""
    return tag("ul", [tag("li", _key(kind, colour), label) for kind, colour, label in entries], class_="legend")


def _key(kind: str, colour: str) -> Markup:
    if kind in SHAPES:
        drawn = _dot(10, 6, colour, kind, None, 4.5)
    elif kind == "bar":
        drawn = tag("rect", x=2, y=1, width=16, height=10, class_=f"bar {colour}")
    else:
        drawn = tag("path", d="M1 6L19 6", class_=f"line {colour} {'dashed' if kind == 'dashed' else ''}".strip())
    return tag("svg", drawn, viewBox="0 0 20 12", width=20, height=12, aria_hidden="true")


def _dot(x: float, y: float, colour: str, shape: str, title: str | None, radius_px: float) -> Markup:
    if shape == "circle":
        return tag("circle", _title(title), cx=x, cy=y, r=radius_px, class_=f"dot {colour}")
    return tag("rect", _title(title), x=x - 4, y=y - 4, width=8, height=8, class_=f"dot hollow {colour}")


def _title(text: str | None) -> Markup | None:
    return None if text is None else tag("title", text)


def _svg(height: float, alt: str, *parts) -> Markup:
    return tag("svg", join(parts), viewBox=f"0 0 {WIDTH_PX} {height:g}", role="img", aria_label=alt, class_="chart")
