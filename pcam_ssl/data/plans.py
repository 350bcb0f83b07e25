"""Which training patches stand in a step's batch: pure functions of (seed, step)."""

import numpy as np

from pcam_ssl.errors import UserError


class Shuffled:
    """Endless passes over `n` patches, each in a fresh order, so all patches are seen equally often."""

    def __init__(self, n: int, batch_size: int, seed: int):
        self.n, self.batch_size, self.seed = n, batch_size, seed
        self._pass, self._order = -1, np.empty(0, np.int64)

    def batch(self, step: int) -> np.ndarray:
        """Indices `[batch_size]` into the `n` patches."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        return np.array([self._order_of(place // self.n)[place % self.n] for place in places], np.int64)

    def _order_of(self, number: int) -> np.ndarray:
        if number != self._pass:
            self._pass = number
            self._order = np.random.default_rng([self.seed, 1, int(number)]).permutation(self.n)
        return self._order


class Mixed:
    """Labelled and pseudo-labelled patches in a set ratio, each kind in passes of its own.

    Of `n` patches the first `n_labelled` are labelled; `share` of every batch is pseudo-labelled, at least one of each kind.
    """

    def __init__(self, n_labelled: int, n: int, batch_size: int, share: float, seed: int):
        n_pseudo = min(max(round(share * batch_size), 1), batch_size - 1)
        self.n_labelled = n_labelled
        self.labelled = Shuffled(n_labelled, batch_size - n_pseudo, seed)
        self.pseudo = Shuffled(n - n_labelled, n_pseudo, seed + 1)

    def batch(self, step: int) -> np.ndarray:
        """Indices `[batch_size]`: labelled, then pseudo-labelled."""
        return np.concatenate([self.labelled.batch(step), self.n_labelled + self.pseudo.batch(step)])


class ClassesBySlide:
    """Both classes in equal parts (P = 2 classes x K patches), the patches of a class from as many slides as possible.

    With `paired`, half of each class comes from slides that hold both classes, one patch of each class a slide, so that a
    mined negative of the anchor's own slide is at hand. Raises UserError where a class has fewer than K patches.
    """

    def __init__(self, labels: np.ndarray, slides: np.ndarray, batch_size: int, seed: int, paired: bool = False):
        self.per_class, self.seed, self.paired = batch_size // 2, seed, paired
        if batch_size % 2:
            raise UserError(f"train.batch_size is {batch_size}; two classes share a batch of this method, so make it even")
        self.members: list[dict[int, np.ndarray]] = []
        for label, name in ((0, "normal"), (1, "tumor")):
            here = np.flatnonzero(labels == label)
            if len(here) < self.per_class:
                raise UserError(
                    f"train.batch_size {batch_size} asks for {self.per_class} patches of each class, the fold trains on {len(here)} {name} ones; lower it"
                )
            self.members.append({int(slide): here[slides[here] == slide] for slide in np.unique(slides[here])})
        self.mixed = np.array(sorted(self.members[0].keys() & self.members[1].keys()), np.int64)

    def batch(self, step: int) -> np.ndarray:
        """Indices `[batch_size]`: normal and tumor in turn, so that every process's equal share holds both classes."""
        draw = np.random.default_rng([self.seed, 4, step])
        shared = np.empty(0, np.int64)
        if self.paired and len(self.mixed):
            shared = draw.permutation(self.mixed)[: self.per_class // 2]
        chosen = [self._class(members, shared, draw) for members in self.members]
        return np.stack(chosen, 1).ravel()

    def _class(self, members: dict[int, np.ndarray], shared: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        """K different patches of one class: one from each of `shared`, then one a slide in random order, round after round."""
        queues = {slide: list(draw.permutation(patches)) for slide, patches in members.items()}
        taken = [queues[int(slide)].pop() for slide in shared]
        while len(taken) < self.per_class:
            for slide in draw.permutation(list(queues)):
                if queues[int(slide)] and len(taken) < self.per_class:
                    taken.append(queues[int(slide)].pop())
        return np.array(taken, np.int64)
