"""Finished runs that may stand side by side: one dataset, the same folds, the same patches scored."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.errors import UserError
from pcam_ssl.records import read_scores
from pcam_ssl.runs.contents import Facts, read_facts
from pcam_ssl.runs.run import TABLES, Run
from pcam_ssl.tables import read_predictions

FOLDS = ["id", "group", "fold"]


@dataclass(frozen=True)
class ScoredRun:
    """A run and one of its tables of predictions; `facts.oof` is that table, in the order of the first run compared."""

    name: str
    facts: Facts
    table: str
    """"" for the run's own predictions, else one of `TABLES`."""

    @property
    def path(self) -> Path:
        return self.facts.run.path

    @property
    def spec(self) -> str:
        """How the user names it."""
        return f"{self.path}:{self.table}" if self.table else str(self.path)

    def file(self, name: str) -> Path:
        """Where its predictions of `name` (oof or test) lie."""
        return self.path / (f"{name}-{self.table}.parquet" if self.table else f"{name}.parquet")

    def test(self) -> pd.DataFrame | None:
        """Predictions of the test split, None where there are none."""
        path = self.file("test")
        return read_predictions(path) if path.exists() else None


def read_alike(specs: list[str]) -> list[ScoredRun]:
    """The runs, their out-of-fold rows in one order.

    Raises UserError, a line a run, where one is not finished, its scores are withheld, or it differs from the first in dataset, folds
    or patches.
    """
    runs, problems = [], []
    for spec, name in zip(specs, _names(specs), strict=True):
        try:
            runs.append(_like(runs[0], _read(spec, name)) if runs else _read(spec, name))
        except UserError as error:
            problems += error.problems
    if problems:
        raise UserError(*dict.fromkeys(problems))
    return runs


def groups_of(run: ScoredRun) -> tuple[np.ndarray | None, str]:
    """What the bootstrap resamples, [N] or None for patches, and its name."""
    groups = run.facts.groups
    if groups is None:
        return None, "patch"
    return groups.to_numpy(), "slide" if run.facts.oof.wsi.notna().all() else "stain cluster"


def split_spec(spec: str) -> tuple[Path, str]:
    """RUN, RUN:knn, RUN:blend, RUN:graph or RUN:spatial as folder and table."""
    path, colon, table = str(spec).rpartition(":")
    return (Path(path), table) if colon and table in TABLES else (Path(spec), "")


def _read(spec: str, name: str) -> ScoredRun:
    path, table = split_spec(spec)
    run = Run(path)
    if run.paths.scores.exists() and (reason := read_scores(path).get("withheld")):
        raise UserError(f"{path}: its out-of-fold scores are withheld, so it cannot be compared or blended ({reason})")
    facts = read_facts(run)
    if facts.folds is None:
        raise UserError(
            f"{path}: folds.parquet is absent, so nobody can tell whether its folds are those of others; train it again"
        )
    scored = ScoredRun(name, facts, table)
    file = scored.file("oof")
    if not file.exists():
        key = {"graph": "graph.use", "spatial": "spatial.use"}.get(table, "neighbours.use")
        mend = f"train with {key}=true, or name {path} alone" if table else "train the run again"
        if key == "neighbours.use" and not facts.recipe.get("method.classify", True):
            mend = f"its own predictions are kNN's (method.classify=false), so name {path} alone"
        raise UserError(f"{spec}: {file.name} is not in the run; {mend}")
    return (
        replace(scored, facts=replace(facts, oof=read_predictions(file), scores=_scores_of(facts.scores, table)))
        if table
        else scored
    )


def _scores_of(scores: dict[str, Any], table: str) -> dict[str, Any]:
    """The scores of a run as they hold for one of its tables: those of a transductive graph are marked, the run's own are not."""
    if table != "graph" or not (scores.get("graph") or {}).get("transductive"):
        return scores
    held_out = {split: {**report, "transductive": True, "in_pool": 1.0} for split, report in (scores["held_out"] or {}).items()}
    return {**scores, "transductive": True, "held_out": held_out or None}


def _like(first: ScoredRun, run: ScoredRun) -> ScoredRun:
    """The run with its rows in the order of `first`."""
    ours, theirs = first.facts.info, run.facts.info
    if ours["dataset_digest"] != theirs["dataset_digest"]:
        raise UserError(
            f"{run.spec}: made on dataset {theirs['dataset']} ({theirs['dataset_digest'][:12]}), {first.spec} on {ours['dataset']}"
            f" ({ours['dataset_digest'][:12]}); name runs of one dataset"
        )
    mend = f"train it with --set cv.folds_file={first.facts.run.paths.folds}"
    if not first.facts.folds[FOLDS].astype(str).equals(run.facts.folds[FOLDS].astype(str)):
        raise UserError(f"{run.spec}: {_other_folds(first.facts.folds, run.facts.folds)} than in {first.spec}; {mend}")
    oof, wanted = run.facts.oof, first.facts.oof.id
    if oof.id.equals(wanted):
        return run
    missing, extra = wanted[~wanted.isin(oof.id)], oof.id[~oof.id.isin(wanted)]
    if len(missing) or len(extra):
        raise UserError(
            f"{run.spec}: scores {len(oof):,} patches, {first.spec} {len(wanted):,}: {len(missing):,} missing, {len(extra):,} extra,"
            f" first {pd.concat([missing, extra]).iloc[0]}; {mend}"
        )
    return replace(run, facts=replace(run.facts, oof=oof.set_index("id").loc[wanted].reset_index()))


def _other_folds(first: pd.DataFrame, other: pd.DataFrame) -> str:
    """How two tables of folds differ, in words."""
    both = first[FOLDS].astype(str).merge(other[FOLDS].astype(str), on="id", how="outer", suffixes=("", "_other"))
    differs = both[(both.group != both.group_other) | (both.fold != both.fold_other)]
    return f"{len(differs):,} of {len(both):,} ids are in another fold or group, first {differs.id.iloc[0]},"


def _names(specs: list[str]) -> list[str]:
    """The shortest ends of the paths that tell them apart; a run named twice is numbered."""
    known = [split_spec(spec) for spec in specs]
    paths = [path.resolve() for path, _ in known]
    names = [_shortest(path, set(paths)) + (f":{table}" if table else "") for path, (_, table) in zip(paths, known, strict=True)]
    times, seen = Counter(names), Counter()
    numbered = []
    for name in names:
        seen[name] += 1
        numbered.append(f"{name} #{seen[name]}" if times[name] > 1 else name)
    return numbered


def _shortest(path: Path, paths: set[Path]) -> str:
    for length in range(1, len(path.parts)):
        end = path.parts[-length:]
        if sum(other.parts[-length:] == end for other in paths) == 1:
            return "/".join(end)
    return str(path)
