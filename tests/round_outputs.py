"""The files of pseudo-label rounds, without what may differ between two equal runs: times, paths and device."""

from pathlib import Path

import pandas as pd

from pcam_ssl.files import read_json
from pcam_ssl.tables import read_table


def table(path: Path) -> pd.DataFrame:
    """A parquet table without its notes."""
    return read_table(path)[0]


def decisions(run: Path, number: int, fold: int) -> pd.DataFrame:
    """The decisions of a fold."""
    return table(run / f"round-{number}" / f"fold-{fold}" / "pseudo.parquet")


def added(run: Path, number: int, fold: int) -> pd.DataFrame:
    """The decisions of a fold that add a pseudo-label."""
    return decisions(run, number, fold)[lambda rows: rows.decision == "added"]


def weights(run: Path, number: int | str, unit: str) -> bytes:
    """The weights of a unit of a round, round 0 included, or of the "control"."""
    return (_round(run, number) / unit / "model.safetensors").read_bytes()


def calibration(run: Path, number: int | str, unit: str) -> dict:
    """The calibration of a unit of a round, or of the "control"."""
    return read_json(_round(run, number) / unit / "model.json")["calibration"]


def _round(run: Path, number: int | str) -> Path:
    return run / (number if number == "control" else f"round-{number}") if number else run


def turn(chosen):
    """A change of patches that flips the labels of the ids in `chosen`."""
    return lambda patches: patches.assign(label=patches.label.where(~patches.id.isin(set(chosen)), 1 - patches.label))


def without_labels(frame: pd.DataFrame) -> pd.DataFrame:
    """Predictions without their labels."""
    return frame.drop(columns="label", errors="ignore")


def verdict(run: Path) -> dict:
    """rounds.json without the paths."""
    values = read_json(run / "rounds.json")
    rows = [{key: value for key, value in row.items() if key != "folder"} for row in values["rounds"]]
    control = values["control"] and {key: value for key, value in values["control"].items() if key != "folder"}
    kept = {key: value for key, value in values.items() if key not in ("round0", "best_folder")}
    return kept | {"rounds": rows, "control": control}


def check_same(mine: Path, theirs: Path, rounds: int, folds=(0, 1)) -> None:
    """Every weight, decision, table and score of two finished experiments is the same to the bit, those of the control too where there is one."""
    assert (mine / "control").exists() == (theirs / "control").exists()
    for number in [*range(1, rounds + 1), *(["control"] if (mine / "control").exists() else [])]:
        names = [Path(f"fold-{k}") for k in folds]
        for place in names:
            assert weights(mine, number, place) == weights(theirs, number, place), (number, place)
            assert calibration(mine, number, place) == calibration(theirs, number, place)
        decided = [] if number == "control" else ["pseudo"]
        tables = [place / f"{name}.parquet" for place in names for name in (*decided, "inner", "oof", "test")]
        for path in [*tables, *(Path(f"{name}.parquet") for name in (*decided, "oof", "test"))]:
            one, other = (table(_round(run, number) / path) for run in (mine, theirs))
            pd.testing.assert_frame_equal(one, other, check_exact=True, obj=f"round {number}, {path}")
        one, other = (read_json(_round(run, number) / "scores.json") for run in (mine, theirs))
        assert one == other
    assert verdict(mine) == verdict(theirs)
