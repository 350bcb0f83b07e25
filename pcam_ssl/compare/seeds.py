"""Compare recipes that were trained with several seeds: mean and spread over seeds, and differences with intervals.

A difference in a score varies with the sampled slides and with the trained seeds. Its variance here is the sum of two parts: that of
the mean over seeds when whole slides are resampled, the same ones for every run (cluster bootstrap, Field and Welsh 2007), and that of
a mean of n seeds, s^2 / n. The interval is Student's t with the degrees of freedom of Welch (1947) and Satterthwaite (1946).
Resampling the seeds along with the slides gives intervals that are too narrow where seeds are few: it captures (n - 1) / n of their
variance, and ignores the uncertainty of that variance. `scripts/seed_coverage.py` compares the two.
"""

import json
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pcam_ssl.evaluation.bootstrap import TOO_FEW, _resampled
from pcam_ssl.evaluation.confidence import Groups, count_groups, group_codes, summed_half_width
from pcam_ssl.evaluation.metrics import point_scores
from pcam_ssl.recipe.loading import flatten
from pcam_ssl.recipe.schema import MACHINE_KEYS, PLACE_KEYS, STOP_KEYS
from pcam_ssl.recipe.yaml_text import read_yaml
from pcam_ssl.runs.comparable import ScoredRun
from pcam_ssl.runs.contents import Facts
from pcam_ssl.runs.run import ROUNDS, Run

# The folds themselves are compared, so the keys that made them do not separate runs.
FREE = ("seed", "cv.seed", "cv.folds_file", *MACHINE_KEYS, *PLACE_KEYS, *(f"pseudo.{key}" for key in STOP_KEYS))


def seed_groups(runs: list[ScoredRun]) -> list[list[ScoredRun]]:
    """The runs grouped by recipe, in the order of their first run; the runs of a group differ only in the seed.

    A repeated seed, as where a run is named twice, starts another group: it carries no information on the spread over seeds.
    """
    groups: dict[tuple, list[ScoredRun]] = {}
    seen: Counter = Counter()
    for run in runs:
        recipe = _recipe_key(run)
        seen[recipe, seed_of(run)] += 1
        groups.setdefault((recipe, seen[recipe, seed_of(run)]), []).append(run)
    return list(groups.values())


def seed_of(run: ScoredRun) -> int:
    """The seed of the run's recipe."""
    return run.facts.recipe.get("seed", 0)


def groups_over_seeds(groups: list[list[ScoredRun]], labels, slides, options: dict[str, int]) -> list[dict[str, Any]] | None:
    """The values of each group in the JSON of `compare`; None where no recipe has more than one run."""
    if all(len(group) == 1 for group in groups):
        return None
    probs = [{seed_of(run): run.facts.oof.prob.to_numpy() for run in group} for group in groups]
    results = over_seeds(labels, probs, slides, **options)
    return [
        {
            "name": name,
            "runs": [run.name for run in group],
            "seeds": [seed_of(run) for run in group],
            "scores": scores,
            "against_first": None if group is groups[0] else differences,
        }
        for name, group, (scores, differences) in zip(_names(groups), groups, results, strict=True)
    ]


def _recipe_key(run: ScoredRun) -> str:
    """All that decides the run's predictions but the seed, as text."""
    facts = run.facts
    # The control of rounds is no round, but it depends on whose students it follows.
    control = facts.info.get("control_of", {}).get("round")
    parts = [facts.info["command"], run.table, facts.info.get("round"), control, _own(facts.recipe, facts)]
    if "round_0" in facts.info:
        start = Run(Path(facts.info["round_0"])).paths.recipe
        parts.append(_own(flatten(read_yaml(start)), facts) if start.exists() else facts.info["round_0"])
    return json.dumps(parts, sort_keys=True)


def _own(recipe: dict[str, Any], facts: Facts) -> dict[str, Any]:
    rounds = facts.info["command"] == ROUNDS
    return {key: value for key, value in recipe.items() if key not in FREE and (rounds or not key.startswith("pseudo."))}


def _names(groups: list[list[ScoredRun]]) -> list[str]:
    """The names of the groups: the common name of their runs without the seed, or `FIRST and N more` where that is empty or not unique."""
    run_names = [run.name for group in groups for run in group]
    bare = [_without_seeds(group) for group in groups]
    return [
        group[0].name
        if len(group) == 1
        else name
        if name and bare.count(name) == 1 and name not in run_names
        else f"{group[0].name} and {len(group) - 1} more"
        for name, group in zip(bare, groups, strict=True)
    ]


