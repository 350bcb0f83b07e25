"""The finished runs of a curve: what their networks saw, their AUROC with bands over slides, and curves of patches and of slides compared."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pcam_ssl.data.folds import Folds, score_groups
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.bootstrap import TOO_FEW, resampled_auroc
from pcam_ssl.evaluation.confidence import Groups, count_groups, group_codes, student_interval
from pcam_ssl.evaluation.metrics import auroc
from pcam_ssl.evaluation.power_law import beyond, foretold, interval_over
from pcam_ssl.evaluation.scores import interval_text
from pcam_ssl.label_curve.budgets import Point, budget_name
from pcam_ssl.runs.run import Run
from pcam_ssl.tables import read_table


@dataclass(frozen=True)
class Scored:
    """The scored patches of all points: AUROC of each run by folder (and of further tables by name), also in every resample [R] of the same slides."""

    labels: np.ndarray
    slides: int | None
    interval: str
    groups: Groups
    aurocs: dict[str, float]
    drawn: dict[str, np.ndarray]


def score_points(points: list[Point], resamples: int, seed: int, more: dict[str, pd.DataFrame] | None = None) -> Scored:
    """AUROC out of fold of finished points, and of `more` Predictions by name, all on the same resampled slides.

    Raises UserError where they score other patches.
    """
    unique = {str(point.path): Run(point.path) for point in points}
    tables = {path: run.oof for path, run in unique.items()} | (more or {})
    first_path, first = next(iter(tables.items()))
    aligned = {}
    for path, table in tables.items():
        if sorted(table.id) != sorted(first.id):
            raise UserError(
                f"{path}: scores other patches than {first_path}; delete the folder, and the same command trains it again"
            )
        aligned[path] = table.set_index("id").prob.loc[first.id].to_numpy()
    labels = first.label.to_numpy(np.int64)
    if len(np.unique(labels)) < 2:
        raise UserError(
            f"{first_path}: the scored patches hold one class only, so there is no AUROC; import patches of both classes"
        )
    names, unit = score_groups(read_run_folds(unique[first_path]), first)
    counted = count_groups(group_codes(names, len(labels)), labels)
    drawn = resampled_auroc(labels, list(aligned.values()), names, resamples, seed)
    if drawn.size:
        # A resample with one class only has no AUROC in any run.
        drawn = drawn[:, ~np.isnan(drawn).any(axis=0)]
    return Scored(
        labels,
        int(first.wsi.nunique()) or None,
        interval_text(names, len(labels), resamples, unit),
        counted,
        {path: auroc(labels, probs) for path, probs in aligned.items()},
        dict(zip(aligned, drawn, strict=True)),
    )


def read_run_folds(run: Run) -> Folds:
    """The folds of a finished run, without its dataset."""
    frame, metadata = read_table(run.paths.folds)
    return Folds(frame, metadata["grouping"])


def trained_on(run: Run) -> tuple[float, float | None]:
    """Labels, and slides (None where folds know none), that a fold's network was trained on, mean over folds."""
    folds = read_run_folds(run)
    masks = [folds.train_mask(k) for k in range(folds.n_folds)]
    slides = None if folds.grouping == "none" else float(np.mean([folds.frame["group"][mask].nunique() for mask in masks]))
    return float(np.mean([mask.sum() for mask in masks])), slides


