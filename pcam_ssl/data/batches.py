"""Batches as pure functions of (seed, step, rank), for exact resume without sampler state and for any number of processes. `plans.py` says which patches they hold."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pcam_ssl.data.pixels import DevicePixels, Inputs, Pixels
from pcam_ssl.data.plans import Shuffled
from pcam_ssl.data.tensor_views import DrawnViews
from pcam_ssl.data.views import Views


@dataclass(frozen=True)
class PseudoPart:
    """Weights and views of the pseudo-labelled patches of a training set, which are its `rows` from `n_labelled` on."""

    n_labelled: int
    weights: np.ndarray
    """float32 [n]: weight of every patch in the loss; a labelled patch has weight 1."""
    views: Views
    """Training views of the pseudo-labelled patches."""
    ramp_steps: int = 0
    """The weights of pseudo-labelled patches rise linearly over this many steps."""

    def weights_of(self, index: np.ndarray, step: int) -> np.ndarray:
        """Weights float32 [b] of the patches `index` at this step."""
        ramp = min(1.0, (step + 1) / self.ramp_steps) if self.ramp_steps else 1.0
        return np.where(index < self.n_labelled, self.weights[index], ramp * self.weights[index]).astype(np.float32)


class TrainStream(Dataset):
    """Training batches by step: `pixels` uint8 `[b, H, W, 3]` (or cached features float32 `[b, D]` in their place), `label` float32 `[b]`, `slide` int64 `[b]`, `index` int64 `[b]`.

    `rows`, `labels` and `slides` (codes; zeros where the method needs none) `[n]` are the fold's training patches, and `plan` chooses
    those of a batch. With `pseudo` the batch also holds `weight` float32 `[b]`. Every process takes an equal share `b` of the batch.
    A patch's view depends on its place in the whole batch, so several processes together get the pixels of a single process.
    """

    def __init__(
        self,
        pixels: Inputs,
        rows: np.ndarray,
        labels: np.ndarray,
        plan,
        views: Views,
        seed: int,
        rank: int = 0,
        size: int = 1,
        slides: np.ndarray | None = None,
        pseudo: PseudoPart | None = None,
    ):
        self.pixels, self.rows, self.labels, self.pseudo = pixels, rows, labels.astype(np.float32), pseudo
        self.slides = np.zeros(len(rows), np.int64) if slides is None else slides
        self.plan, self.views, self.seed, self.rank, self.size = plan, views, seed, rank, size

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        whole = self.plan.batch(step)
        share = len(whole) // self.size
        places = range(self.rank * share, (self.rank + 1) * share)
        index = whole[places.start : places.stop]
        keys = [(self.seed, 2, step, place) for place in places]
        batch = {
            "pixels": self.pixels.draw(self.rows[index], [self._views_of(each) for each in index], keys),
            "label": torch.from_numpy(self.labels[index]),
            "slide": torch.from_numpy(self.slides[index]),
            "index": torch.from_numpy(index),
        }
        if self.pseudo is not None:
            batch["weight"] = torch.from_numpy(self.pseudo.weights_of(index, step))
        return batch

    def _views_of(self, index: int) -> Views:
        return self.views if self.pseudo is None or index < self.pseudo.n_labelled else self.pseudo.views


class EvalStream(Dataset):
    """Batches for scoring, in row order: `pixels` `[b, H, W, 3]`, `random` `[b, V, H, W, 3]` (random views), `place` int64 `[b]` into `rows`."""

    def __init__(
        self, pixels: Pixels, rows: np.ndarray, keys: np.ndarray, batch_size: int, views: Views | None, random_views: int, seed: int
    ):
        self.pixels, self.rows, self.keys, self.batch_size = pixels, rows, keys, batch_size
        self.views, self.random_views, self.seed = views, random_views, seed

    def __len__(self) -> int:
        return -(-len(self.rows) // self.batch_size)

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        place = np.arange(number * self.batch_size, min((number + 1) * self.batch_size, len(self.rows)))
        patches = self.pixels.array[self.rows[place]]
        batch = {"pixels": torch.from_numpy(patches), "place": torch.from_numpy(place)}
        if self.random_views:
            drawn = [
                np.stack([self.views(patch, (self.seed, 3, int(key), view)) for view in range(self.random_views)])
                for patch, key in zip(patches, self.keys[place], strict=True)
            ]
            batch["random"] = torch.from_numpy(np.stack(drawn))
        return batch


def load(stream: Dataset, numbers: range, workers: int, device: torch.device) -> Iterable[dict[str, torch.Tensor]]:
    """The stream's batches for `numbers`, in order, prefetched by `workers` processes (0: computed in this process). Views of
    `DevicePixels` are computed here, on the device."""
    loader = DataLoader(
        stream,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
    )
    inputs = getattr(stream, "pixels", None)
    return map(inputs.render, loader) if isinstance(inputs, DevicePixels) else loader


# Larger than every seed of a labelled stream. With equal seeds the same labelled and unlabelled patches would meet in every pass.
SEED_OFFSET = 2**48


class UnlabelledStream(Dataset):
    """Batches of `labelled` with patches of the pool added: `weak` and `strong` uint8 `[u, H, W, 3]`, two views of the same
    patches, and `ramp`, a scalar that rises from 0 to 1 in the first `ramp_steps` steps.

    With `strong` None there is no `strong`. With `n_weak` = K `weak` is `[K x u, H, W, 3]`: all first views, then all second ones. With
    `mixup_alpha` the batch holds the draws of MixUp for its b + K x u patches: `share` float32 (0.5 to 1) and `partner` int64, a place in
    the whole batch, in which the labelled patches come first, then the first views, and so on.

    They are features where `pixels` are. `rows` `[n]` are the patches of the pool. They are drawn in endless passes, each in a new order; a pool smaller than a batch
    repeats in it. Every process takes an equal share `u` of `batch_size`, and a view depends on its place in the whole batch.
    """

    def __init__(
        self,
        labelled: Dataset,
        pixels: Inputs,
        rows: np.ndarray,
        batch_size: int,
        *,
        weak: Views,
        strong: Views | None,
        ramp_steps: float,
        seed: int,
        rank: int = 0,
        size: int = 1,
        n_weak: int = 1,
        mixup_alpha: float | None = None,
    ):
        self.labelled, self.pixels, self.rows = labelled, pixels, rows
        self.plan = Shuffled(len(rows), batch_size, seed + SEED_OFFSET)
        self.weak, self.strong, self.ramp_steps = weak, strong, ramp_steps
        self.seed, self.rank, self.size = seed, rank, size
        self.n_weak, self.mixup_alpha = n_weak, mixup_alpha

    def __getitem__(self, step: int) -> dict[str, torch.Tensor]:
        whole = self.plan.batch(step)
        share = len(whole) // self.size
        places = np.arange(self.rank * share, (self.rank + 1) * share)
        rows = self.rows[whole[places]]
        # The second views have the keys of places behind the first, and so on.
        weak_places = np.concatenate([k * len(whole) + places for k in range(self.n_weak)])
        ramp = min(1.0, (step + 1) / self.ramp_steps) if self.ramp_steps else 1.0
        labelled = self.labelled[step]
        batch = {
            **labelled,
            "weak": self._views(self.weak, 8, step, np.tile(rows, self.n_weak), weak_places),
            "ramp": torch.tensor(ramp),
        }
        if self.strong is not None:
            batch["strong"] = self._views(self.strong, 9, step, rows, places)
        if self.mixup_alpha is not None:
            b = len(labelled["label"])
            own = np.concatenate([self.rank * b + np.arange(b), self.size * b + weak_places])
            batch |= self._mixup(step, self.size * b + self.n_weak * len(whole), own)
        return batch

    def _views(self, views: Views, kind: int, step: int, rows: np.ndarray, places: np.ndarray) -> torch.Tensor | DrawnViews:
        keys = [(self.seed, kind, step, int(place)) for place in places]
        return self.pixels.draw(rows, [views] * len(rows), keys)

    def _mixup(self, step: int, n: int, own: np.ndarray) -> dict[str, torch.Tensor]:
        """`share` and `partner` of the patches at the places `own` of the whole batch of `n`, which are drawn for all of it."""
        rng = np.random.default_rng([self.seed, 10, step])
        drawn = rng.beta(self.mixup_alpha, self.mixup_alpha, n)
        share = np.maximum(drawn, 1 - drawn).astype(np.float32)
        return {"share": torch.from_numpy(share[own]), "partner": torch.from_numpy(rng.permutation(n)[own])}
