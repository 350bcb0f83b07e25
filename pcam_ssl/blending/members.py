"""The member runs of a blend, and whether their blend may pseudo-label a pool."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pcam_ssl.blending.ensemble import METHODS
from pcam_ssl.data.folds import REFIT
from pcam_ssl.errors import UserError
from pcam_ssl.files import digest_file
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.runs.run import BLEND, Run
from pcam_ssl.tables import FOLD_COLUMNS, read_table


@dataclass(frozen=True)
class Member:
    """A run of a blend; `table` is None for its own Predictions, else `knn`, `blend`, `graph` or `spatial`."""

    run: Run
    table: str | None
    weight: float
    recipe: Recipe


def members_of(start: Run) -> tuple[Member, ...]:
    """The members of a blend; an empty tuple for other runs.

    Raises UserError where pseudo-labels of the blend would leak labels of the fold that learns from them, or where a member is missing,
    has changed, or has other inner slides or labels than the first.
    """
    info = start.info()
    if info["command"] != BLEND:
        return ()
    described = info["blend"]
    _check_method(start, described)
    problems = [problem for each in described["members"] if (problem := _problem(start, each)) is not None]
    if problems:
        raise UserError(*dict.fromkeys(problems))
    runs = [Run(Path(each["run"])) for each in described["members"]]
    _check_folds(start, runs)
    return tuple(
        Member(run, each["table"], each["weight"], run.recipe) for run, each in zip(runs, described["members"], strict=True)
    )


def own_recipe(start: Run, members: tuple[Member, ...]) -> Recipe:
    """The recipe of round 0. For a blend: that of its first member, with a refit where all members have one."""
    if not members:
        return start.recipe
    first = members[0].recipe
    refit = (start.path / REFIT / INNER).exists()
    return first.model_copy(update={"cv": first.cv.model_copy(update={"refit": refit})})


def _check_method(start: Run, described: dict[str, Any]) -> None:
    if described["method"] in PLAIN and described["max_correlation"] is None:
        return
    how = described["method"] if described["max_correlation"] is None else "--max-correlation"
    members = ", ".join(dict.fromkeys(each["run"] for each in described["members"]))
    raise UserError(
        f"{start.path}: a blend by {how} takes its weights or ranks from networks that learned the labels of the fold that would"
        " learn from its pseudo-labels; blend by mean or logit-mean without --max-correlation, or start rounds from one of its"
        f" runs ({members})"
    )


def _problem(start: Run, member: dict[str, Any]) -> str | None:
    if (problem := member_problem(start, member)) is not None:
        return problem
    path = Path(member["run"])
    if (table := member["table"]) in NO_TEACHERS:
        return f"{start.path}: blends {path}:{table}, and {NO_TEACHERS[table]} cannot label a pool; blend without it, and start rounds from that"
    if Run(path).info()["command"] == BLEND:
        return f"{start.path}: blends {path}, a blend itself, which has no networks; blend its runs, and start rounds from that"
    oof = path / (f"oof-{member['table']}.parquet" if member["table"] else "oof.parquet")
    if not oof.exists() or digest_file(oof) != member["predictions_digest"]:
        return f"{start.path}: blends {oof}, which has changed since; blend again"
    return None


def _check_folds(start: Run, runs: list[Run]) -> None:
    first = read_table(runs[0].paths.folds, FOLD_COLUMNS)[0].astype(str)
    for run in runs[1:]:
        if not read_table(run.paths.folds, FOLD_COLUMNS)[0].astype(str).equals(first):
            raise UserError(
                f"{start.path}: its member {run.path} has other inner slides or hidden labels than {runs[0].path}, so they"
                f" cannot label one pool; train it with --set cv.folds_file={runs[0].paths.folds}, and blend again"
            )


def member_problem(run: Run, member: dict[str, Any]) -> str | None:
    """Why a member of a blend can no longer be used; None where it can."""
    path = Path(member["run"])
    if not Run(path).paths.provenance.exists():
        return f"{run.path}: blends {path}, which is not there any more; put it back, or blend the other runs again"
    if Run(path).info()["recipe_digest"] != member["recipe_digest"]:
        return f"{run.path}: blends {path}, which has changed since; blend again"
    return None


NO_TEACHERS = {"graph": "label propagation", "spatial": "smoothing in space"}
INNER, INNER_KNN, INNER_GRAPH, INNER_SPATIAL = "inner.parquet", "inner-knn.parquet", "inner-graph.parquet", "inner-spatial.parquet"
PLAIN = tuple(name for name, method in METHODS.items() if method.fit is None and method.space != "rank")
"""Methods whose blend of a fold depends on no label and on no other fold's networks."""
