"""`pcam-ssl pseudo-label RUN --explain ID`: the decisions on one patch over rounds and folds, and their reasons."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from textwrap import wrap
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.data.dataset import nearest_ids, open_dataset
from pcam_ssl.errors import UserError
from pcam_ssl.render.document import Table
from pcam_ssl.render.format import LABELS
from pcam_ssl.render.text import aligned
from pcam_ssl.runs.run import DECISIONS, POOLED, Run
from pcam_ssl.tables import DECISION_COLUMNS, read_table

WIDTH = 100
COLUMNS = ("round", "fold", "prob", "view_std", "knn_prob", "decision", "label", "weight", "change", "reason")
HEAD = ("round", "fold", "prob", "views", "kNN", "decision", "label", "weight", "change", "reason")
ALIGN = "rrrrrllrll"


@dataclass(frozen=True)
class PatchHistory:
    """The decisions on one pool patch; printed as a table, and sentences on the latest round."""

    id: str
    rows: pd.DataFrame
    """`COLUMNS`, by round and fold."""
    truth: int | None = None
    """The patch's label where it is known; no decision has used it."""

    def __str__(self) -> str:
        table = aligned(Table(HEAD, [_cells(row) for row in self.rows.itertuples()], align=ALIGN), WIDTH)
        return "\n".join([f"patch {self.id}", table, "", *wrap(_sentence(self.rows, self.truth), WIDTH)])

    def to_dict(self) -> dict[str, Any]:
        """JSON values: `id`, `truth`, and `decisions`, a dict of `COLUMNS` for each round and fold; fold -1 stands for all folds together."""
        decisions = [
            {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in row.items()}
            for row in self.rows.to_dict("records")
        ]
        return {"id": self.id, "truth": self.truth, "decisions": decisions}


def patch_rows(decisions_of: dict[int, pd.DataFrame], id: str, nearest_ids: Callable[[str, pd.Index], str]) -> pd.DataFrame:
    """The decisions on one patch (`COLUMNS`), by round and fold. Raises UserError where there is no round, or none has the id."""
    if not decisions_of:
        raise UserError("--explain: no round has been made yet; run `pcam-ssl pseudo-label` with --rounds first")
    rows = pd.concat(
        [decisions[decisions.id == id].assign(round=number) for number, decisions in decisions_of.items()], ignore_index=True
    )
    if rows.empty:
        ids = pd.Index(pd.concat([decisions.id for decisions in decisions_of.values()]).unique())
        suggestion = nearest_ids(id, ids) or " The pool's ids are in round-1/pseudo.parquet"
        raise UserError(f"--explain {id}: no such patch in the pool, which excludes labelled patches.{suggestion}")
    return rows.sort_values(["round", "fold"], ignore_index=True)[list(COLUMNS)]


def _cells(row) -> tuple[str, ...]:
    numbers = [f"{value:.3f}" if np.isfinite(value) else "-" for value in (row.prob, row.view_std, row.knn_prob)]
    fold = "all" if row.fold < 0 else str(row.fold)
    return (str(row.round), fold, *numbers, row.decision, _label(row.label), f"{row.weight:.2f}", row.change or "-", row.reason)


def _label(label: float) -> str:
    if np.isnan(label):
        return "-"
    return LABELS[int(label)] if label in (0, 1) else f"{label:.3f}"


def _sentence(rows: pd.DataFrame, truth: int | None) -> str:
    last = rows[rows["round"] == rows["round"].max()]
    called = last.label[last.decision == "added"] >= 0.5
    text = f"In round {last['round'].iloc[0]}, the latest, {len(called)} of {len(last)} folds learn from it"
    if len(called):
        counts = {"tumor": int(called.sum()), "normal": int((~called).sum())}
        text += f": {', '.join(f'{n} as {name}' for name, n in counts.items() if n)}"
    changes = [f"{word} {_times(n)}" for word in ("taken back", "flipped") if (n := int((rows.change == word).sum()))]
    text += f". Over all rounds and folds it was {' and '.join(changes) or 'never taken back nor flipped'}."
    if truth is None:
        return f"{text} Its true label is not known."
    right = f", so {int((called == (truth == 1)).sum())} of these {len(called)} are right" if len(called) else ""
    return f"{text} Its hidden label is {LABELS[truth]}{right}."


def _times(n: int) -> str:
    return "once" if n == 1 else f"{n} times"


def patch_history(path: Path | str, id: str, out: Path | str | None = None, pooled: bool = False) -> PatchHistory:
    """The decisions on patch `id` over the rounds of the run at `path`. Raises UserError for an id that is in no pool."""
    folder = Path(out) if out is not None else Path(path) / POOLED if pooled else Path(path)
    decisions_of = {
        int(each.parent.name.removeprefix("round-")): read_table(each, DECISION_COLUMNS)[0]
        for each in sorted(folder.glob(f"round-*/{DECISIONS}"))
    }
    return PatchHistory(id, patch_rows(decisions_of, id, nearest_ids), _truth(Run(path), id))


def _truth(run: Run, id: str) -> int | None:
    """The patch's label; None where the dataset has moved or has no label of it."""
    try:
        patches = open_dataset(run.info()["dataset"]).patches
    except UserError:
        return None
    label = patches.label[patches.id == id]
    return None if label.empty or label.isna().all() else int(label.iloc[0])
