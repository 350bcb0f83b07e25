"""Headroom before hours: a forecast, before any round, of what knowing the pool could bring, and whether that could be seen here.

Linear heads on cached features of a frozen backbone are scored out of fold. The labels that score decide whether to go on, and nothing else:
no network, selection or threshold of a round depends on the forecast. The pool's true labels are not used, even where they are known.
"""

import json
import shlex
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
import torch

from pcam_ssl.cross_validation.context import RunContext
from pcam_ssl.cross_validation.frozen import features_of_rows, open_frozen
from pcam_ssl.data.folds import Folds, Unit, fold_unit, score_groups
from pcam_ssl.data.pool import SOURCES, pool_rows, pool_sources
from pcam_ssl.data.splits import part_columns
from pcam_ssl.errors import UserError
from pcam_ssl.evaluation.bootstrap import paired_differences
from pcam_ssl.evaluation.metrics import auroc
from pcam_ssl.pseudo_labels.ceiling import Ceiling, FoldHeads, fit_fold, score_heads
from pcam_ssl.pseudo_labels.experiment import Rounds
from pcam_ssl.pseudo_labels.pool_likeness import drift_words, far_by_source, far_patches, tumor_share, tumor_words
from pcam_ssl.pseudo_labels.report import forecast_sentences
from pcam_ssl.recipe.loading import flatten, load_recipe
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.render.format import gain_numbers
from pcam_ssl.terminal import say, warn

MOST = 10_000
"""Labels, and scored patches, of a fold that are used; more are sampled, to keep time and memory small."""
MOST_POOL = 2_000
"""Pool patches of a fold that are looked at: their shares are then known to 0.01."""
INNER_FOLDS = 5
SHARED_WITH_HEAD = (
    *(
        "seed",
        "data.label_budget",
        "data.slide_budget",
        "data.allow_conflicts",
        "cv.scheme",
        "cv.folds",
        "cv.folds_file",
        "cv.seed",
    ),
    *("model.name", "model.pretrained", "model.image_size", "model.weights", "features.layers"),
)
"""Keys of the run that its patches, labels, folds and features depend on: those of the advised head."""


def find_headroom(rounds: Rounds, anyway: bool = False) -> dict[str, Any] | None:
    """The forecast as values of rounds.json, printed; None where `pseudo.headroom` is false, values with a `reason` where there is none.

    Raises UserError where no round was made yet and the pool cannot bring as much as the scored slides can show, unless `anyway`.
    """
    if not rounds.recipe.pseudo.headroom:
        return None
    world = rounds.world
    if (reason := _without_features(rounds)) is not None:
        world.run_on_main(lambda: say(f"headroom: no forecast, because {reason}"))
        return {"reason": reason}
    context = frozen_context(rounds)
    forecast = world.run_on_main(lambda: _printed(_forecast(rounds, context)))
    made = world.run_on_main(lambda: rounds.run(1).paths.provenance.exists())
    if not made and not anyway and (words := hopeless(forecast)) is not None:
        raise world.agreed(UserError(f"{rounds.start.path}: {words}; label patches of more slides, or go on with --anyway"))
    return forecast


def hopeless(forecast: dict[str, Any]) -> str | None:
    """Why rounds cannot be seen to help; None where they can, or where that is not known."""
    ceiling, resolvable = forecast.get("ceiling"), forecast.get("resolvable")
    if not ceiling or ceiling["low"] is None or resolvable is None or ceiling["high"] >= resolvable:
        return None
    return (
        f"rounds cannot be seen to help here: all true labels of the pool would bring {gain_numbers(ceiling)} in AUROC, and the scored"
        f" slides show no change below {resolvable:.3f}"
    )


def _without_features(rounds: Rounds) -> str | None:
    """Why there are no features to make a forecast from; None where there are."""
    if rounds.members:
        return f"{rounds.start.path} is a blend, which has no features of its own"
    model = rounds.start.recipe.model
    if rounds.frozen_0 is not None:
        return None
    if model.init is not None:
        return "the first weights (model.init) are another run's, and differ by fold"
    if not model.pretrained and model.weights is None:
        return "the backbone starts from random weights (model.pretrained=false), whose features say little"
    return None


