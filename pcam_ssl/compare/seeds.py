"""Which of the compared runs are one recipe with several seeds, and what the recipes score over their seeds. No torch."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from pcam_ssl.compare.seed_spread import over_seeds
from pcam_ssl.recipe.loading import flatten, read_yaml
from pcam_ssl.recipe.recipe_pseudo import STOP_KEYS
from pcam_ssl.recipe.schema import MACHINE_KEYS
from pcam_ssl.runs.comparable import ScoredRun
from pcam_ssl.runs.contents import Facts
from pcam_ssl.runs.run import ROUNDS, Run

# The folds are compared themselves, so how they were held does not set runs apart.
FREE = ("seed", "cv.seed", "cv.folds_file", *MACHINE_KEYS, *(f"pseudo.{key}" for key in STOP_KEYS))


def seed_groups(runs: list[ScoredRun]) -> list[list[ScoredRun]]:
    """The runs by recipe, in the order of their first: those of a group differ in nothing but the seed.

    A seed that comes again, as where a run is named twice, begins a group of its own: it says nothing of the spread over seeds.
    """
    groups: dict[tuple, list[ScoredRun]] = {}
    seen: Counter = Counter()
    for run in runs:
        recipe = _recipe_key(run)
        seen[recipe, seed_of(run)] += 1
        groups.setdefault((recipe, seen[recipe, seed_of(run)]), []).append(run)
    return list(groups.values())


def seed_of(run: ScoredRun) -> int:
    """The seed of its recipe."""
    return run.facts.recipe.get("seed", 0)


def groups_over_seeds(groups: list[list[ScoredRun]], labels, slides, options: dict[str, int]) -> list[dict[str, Any]] | None:
    """What `compare` says of each group; None where every run is a recipe of its own and there is no spread to tell."""
    if all(len(group) == 1 for group in groups):
        return None
    probs = [{seed_of(run): run.facts.oof.prob.to_numpy() for run in group} for group in groups]
    told = over_seeds(labels, probs, slides, **options)
    return [
        {
            "name": name,
            "runs": [run.name for run in group],
            "seeds": [seed_of(run) for run in group],
            "scores": scores,
            "against_first": None if group is groups[0] else differences,
        }
        for name, group, (scores, differences) in zip(_names(groups), groups, told, strict=True)
    ]


def _recipe_key(run: ScoredRun) -> str:
    """Everything but the seed that made its predictions, as text."""
    facts = run.facts
    parts = [facts.info["command"], run.table, facts.info.get("round"), _own(facts.recipe, facts)]
    if "round_0" in facts.info:
        start = Run(Path(facts.info["round_0"])).recipe
        parts.append(_own(flatten(read_yaml(start)), facts) if start.exists() else facts.info["round_0"])
    return json.dumps(parts, sort_keys=True)


def _own(recipe: dict[str, Any], facts: Facts) -> dict[str, Any]:
    rounds = facts.info["command"] == ROUNDS
    return {key: value for key, value in recipe.items() if key not in FREE and (rounds or not key.startswith("pseudo."))}


def _names(groups: list[list[ScoredRun]]) -> list[str]:
    """What is left of the names of a group's runs without their seeds; where that is nothing, or another's name, its first run and how many more."""
    taken = [run.name for group in groups for run in group]
    bare = [_without_seeds(group) for group in groups]
    return [
        group[0].name
        if len(group) == 1
        else name
        if name and bare.count(name) == 1 and name not in taken
        else f"{group[0].name} and {len(group) - 1} more"
        for name, group in zip(bare, groups, strict=True)
    ]


def _without_seeds(group: list[ScoredRun]) -> str:
    for pattern in (r"(?<![^\W_])seed[-_=]?{}(?!\w)", r"(?<![^+/_-]){}(?![^+/_:-])"):
        left = {re.sub(pattern.format(seed_of(run)), "", run.name).strip("+/_-") for run in group}
        if len(left) == 1:
            return re.sub(r"([+/_-])\1+", r"\1", left.pop())
    return ""
