"""Columns, dtypes and checks of the tables that one stage hands to the next, and how they are read and written as parquet."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from functools import reduce
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.special import logit as inverse_sigmoid

from pcam_ssl import __version__
from pcam_ssl.errors import UserError, first_line
from pcam_ssl.files import atomic_write

SCHEMA_VERSION = "1"
PATCH_COLUMNS = {
    "id": "str",
    "row": "int64",
    "split": "str",
    "label": "Int8",
    "wsi": "str",
    "x": "Int32",
    "y": "Int32",
    "brightness": "float32",
    "stain_h": "float32",
    "stain_e": "float32",
    "od_r": "float32",
    "od_g": "float32",
    "od_b": "float32",
    "pixel_hash": "str",
    "view_hash": "str",
}
FOLD_COLUMNS = {"id": "str", "wsi": "str", "group": "str", "fold": "Int8", "visible": "bool"}
PREDICTION_COLUMNS = {
    "id": "str",
    "label": "Int8",
    "wsi": "str",
    "fold": "Int8",
    "logit": "float64",
    "prob": "float64",
    "view_std": "float64",
}


def conform(frame: pd.DataFrame, columns: dict[str, str]) -> pd.DataFrame:
    """The frame with exactly these `columns`, in this order and dtype. Raises ValueError where one is absent."""
    absent = [name for name in columns if name not in frame]
    if absent:
        raise ValueError(f"columns {absent} are absent; there are {list(frame.columns)}")
    return frame[list(columns)].astype(columns).reset_index(drop=True)


def among(ids: pd.Series, others: Iterable[str]) -> np.ndarray:
    """Bool `[N]`: which of `ids` are among `others`. pandas' `isin` compares Arrow strings one at a time, fifty times slower."""
    import pyarrow as pa
    import pyarrow.compute as pc

    known = others if isinstance(others, pd.Series) else list(others)
    strings = pa.large_string()
    return pc.is_in(pa.array(ids, type=strings), pa.array(known, type=strings)).to_numpy(zero_copy_only=False)


def predictions(ids, labels, slides, fold: int, logits, view_std=None, probs=None) -> pd.DataFrame:
    """A Predictions table from arrays [N].

    `logits` and `probs` are of class 1 (tumor); `probs` default to the sigmoid of the logits.
    Unknown `labels` are None or NA. `fold` -1 is the mean over folds.
    """
    logits = np.asarray(logits, dtype=np.float64)
    if probs is None:
        from scipy.special import expit

        probs = expit(logits)
    view_std = np.zeros_like(logits) if view_std is None else view_std
    frame = pd.DataFrame({"id": ids, "label": pd.array(labels, dtype="Int8"), "wsi": pd.array(slides, dtype="str")})
    return conform(frame.assign(fold=fold, logit=logits, prob=probs, view_std=view_std), PREDICTION_COLUMNS)


def check_predictions(frame: pd.DataFrame, source: str) -> pd.DataFrame:
    """The frame as a Predictions table. Raises UserError naming `source` for absent columns, repeated rows, or scores that are not finite."""
    try:
        frame = conform(frame, PREDICTION_COLUMNS)
    except (ValueError, TypeError) as error:
        raise UserError(f"{source}: not a Predictions table ({error}); expected columns {list(PREDICTION_COLUMNS)}") from None
    repeated = frame.duplicated(["id", "fold"])
    if repeated.any():
        raise UserError(
            f"{source}: {repeated.sum()} ids occur twice in one fold, first {frame.id[repeated].iloc[0]}; write each id once"
        )
    broken = ~np.isfinite(frame[["logit", "prob"]]).all(axis=1)
    if broken.any():
        raise UserError(
            f"{source}: {broken.sum()} scores are not finite, first at id {frame.id[broken].iloc[0]}; retrain or drop them"
        )
    return frame


def write_table(path: Path | str, frame: pd.DataFrame, metadata: dict[str, str] | None = None) -> None:
    """Write parquet atomically. The file's metadata holds `metadata` (strings), the schema version and the package version."""
    write_tables(path, [frame], metadata)


