"""Batches as a pure function of (seed, step, rank): no sampler state to save, exact resume, any number of processes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pcam_ssl.data.views import Views


@dataclass(frozen=True)
class PseudoPart:
    """What sets the pseudo-labelled patches of a training set apart: places `n_labelled`.. of its `rows`."""

    n_labelled: int
    weights: np.ndarray
    """float32 [n]: of every patch in the loss; labels weigh 1."""
    views: Views
    """Training views of the pseudo-labelled patches."""
    ramp_steps: int = 0
    """Their weights rise linearly over this many steps."""

    def weights_of(self, index: np.ndarray, step: int) -> np.ndarray:
        """float32 [b] of the patches at `index` in this step's batch."""
        ramp = min(1.0, (step + 1) / self.ramp_steps) if self.ramp_steps else 1.0
        return np.where(index < self.n_labelled, self.weights[index], ramp * self.weights[index]).astype(np.float32)


class Pixels:
    """Memory-mapped uint8 `[N, H, W, 3]`; travels to loader processes as a path, not as a copy."""

    def __init__(self, path: Path | str):
        self.path = Path(path)
        self._array: np.ndarray | None = None

    @property
    def array(self) -> np.ndarray:
        if self._array is None:
            self._array = np.load(self.path, mmap_mode="r")
        return self._array

    def __getstate__(self):
        return {"path": self.path, "_array": None}


class TrainStream(Dataset):
    """Training batches by step: `pixels` uint8 `[b, H, W, 3]`, `label` float32 `[b]`, `slide` int64 `[b]`, `index` int64 `[b]`.

    `rows`, `labels` and `slides` (codes; zeros where no method asks) `[n]` are the fold's training patches, and `plan` says
    which stand in a batch. With `pseudo` the batch holds `weight` float32 `[b]` too. Every process takes its equal share `b` of the step's batch; a patch's view depends on its place
    in the whole batch, so the processes together see one process's pixels.
    """

    def __init__(
        self,
        pixels: Pixels,
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
        patches = self.pixels.array[self.rows[index]]
        for i, place in enumerate(places):
            patches[i] = self._views_of(index[i])(patches[i], (self.seed, 2, step, place))
        batch = {
            "pixels": torch.from_numpy(patches),
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
    """Batches to score, in row order: `pixels` `[b, H, W, 3]`, `random` `[b, V, H, W, 3]` random views, `place` int64 `[b]` into `rows`."""

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


def load(stream: Dataset, numbers: range, workers: int, device: torch.device) -> DataLoader:
    """The stream's items for `numbers`, in order, made ahead by `workers` processes (0: by this one)."""
    return DataLoader(
        stream,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
    )
