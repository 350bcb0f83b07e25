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
from pcam_ssl.training.logistic import LogisticRegressions, Problems, Solution

BLOCK = 8192
PRODUCTS = tuple(10.0 ** (power / 2) for power in range(-2, 5))
"""The values that C x D may take, two a decade. On standardised features of 112 to 2,064 dimensions the best lay between 2 and 25."""
FIRST = (2, 3, 4)
"""The places of those tried first. From there the search goes on as long as the best has a neighbour that was not tried; in 926 of 929
fits of three datasets it ended at the best of all seven, in the others the loss has two valleys."""


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
    heads = _Heads(features, labels, offset, context.recipe)
    chosen, evidence = options.c, None
    if options.c == "inner":
        chosen, evidence = _choose(context, unit, labels, heads, features)
    else:
        heads.fit([chosen])
    own = _saved(context, unit, network, heads[0, chosen])
    inner = [(part, _saved(context, part, network, heads[number, chosen])) for number, part in enumerate(unit.parts, 1)]
    context.world.gather(None)
    if evidence is not None and context.world.is_main:
        tried = list(evidence["losses"])
        say(
            f"{unit.name}: C = {chosen:.2g} of {float(tried[0]):.1g} to {float(tried[-1]):.1g}, chosen on {evidence['n']:,} patches that its"
            " heads did not learn from"
        )
    facts = {"epoch": 1, "steps": heads.steps, "c": chosen}
    return Fitted(own, inner or [(unit, own)], facts if evidence is None else {**facts, "c_losses": evidence["losses"]})


@dataclass(frozen=True)
class _Labels:
    """The patches of a unit and its inner networks: `rows` `[N]`, labelled ones first, and each learner's targets
    and weights `[J, N]`, the unit's own first."""

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
        targets, weights = np.zeros((2, len(learners), len(rows)))
        for number, patches in enumerate(learners):
            at = places.get_indexer(patches.rows)
            targets[number, at] = patches.labels
            weights[number, at] = _weights(context.recipe, patches)
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
        own = labels.targets[0, : labels.n_labelled]
        weight = (own < 0.5).sum() / (own > 0.5).sum()
    return float(np.log(1.0 if weight is None else weight))


class _Heads:
    """The heads that are fitted so far, by learner and C: weights `[D]` and bias."""

    def __init__(self, features: torch.Tensor, labels: _Labels, offset: float, recipe: Recipe):
        smoothing = recipe.method.label_smoothing
        targets = labels.targets * (1 - smoothing) + smoothing / 2
        # Weighting tumor patches by w shifts the best logits by log w; `offset` takes the shift out, as in `methods.supervised`.
        weights = labels.weights * np.where(labels.targets > 0.5, np.exp(offset), 1.0)
        self.weights, self.targets = torch.from_numpy(weights), torch.from_numpy(targets)
        self.regressions, self.offset, self.options = LogisticRegressions(features), offset, recipe.optim
        self.fitted: dict[tuple[int, float], tuple[torch.Tensor, torch.Tensor]] = {}
        self.steps = 0

    def __getitem__(self, pair: tuple[int, float]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.fitted[pair]

    def fit(self, cs: list[float], start: float | None = None) -> None:
        """Fit all learners at the values `cs`, from their heads at the C `start`, or from 0."""
        learners = range(len(self.weights))
        pairs = [(learner, c) for c in cs for learner in learners]
        begun = None
        if start is not None:
            weights, biases = zip(*(self[learner, start] for learner, _ in pairs), strict=True)
            begun = Solution(torch.stack(weights), torch.stack(biases), 0)
        problems = Problems(self.weights, self.targets, [learner for learner, _ in pairs], [c for _, c in pairs])
        limits = {"max_steps": self.options.max_steps, "tolerance": self.options.tolerance}
        solution = self.regressions.fit(problems, start=begun, offset=self.offset, **limits)
        self.fitted |= dict(zip(pairs, zip(solution.weight, solution.bias, strict=True), strict=True))
        self.steps += solution.steps


def _choose(context: RunContext, unit: Unit, labels: _Labels, heads: _Heads, features: torch.Tensor) -> tuple[float, dict]:
    """The C of the lowest mean loss (nats) on the unit's inner patches, and the losses of those that were tried."""
    cs = [product / features.shape[1] for product in PRODUCTS]
    units, first = (unit.parts, 1) if unit.parts else ((unit,), 0)
    truth = in_order(units, [context.rows.label.to_numpy(np.int64)[each.inner] for each in units])
    inner = [torch.from_numpy(labels.places.get_indexer(context.rows.row.to_numpy()[each.inner])) for each in units]

    def loss(c: float) -> float:
        logits = []
        for number, at in enumerate(inner, first):
            weight, bias = heads[number, c]
            logits.append(torch.cat([features[block].to(weight) @ weight + bias for block in at.split(BLOCK)]).cpu().numpy())
        return nll(truth, expit(in_order(units, logits)))

    heads.fit([cs[place] for place in FIRST])
    losses = {place: loss(cs[place]) for place in FIRST}
    while True:
        best = min(losses, key=lambda place: (losses[place], place))
        if best == min(losses):
            # Smaller values take few steps, and several of them together cost hardly more than one.
            further = list(range(best))
        else:
            further = [place for place in (best + 1,) if place < len(cs) and place not in losses]
        if not further:
            break
        heads.fit([cs[place] for place in further], start=cs[best])
        losses |= {place: loss(cs[place]) for place in further}
    return cs[best], {"n": len(truth), "losses": {f"{cs[place]:.3g}": losses[place] for place in sorted(losses)}}


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
