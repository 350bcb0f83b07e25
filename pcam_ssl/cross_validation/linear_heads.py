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
    inner_units = unit.parts or (unit,)
    sets = list(range(1, 1 + len(unit.parts))) or [0]
    heads = _Heads(features, labels, offset, context.recipe)
    chosen, evidence = options.c, None
    if options.c == "inner":
        chosen, evidence = _choose(context, inner_units, sets, labels, heads, features)
    elif unit.parts:
        heads.fit([(each, chosen) for each in sets])
    if (0, chosen) not in heads:
        # The mean of the inner heads is near the optimum of all labels.
        heads.fit([(0, chosen)], start=heads.mean(sets, chosen) if unit.parts else None)
    own = _saved(context, unit, network, heads[0, chosen])
    inner = [(part, _saved(context, part, network, heads[number, chosen])) for number, part in zip(sets, unit.parts, strict=False)]
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

    def __contains__(self, pair: tuple[int, float]) -> bool:
        return pair in self.fitted

    def __getitem__(self, pair: tuple[int, float]) -> tuple[torch.Tensor, torch.Tensor]:
        return self.fitted[pair]

    def fit(self, pairs: list[tuple[int, float]], start: Solution | None = None) -> None:
        """Fit the heads of learners and Cs, from those in `start` or from 0."""
        problems = Problems(self.weights, self.targets, [learner for learner, _ in pairs], [c for _, c in pairs])
        limits = {"max_steps": self.options.max_steps, "tolerance": self.options.tolerance}
        solution = self.regressions.fit(problems, start=start, offset=self.offset, **limits)
        self.fitted |= dict(zip(pairs, zip(solution.weight, solution.bias, strict=True), strict=True))
        self.steps += solution.steps

    def of(self, learners: list[int], c: float) -> Solution:
        """The heads of several learners at one C."""
        weights, biases = zip(*(self[learner, c] for learner in learners), strict=True)
        return Solution(torch.stack(weights), torch.stack(biases), 0)

    def mean(self, learners: list[int], c: float) -> Solution:
        """The mean of the heads of several learners, as one head."""
        all_of = self.of(learners, c)
        return Solution(all_of.weight.mean(0, keepdim=True), all_of.bias.mean(0, keepdim=True), 0)


def _choose(
    context: RunContext, units: tuple[Unit, ...], sets: list[int], labels: _Labels, heads: _Heads, features: torch.Tensor
) -> tuple[float, dict]:
    """The C of the lowest mean loss (nats) on the inner patches of `units`, and the losses of those that were tried."""
    cs = [product / features.shape[1] for product in PRODUCTS]
    truth = in_order(units, [context.rows.label.to_numpy(np.int64)[unit.inner] for unit in units])
    inner = [torch.from_numpy(labels.places.get_indexer(context.rows.row.to_numpy()[unit.inner])) for unit in units]

    def loss(c: float) -> float:
        logits = []
        for at, (weight, bias) in zip(inner, (heads[number, c] for number in sets), strict=True):
            logits.append(torch.cat([features[block].to(weight) @ weight + bias for block in at.split(BLOCK)]).cpu().numpy())
        return nll(truth, expit(in_order(units, logits)))

    heads.fit([(number, cs[place]) for place in FIRST for number in sets])
    losses = {place: loss(cs[place]) for place in FIRST}
    while True:
        best = min(losses, key=lambda place: (losses[place], place))
        further = [place for place in (best - 1, best + 1) if 0 <= place < len(cs) and place not in losses]
        if not further:
            break
        for place in further:
            heads.fit([(number, cs[place]) for number in sets], start=heads.of(sets, cs[best]))
            losses[place] = loss(cs[place])
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
