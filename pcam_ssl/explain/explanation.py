"""Explanation of a patch's score, as values for text, JSON and pages."""

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from scipy.special import expit

from pcam_ssl.explain.centre import centre_share, even_share
from pcam_ssl.tables import CLASSES


@dataclass(frozen=True)
class NetworkView:
    """Logits of class 1 and signed maps of N patches by one network, over V views."""

    logits: np.ndarray
    """float64 `[N, V]`, one for each view."""
    no_centre: np.ndarray
    """float64 `[N]`, mean over the views, with the centre blurred."""
    no_surround: np.ndarray
    """float64 `[N]`, mean over the views, with the surround blurred."""
    maps: np.ndarray
    """float64 `[N, V, h, w]`, one for each view."""


def view_agreement(maps: np.ndarray) -> float | None:
    """Mean Pearson correlation over all pairs of maps `[V, h, w]`, without pairs that hold a flat map; None where no pair is left."""
    flat = maps.reshape(len(maps), -1) - maps.mean(axis=(1, 2))[:, None]
    lengths = np.linalg.norm(flat, axis=1)
    # A map that is flat but for rounding counts as flat too.
    sloped = lengths > 1e-9 * np.abs(maps).sum(axis=(1, 2))
    found = [flat[i] @ flat[j] / (lengths[i] * lengths[j]) for i, j in combinations(np.flatnonzero(sloped), 2)]
    return float(np.mean(found)) if found else None


@dataclass(frozen=True)
class Summary:
    """What an explanation reports of a patch. Shares and correlations are None where no map supports the call."""

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
    """float64 `[h, w]`, sums to 1 (or is all zero): evidence for the call, mean over views and networks."""

    @property
    def call(self) -> int:
        """The predicted class, which is explained: 1 where prob is at least 0.5."""
        return int(self.prob >= 0.5)


def toward(maps: np.ndarray, calls: np.ndarray) -> np.ndarray:
    """The part of signed maps `[N, ..., h, w]` that supports each patch's call (`calls` `[N]` of 0 or 1); not negative."""
    signs = np.where(np.asarray(calls) == 1, 1.0, -1.0).reshape(-1, *[1] * (maps.ndim - 1))
    return np.clip(signs * maps, 0, None)


def summarise(networks: list[NetworkView], size_px: int, temperature: float = 1.0) -> list[Summary]:
    """A Summary per patch, by the mean of the networks: the mean logit over `temperature`, as in fold -1 of test.parquet; maps count equally."""
    by_view, no_centre, no_surround = (
        np.mean([getattr(network, name) for network in networks], axis=0) / temperature
        for name in ("logits", "no_centre", "no_surround")
    )
    logits = by_view.mean(axis=1)
    calls = logits >= 0
    alike = (by_view >= 0) == calls[:, None]  # [N, V]
    supporting = [toward(network.maps, calls) for network in networks]
    whole = _sum_to_one(np.mean([_sum_to_one(maps.mean(axis=1)) for maps in supporting], axis=0))
    shares = centre_share(whole, size_px)
    agreements = [[view_agreement(maps[patch]) for maps in supporting] for patch in range(len(logits))]
    return [
        Summary(
            *(float(expit(values[patch])) for values in (logits, no_centre, no_surround)),
            None if np.isnan(shares[patch]) else float(shares[patch]),
            _mean_defined(agreements[patch]),
            int(alike[patch].sum()),
            alike.shape[1],
            whole[patch],
        )
        for patch in range(len(logits))
    ]


def _sum_to_one(maps: np.ndarray) -> np.ndarray:
    sums = maps.sum(axis=(1, 2), keepdims=True)
    return np.divide(maps, sums, out=np.zeros_like(maps), where=sums > 0)


def _mean_defined(values: list[float | None]) -> float | None:
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


LEARNED = {
    "label": "learned from its label",
    "inner": "was chosen and calibrated on its label",
    "pseudo-label": "learned from a pseudo-label of it",
    "pooled": "learned from pseudo-labels of networks that saw its label",
}
"""How a network may have learned from a patch, from the strongest exposure to the weakest."""


@dataclass(frozen=True)
class Explained:
    """One patch with its explanation and its nearest labelled patches of other slides."""

    id: str
    label: int | None
    wsi: str | None
    split: str
    run_prob: float | None
    """Calibrated prob of class 1 in the run's tables: out of fold, or the mean over folds for the test split."""
    folds: tuple[int, ...]
    """The folds whose networks explain it."""
    learned: str | None
    """The strongest exposure of these networks to the patch's label, a key of `LEARNED`; None where there is none."""
    summary: Summary
    pixels: np.ndarray
    """uint8 `[H, H, 3]`."""
    neighbours: list[dict[str, Any]]
    """`rank`, `cosine`, `id`, `label`, `prob`, `wsi`, `split`; nearest first."""
    neighbour_pixels: list[np.ndarray]

    @property
    def network(self) -> str:
        """The fold or folds whose networks explain the patch, and their exposure to its label, in words."""
        folds = f"fold {self.folds[0]}" if len(self.folds) == 1 else f"the mean of folds {', '.join(map(str, self.folds))}"
        return f"{folds}, which {'never saw its label' if self.learned is None else LEARNED[self.learned]}"

    @property
    def right(self) -> bool | None:
        """Whether the call equals the label; None where there is no label."""
        return None if self.label is None else self.summary.call == self.label

    def to_dict(self) -> dict[str, Any]:
        """All but the pictures, as JSON values."""
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
