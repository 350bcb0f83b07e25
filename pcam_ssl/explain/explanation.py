"""A patch and what explains its score, as plain values for text, JSON or a page."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.special import expit

from pcam_ssl.explain.centre import centre_share, even_share


@dataclass(frozen=True)
class NetworkView:
    """One network's logits of class 1 of N patches, and its signed maps."""

    logits: np.ndarray
    """float64 `[N, V]`, one for each view."""
    no_centre: np.ndarray
    """float64 `[N]`, mean over the views, the centre blurred away."""
    no_surround: np.ndarray
    """float64 `[N]`, mean over the views, the surround blurred away."""
    maps: np.ndarray
    """float64 `[N, V, h, w]`, one for each view."""


def view_agreement(maps: np.ndarray) -> float | None:
    """Mean Pearson correlation over all pairs of maps `[V, h, w]`; pairs with a flat map have none, and None where all have."""
    flat = maps.reshape(len(maps), -1) - maps.mean(axis=(1, 2))[:, None]
    lengths = np.linalg.norm(flat, axis=1)
    # A map that is flat but for rounding has no direction either.
    sloped = lengths > 1e-9 * np.abs(maps).sum(axis=(1, 2))
    found = [flat[i] @ flat[j] / (lengths[i] * lengths[j]) for i, j in combinations(np.flatnonzero(sloped), 2)]
    return float(np.mean(found)) if found else None


@dataclass(frozen=True)
class Summary:
    """What is told of a patch. Shares and correlations are None where no map speaks for the call."""

    prob: float
    prob_without_centre: float
    prob_without_surround: float
    centre_share: float | None
    view_agreement: float | None
    """Mean correlation of the views' maps."""
    views_alike: int
    """How many views, scored alone, give the call that their mean gives."""
    n_views: int
    map: np.ndarray
    """float64 `[h, w]`, sums to 1 (or is all zero): what speaks for the call, mean over views and networks."""

    @property
    def call(self) -> int:
        """The class explained: 1 where prob is at least 0.5."""
        return int(self.prob >= 0.5)


def toward(maps: np.ndarray, calls: np.ndarray) -> np.ndarray:
    """The part of signed maps `[N, ..., h, w]` that speaks for each patch's call, `[N]` of 0 or 1; not negative."""
    signs = np.where(np.asarray(calls) == 1, 1.0, -1.0).reshape(-1, *[1] * (maps.ndim - 1))
    return np.clip(signs * maps, 0, None)


def summarise(networks: list[NetworkView], size_px: int, temperature: float = 1.0) -> list[Summary]:
    """Each patch by the mean of the networks: the mean logit by its `temperature`, as in fold -1 of test.parquet; each network's map counts the same."""
    by_view, no_centre, no_surround = (
        np.mean([getattr(network, name) for network in networks], axis=0) / temperature
        for name in ("logits", "no_centre", "no_surround")
    )
    logits = by_view.mean(axis=1)
    calls = logits >= 0
    alike = (by_view >= 0) == calls[:, None]  # [N, V]
    speaking = [toward(network.maps, calls) for network in networks]
    whole = _sum_to_one(np.mean([_sum_to_one(maps.mean(axis=1)) for maps in speaking], axis=0))
    shares = centre_share(whole, size_px)
    agreements = [[view_agreement(maps[patch]) for maps in speaking] for patch in range(len(logits))]
    return [
        Summary(
            *(float(expit(values[patch])) for values in (logits, no_centre, no_surround)),
            None if np.isnan(shares[patch]) else float(shares[patch]),
            _mean_known(agreements[patch]),
            int(alike[patch].sum()),
            alike.shape[1],
            whole[patch],
        )
        for patch in range(len(logits))
    ]


def _sum_to_one(maps: np.ndarray) -> np.ndarray:
    sums = maps.sum(axis=(1, 2), keepdims=True)
    return np.divide(maps, sums, out=np.zeros_like(maps), where=sums > 0)


def _mean_known(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


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
