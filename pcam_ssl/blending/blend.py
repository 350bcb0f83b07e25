"""`pcam-ssl blend`: blend several runs into one, scored against the colour baseline and the best member."""

import os
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.blending.ensemble import METHODS, Blend, fit_blend, parts_of
from pcam_ssl.blending.tables import write_inner, write_tables
from pcam_ssl.errors import UserError, nearest
from pcam_ssl.evaluation.bootstrap import paired_differences
from pcam_ssl.evaluation.metrics import auroc
from pcam_ssl.evaluation.scores import score_report
from pcam_ssl.files import check_folder, digest_file, digest_text, part_of, write_json, write_text
from pcam_ssl.recipe.loading import MADE_BY
from pcam_ssl.runs.begin import versions
from pcam_ssl.runs.comparable import ScoredRun, groups_of, read_alike
from pcam_ssl.runs.run import BLEND, Run
from pcam_ssl.tables import calibrated_logits, read_probs, read_table, write_table
from pcam_ssl.terminal import say, warn


def blend_runs(specs: list[str], out: Path | str, method: str = "mean", cap: float | None = None) -> Run:
    """Blend runs (RUN, RUN:knn, RUN:blend, RUN:graph or RUN:spatial) into the run at `out`, and return it. A blend of the same members there is kept.

    `method` is one of `METHODS`; `cap` is the highest Spearman correlation that two members may have. Raises UserError where the runs
    differ in dataset, folds or patches, or where `out` holds something else.
    """
    if method not in METHODS:
        raise UserError(f"--method {method}: choose {', '.join(METHODS)}.{nearest(method, METHODS)}")
    if cap is not None and not 0 < cap <= 1:
        raise UserError(f"--max-correlation {cap:g}: choose a number above 0 and at most 1")
    if not specs:
        raise UserError("blend: no run named; name one or more")
    if not Path(out).name:
        raise UserError(f"--out {out}: is the current folder; name a new one")
    check_folder("--out", out)
    runs = read_alike([str(spec) for spec in specs])
    identity = {"method": method, "max_correlation": cap, "members": [_identity(run) for run in runs]}
    run = _check_out(Run(Path(out)), identity)
    if run.paths.provenance.exists():
        say(f"{run.path}: already a blend of the same members")
        return run
    blend = _fit(runs, method, cap)
    _report_weights(runs, blend)
    temporary = part_of(run.path)
    try:
        temporary.mkdir(parents=True)
        _write(Run(temporary), runs, blend, identity)
        # Only an empty folder can be there: all else was refused above.
        os.replace(temporary, run.path)
    except OSError:
        # Another process or thread may have made it meanwhile.
        if not run.paths.provenance.exists():
            raise
        return _check_out(run, identity)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return run


def _identity(run: ScoredRun) -> dict[str, Any]:
    return {
        "run": str(run.path.resolve()),
        "table": run.table or None,
        "recipe_digest": run.facts.info["recipe_digest"],
        "predictions_digest": digest_file(run.file("oof")),
    }


def _digest(identity: dict[str, Any]) -> str:
    members = [(member["recipe_digest"], member["predictions_digest"]) for member in identity["members"]]
    return digest_text(repr((identity["method"], identity["max_correlation"], members)))


def _check_out(run: Run, identity: dict[str, Any]) -> Run:
    """The run. Raises UserError where its folder holds anything but this blend."""
    fix = "choose another --out, or delete that folder"
    if run.paths.provenance.exists():
        info = run.info()
        if info["command"] != BLEND:
            raise UserError(f"{run.path}: a run of `pcam-ssl {info['command']}`, not a blend; {fix}")
        if info["recipe_digest"] != _digest(identity):
            raise UserError(f"{run.path}: a blend of other members, or by another method ({info['blend']['method']}); {fix}")
    elif run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
        raise UserError(f"{run.path}: holds something that is no run; choose another --out")
    return run


def _folds(runs: list[ScoredRun]) -> pd.DataFrame:
    """The first member's folds; a label that is hidden from any member is hidden here too, and only scored."""
    tables = [run.facts.folds for run in runs]
    return tables[0].assign(visible=np.logical_and.reduce([table.visible.to_numpy(dtype=bool) for table in tables]))


def _fit(runs: list[ScoredRun], method: str, cap: float | None) -> Blend:
    first = runs[0].facts
    rows = _folds(runs).set_index("id").loc[first.oof.id]
    parts, unit = parts_of(first.oof.fold, rows.group)
    logits = np.stack([calibrated_logits(run.facts.oof.prob) for run in runs], axis=1)
    return fit_blend(method, logits, first.oof.label.to_numpy(np.int64), parts, rows.visible, unit, cap)


def _report_weights(runs: list[ScoredRun], blend: Blend) -> None:
    for run, weight in zip(runs, blend.weights, strict=True):
        if run.facts.oof.prob.nunique() == 1:
            warn(f"{run.name}: its predictions are constant; they cannot improve the blend")
        if weight == 0:
            say(f"{run.name}: weight 0, left out of the blend")


