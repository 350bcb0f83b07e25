"""The tables of a blend: out-of-fold, test and inner predictions, the submission, and the scales of ranks."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import expit

from pcam_ssl.blending.ensemble import METHODS, Blend, RankScale, pool, rank_scales
from pcam_ssl.blending.members import INNER, INNER_GRAPH, INNER_KNN, INNER_SPATIAL, PLAIN
from pcam_ssl.data.folds import REFIT
from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import atomic_write
from pcam_ssl.neighbors.knn import Blend as HeadAndKnn
from pcam_ssl.records import read_neighbours
from pcam_ssl.runs.comparable import ScoredRun
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import calibrated_logits, mean_over, read_predictions, read_probs, read_table, write_table
from pcam_ssl.terminal import say

SCALES = "rank-scales.parquet"
SCALE_COLUMNS = {"member": "int64", "kind": "str", "logit": "float64", "share": "float64"}
KINDS = ("logit", "prob")
Scales = dict[str, list[RankScale]]


def write_tables(
    folder: Run, runs: list[ScoredRun], blend: Blend, notes: dict[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Write and return the blended tables: out of fold with nested weights, test split with final weights (None where there is none)."""
    tables = [run.facts.oof for run in runs]
    scales: Scales = {kind: rank_scales(columns(tables, kind)) for kind in KINDS} if METHODS[blend.method].space == "rank" else {}
    if scales:
        write_table(folder.path / SCALES, _scale_table(scales), notes)
    of_row = np.stack([blend.nested[part] for part in blend.parts])  # [N, M]
    oof = _blended(tables, {kind: blend.out_of_fold(columns(tables, kind), scales.get(kind)) for kind in KINDS}, of_row)
    write_table(folder.path / "oof.parquet", oof, notes)
    test = _test(runs, blend.method, blend.weights, scales)
    if test is not None:
        write_table(folder.path / "test.parquet", test, notes)
        _write_submission(folder, runs[0].facts.run, test)
    return oof, test


def blended_table(tables: list[pd.DataFrame], method: str, weights: np.ndarray, scales: Scales) -> pd.DataFrame:
    """Blended Predictions of the members' tables, which have the same rows in the same order; weights [M]."""
    pooled = {kind: pool(METHODS[method].space, columns(tables, kind), weights, scales.get(kind)) for kind in KINDS}
    return _blended(tables, pooled, weights)


def columns(tables: list[pd.DataFrame], kind: str) -> np.ndarray:
    """Logits [N, M] of the members: before (`logit`) or after calibration (`prob`)."""
    return np.stack([table.logit.to_numpy() if kind == "logit" else calibrated_logits(table.prob) for table in tables], axis=1)


def read_scales(run: Run) -> Scales:
    """The rank scales of a blend, by kind; empty where it does not average ranks."""
    if not (run.path / SCALES).exists():
        return {}
    table = read_table(run.path / SCALES, SCALE_COLUMNS)[0]
    return {
        kind: [RankScale(rows.logit.to_numpy(), rows.share.to_numpy()) for _, rows in table[table.kind == kind].groupby("member")]
        for kind in KINDS
    }


def same_rows(tables: list[pd.DataFrame], names: list[str], what: str) -> list[pd.DataFrame]:
    """The tables in the row order of the first. Raises UserError with counts where a table holds other ids or folds."""
    keys = [pd.MultiIndex.from_frame(table[["id", "fold"]]) for table in tables]
    ordered = [tables[0].reset_index(drop=True)]
    for table, key, name in zip(tables[1:], keys[1:], names[1:], strict=True):
        if not key.equals(keys[0]):
            missing, extra = keys[0].difference(key), key.difference(keys[0])
            if len(missing) or len(extra):
                first = [*missing, *extra][0][0]
                raise UserError(
                    f"{name}: {what} holds {len(key):,} rows, that of {names[0]} {len(keys[0]):,}: {len(missing):,} missing,"
                    f" {len(extra):,} extra, first {first}; blend runs that predict the same patches"
                )
            table = table.iloc[key.get_indexer(keys[0])]
        ordered.append(table.reset_index(drop=True))
    return ordered


def _test(runs: list[ScoredRun], method: str, weights: np.ndarray, scales: Scales) -> pd.DataFrame | None:
    tables = [run.test() for run in runs]
    absent = [run.name for run, table in zip(runs, tables, strict=True) if table is None]
    if len(absent) == len(runs):
        return None
    if absent:
        say(f"no test.parquet is written: {', '.join(absent)} predicted no test split")
        return None
    return blended_table(same_rows(tables, [run.name for run in runs], "its test table"), method, weights, scales)