def frozen_context(rounds: Rounds) -> RunContext:
    """Round 0 on features of its backbone: its own where that is frozen, else those of the first weights. Every process takes part."""
    context = rounds.context(0)
    if rounds.frozen_0 is not None:
        return replace(context, recipe=rounds.start.recipe)
    recipe = _frozen_recipe(rounds.start.recipe)
    if rounds.world.is_main:
        say(
            f"headroom: features of {len(rounds.dataset):,} patches by {recipe.model.name} as it was before training, computed once and kept;"
            " --set pseudo.headroom=false omits this"
        )
    frozen = open_frozen(recipe, rounds.dataset, rounds.world, rounds.precision, rounds.workers)
    return replace(context, recipe=recipe, frozen=frozen)


def _frozen_recipe(recipe: Recipe) -> Recipe:
    """The shipped recipe `frozen` with the backbone of a recipe, so that both share the cache."""
    frozen = load_recipe("frozen")
    kept = ("name", "pretrained", "image_size", "weights", "weights_digest")
    model = frozen.model.model_copy(update={key: getattr(recipe.model, key) for key in kept})
    return frozen.model_copy(update={"model": model, "seed": recipe.seed})


@dataclass(frozen=True)
class Evidence:
    """What a forecast is made from: heads by fold, the scored patches fold by fold as places `[n]` in the rows of the folds, the ceiling of their
    scores, and what was seen of each fold's pool."""

    heads: list[FoldHeads]
    places: np.ndarray
    ceiling: Ceiling
    looks: list[dict[str, Any]]


def evidence(rounds: Rounds, context: RunContext, parts: pd.DataFrame) -> Evidence:
    """Heads on the features of `context`, each scored out of fold. `parts`: of `inner_parts`."""
    folds, seed, rows = rounds.folds, rounds.recipe.seed, context.rows.row.to_numpy()
    labels = context.rows.label.to_numpy(np.int64)
    heads, scored, looks = [], [], []
    for unit in fold_units(folds):
        part = parts[f"part_{unit.number}"].to_numpy(np.int64, na_value=-1)
        train = _some(np.flatnonzero(unit.train & (part >= 0)), MOST, (seed, 13, unit.number))
        scored.append(_some(np.flatnonzero(unit.score), MOST, (seed, 14, unit.number)))
        features = _features(context, rows[train])
        heads.append(fit_fold(features, labels[train], part[train], _features(context, rows[scored[-1]]), (seed, 15, unit.number)))
        looks.append(_look(rounds, context, unit, heads[-1], features, train))
    places = np.concatenate(scored)
    groups, _ = score_groups(folds, context.rows.iloc[places].reset_index(drop=True))
    return Evidence(heads, places, score_heads(heads, labels[places], groups, seed), looks)


def inner_parts(rounds: Rounds, labels: np.ndarray) -> pd.DataFrame:
    """Columns `part_K`, which keep slides whole: those of the folds where they cross-fit. Raises UserError where `labels` `[N]` allow no such parts."""
    folds = rounds.folds
    if folds.cross_fitted:
        return folds.frame
    return part_columns(folds.frame, labels, n_folds=folds.n_folds, inner_folds=INNER_FOLDS, seed=rounds.recipe.seed)


def fold_units(folds: Folds) -> list[Unit]:
    """The units that score patches."""
    return [fold_unit(folds, k) for k in range(folds.n_folds)]


def _forecast(rounds: Rounds, context: RunContext) -> dict[str, Any]:
    facts: dict[str, Any] = {"features": context.recipe.model.name, "own": rounds.frozen_0 is not None, "reason": None}
    labels, units = context.rows.label.to_numpy(np.int64), fold_units(rounds.folds)
    if len(np.unique(labels[np.any([unit.score for unit in units], axis=0)])) < 2:
        return facts | {"reason": "the scored patches hold one class only"}
    try:
        parts = inner_parts(rounds, labels)
    except UserError as error:
        return facts | {"reason": str(error)}
    found = evidence(rounds, context, parts)
    ceiling, looks, sizes = found.ceiling, found.looks, [int(unit.train.sum()) for unit in units]
    n, pool = float(np.mean(sizes)), float(np.mean([each["pool"] for each in looks]))
    table = context.rows.iloc[found.places].reset_index(drop=True)
    facts |= {
        "labels": n,
        "pool": pool,
        "budgets": ceiling.budgets.tolist(),
        "aurocs": ceiling.aurocs.tolist(),
        "c": [head.c for head in found.heads],
        "head": auroc(table.label.to_numpy(np.int64), ceiling.probs),
        "against_round_0": _against_round_0(rounds, table, ceiling.probs) if max(sizes) <= MOST else None,
        "head_command": _head_command(rounds),
        "ceiling": None,
        "fit": None,
        "resolvable": ceiling.resolvable,
        "likeness": {name: _mean([each[name] for each in looks]) for name in ("far", "tumor", "tumor_in_labels")}
        | {"far_by_source": {name: _mean([each["far_by_source"][name] for each in looks]) for name in SOURCES}},
    }
    if ceiling.curve is None:
        return facts | {"reason": f"{n:,.0f} labels are too few for three budgets that hold both classes"}
    law = ceiling.curve.mean
    fit = {"a": float(law.a[0]), "b": float(np.exp(law.log_b[0])), "c": float(law.c[0])}
    return facts | {"ceiling": ceiling.gain(n, pool), "fit": fit}


