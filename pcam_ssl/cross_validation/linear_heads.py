"""Linear heads on the features of a frozen backbone, fitted to the optimum: those of a unit and of its inner networks, all at once.

A linear head's mean logit over views is its logit of the mean features, so heads are fitted on the mean over the training views.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from scipy.special import expit

from pcam_ssl.cross_validation.context import Fitted, RunContext, in_order
from pcam_ssl.cross_validation.fitting import unit_features
from pcam_ssl.cross_validation.training_data import TrainingSet, training_set
from pcam_ssl.data.folds import Unit
from pcam_ssl.evaluation.metrics import nll
from pcam_ssl.models.artefact import save_weights
from pcam_ssl.models.network import Network
from pcam_ssl.recipe.schema import Recipe
from pcam_ssl.terminal import say
from pcam_ssl.training.logistic import Problems, fit_logistic

BLOCK = 8192
PRODUCTS = tuple(10.0 ** (power / 2) for power in range(-2, 5))
"""The values of C x D that are tried, two a decade. On standardised features of 112 to 2,064 dimensions the best lay between 2 and 25."""


def fit_linear_heads(context: RunContext, unit: Unit) -> Fitted:
    """The heads of a unit and of its inner networks, written into their folders.

    With `optim.c: inner`, C is that of the lowest loss on inner patches, each scored by heads that did not learn from it. Every process of
    `torchrun` computes the same.
    """
    options = context.recipe.optim
    labels = _Labels.of(context, unit)
    features = unit_features(context, labels.rows, context.recipe.views.policy)
    network = context.frozen.heads(0.0)
    # One scale for all heads of the unit. It comes from training patches, without their labels.
    network.standardise(features[: labels.n_labelled])
    # In place: the features of a large dataset fill much of the memory.
    features = features.sub_(network.feature_mean).div_(network.feature_std).to(context.world.device)
    offset = _log_pos_weight(context.recipe, labels)
    inner_units = unit.parts or (unit,)
    cs = tuple(product / features.shape[1] for product in PRODUCTS) if options.c == "inner" else (options.c,)
    sets = list(range(1, 1 + len(unit.parts))) or [0]
    solved = _Solved(features, labels, offset, context.recipe, [(each, c) for c in cs for each in sets])
    chosen, evidence = cs[0], None
    if options.c == "inner":
        chosen, evidence = _choose(context, inner_units, sets, labels, solved, features)
    whole = solved if not unit.parts else _Solved(features, labels, offset, context.recipe, [(0, chosen)])
    own = _saved(context, unit, network, whole.head(0, chosen))
    inner = [
        (part, _saved(context, part, network, solved.head(number, chosen))) for number, part in zip(sets, unit.parts, strict=False)
    ]
    context.world.gather(None)
    if evidence is not None and context.world.is_main:
        say(
            f"{unit.name}: C = {chosen:.2g} of {cs[0]:.1g} to {cs[-1]:.1g}, chosen on {evidence['n']:,} patches that its heads did not learn from"
        )
    facts = {"epoch": 1, "steps": solved.steps, "c": chosen}
    return Fitted(own, inner or [(unit, own)], facts if evidence is None else {**facts, "c_losses": evidence["losses"]})


@dataclass(frozen=True)
class _Labels:
    """The patches of a unit and its inner networks: `rows` `[N]`, labelled ones first, and each learner's targets
    and weights `[N, J]`, the unit's own first."""

    rows: np.ndarray
    targets: np.ndarray
    weights: np.ndarray
    n_labelled: int
    places: pd.Index
    """The rows again, to look a place up by row."""

    @classmethod
    def of(cls, context: RunContext, unit: Unit) -> "_Labels":
        learners = [training_set(context, each) for each in (unit, *unit.parts)]
        own = learners[0]
        # Inner slides that are held out choose C, so their features are needed too; nobody learns from them.
        inner = context.rows.row.to_numpy()[unit.inner]
        rows = pd.unique(np.concatenate([own.rows[: own.n_labelled], *(each.rows for each in learners), inner]))
        places = pd.Index(rows)
        targets, weights = np.zeros((2, len(rows), len(learners)))
        for column, patches in enumerate(learners):
            at = places.get_indexer(patches.rows)
            targets[at, column] = patches.labels
            weights[at, column] = _weights(context.recipe, patches)
        return cls(rows, targets, weights, own.n_labelled, places)