def _blended(tables: list[pd.DataFrame], pooled: dict[str, np.ndarray], weights: np.ndarray) -> pd.DataFrame:
    """The first table with the blended logits and probs, and the members' mean `view_std`."""
    view_std = mean_over([table.view_std for table in tables], weights.T)
    return tables[0].assign(logit=pooled["logit"], prob=expit(pooled["prob"]), view_std=view_std)


def _scale_table(scales: Scales) -> pd.DataFrame:
    return pd.concat(
        pd.DataFrame({"member": member, "kind": kind, "logit": scale.logits, "share": scale.shares})
        for kind, members in scales.items()
        for member, scale in enumerate(members)
    )


def _write_submission(folder: Run, first: Run, test: pd.DataFrame) -> None:
    """Write submission.csv in the order of the first member's, where that has one."""
    path = first.path / "submission.csv"
    if path.exists():
        mean = test[test.fold == -1].set_index("id").prob
        try:
            order = pd.read_csv(path, dtype=str)["id"]
        except (ValueError, KeyError) as error:
            raise UserError(f"{path}: damaged ({first_line(error)}); delete it to blend without a submission") from None
        if set(order) != set(mean.index):
            raise UserError(
                f"{path}: holds other ids than {path.with_name('test.parquet')}; delete it to blend without a submission"
            )
        with atomic_write(folder.path / "submission.csv") as temporary:
            mean.loc[order].rename("label").to_csv(temporary)


def write_inner(folder: Run, runs: list[ScoredRun], blend: Blend, cap: float | None, notes: dict[str, str]) -> None:
    """Write `fold-K/inner.parquet`, and `refit/inner.parquet` where all members have one: blended Predictions of the inner slides.

    They are written for plain means only, since other weights and ranks depend on other folds' networks. Where a member has no such
    table or other inner slides, none is written and the reason is printed.
    """
    if blend.method not in PLAIN or cap is not None:
        return
    units = [f"fold-{k}" for k in sorted(runs[0].facts.oof.fold.unique())]
    units += [REFIT] * all((run.path / REFIT / INNER).exists() for run in runs)
    try:
        tables = {unit: _blended_inner(runs, unit, blend) for unit in units}
    except UserError as error:
        say(f"no {INNER} is written, so no threshold can be chosen and no pool pseudo-labelled by this blend: {error.problems[0]}")
        return
    for unit, table in tables.items():
        write_table(folder.path / unit / INNER, table, notes)


def as_member(head: pd.DataFrame, kind: str | None, unit: Path) -> pd.DataFrame:
    """Predictions of a member, from those of its head with `knn_prob`: unchanged (`kind` None), those of kNN (`knn`), or of both (`blend`)."""
    if kind is None:
        return head
    facts = read_neighbours(unit)
    knn = calibrated_logits(head.knn_prob)
    if kind == "knn":
        return head.assign(logit=knn * facts["calibration"]["temperature"], prob=head.knn_prob, view_std=0.0)
    logits = HeadAndKnn(**facts["blend"]).logits(calibrated_logits(head.prob), knn)
    return head.assign(logit=logits, prob=expit(logits))


def _blended_inner(runs: list[ScoredRun], unit: str, blend: Blend) -> pd.DataFrame:
    rows = same_rows([_inner(run, unit) for run in runs], [run.name for run in runs], f"the {INNER} of its {unit}")
    return blended_table(rows, blend.method, blend.weights, {}).drop(columns="knn_prob", errors="ignore")


def _inner(run: ScoredRun, unit: str) -> pd.DataFrame:
    """Calibrated Predictions of a member's inner slides. Raises UserError where a table is missing."""
    folder = run.path / unit
    names = {"": [INNER], "graph": [INNER_GRAPH], "spatial": [INNER_SPATIAL]}.get(run.table, [INNER, INNER_KNN])
    if absent := [name for name in names if not (folder / name).exists()]:
        raise UserError(f"{run.name} has no {unit}/{absent[0]}")
    table = read_predictions(folder / names[0])
    if len(names) == 1:
        return table
    return as_member(table.assign(knn_prob=read_probs(folder / INNER_KNN, table.id)), run.table, folder)
