"""Csv files of ids, labels, and slides. They are read as text, so that no id becomes a number."""

import io

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from pcam_ssl.data.sources.listing import SPLITS, name_first
from pcam_ssl.errors import UserError, first_line

MISSING = ("", "na", "nan", "none", "null", "<na>")
LABELS = {"0": 0, "1": 1, "0.0": 0, "1.0": 1, "false": 0, "true": 1}


def read_csv(content: bytes, name: str, required: list[str]) -> pd.DataFrame:
    """All columns of a csv as stripped strings, "" where empty. Raises UserError naming `name` where it is not a csv or lacks a column."""
    try:
        frame = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, encoding="utf-8-sig", skipinitialspace=True)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise UserError(f"{name}: cannot be read as csv ({first_line(error)}); save it as UTF-8 csv with a header") from None
    frame.columns = frame.columns.str.strip()
    absent = [column for column in required if column not in frame]
    if absent:
        found = ", ".join(map(str, frame.columns))
        raise UserError(
            f"{name}: no column {' and no column '.join(absent)} (found {found}); its first line must name {', '.join(required)}"
        )
    return frame.fillna("").apply(lambda column: column.str.strip())


def known(values: pd.Series) -> pd.Series:
    """The values as stripped strings; None where a value is empty or one of `MISSING`."""
    text = values.astype(str).str.strip()
    return text.where(~text.str.lower().isin(MISSING), None)


def parse_labels(values: pd.Series, ids: pd.Series, name: str) -> pd.Series:
    """Int8 labels, NA where missing. Raises UserError naming the first values that are not 0 or 1."""
    text = known(values)
    labels = text.str.lower().map(LABELS).astype("Int8")
    wrong = text.notna() & labels.isna()
    if wrong.any():
        shown = name_first(f"{i} has {v!r}" for i, v in zip(ids[wrong], text[wrong], strict=True))
        raise UserError(f"{name}: {wrong.sum():,} labels are neither 0 nor 1: {shown}; write 0, 1, or nothing where unknown")
    return labels


def parse_splits(values: pd.Series, name: str) -> pd.Series:
    """Split names as train, valid, or test. Raises UserError naming the others."""
    splits = values.str.lower().map(SPLITS)
    if splits.isna().any():
        raise UserError(f"{name}: unknown split {name_first(values[splits.isna()].unique())}; write train, valid, or test")
    return splits


def refuse_repeated_rows(frame: pd.DataFrame, column: str, name: str) -> None:
    """Raises UserError where an id is repeated; the error says whether the values of `column` conflict."""
    if pc.count_distinct(pa.array(frame["id"]), mode="all").as_py() == len(frame):
        return
    repeated = frame["id"].duplicated(keep=False)
    values = frame[repeated].groupby("id")[column].unique()
    conflicting = values[values.map(len) > 1]
    if len(conflicting):
        first = f"{conflicting.index[0]} has {' and '.join(conflicting.iloc[0])}"
        raise UserError(f"{name}: {len(conflicting):,} ids have conflicting values of {column}, first {first}; keep one row per id")
    raise UserError(f"{name}: {len(values):,} ids occur more than once: {name_first(values.index)}; keep one row per id")
