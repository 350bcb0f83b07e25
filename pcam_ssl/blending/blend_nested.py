"""A blend's weights, nested: those that score a part of the patches never saw its labels. No torch."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from pcam_ssl.blending.ensemble import FITTED, SPACES, member_weights
from pcam_ssl.blending.inference_blend import RankScale, pool, rank_scale
from pcam_ssl.errors import UserError

PARTS = 5


@dataclass(frozen=True)
class Blend:
    """How members are blended. Arrays of weights are [M], in the order of the members."""

    method: str
    weights: np.ndarray
    """From all parts: for patches that no member has trained on."""
    nested: dict[int, np.ndarray]
    """By part: from the other parts' labels alone. Out-of-fold scores are made with these."""
    parts: np.ndarray
    """int [N]: the part of each out-of-fold row."""
    unit: str
    """What a part is: `fold`, or `part` of whole slides where one fold scores all."""

    @property
    def chooses(self) -> bool:
        """Whether any weight depends on labels."""
        return self.method in FITTED or any((weights == 0).any() for weights in [self.weights, *self.nested.values()])

    def out_of_fold(self, logits, scales: list[RankScale]) -> np.ndarray:
        """Blended logits [N] of the out-of-fold rows, each by the weights of its part."""
        blended = np.empty(len(logits))
        for part, weights in self.nested.items():
            rows = self.parts == part
            blended[rows] = pool(SPACES[self.method], logits[rows], weights, scales)
        return blended

    def answer(self, logits, scales: list[RankScale]) -> np.ndarray:
        """Blended logits [N] of other patches, by the final weights."""
        return pool(SPACES[self.method], logits, self.weights, scales)


def fit_blend(method: str, logits, labels, parts, usable, unit: str, cap: float | None = None) -> Blend:
    """The Blend of calibrated out-of-fold logits [N, M] of class 1.

    `labels` [N] 0 or 1, `parts` int [N], `usable` bool [N]: rows whose label may be learned from. Raises UserError where the labels
    outside a part are of one class and the method needs them.
    """
    logits, labels, parts, usable = (np.asarray(values) for values in (logits, labels, parts, usable))

    def weights(rows: np.ndarray, where: str) -> np.ndarray:
        if (method in FITTED or cap is not None) and len(np.unique(labels[rows])) < 2:
            raise UserError(
                f"--method {method}: the labels {where} are all of one class, so nothing can be fitted; use --method mean without --max-correlation"
            )
        return member_weights(method, logits[rows], labels[rows], cap)

    numbers = sorted(set(parts.tolist()))
    if len(numbers) < 2 and (method in FITTED or cap is not None):
        raise UserError(f"--method {method}: one slide only, so no slide is left to fit weights on; use --method mean")
    nested = {part: weights(usable & (parts != part), f"outside {unit} {part}") for part in numbers}
    return Blend(method, weights(usable, "of all patches"), nested, parts, unit)


def parts_of(folds, groups) -> tuple[np.ndarray, str]:
    """The parts that weights are nested over, int [N], and what one is called: the folds [N], or where there is one fold only
    up to five parts of whole `groups` [N], the largest group first into the smallest part."""
    folds = np.asarray(folds, dtype=np.int64)
    if len(np.unique(folds)) > 1:
        return folds, "fold"
    codes, names = pd.factorize(np.asarray(groups, dtype=object), sort=True)
    sizes = np.bincount(codes, minlength=len(names))
    part_of, filled = np.empty(len(names), dtype=np.int64), np.zeros(min(PARTS, len(names)))
    for group in np.argsort(-sizes, kind="stable"):
        part_of[group] = np.argmin(filled)
        filled[part_of[group]] += sizes[group]
    return part_of[codes], "part"


def rank_scales(logits) -> list[RankScale]:
    """The rank scale of each column of out-of-fold logits [N, M]; no label is used."""
    return [rank_scale(column) for column in np.asarray(logits).T]