def _weights(recipe: Recipe, patches: TrainingSet) -> np.ndarray:
    """Weights `[n]`; with a fixed `pseudo.mix`, pseudo-labels together weigh as much as they would in its batches."""
    weights, pseudo = patches.weights.copy(), slice(patches.n_labelled, None)
    if recipe.pseudo.mix != "all" and len(weights[pseudo]):
        share = recipe.pseudo.mix
        weights[pseudo] *= share / (1 - share) * patches.n_labelled / len(weights[pseudo])
    return weights


def _log_pos_weight(recipe: Recipe, labels: _Labels) -> float:
    weight = recipe.method.pos_weight
    if weight == "auto":
        own = labels.targets[: labels.n_labelled, 0]
        weight = (own < 0.5).sum() / (own > 0.5).sum()
    return float(np.log(1.0 if weight is None else weight))


class _Solved:
    """Heads for pairs of learner and C."""

    def __init__(self, features: torch.Tensor, labels: _Labels, offset: float, recipe: Recipe, pairs: list[tuple[int, float]]):
        smoothing, options = recipe.method.label_smoothing, recipe.optim
        targets = labels.targets * (1 - smoothing) + smoothing / 2
        # Weighting tumor patches by w shifts the best logits by log w; `offset` takes the shift out, as in `methods.supervised`.
        weights = labels.weights * np.where(labels.targets > 0.5, np.exp(offset), 1.0)
        problems = Problems(
            torch.from_numpy(weights), torch.from_numpy(targets), [each for each, _ in pairs], [c for _, c in pairs]
        )
        weight, bias, self.steps = fit_logistic(
            features, problems, offset=offset, max_steps=options.max_steps, tolerance=options.tolerance
        )
        self.heads = {pair: (weight[:, number], bias[number]) for number, pair in enumerate(pairs)}

    def head(self, learner: int, c: float) -> tuple[torch.Tensor, torch.Tensor]:
        """Weights `[D]` and bias of a learner's head."""
        return self.heads[learner, c]


def _choose(
    context: RunContext, units: tuple[Unit, ...], sets: list[int], labels: _Labels, solved: _Solved, features: torch.Tensor
) -> tuple[float, dict]:
    """The C of the lowest mean loss (nats) on the inner patches of `units`, and the losses."""
    cs = list(dict.fromkeys(c for _, c in solved.heads))
    truth = in_order(units, [context.rows.label.to_numpy(np.int64)[unit.inner] for unit in units])
    logits = []
    for unit, number in zip(units, sets, strict=True):
        weights, biases = (torch.stack([solved.head(number, c)[kind] for c in cs], -1) for kind in (0, 1))
        at = torch.from_numpy(labels.places.get_indexer(context.rows.row.to_numpy()[unit.inner]))
        blocks = [features[block].to(weights) @ weights + biases for block in at.split(BLOCK)]
        logits.append(torch.cat(blocks).cpu().numpy())
    logits = in_order(units, logits)  # [n, len(cs)]
    losses = {c: nll(truth, expit(logits[:, column])) for column, c in enumerate(cs)}
    best = min(losses, key=lambda c: (losses[c], c))
    return best, {"n": len(truth), "losses": {f"{c:.3g}": loss for c, loss in losses.items()}}


def _saved(context: RunContext, unit: Unit, network: Network, head: tuple[torch.Tensor, torch.Tensor]) -> Network:
    """A network with this head and the scale of `network`, written into the unit's folder."""
    new = context.frozen.heads(0.0)
    with torch.no_grad():
        new.feature_mean.copy_(network.feature_mean)
        new.feature_std.copy_(network.feature_std)
        new.head.weight.copy_(head[0])
        new.head.bias.copy_(head[1])
    if context.world.is_main:
        folder = context.run.unit(unit.name)
        folder.mkdir(parents=True, exist_ok=True)
        save_weights(folder, new, heads_only=True)
    return new.to(context.world.device).eval()
