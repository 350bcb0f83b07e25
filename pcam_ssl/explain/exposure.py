"""Which network explains a patch, and whether that network was trained, tuned or pseudo-labelled on it."""

from functools import cached_property

import pandas as pd

from pcam_ssl.errors import UserError
from pcam_ssl.explain.explanation import LEARNED
from pcam_ssl.runs.networks import Networks
from pcam_ssl.runs.run import DECISIONS, ROUNDS
from pcam_ssl.tables import DECISION_COLUMNS, read_table
from pcam_ssl.terminal import warn


class Exposure:
    """The exposure of each fold of a run to the label of each patch."""

    def __init__(self, networks: Networks):
        self.networks = networks
        self.rows = pd.Series(range(len(networks.folds.frame)), index=networks.folds.frame.id)

    def folds_of(self, id: str, fold: int | None = None) -> tuple[int, ...]:
        """The folds that explain a patch: the one that scored it, else all finished ones; or `fold` where it is given.

        Raises UserError where they are not finished.
        """
        networks = self.networks
        if fold is not None:
            networks.fold(fold)
            if self.learned(id, (fold,)) in ("label", "inner"):
                warn(f"--fold {fold}: that network saw the label of {id}, so the explanation may show memorisation")
            return (fold,)
        if not networks.finished:
            raise UserError(f"{networks.run.path}: no fold is finished yet; run its command again, it continues where it stopped")
        own = int(networks.folds.frame.fold.iloc[self.rows[id]]) if id in self.rows else -1
        if own < 0:
            return networks.finished
        if own not in networks.finished:
            raise UserError(
                f"--id {id}: fold {own}, the only one that never saw it, is not finished; run the command of {networks.run.path} again, or choose another network with --fold K"
            )
        return (own,)

    def learned(self, id: str, folds: tuple[int, ...]) -> str | None:
        """The strongest exposure of `folds` to a patch's label, a key of `LEARNED`; None where there is none."""
        kinds = {self._learned(id, k) for k in folds}
        return next((kind for kind in LEARNED if kind in kinds), None)

    def _learned(self, id: str, k: int) -> str | None:
        folds = self.networks.folds
        if id in self.rows:
            row = self.rows[id]
            if folds.train_mask(k)[row]:
                return "label"
            if folds.inner_mask(k)[row]:
                return "inner"
        if (id, k) in self._pseudo_labelled:
            return "pseudo-label"
        pooled = self.networks.info["command"] == ROUNDS and self.networks.recipe.pseudo.pooled
        return "pooled" if pooled and id in self.rows and folds.frame.visible.iloc[self.rows[id]] else None

    @cached_property
    def _pseudo_labelled(self) -> set[tuple[str, int]]:
        """(id, fold) of every pseudo-label that the run's folds learned from."""
        decisions = self.networks.run.path / DECISIONS
        if not decisions.exists():
            return set()
        table = read_table(decisions, DECISION_COLUMNS)[0]
        added = table[table.decision == "added"]
        return set(zip(added.id, added.fold, strict=True))
