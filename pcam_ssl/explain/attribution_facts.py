"""A patch and what explains its score, as plain values for a text, JSON, or a page. No torch."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from pcam_ssl.explain.centre import even_share
from pcam_ssl.explain.explanation import Summary

CLASSES = ("normal", "tumor")
LEARNED = {
    "label": "learned from its label",
    "inner": "was chosen and calibrated on its label",
    "pseudo-label": "learned from a pseudo-label of it",
    "pooled": "learned from pseudo-labels of networks that saw its label",
}
"""What a network may have had of a patch's label, the most telling first."""


@dataclass(frozen=True)
class Explained:
    """One patch, what its networks look at, and its nearest labelled patches of other slides."""

    id: str
    label: int | None
    wsi: str | None
    split: str
    run_prob: float | None
    """Calibrated prob of class 1 that the run recorded: out of fold, or the mean over folds of the test split."""
    folds: tuple[int, ...]
    """Whose networks explain it."""
    learned: str | None
    """What one of them had of this patch's label, a key of `LEARNED`; None where none had any of it."""
    summary: Summary
    pixels: np.ndarray
    """uint8 `[H, H, 3]`."""
    neighbours: list[dict[str, Any]]
    """`rank`, `cosine`, `id`, `label`, `prob`, `wsi`, `split`; nearest first."""
    neighbour_pixels: list[np.ndarray]

    @property
    def network(self) -> str:
        """Whose word it is, and what it had of the label."""
        folds = f"fold {self.folds[0]}" if len(self.folds) == 1 else f"the mean of folds {', '.join(map(str, self.folds))}"
        return f"{folds}, which {'never saw its label' if self.learned is None else LEARNED[self.learned]}"

    @property
    def right(self) -> bool | None:
        """Whether the call is the label; None where there is none."""
        return None if self.label is None else self.summary.call == self.label

    def to_dict(self) -> dict[str, Any]:
        """All but pictures, in JSON values."""
        summary = self.summary
        return {
            "id": self.id,
            "label": self.label,
            "wsi": self.wsi,
            "split": self.split,
            "run_prob": self.run_prob,
            "folds": list(self.folds),
            "learned": self.learned,
            "call": CLASSES[summary.call],
            "right": self.right,
            "prob": summary.prob,
            "prob_without_centre": summary.prob_without_centre,
            "prob_without_surround": summary.prob_without_surround,
            "centre_share": summary.centre_share,
            "even_share": even_share(len(self.pixels)),
            "view_agreement": summary.view_agreement,
            "views_alike": summary.views_alike,
            "views": summary.n_views,
            "grid": list(summary.map.shape),
            "map": np.round(summary.map, 6).tolist(),
            "neighbours": self.neighbours,
        }
