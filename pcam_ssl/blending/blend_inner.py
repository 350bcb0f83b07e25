"""What a blend says of inner slides: its members' mean, so that thresholds can be chosen apart from what is scored. No torch."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from pcam_ssl.blending.blend_nested import Blend
from pcam_ssl.blending.tables import blended_table, same_rows
from pcam_ssl.errors import UserError
from pcam_ssl.inference.correlation import calibrated_logits
from pcam_ssl.neighbors.knn_choice import Blend as HeadAndKnn
from pcam_ssl.runs.comparable import ScoredRun
from pcam_ssl.runs.records import read_neighbours
from pcam_ssl.runs.run import REFIT, Run
from pcam_ssl.tables import read_predictions, read_probs, write_table
from pcam_ssl.terminal import say

INNER, INNER_KNN = "inner.parquet", "inner-knn.parquet"
PLAIN = ("mean", "logit-mean")
"""Methods of equal weights that no label and no other fold's network had a say in."""


def write_inner(folder: Run, runs: list[ScoredRun], blend: Blend, cap: float | None, notes: dict[str, str]) -> None:
    """Write `fold-K/inner.parquet`, and `refit/inner.parquet` where all members have one: the mean of what members say of their inner slides.

    Only for plain means: other weights and ranks come from other folds' networks. Where a member keeps none, or other inner slides,
    none is written, and that is said.
    """
    if blend.method not in PLAIN or cap is not None:
        return
    units = [f"fold-{k}" for k in sorted(runs[0].facts.oof.fold.unique())]
    units += [REFIT] * all((run.path / REFIT / INNER).exists() for run in runs)
    try:
        tables = {unit: _blended(runs, unit, blend) for unit in units}
    except UserError as error:
        say(f"no {INNER} is written, so the blend chooses no threshold and labels no pool: {error.problems[0]}")
        return
    for unit, table in tables.items():
        write_table(folder.path / unit / INNER, table, notes)


def as_member(head: pd.DataFrame, kind: str | None, unit: Path) -> pd.DataFrame:
    """Predictions of a unit's head with `knn_prob`, as those of the table that was blended: its own (None), `knn` or `blend`."""
    if kind is None:
        return head
    facts = read_neighbours(unit)
    knn = calibrated_logits(head.knn_prob)
    if kind == "knn":
        return head.assign(logit=knn * facts["calibration"]["temperature"], prob=head.knn_prob, view_std=0.0)
    logits = HeadAndKnn(**facts["blend"]).logits(calibrated_logits(head.prob), knn)
    return head.assign(logit=logits, prob=expit(logits))


def _blended(runs: list[ScoredRun], unit: str, blend: Blend) -> pd.DataFrame:
    tables = [as_member(_inner(run, unit), run.table or None, run.path / unit) for run in runs]
    rows = same_rows(tables, [run.name for run in runs], f"the {INNER} of its {unit}")
    return blended_table(rows, blend.method, blend.weights, {}).drop(columns="knn_prob")


def _inner(run: ScoredRun, unit: str) -> pd.DataFrame:
    """The head's calibrated Predictions with `knn_prob`, NaN where the table of the run needs none."""
    path = run.path / unit / INNER
    if not path.exists():
        raise UserError(f"{run.name} keeps no {unit}/{INNER}")
    head = read_predictions(path)
    if not run.table:
        return head.assign(knn_prob=np.nan)
    knn = path.with_name(INNER_KNN)
    if not knn.exists():
        raise UserError(f"{run.name} keeps no {unit}/{INNER_KNN}")
    return head.assign(knn_prob=read_probs(knn, head.id))
