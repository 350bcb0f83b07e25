"""The tables of a blend: Predictions out of fold and of the test split, the submission, and the scales of ranks. No torch."""

import numpy as np
import pandas as pd
from scipy.special import expit

from pcam_ssl.blending.blend_nested import Blend, rank_scales
from pcam_ssl.blending.ensemble import SPACES
from pcam_ssl.blending.inference_blend import RankScale, mean_over, pool
from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import atomic_write
from pcam_ssl.inference.correlation import calibrated_logits
from pcam_ssl.runs.comparable import ScoredRun
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_table, write_table
from pcam_ssl.terminal import say

SCALES = "rank-scales.parquet"
SCALE_COLUMNS = {"member": "int64", "kind": "str", "logit": "float64", "share": "float64"}
KINDS = ("logit", "prob")
Scales = dict[str, list[RankScale]]


def write_tables(
    folder: Run, runs: list[ScoredRun], blend: Blend, notes: dict[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Write what the members' tables give, and return it: out of fold by nested weights, the test split (None without) by the final ones."""
    tables = [run.facts.oof for run in runs]
    scales: Scales = {kind: rank_scales(columns(tables, kind)) for kind in KINDS} if SPACES[blend.method] == "rank" else {}
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
    """The blend of members' Predictions of the same rows in the same order, by weights [M]."""
    pooled = {kind: pool(SPACES[method], columns(tables, kind), weights, scales.get(kind)) for kind in KINDS}
    return _blended(tables, pooled, weights)


def columns(tables: list[pd.DataFrame], kind: str) -> np.ndarray:
    """Logits [N, M]: raw ones (`logit`), or those of the calibrated probs (`prob`)."""
    return np.stack([table.logit.to_numpy() if kind == "logit" else calibrated_logits(table.prob) for table in tables], axis=1)


def read_scales(run: Run) -> Scales:
    """The rank scales of a blend, none where it does not blend ranks."""
    if not (run.path / SCALES).exists():
        return {}
    table = read_table(run.path / SCALES, SCALE_COLUMNS)[0]
    return {
        kind: [RankScale(rows.logit.to_numpy(), rows.share.to_numpy()) for _, rows in table[table.kind == kind].groupby("member")]
        for kind in KINDS
    }


def same_rows(tables: list[pd.DataFrame], names: list[str], what: str) -> list[pd.DataFrame]:
    """The tables in the row order of the first. Raises UserError with the counts where one holds other ids or folds."""
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
    """The first table with the blend's logits and probs, and the members' mean spread over views."""
    view_std = mean_over([table.view_std for table in tables], weights.T)
    return tables[0].assign(logit=pooled["logit"], prob=expit(pooled["prob"]), view_std=view_std)


def _scale_table(scales: Scales) -> pd.DataFrame:
    return pd.concat(
        pd.DataFrame({"member": member, "kind": kind, "logit": scale.logits, "share": scale.shares})
        for kind, members in scales.items()
        for member, scale in enumerate(members)
    )


def _write_submission(folder: Run, first: Run, test: pd.DataFrame) -> None:
    """In the order of the first member's, where it has one."""
    path = first.path / "submission.csv"
    if path.exists():
        mean = test[test.fold == -1].set_index("id").prob
        try:
            order = pd.read_csv(path, dtype=str)["id"]
        except (ValueError, KeyError) as error:
            raise UserError(f"{path}: damaged ({first_line(error)}); delete it, and the blend goes without a submission") from None
        if set(order) != set(mean.index):
            raise UserError(
                f"{path}: holds other ids than {path.with_name('test.parquet')}; delete it, and the blend goes without a submission"
            )
        with atomic_write(folder.path / "submission.csv") as temporary:
            mean.loc[order].rename("label").to_csv(temporary)