def _without_seeds(group: list[ScoredRun]) -> str:
    for pattern in (r"(?<![^\W_])seed[-_=]?{}(?!\w)", r"(?<![^+/_-]){}(?![^+/_:-])"):
        left = {re.sub(pattern.format(seed_of(run)), "", run.name).strip("+/_-") for run in group}
        if len(left) == 1:
            return re.sub(r"([+/_-])\1+", r"\1", left.pop())
    return ""


@dataclass(frozen=True)
class Seeded:
    """One score of a recipe trained with S seeds: `values` [S], and `drawn` [R], the mean over seeds in each resample of the slides."""

    seeds: tuple[int, ...]
    values: np.ndarray
    drawn: np.ndarray


def over_seeds(
    labels, groups: list[dict[int, np.ndarray]], slides, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> list[tuple[dict[str, dict], dict[str, dict]]]:
    """For each group (a recipe's probs [N] by seed) the `spread` of its scores, and their `difference` from the first group.

    `labels` [N] 0 or 1; `slides` [N] are resampled, or patches where that is None. All groups are scored on the same resampled slides.
    """
    labels = np.asarray(labels, dtype=np.int64)
    codes = group_codes(slides, len(labels))
    counted = count_groups(codes, labels)
    several = [probs for group in groups for probs in group.values()]
    values = [point_scores(labels, probs) for probs in several]
    drawn = _resampled(labels, several, codes, counted.n, resamples, seed) if counted.enough else None
    seeded, place = [], 0
    for group in groups:
        runs = slice(place, place + len(group))
        place = runs.stop
        seeded.append({name: _seeded(tuple(group), values[runs], drawn and drawn[runs], name) for name in values[0]})
    return [
        (
            {name: spread(score) for name, score in scores.items()},
            {name: difference(seeded[0][name], score, counted, level) for name, score in scores.items()},
        )
        for scores in seeded
    ]


def spread(score: Seeded) -> dict:
    """{"value": mean over seeds, "sd" (None for one seed), "min", "max"}; all None where the score is not defined."""
    if np.isnan(score.values).any():
        return dict.fromkeys(("value", "sd", "min", "max"))
    sd = float(score.values.std(ddof=1)) if len(score.values) > 1 else None
    return {"value": float(score.values.mean()), "sd": sd, "min": float(score.values.min()), "max": float(score.values.max())}


def difference(first: Seeded, other: Seeded, groups: Groups, level: float = 0.95) -> dict:
    """Mean over seeds of `other` minus that of `first`: {"value", "low", "high", "resamples", "paired_seeds", "seeds_counted"}.

    Groups with the same seeds are paired by seed; others are treated as independent. Where either has one seed only, the spread over
    seeds is unknown: `seeds_counted` is False, and the interval covers the slides alone. Where there is no interval, `low` and `high`
    are None and `reason` says why.
    """
    paired = set(first.seeds) == set(other.seeds)
    counted = min(len(first.seeds), len(other.seeds)) > 1
    result = {"value": None, "low": None, "high": None, "resamples": 0, "paired_seeds": paired, "seeds_counted": counted}
    if np.isnan(first.values).any() or np.isnan(other.values).any():
        return {**result, "reason": "the score is not defined: one class only"}
    value = float(other.values.mean() - first.values.mean())
    drawn = other.drawn - first.drawn
    drawn = drawn[~np.isnan(drawn)]
    if len(drawn) < 2:
        return {**result, "value": value, "reason": TOO_FEW}
    parts = [(drawn.var(ddof=1) * groups.correction, groups.freedom)]
    if counted:
        parts += _seed_variances(first, other, paired)
    half = summed_half_width(parts, level)
    return {**result, "value": value, "low": value - half, "high": value + half, "resamples": len(drawn)}


def _seed_variances(first: Seeded, other: Seeded, paired: bool) -> list[tuple[float, float]]:
    """(variance of the mean over seeds, degrees of freedom): one pair for the differences by seed, or one for each group."""
    if not paired:
        return [(score.values.var(ddof=1) / len(score.values), len(score.values) - 1) for score in (first, other)]
    by_seed = dict(zip(first.seeds, first.values, strict=True))
    gaps = np.array([value - by_seed[seed] for seed, value in zip(other.seeds, other.values, strict=True)])
    return [(gaps.var(ddof=1) / len(gaps), len(gaps) - 1)]


def _seeded(seeds: tuple[int, ...], values: list[dict], drawn: list[dict] | None, name: str) -> Seeded:
    own = np.array([np.nan if value[name] is None else value[name] for value in values])
    return Seeded(seeds, own, np.empty(0) if drawn is None else np.mean([draws[name] for draws in drawn], axis=0))
