"""Batches as pure functions of (seed, step, rank), for exact resume without sampler state and for any number of processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from pcam_ssl.data.features import Features
from pcam_ssl.data.fixed_views import FixedViews
from pcam_ssl.data.views import Views
from pcam_ssl.errors import UserError


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


class Pixels:
    """Memory-mapped uint8 `[N, H, W, 3]`. It is pickled as a path, so loader processes get no copy."""

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

    def draw(self, rows: np.ndarray, views: Sequence[Views | FixedViews], keys: Sequence[tuple[int, ...]]) -> np.ndarray:
        """One view of each patch, uint8 `[n, H, W, 3]`; `views` and `keys` `[n]` choose it."""
        patches = self.array[rows]
        for i, (row, each, key) in enumerate(zip(rows, views, keys, strict=True)):
            patches[i] = each(patches[i], key, row)
        return patches


Inputs = Pixels | Features
"""What networks are fed with: pixels, or the features of a frozen backbone."""


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
        patches = self.pixels.draw(self.rows[index], [self._views_of(each) for each in index], keys)
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


def load(stream: Dataset, numbers: range, workers: int, device: torch.device) -> DataLoader:
    """A loader of the stream's items for `numbers`, in order, prefetched by `workers` processes (0: computed in this process)."""
    return DataLoader(
        stream,
        batch_size=None,
        sampler=numbers,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        pin_memory=device.type == "cuda",
    )


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

    def _views(self, views: Views, kind: int, step: int, rows: np.ndarray, places: np.ndarray) -> torch.Tensor:
        keys = [(self.seed, kind, step, int(place)) for place in places]
        return torch.from_numpy(self.pixels.draw(rows, [views] * len(rows), keys))

    def _mixup(self, step: int, n: int, own: np.ndarray) -> dict[str, torch.Tensor]:
        """`share` and `partner` of the patches at the places `own` of the whole batch of `n`, which are drawn for all of it."""
        rng = np.random.default_rng([self.seed, 10, step])
        drawn = rng.beta(self.mixup_alpha, self.mixup_alpha, n)
        share = np.maximum(drawn, 1 - drawn).astype(np.float32)
        return {"share": torch.from_numpy(share[own]), "partner": torch.from_numpy(rng.permutation(n)[own])}


CLASSES = ("normal", "tumor")