def _write(folder: Run, runs: list[ScoredRun], blend: Blend, identity: dict[str, Any]) -> None:
    begun = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    first = runs[0].facts
    members = [
        {**member, "name": run.name, "weight": float(weight)}
        for member, run, weight in zip(identity["members"], runs, blend.weights, strict=True)
    ]
    described = {
        "method": blend.method,
        "space": METHODS[blend.method].space,
        "max_correlation": identity["max_correlation"],
        "members": members,
        "nested_over": blend.unit,
        "nested": {str(part): [float(weight) for weight in weights] for part, weights in blend.nested.items()},
    }
    info = {
        "command": BLEND,
        "argv": sys.argv,
        "recipe_digest": _digest(identity),
        "dataset_digest": first.info["dataset_digest"],
        "dataset": first.info["dataset"],
        "begun": begun,
        "versions": versions(),
        "selected_on_fold": any(run.facts.scores["selected_on_fold"] for run in runs),
        "learned_from_pool": any(run.facts.info.get("learned_from_pool", False) for run in runs),
        "blend": described,
    }
    options = {"resamples": first.recipe.get("score.resamples", 2000), "seed": first.recipe.get("seed", 0)}
    write_text(folder.paths.recipe, _recipe(described, options))
    write_table(folder.paths.folds, _folds(runs), read_table(first.run.paths.folds)[1])
    notes = folder.table_notes(info, blend=blend.method)
    oof, test = write_tables(folder, runs, blend, notes)
    write_inner(folder, runs, blend, identity["max_correlation"], notes)
    write_json(folder.paths.scores, score_blend(folder, runs, blend, oof, test, info, options))
    write_json(folder.paths.provenance, {**info, "status": "done", "ended": time.strftime("%Y-%m-%dT%H:%M:%S%z")})


def _recipe(described: dict[str, Any], options: dict[str, int]) -> str:
    import yaml

    members = [f"{member['run']}:{member['table']}" if member["table"] else member["run"] for member in described["members"]]
    values = {
        "seed": options["seed"],
        "score": {"resamples": options["resamples"]},
        "blend": {"method": described["method"], "max_correlation": described["max_correlation"], "members": members},
    }
    return f"{MADE_BY}: what `pcam-ssl blend` blended.\n{yaml.safe_dump(values, sort_keys=False)}"


def score_blend(
    folder: Run,
    runs: list[ScoredRun],
    blend: Blend,
    oof: pd.DataFrame,
    test: pd.DataFrame | None,
    info: dict[str, Any],
    options: dict[str, int],
) -> dict[str, Any]:
    """The content of scores.json. The blend takes over every warning flag that a member has, such as `selected_on_fold`."""
    members = [run.facts.scores for run in runs]
    labels = oof.label.to_numpy(np.int64)
    groups, unit = groups_of(runs[0])
    scores = {
        "scheme": members[0]["scheme"],
        "grouping": members[0]["grouping"],
        "slides_shared_across_folds": any(one["slides_shared_across_folds"] for one in members),
        "selected_on_fold": info["selected_on_fold"],
        "transductive": any(one.get("transductive", False) for one in members),
        "scored_by": "blend",
        "notes": list(dict.fromkeys(note for one in members for note in one["notes"])),
        "recipe_digest": info["recipe_digest"],
        "dataset_digest": info["dataset_digest"],
        "out_of_fold": score_report(oof, groups, unit=unit, **options),
        "floor": next((one["floor"] for one in members if one["floor"]), None),
        "above_floor": None,
        "held_out": None,
        "blend": _members(runs, blend, oof, groups, options),
    }
    if (floor := _floor(runs)) is not None:
        shutil.copyfile(floor, folder.path / "floor.parquet")
        probs = read_probs(floor, oof.id)
        scores["above_floor"] = paired_differences(labels, probs, oof.prob, groups, **options)
    else:
        # Without predictions to pair, reports would show the colour baseline without its difference.
        scores["floor"] = None
    if test is not None and test.label.notna().any():
        mean = test[test.fold == -1]
        report = score_report(mean, mean.wsi if mean.wsi.notna().all() else None, **options)
        # Members share dataset and folds, so those with a pool have the same one.
        share = max((held["test"].get("in_pool", 0.0) for one in members if (held := one["held_out"])), default=0.0)
        scores["held_out"] = {"test": {**report, "transductive": share > 0, "in_pool": share}}
    return scores


def _members(runs: list[ScoredRun], blend: Blend, oof: pd.DataFrame, groups, options: dict[str, int]) -> dict[str, Any]:
    labels = oof.label.to_numpy(np.int64)
    alone = [auroc(labels, run.facts.oof.prob) for run in runs]
    best = int(np.argmax([-1 if score is None else score for score in alone]))
    return {
        "method": blend.method,
        "nested_over": blend.unit,
        "members": [
            {
                "name": run.name,
                "weight": float(weight),
                "nested": {str(part): float(weights[place]) for part, weights in blend.nested.items()},
                "auroc": score,
            }
            for place, (run, weight, score) in enumerate(zip(runs, blend.weights, alone, strict=True))
        ],
        "best": runs[best].name,
        "against_best": paired_differences(labels, runs[best].facts.oof.prob, oof.prob, groups, **options),
    }


def _floor(runs: list[ScoredRun]) -> Path | None:
    """floor.parquet of the first member that has one; a pseudo-label round uses that of its round 0."""
    for run in runs:
        for folder in (run.path, Path(run.facts.info.get("round_0", run.path))):
            if (folder / "floor.parquet").exists():
                return folder / "floor.parquet"
    return None
