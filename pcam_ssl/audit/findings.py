"""The result of an audit: findings, and the tables beside them."""

from dataclasses import dataclass

import pandas as pd

from pcam_ssl.data.dataset import Dataset
from pcam_ssl.errors import LeakError

LEVELS = ("leak", "problem", "suspect", "note", "ok")
"""leak: scored data is in the training data. problem: to be corrected before training. suspect: to be looked at. note: to be known. ok: checked, nothing found."""


@dataclass(frozen=True)
class Finding:
    """One line of an audit."""

    level: str
    check: str
    what: str
    """What was found, where and how often, as a sentence."""
    count: int = 0
    examples: tuple[str, ...] = ()
    """The first ones, as text."""
    move: str = ""
    """The next step."""
    rows: tuple[tuple[int, ...], ...] = ()
    """Groups of dataset rows to look at side by side; of pairs only the 1,000 closest."""


@dataclass(frozen=True, repr=False)
class Audit:
    """The findings on a dataset, and on a run where one was given. Its repr has one line per finding."""

    dataset: Dataset
    findings: list[Finding]
    by_split: pd.DataFrame
    """One row per split: `slides.balance`."""
    run: str | None = None
    by_fold: pd.DataFrame | None = None
    doubted: pd.DataFrame | None = None
    """Suspicious labels, the most suspicious first: `label_errors.suspicious_labels`."""

    def __repr__(self) -> str:
        moves = [f"; {finding.move}" if finding.move else "" for finding in self.findings]
        return "\n".join(f"{each.level:<8}{each.check}: {each.what}{move}" for each, move in zip(self.findings, moves, strict=True))

    @property
    def leaks(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.level == "leak"]

    def raise_leaks(self) -> None:
        """Raises LeakError, one line per leak, where there is a leak."""
        if self.leaks:
            raise LeakError(*(f"{self.dataset.path}: {leak.what}; {leak.move}" for leak in self.leaks))

    @property
    def level(self) -> str:
        """The most serious level found."""
        return min((finding.level for finding in self.findings), key=LEVELS.index)


def counted(n: int, thing: str) -> str:
    """'1 pair', '1,200 pairs'."""
    return f"{n:,} {thing}{'' if n == 1 else 's'}"
