"""All of a finished run at once, as reports read it, and its prediction of each patch."""

from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import pandas as pd

from pcam_ssl.errors import UserError
from pcam_ssl.records import read_fold, read_metrics, read_rounds, read_scores
from pcam_ssl.runs.run import POOLED, ROUNDS, ROUNDS_FILE, Run
from pcam_ssl.tables import PREDICTION_COLUMNS, conform


@dataclass(frozen=True)
class Facts:
    """The contents of a Run, each file read once; tables that are not there are None, folds without a file are left out.

    `recipe` maps flat keys such as `model.name` to values: it is not validated, so that runs of another version can be shown.
    """

    run: Run
    scores: dict[str, Any]
    info: dict[str, Any]
    recipe: dict[str, Any]
    oof: pd.DataFrame | None
    folds: pd.DataFrame | None
    fold_facts: dict[int, dict[str, Any]]
    events: dict[int, list[dict[str, Any]]]
    rounds: dict[Path, dict[str, Any]]
    """Verdicts on pseudo-label rounds that concern the run, by the folder of their rounds.json."""

    @property
    def labelled(self) -> pd.DataFrame | None:
        """Out-of-fold Predictions with a known label."""
        return None if self.oof is None else self.oof[self.oof.label.notna()]

    @property
    def slides_split_across_folds(self) -> int | None:
        """Slides with patches in more than one fold, counted here and not taken from scores.json; None where slides are unknown."""
        if self.folds is None or self.folds.wsi.isna().any():
            return None
        return int((self.folds.groupby("wsi").fold.nunique() > 1).sum())

    @property
    def groups(self) -> pd.Series | None:
        """What the bootstrap resamples, for each row of `labelled`: slides, else proxy groups, else None (patches)."""
        labelled = self.labelled
        if labelled is None:
            return None
        if labelled.wsi.notna().all():
            return labelled.wsi
        if self.scores["grouping"] == "stain clusters" and self.folds is not None:
            return self.folds.set_index("id").group.loc[labelled.id]
        return None


def read_facts(run: Run) -> Facts:
    """Everything a report shows. Raises UserError where there is no run, it is not finished, or a file is damaged."""
    info = run.info()
    scores = read_scores(run.path)
    if scores["out_of_fold"] is None:
        shown = (
            f"`pcam-ssl report {quote(info['round_0'])}` shows what it learned from" if "round_0" in info else "report another run"
        )
        raise UserError(
            f"{run.path}: no report without out-of-fold scores, and they are withheld ({scores.get('withheld')}); {shown}"
        )
    numbers = sorted(int(path.name[5:]) for path in run.path.glob("fold-*") if path.name[5:].isdigit())
    events = {k: [event for event in read_metrics(run.fold(k) / "metrics.jsonl") if "epoch" in event] for k in numbers}
    return Facts(
        run=run,
        scores=scores,
        info=info,
        recipe=run.recipe_keys(),
        oof=run.oof if run.paths.oof.exists() else None,
        folds=run.folds if run.paths.folds.exists() else None,
        fold_facts={k: read_fold(run.fold(k)) for k in numbers if run.fold_done(k)},
        events={k: lines for k, lines in events.items() if lines},
        rounds=_rounds(run, info),
    )


def _rounds(run: Run, info: dict[str, Any]) -> dict[Path, dict[str, Any]]:
    """Rounds on top of the run, or those it is one of."""
    folders = [run.path.resolve().parent] if info["command"] == ROUNDS else [run.path, run.path / POOLED]
    return {folder: read_rounds(folder) for folder in folders if (folder / ROUNDS_FILE).is_file()}


def predictions_by_id(run: Run) -> pd.DataFrame:
    """Predictions by id: out of fold where a patch was scored so, else the mean over folds (fold -1) of the test split.

    Empty where the run has neither table, as a run of pooled rounds without a test split.
    """
    parts = [conform(pd.DataFrame(columns=list(PREDICTION_COLUMNS)), PREDICTION_COLUMNS)]
    if run.paths.oof.exists():
        parts.append(run.oof)
    if run.paths.test.exists():
        test = run.test
        parts.append(test[test.fold == -1])
    return pd.concat(parts).drop_duplicates("id").set_index("id")