def _against_round_0(rounds: Rounds, table: pd.DataFrame, probs: np.ndarray) -> dict[str, Any]:
    """Paired difference in AUROC of `probs` `[n]` on the patches in `table` to the run as it is."""
    own = rounds.start.oof.set_index("id").prob.loc[table.id].to_numpy()
    groups, _ = score_groups(rounds.folds, table)
    options = {"resamples": rounds.recipe.score.resamples, "seed": rounds.recipe.seed}
    return paired_differences(table.label.to_numpy(np.int64), own, probs, groups, **options)["auroc"]


def _head_command(rounds: Rounds) -> str:
    """The command that trains the linear head alone, on the labels and in the folds of round 0."""
    own, frozen = (flatten(recipe.dump()) for recipe in (rounds.start.recipe, load_recipe("frozen")))
    words = ["pcam-ssl", "baseline", "--recipe", "frozen", "--data", str(rounds.dataset.path)]
    for key in SHARED_WITH_HEAD:
        if own[key] != frozen[key]:
            words += ["--set", f"{key}={json.dumps(own[key], ensure_ascii=False)}"]
    return shlex.join([*words, "--out", f"{rounds.start.path}-head"])


def _look(
    rounds: Rounds, context: RunContext, unit: Unit, head: FoldHeads, features: torch.Tensor, train: np.ndarray
) -> dict[str, Any]:
    """The pool of a fold: its size, the share that lies far from the training patches, in all and by source, and its share of tumor."""
    rows, sources = pool_rows(rounds.dataset, rounds.folds, unit).row.to_numpy(), pool_sources(rounds.dataset, rounds.folds, unit)
    seed = (rounds.recipe.seed, 16, unit.number)
    drawn = _some(np.arange(len(rows)), MOST_POOL, seed)
    # A source that is a small part of a large pool has few patches among these.
    of_sources = [_some(np.flatnonzero(sources == name), MOST_POOL // len(SOURCES), seed) for name in SOURCES]
    places = np.unique(np.concatenate([drawn, *of_sources]))
    among_drawn = np.isin(places, drawn)
    pool = _features(context, rows[places])
    labels, groups = context.rows.label.to_numpy(np.int64)[train], rounds.folds.frame.group.to_numpy()[train]
    far = far_patches(pool.numpy(), features.numpy(), groups)
    return {
        "pool": len(rows),
        "far": None if far is None else float(far[among_drawn].mean()),
        "far_by_source": far_by_source(far, sources[places]),
        "tumor": tumor_share(head.logits_of(pool)[among_drawn], head.learned, labels, groups),
        "tumor_in_labels": float(labels.mean()),
    }


def _features(context: RunContext, rows: np.ndarray) -> torch.Tensor:
    """Features `[n, D]` of rows of the dataset, each the mean over the views that the recipe tests with."""
    recipe = context.recipe
    views = context.frozen.views(recipe, "d4" if recipe.predict.d4 else "none")
    return features_of_rows(
        context.frozen, context.inputs, rows, views, context.precision, context.world, recipe.predict.batch_size
    )


def _some(rows: np.ndarray, most: int, seed: tuple[int, ...]) -> np.ndarray:
    """At most so many of the rows, in their order."""
    return rows if len(rows) <= most else np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _printed(forecast: dict[str, Any]) -> dict[str, Any]:
    """Print the forecast before hours are spent on rounds, and return it."""
    for sentence in forecast_sentences(forecast):
        say(f"headroom: {sentence}")
    if "likeness" in forecast:
        for words in (drift_words(forecast["likeness"]), tumor_words(forecast["likeness"])):
            if words is not None:
                warn(words)
    return forecast
