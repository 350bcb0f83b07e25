"""scores.json of a blend: its own scores, the floor its members had, and what it adds to the best of them. No torch."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.blending.blend_nested import Blend
from pcam_ssl.evaluation.bootstrap import paired_differences
from pcam_ssl.evaluation.metrics import auroc
from pcam_ssl.evaluation.scores import score_report
from pcam_ssl.runs.comparable import ScoredRun, groups_of
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_probs


def score_blend(
    folder: Run,
    runs: list[ScoredRun],
    blend: Blend,
    oof: pd.DataFrame,
    test: pd.DataFrame | None,
    info: dict[str, Any],
    options: dict[str, int],
) -> dict[str, Any]:
    """What stands in scores.json; marks that one member bears, the blend bears."""
    known = [run.facts.scores for run in runs]
    labels = oof.label.to_numpy(np.int64)
    groups, unit = groups_of(runs[0])
    scores = {
        "scheme": known[0]["scheme"],
        "grouping": known[0]["grouping"],
        "slides_shared_across_folds": any(one["slides_shared_across_folds"] for one in known),
        "selected_on_fold": info["selected_on_fold"],
        "scored_by": "blend",
        "notes": list(dict.fromkeys(note for one in known for note in one["notes"])),
        "recipe_digest": info["recipe_digest"],
        "dataset_digest": info["dataset_digest"],
        "out_of_fold": score_report(oof, groups, unit=unit, **options),
        "floor": next((one["floor"] for one in known if one["floor"]), None),
        "above_floor": None,
        "held_out": None,
        "blend": _members(runs, blend, oof, groups, options),
    }
    if (floor := _floor(runs)) is not None:
        shutil.copyfile(floor, folder.path / "floor.parquet")
        probs = read_probs(floor, oof.id)
        scores["above_floor"] = paired_differences(labels, probs, oof.prob, groups, **options)
    else:
        # A floor that nothing can be paired with would be shown without its difference.
        scores["floor"] = None
    if test is not None and test.label.notna().any():
        mean = test[test.fold == -1]
        report = score_report(mean, mean.wsi if mean.wsi.notna().all() else None, **options)
        # Members of one dataset and the same folds have the same pools, or none.
        share = max((held["test"].get("in_pool", 0.0) for one in known if (held := one["held_out"])), default=0.0)
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
    """floor.parquet of the first member that has one; a pseudo-label round has its round 0's."""
    for run in runs:
        for folder in (run.path, Path(run.facts.info.get("round_0", run.path))):
            if (folder / "floor.parquet").exists():
                return folder / "floor.parquet"
    return None
