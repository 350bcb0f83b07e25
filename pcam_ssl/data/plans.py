"""Which patches a batch holds, as pure functions of (seed, step): all equally often, labels and pseudo-labels in a ratio, classes by slide."""

import numpy as np

from pcam_ssl.errors import UserError

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