def curve_values(points: list[Point], by: str, scored: Scored) -> dict[str, Any]:
    """One curve as JSON values: its points with bands, the power law through them, and how well smaller budgets foretold the largest.

    `groups` names what stands for a slide (slides, stain clusters), and `unit` what a budget counts.
    """
    table = pd.DataFrame([(point.budget, point.seed, str(point.path)) for point in points], columns=["budget", "seed", "path"])
    seeds, budgets = sorted(set(table.seed)), list(dict.fromkeys(point.budget for point in points))
    values = []
    for budget in budgets:
        paths = [str(point.path) for point in points if point.budget == budget]
        seen = [trained_on(Run(path)) for path in paths]
        own = np.array([scored.aurocs[path] for path in paths])
        drawn = np.mean([scored.drawn[path] for path in paths], axis=0)
        values.append(
            {
                "budget": budget,
                "name": budget_name(budget),
                "labels": float(np.mean([labels for labels, _ in seen])),
                "slides": None if seen[0][1] is None else float(np.mean([slides for _, slides in seen])),
                "auroc": band_of(own, drawn, scored.groups),
                "draws": {"values": own.tolist(), "sd": float(own.std(ddof=1)) if len(own) > 1 else None},
                "runs": paths,
            }
        )
    grouping = read_run_folds(Run(points[0].path)).grouping
    groups = "slides" if grouping == "none" else grouping
    n = np.array([value["labels" if by == "patches" else "slides"] for value in values])
    aurocs = np.array([value["draws"]["values"] for value in values]).T
    drawn = np.stack([np.mean([scored.drawn[path] for path in value["runs"]], axis=0) for value in values], axis=1)
    return {
        "by": by,
        "unit": "labels" if by == "patches" else groups,
        "groups": groups,
        "seeds": seeds,
        "points": values,
        **beyond(n, aurocs, drawn, scored.groups),
        "check": foretold(n, aurocs, drawn, scored.groups),
    }


def band_of(own: np.ndarray, drawn: np.ndarray, groups: Groups) -> dict[str, Any]:
    """The mean over draws with its interval over resampled slides."""
    value = float(own.mean())
    if len(drawn) < 2:
        return {"value": value, "low": None, "high": None, "resamples": 0, "reason": TOO_FEW}
    low, high = student_interval(value, drawn, groups)
    return {"value": value, "low": float(low), "high": float(high), "resamples": len(drawn)}


def patches_or_slides(curves: dict[str, Any], scored: Scored) -> dict[str, Any] | None:
    """Labels spread over all slides against as many labels of few slides, paired: AUROC of the first minus that of the second.

    At each budget of slides the curve of patches is interpolated in log labels. `mean` is over these budgets. None where there is only one
    curve, or they have no draws or no number of labels in common.
    """
    if set(curves) != {"patches", "slides"}:
        return None
    patches, slides = curves["patches"], curves["slides"]
    seeds = sorted(set(patches["seeds"]) & set(slides["seeds"]))
    known = np.array([point["labels"] for point in patches["points"]])
    shared = [point for point in slides["points"] if point["budget"] is not None and known.min() <= point["labels"] <= known.max()]
    if not seeds or not shared or len(known) < 2:
        return None
    spread, few = _by_draw(patches, seeds, scored), _by_draw(slides, seeds, scored)
    found = []
    for point in shared:
        place = slides["points"].index(point)
        gaps = [_at(point["labels"], known, of_spread) - of_few[..., place] for of_spread, of_few in zip(spread, few, strict=True)]
        found.append((point, gaps))
    means = [np.mean([gaps[part] for _, gaps in found], axis=0) for part in range(3)]
    return {
        "seeds": seeds,
        "points": [
            {"slides": point["name"], "labels": point["labels"], "difference": interval_over(*gaps, scored.groups)}
            for point, gaps in found
        ],
        "mean": interval_over(*means, scored.groups),
    }


def _by_draw(curve: dict[str, Any], seeds: list[int], scored: Scored) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """AUROC at each budget of a curve: the mean [1, B], in every resample [R, B], and by draw [S, B]."""
    paths = [[point["runs"][curve["seeds"].index(seed)] for point in curve["points"]] for seed in seeds]
    draws = np.array([[scored.aurocs[path] for path in row] for row in paths])
    resampled = np.mean([np.stack([scored.drawn[path] for path in row], axis=1) for row in paths], axis=0)
    return draws.mean(axis=0, keepdims=True), resampled, draws


def _at(labels: float, known: np.ndarray, aurocs: np.ndarray) -> np.ndarray:
    """AUROCs [R] between the budgets `known` [B], linear in log labels, from `aurocs` [R, B]."""
    place = int(np.clip(np.searchsorted(known, labels), 1, len(known) - 1))
    low, high = np.log(known[place - 1]), np.log(known[place])
    share = (np.log(labels) - low) / (high - low)
    return (1 - share) * aurocs[:, place - 1] + share * aurocs[:, place]