def write_tables(path: Path | str, frames: Iterable[pd.DataFrame], metadata: dict[str, str] | None = None) -> None:
    """Write frames of the same columns and dtypes as one table, as `write_table` does; only one of them is in memory."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    notes = {"schema_version": SCHEMA_VERSION, "package_version": __version__, **(metadata or {})}
    # File objects here and below: pyarrow refuses paths that are not UTF-8.
    with atomic_write(path) as temporary, open(temporary, "wb") as file, ExitStack() as opened:
        writer = None
        for frame in frames:
            table = pa.Table.from_pandas(frame, preserve_index=False)
            if writer is None:
                own = {f"pcam_ssl.{k}": str(v) for k, v in notes.items()}
                schema = table.schema.with_metadata({**(table.schema.metadata or {}), **own})
                writer = opened.enter_context(pq.ParquetWriter(file, schema))
            writer.write_table(table.cast(schema))


def read_table(path: Path | str, columns: dict[str, str] | None = None) -> tuple[pd.DataFrame, dict[str, str]]:
    """A parquet table and the metadata that `write_table` stored in it. It must have `columns` and may have others.

    Raises UserError where it cannot be read or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open(path, "rb") as file:
            table = pq.read_table(file)
        notes = {k.decode()[9:]: v.decode() for k, v in (table.schema.metadata or {}).items() if k.startswith(b"pcam_ssl.")}
        frame = table.to_pandas()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path}: no such file; name a table that a pcam-ssl command wrote") from None
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError) as error:
        raise UserError(f"{path}: cannot be read as parquet ({first_line(error)}); make it again") from None
    if columns is None:
        return frame, notes
    try:
        return frame.assign(**conform(frame, columns)), notes
    except (ValueError, TypeError) as error:
        raise UserError(f"{path}: not the table that belongs there ({first_line(error)}); make it again") from None


def read_predictions(path: Path | str) -> pd.DataFrame:
    """The Predictions in a file, without its other columns. Raises UserError where it holds no valid Predictions."""
    return check_predictions(read_table(path)[0], str(path))


def read_probs(path: Path | str, ids: pd.Series) -> np.ndarray:
    """`prob` [N] of the patches `ids` in a Predictions file, one row per id. Raises UserError where a patch is not in it."""
    probs = read_predictions(path).drop_duplicates("id").set_index("id").prob.reindex(ids)
    if probs.isna().any():
        raise UserError(f"{path}: lacks {probs.isna().sum()} patches, first {probs.index[probs.isna()][0]}; make it again")
    return probs.to_numpy()


CLIP = 1e-15


def calibrated_logits(probs) -> np.ndarray:
    """Logits of calibrated probs of class 1, finite, any shape. Unlike raw logits they share one scale across folds and runs."""
    return inverse_sigmoid(np.clip(np.asarray(probs, dtype=np.float64), CLIP, 1 - CLIP))


def mean_over(members: Sequence, weights=None) -> np.ndarray:
    """The mean of M arrays of equal shape, float64 of that shape; weighted by `weights` [M] of sum 1 where given.

    Arrays are added one by one, so that every element is summed in the order of the members. Matrix products and numpy's reductions
    change the order of a sum with the number of rows, and matrix products also with the CPU.
    """
    members = [np.asarray(values, dtype=np.float64) for values in members]
    if weights is None:
        return reduce(np.add, members) / len(members)
    return reduce(np.add, [weight * values for weight, values in zip(weights, members, strict=True)])


DECISION_COLUMNS = {
    "id": "str",
    "fold": "Int8",
    "logit": "float64",
    "prob": "float64",
    "view_std": "float64",
    "knn_prob": "float64",
    "decision": "str",
    "reason": "str",
    "label": "float64",
    "weight": "float64",
    "change": "str",
    "network_digest": "str",
}
"""`decision` is "added" or "left out". A patch left out has `label` NaN and `weight` 0. `change` is a member of `CHANGES` or ''."""
CLASSES = ("normal", "tumor")
