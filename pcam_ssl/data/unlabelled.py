"""The unlabelled half of a batch: two views of every patch, as pure functions of (seed, step, rank)."""

import numpy as np
import torch
from torch.utils.data import Dataset

from pcam_ssl.data.batches import Pixels
from pcam_ssl.data.plans import Shuffled
from pcam_ssl.data.views import Views

# Beyond every seed of a labelled stream: were the orders alike, the same patches would meet in every pass.
OWN_ORDERS = 2**48


class UnlabelledStream(Dataset):
    """What `labelled` gives for a step, and of the pool `weak` and `strong` uint8 `[u, H, W, 3]` (two views of the same
    patches) and `ramp`, a scalar that rises from 0 to 1 in the first `ramp_steps` steps.

    `rows` `[n]` are the pool's patches, shown in endless passes, each in a fresh order; a pool smaller than a batch repeats in
    it. Every process takes its equal share `u` of the step's `batch_size`, and a view depends on its place in the whole.
    """

    def __init__(
        self,
        labelled: Dataset,
        pixels: Pixels,
        rows: np.ndarray,
        batch_size: int,
        *,
        weak: Views,
        strong: Views,
        ramp_steps: float,
        seed: int,
        rank: int = 0,
        size: int = 1,
    ):
        self.labelled, self.pixels, self.rows = labelled, pixels, rows
        self.plan = Shuffled(len(rows), batch_size, seed + OWN_ORDERS)
        self.weak, self.strong, self.ramp_steps = weak, strong, ramp_steps
        self.seed, self.rank, self.size = seed, rank, size

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        whole = self.plan.batch(step)
        share = len(whole) // self.size
        places = range(self.rank * share, (self.rank + 1) * share)
        weak = self.pixels.array[self.rows[whole[places.start : places.stop]]]
        strong = weak.copy()
        for i, place in enumerate(places):
            weak[i] = self.weak(weak[i], (self.seed, 8, step, place))
            strong[i] = self.strong(strong[i], (self.seed, 9, step, place))
        ramp = min(1.0, (step + 1) / self.ramp_steps) if self.ramp_steps else 1.0
        return {
            **self.labelled[step],
            "weak": torch.from_numpy(weak),
            "strong": torch.from_numpy(strong),
            "ramp": torch.tensor(ramp),
        }
