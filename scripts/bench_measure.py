"""Side-by-side timing: sides take turns in one process, and a result is the median of the rounds' ratios with its spread."""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field


class NotMeasured(Exception):
    """Why a benchmark cannot be measured here."""


@dataclass(frozen=True)
class Spread:
    """Median of the rounds, and the lowest and highest of them."""

    median: float
    low: float
    high: float

    def text(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g} to {self.high:.3g})"


def spread(values: list[float]) -> Spread:
    """Median and range of some values."""
    return Spread(statistics.median(values), min(values), max(values))


@dataclass(frozen=True)
class Target:
    """A bound on the ratio, or on side A in its own unit."""

    text: str
    holds: Callable[[float], bool]


def at_most(bound: float, unit: str = "x") -> Target:
    """An upper bound; unit `x` is the ratio."""
    return Target(f"≤ {bound:,.16g} {unit}", lambda value: value <= bound)


def at_least(bound: float, unit: str = "x") -> Target:
    """A lower bound; unit `x` is the ratio."""
    return Target(f"≥ {bound:,.16g} {unit}", lambda value: value >= bound)


@dataclass(frozen=True)
class Place:
    """Where and how something was computed; `-` where it has no meaning."""

    device: str = "-"
    precision: str = "-"
    threads: int | str = "-"


@dataclass(frozen=True)
class Row:
    """One line of the table: what was compared, the ratio (or the reason why there is none), its target, and both sides."""

    name: str
    ratio: Spread | None = None
    target: str = "-"
    met: bool | None = None
    a: str = "-"
    b: str = "-"
    place: Place = field(default_factory=Place)
    reason: str = ""

    def cells(self) -> list[str]:
        ratio = self.ratio.text() if self.ratio else f"not measured: {self.reason}"
        met = {True: "yes", False: "no", None: "-"}[self.met]
        return [
            self.name,
            ratio,
            self.target,
            met,
            self.a,
            self.b,
            self.place.device,
            self.place.precision,
            str(self.place.threads),
        ]

    def to_dict(self) -> dict:
        return asdict(self)


def compare(name: str, ratio: Spread, target: Target, a: str, b: str, place: Place, value: float | None = None) -> Row:
    """A row whose target is judged on the median ratio, or on `value` where the target is on side A itself."""
    return Row(name, ratio, target.text, target.holds(ratio.median if value is None else value), a, b, place)


def take_turns(sides: dict[str, Callable[[], float]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every side in every round, `{side: [rounds]}`; a side does its work once and returns its seconds.

    The order turns from round to round, so that a machine that warms up or slows down favours no side; a turn of each goes before
    and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    names = list(sides)
    for name in names:
        sides[name]()
    for number in range(rounds):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            seconds[name].append(sides[name]())
    return seconds


def ratios(over: list[float], under: list[float]) -> Spread:
    """Spread of `over / under`, round by round."""
    return spread([a / b for a, b in zip(over, under, strict=True)])


def timed(work: Callable[[], object]) -> Callable[[], float]:
    """`work` as a side of `take_turns`."""

    def side() -> float:
        begun = time.perf_counter()
        work()
        return time.perf_counter() - begun

    return side


def rate(count: int, seconds: list[float], unit: str) -> str:
    """'1,234 patches/s' from the median turn."""
    return f"{count / statistics.median(seconds):,.0f} {unit}/s"