class Shuffled:
    """Endless passes over `n` patches, each in a new order, so that all patches are seen equally often."""

    def __init__(self, n: int, batch_size: int, seed: int):
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self._pass, self._order = -1, np.empty(0, np.int64)

    def batch(self, step: int) -> np.ndarray:
        """Indices `[batch_size]` into the `n` patches."""
        begin, end = step * self.batch_size, (step + 1) * self.batch_size
        passes = range(begin // self.n, (end - 1) // self.n + 1)
        return np.concatenate([self._order_of(k)[max(begin - k * self.n, 0) : end - k * self.n] for k in passes])

    def _order_of(self, number: int) -> np.ndarray:
        if number != self._pass:
            self._pass = number
            self._order = np.random.default_rng([self.seed, 1, number]).permutation(self.n)
        return self._order


def spread(n: int, part: int) -> np.ndarray:
    """Bool `[n]` with `part` True values, evenly spaced, so that every process's share of a batch has its part of them."""
    return np.diff(np.arange(n + 1) * part // n) > 0


class Mixed:
    """Labelled and pseudo-labelled patches in a fixed ratio, each kind in its own passes.

    Of `n` patches the first `n_labelled` are labelled. `share` of every batch is pseudo-labelled, with at least one patch of each kind.
    """

    def __init__(self, n_labelled: int, n: int, batch_size: int, share: float, seed: int):
        n_pseudo = min(max(round(share * batch_size), 1), batch_size - 1)
        self.n_labelled = n_labelled
        self.labelled = Shuffled(n_labelled, batch_size - n_pseudo, seed)
        self.pseudo = Shuffled(n - n_labelled, n_pseudo, seed + 1)
        self.places = spread(batch_size, n_pseudo)

    def batch(self, step: int) -> np.ndarray:
        """Indices `[batch_size]`, the two kinds evenly interleaved."""
        whole = np.empty(len(self.places), np.int64)
        whole[~self.places], whole[self.places] = self.labelled.batch(step), self.n_labelled + self.pseudo.batch(step)
        return whole


class OneClassBySlide:
    """`k` patches of one class from as many slides as possible: one per slide, then a second of each, and so on.

    `members` `[n]` are indices of patches, `slides` `[n]` their slides. No patch is repeated where n >= k. The cost of
    a draw grows with the number of slides, not with the number of patches.
    """

    def __init__(self, members: np.ndarray, slides: np.ndarray, k: int):
        order = np.argsort(slides, kind="stable")
        self.members, self.k = members[order], k
        self.slides, self.starts, self.sizes = np.unique(slides[order], return_index=True, return_counts=True)
        # reached[t]: number of patches after t rounds over all slides.
        reached = np.array([np.minimum(self.sizes, t).sum() for t in range(k + 1)])
        self.rounds = int(np.flatnonzero(reached <= k)[-1])
        self.left = k - int(reached[self.rounds])

    def draw(self, rng: np.random.Generator, first: np.ndarray) -> np.ndarray:
        """Indices `[k]`. The slides in `first`, at most `k`, have at least one patch each."""
        if len(self.members) < self.k:
            return np.resize(rng.permutation(self.members), self.k)
        counts = np.minimum(self.sizes, self.rounds)
        counts[self._with_one_more(rng, first)] += 1
        ones, more = np.flatnonzero(counts == 1), np.flatnonzero(counts > 1)
        taken = [self.starts[ones] + rng.integers(self.sizes[ones])]
        taken += [self.starts[place] + rng.choice(self.sizes[place], counts[place], replace=False) for place in more]
        return self.members[np.concatenate(taken)]

    def _with_one_more(self, rng: np.random.Generator, first: np.ndarray) -> np.ndarray:
        """Places of the slides that give one patch more than the full rounds."""
        more = self.sizes > self.rounds
        chosen = np.empty(0, np.int64)
        if not self.rounds:
            chosen = np.searchsorted(self.slides, first)
            more[chosen] = False
        return np.concatenate([chosen, rng.permutation(np.flatnonzero(more))[: self.left - len(chosen)]])


class ClassesBySlide:
    """Both classes in equal parts (P = 2 classes x K patches), with the patches of a class from as many slides as possible.

    With `paired`, half of each class comes from slides with both classes, one patch of each class per slide, so that
    anchors have a negative of their own slide. `per_class` is K by class where it is not half of `batch_size`.
    """

    def __init__(
        self,
        labels: np.ndarray,
        slides: np.ndarray,
        batch_size: int,
        seed: int,
        paired: bool = False,
        per_class: tuple[int, int] | None = None,
    ):
        self.seed, self.counts = seed, per_class or (batch_size // 2, batch_size // 2)
        members = [np.flatnonzero(labels == label) for label in (0, 1)]
        self.classes = [OneClassBySlide(each, slides[each], k) for each, k in zip(members, self.counts, strict=True)]
        self.shared = np.intersect1d(*(each.slides for each in self.classes)) if paired else np.empty(0, np.int64)
        self.n_shared = min(self.counts) // 2

    def batch(self, step: int) -> np.ndarray:
        """Indices `[batch_size]`, normal and tumor alternating, so that every process's share holds both classes."""
        return np.stack(self.by_class(step), 1).ravel()

    def by_class(self, step: int) -> list[np.ndarray]:
        """Indices of the normal and the tumor patches, [K] each."""
        rng = np.random.default_rng([self.seed, 4, step])
        first = rng.permutation(self.shared)[: self.n_shared]
        return [each.draw(rng, first) for each in self.classes]


class MixedClassesBySlide:
    """Labelled and pseudo-labelled patches in a fixed ratio within each class. Labelled patches are drawn as by `ClassesBySlide`,
    pseudo-labelled patches of a class in their own passes.

    Pseudo-labelled patches are not drawn by slide: with unknown slides every patch would count as a slide. The first `n_labelled`
    patches are labelled. `share` of each class of every batch is pseudo-labelled, with at least one patch of each kind. Where a class
    has fewer pseudo-labels, all of them are in every batch, and labelled patches of the class fill the rest.
    """

    def __init__(
        self,
        labels: np.ndarray,
        slides: np.ndarray,
        n_labelled: int,
        batch_size: int,
        share: float,
        seed: int,
        paired: bool = False,
    ):
        per_class = batch_size // 2
        self.pseudo = [n_labelled + np.flatnonzero(labels[n_labelled:] == label) for label in (0, 1)]
        self.wanted = min(max(round(share * per_class), 1), per_class - 1)
        self.n_pseudo = tuple(min(self.wanted, len(each)) for each in self.pseudo)
        n_labels = tuple(per_class - n for n in self.n_pseudo)
        self.labelled = ClassesBySlide(labels[:n_labelled], slides[:n_labelled], batch_size, seed, paired, n_labels)
        self.passes = [
            Shuffled(len(each), n, seed + 1 + label) for label, (each, n) in enumerate(zip(self.pseudo, self.n_pseudo, strict=True))
        ]
        self.places = [spread(per_class, n) for n in self.n_pseudo]

    def batch(self, step: int) -> np.ndarray:
        """Indices `[batch_size]`, normal and tumor alternating, labelled and pseudo-labelled patches evenly interleaved."""
        whole = []
        for label, labelled in enumerate(self.labelled.by_class(step)):
            places = self.places[label]
            mixed = np.empty(len(places), np.int64)
            mixed[~places] = labelled
            if places.any():
                mixed[places] = self.pseudo[label][self.passes[label].batch(step)]
            whole.append(mixed)
        return np.stack(whole, 1).ravel()


def check_classes(labels: np.ndarray, batch_size: int) -> None:
    """Raises UserError where `labels` `[n]` cannot fill half a batch with each class without repeating a patch."""
    if batch_size % 2:
        raise UserError(f"train.batch_size is {batch_size}; this method splits a batch between two classes, so make it even")
    for label, name in enumerate(CLASSES):
        n = int((labels == label).sum())
        if n < batch_size // 2:
            raise UserError(
                f"train.batch_size {batch_size} asks for {batch_size // 2} patches of each class, the fold trains on {n} {name} ones; lower it"
            )
