"""Charts as SVG: lines, bands, dots, bars, and rows of dots with intervals. Colours are classes that the page's CSS fills in."""

from dataclasses import dataclass, field

import numpy as np
from markupsafe import Markup, escape

from pcam_ssl.render import document

WIDTH_PX, HEIGHT_PX = 440, 330
LEFT_PX, RIGHT_PX, TOP_PX, BOTTOM_PX = 70, 14, 12, 44
ROW_PX, LABEL_PX = 20, 168
MAP_PX, MARGIN_PX = 260, 8


@dataclass(frozen=True)
class Axis:
    """What an axis shows, and its ends; a `whole` axis has no ticks between whole numbers, a `log` axis is logarithmic."""

    label: str
    low: float
    high: float
    whole: bool = False
    log: bool = False

    def share(self, value: float) -> float:
        """Where a value lies: 0 at `low`, 1 at `high`."""
        if self.log:
            return float(np.log(value / self.low) / np.log(self.high / self.low))
        return (value - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Four to seven round values within the axis; on a log axis 1, 2, 5 times powers of ten, or fewer where there would be many."""
        if self.log:
            powers = 10.0 ** np.arange(np.floor(np.log10(self.low)), np.ceil(np.log10(self.high)) + 1)
            steps = (1,) if self.high / self.low > 3e4 else (1, 3) if self.high / self.low > 300 else (1, 2, 5)
            return [float(power * step) for power in powers for step in steps if self.low <= power * step <= self.high]
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
    """An x-y chart; `alt` describes it in words and numbers."""

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

    def block(self) -> document.Chart:
        """The chart with its grid and labels, as a block of a document."""
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
        return _chart(HEIGHT_PX, self.alt, grid, self.parts, names)

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


def dot_chart(rows: list[tuple[str, list[Mark]]], axis: Axis, alt: str, reference: float | None = None) -> document.Chart:
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
    return _chart(bottom + 42, alt, parts)


def dot_map(places: np.ndarray, colours: np.ndarray, alt: str) -> document.Chart:
    """Points `[N, 2]` without axes, each in the colour of its number in `colours` `[N]`.

    Dots of one colour are one path of strokes without length, so that a thousand take 10 kB.
    """
    low, high = places.min(axis=0), places.max(axis=0)
    span = max(float((high - low).max()), 1e-9)
    # Both axes have one scale, so that distances are not distorted.
    height_px = round(2 * MARGIN_PX + max((high - low)[1] / span, 0.3) * (MAP_PX - 2 * MARGIN_PX))
    centred = (places - (low + high) / 2) / span * [1, -1] * (MAP_PX - 2 * MARGIN_PX)
    drawn = np.rint(np.array([MAP_PX, height_px]) / 2 + centred).astype(int)
    paths = []
    for colour in np.unique(colours):
        dots = "".join(f"M{x} {y}h0" for x, y in drawn[colours == colour])
        paths.append(tag("path", d=dots, class_=f"points c{colour}"))
    return document.Chart(_svg(paths, f"0 0 {MAP_PX} {height_px}", alt, "map"), alt)


def shortened(text: str, length: int = 22) -> str:
    """The text, its middle left out where it is longer than `length`."""
    return text if len(text) <= length else f"{text[: length - 9]}…{text[-8:]}"


def _dot(x: float, y: float, colour: str, shape: str, title: str | None, radius_px: float) -> Markup:
    if shape == "circle":
        return tag("circle", _title(title), cx=x, cy=y, r=radius_px, class_=f"dot {colour}")
    return tag("rect", _title(title), x=x - 4, y=y - 4, width=8, height=8, class_=f"dot hollow {colour}")


def _title(text: str | None) -> Markup | None:
    return None if text is None else tag("title", text)


def _chart(height: float, alt: str, *parts) -> document.Chart:
    return document.Chart(_svg(parts, f"0 0 {WIDTH_PX} {height:g}", alt, "chart"), alt)


def _svg(parts, box: str, alt: str, look: str) -> Markup:
    return tag("svg", parts, viewBox=box, role="img", aria_label=alt, class_=look)


def tag(name: str, *children, **attributes) -> Markup:
    """An element; lists of children are joined, and text is escaped. `class_` stands for class, `aria_label` for aria-label."""
    given = "".join(f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"' for key, value in attributes.items())
    return Markup(f"<{name}{given}>{_joined(children)}</{name}>")


def _joined(children) -> str:
    parts = (_joined(each) if isinstance(each, (list, tuple)) else escape(each) for each in children if each is not None)
    return "".join(parts)
