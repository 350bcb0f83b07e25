"""Which network explains a patch, and what that network had of the patch's label."""

from functools import cached_property

import pandas as pd

from pcam_ssl.errors import UserError
from pcam_ssl.explain.explanation import LEARNED
from pcam_ssl.runs.networks import Networks
from pcam_ssl.runs.run import DECISIONS, ROUNDS
from pcam_ssl.tables import DECISION_COLUMNS, read_table
from pcam_ssl.terminal import warn


class Exposure:
    """What each fold of a run has seen of each patch."""

    def __init__(self, networks: Networks):
        self.networks = networks
        self.rows = pd.Series(range(len(networks.folds.frame)), index=networks.folds.frame.id)

    def folds_of(self, id: str, fold: int | None = None) -> tuple[int, ...]:
        """The folds that explain a patch: the one that scored it, else all that are finished; `fold` where one is named.

        Raises UserError where they are not there.
        """
        networks = self.networks
        if fold is not None:
            networks.fold(fold)
            if self.learned(id, (fold,)) in ("label", "inner"):
                warn(
                    f"--fold {fold}: that network saw the label of {id}, so this explains what it remembers, not what it generalises"
                )
            return (fold,)
        if not networks.finished:
            raise UserError(f"{networks.run.path}: no fold is finished yet; run its command again, it goes on where it stopped")
        own = int(networks.folds.frame.fold.iloc[self.rows[id]]) if id in self.rows else -1
        if own < 0:
            return networks.finished
        if own not in networks.finished:
            raise UserError(
                f"--id {id}: fold {own}, which alone never saw it, is not finished; run the command of {networks.run.path} again, or name another fold's network with --fold K"
            )
        return (own,)

    def learned(self, id: str, folds: tuple[int, ...]) -> str | None:
        """The most telling thing that one of `folds` had of a patch's label, a key of `LEARNED`; None where none had any of it."""
        found = {self._learned(id, k) for k in folds}
        return next((kind for kind in LEARNED if kind in found), None)

    def _learned(self, id: str, k: int) -> str | None:
        known = self.networks.folds
        if id in self.rows:
            row = self.rows[id]
            if known.train_mask(k)[row]:
                return "label"
            if known.inner_mask(k)[row]:
                return "inner"
        if (id, k) in self._pseudo_labelled:
            return "pseudo-label"
        pooled = self.networks.info["command"] == ROUNDS and self.networks.recipe.pseudo.pooled
        return "pooled" if pooled and id in self.rows and known.frame.visible.iloc[self.rows[id]] else None

    @cached_property
    def _pseudo_labelled(self) -> set[tuple[str, int]]:
        """(id, fold) of every pseudo-label that the run's folds learned from."""
        decisions = self.networks.run.path / DECISIONS
        if not decisions.exists():
            return set()
        table = read_table(decisions, DECISION_COLUMNS)[0]
        added = table[table.decision == "added"]
        return set(zip(added.id, added.fold, strict=True))
