"""Predict new patches with a blend: every member predicts them, and the final weights average the predictions."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.blending.members import member_problem
from pcam_ssl.blending.tables import blended_table, read_scales, same_rows
from pcam_ssl.cross_validation.predict import further_table, predict_run
from pcam_ssl.data.dataset import split_rows
from pcam_ssl.distributed import join_world
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.scores import score_report
from pcam_ssl.files import check_target
from pcam_ssl.runs.comparable import split_spec
from pcam_ssl.runs.run import BLEND, ROUNDS_FILE, Run, run_in_use
from pcam_ssl.runs.shared_work import kept_work, shared_source
from pcam_ssl.tables import read_predictions, write_table


def predict_source(
    run_path: Path | str,
    source: Path | str,
    out: Path | str,
    *,
    split: str | None = None,
    device: str = "auto",
    skip_bad: bool = False,
    round: int | None = None,
) -> tuple[int, dict | None]:
    """Write Predictions of `source` by a run (its round in use, or `round`) or a blend; the mean over folds is fold -1.

    Returns the number of patches and, where at least one has a label, the score report of the mean.
    Raises UserError where there is no run, no fold is finished, or a member of the blend is missing or has changed.
    """
    out, world = Path(out), join_world(device)
    world.run_on_all(lambda: _check_no_table(run_path))
    run = world.run_on_all(lambda: run_in_use(run_path, round))
    blended = world.run_on_all(run.info)["command"] == BLEND
    world.run_on_main(lambda: check_target("--out", out, ".parquet"))
    predict = predict_blend if blended else predict_run
    return predict(run, source, out, split=split, device=device, skip_bad=skip_bad)


def _check_no_table(spec: Path | str) -> None:
    """Raises UserError for RUN:graph and the like, with the command that makes a run of it."""
    path, table = split_spec(str(spec))
    if table and Run(path).paths.provenance.exists():
        made = f"{path}-{table}"
        raise UserError(
            f"{spec}: predict takes a folder; `{shlex.join(['pcam-ssl', 'blend', str(spec), '--out', made])}` makes {made} of it"
        )


def predict_blend(
    run: Run, source: Path | str, out: Path, *, split: str | None = None, device: str = "auto", skip_bad: bool = False
) -> tuple[int, dict | None]:
    """Write Predictions of `source` by a blend; returns what `predict_run` returns.

    Raises UserError where a member is missing or has changed.
    """
    world, described = join_world(device), run.info()["blend"]
    members = [member for member in described["members"] if member["weight"] > 0]
    problems = [problem for member in members if (problem := member_problem(run, member)) is not None]
    if problems:
        raise world.agreed(UserError(*dict.fromkeys(problems)))
    with shared_source(source, skip_bad, world) as dataset:
        identity = {"blend": described, "dataset": dataset.digest, "split": split, "device": world.device.type}
        with kept_work(out, f"--out {out}", identity, world) as work:
            heads: dict[str, pd.DataFrame] = {}
            for path in dict.fromkeys(member["run"] for member in members):
                file = work / f"{len(heads)}.parquet"
                # The member is the run itself, not the best round made on it.
                own_round = 0 if (Path(path) / ROUNDS_FILE).exists() else None
                if not world.run_on_main(file.exists):
                    predict_source(path, dataset.path, file, split=split, device=device, round=own_round)
                heads[path] = world.run_on_all(lambda file=file: read_predictions(file))
            patches = world.run_on_all(lambda: split_rows(dataset, source, split))
            tables = []
            for member in members:
                kept = work / f"{list(heads).index(member['run'])}-embeddings"
                head, kind, path = heads[member["run"]], member["table"], Path(member["run"])
                tables.append(
                    head if kind is None else further_table(Run(path), kind, head, dataset, patches, kept, out.parent, world)
                )
            table = _blend(run, described, members, tables)
            notes = run.table_notes({**run.info(), "dataset_digest": dataset.digest}, blend=described["method"], run=run.path)
            world.run_on_main(lambda: write_table(out, table, notes))
        return len(patches), world.run_on_main(lambda: _report(run, table))


def _blend(run: Run, described: dict[str, Any], members: list[dict[str, Any]], tables: list[pd.DataFrame]) -> pd.DataFrame:
    scales = read_scales(run)
    used = [place for place, member in enumerate(described["members"]) if member["weight"] > 0]
    scales = {kind: [members_scales[place] for place in used] for kind, members_scales in scales.items()}
    weights = np.array([member["weight"] for member in members])
    rows = same_rows(tables, [member["name"] for member in members], "its prediction")
    return blended_table(rows, described["method"], weights, scales)


def _report(run: Run, table: pd.DataFrame) -> dict | None:
    mean = table[table.fold == -1]
    if not mean.label.notna().any():
        return None
    recipe = run.recipe_keys()
    groups = mean.wsi.to_numpy() if mean.wsi[mean.label.notna()].notna().all() else None
    return score_report(mean, groups, recipe["score.resamples"], recipe["seed"])
