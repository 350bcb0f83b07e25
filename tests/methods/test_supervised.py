import math

import numpy as np
import pytest
import torch
from torch import nn

from pcam_ssl.methods.supervised import Supervised

LOGITS = (2.0, -1.0, 0.5)
LABELS = (1.0, 1.0, 0.0)


class Fixed(nn.Module):
    """A network whose logits are its pixels."""

    def forward(self, pixels):
        return {"logit": pixels}


def loss(weight=None, **options) -> float:
    batch = {"pixels": torch.tensor(LOGITS), "label": torch.tensor(LABELS)}
    if weight is not None:
        batch["weight"] = torch.tensor(weight)
    return Supervised(Fixed(), **options)(batch)["loss"].item()


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def mean(terms) -> float:
    return sum(terms) / len(LOGITS)


def test_bce_by_hand():
    expected = mean([-math.log(sigmoid(2)), -math.log(sigmoid(-1)), -math.log(1 - sigmoid(0.5))])
    assert loss() == pytest.approx(expected, rel=1e-6)


def test_pos_weight_multiplies_the_tumor_terms():
    shift = math.log(3)
    right = [sigmoid(2 + shift), sigmoid(-1 + shift), 1 - sigmoid(0.5 + shift)]
    expected = mean([-w * math.log(p) for p, w in zip(right, (3, 3, 1), strict=True)])
    assert loss(pos_weight=3.0) == pytest.approx(expected, rel=1e-6)


def test_label_smoothing_moves_targets_towards_one_half():
    terms = [-(t * math.log(sigmoid(z)) + (1 - t) * math.log(1 - sigmoid(z))) for z, t in zip(LOGITS, (0.9, 0.9, 0.1), strict=True)]
    assert loss(label_smoothing=0.2) == pytest.approx(mean(terms), rel=1e-6)


@pytest.mark.parametrize("gamma", [0.0, 2.0, 3.5])
def test_focal_by_hand(gamma):
    right = [sigmoid(2), sigmoid(-1), 1 - sigmoid(0.5)]
    expected = mean([-((1 - p) ** gamma) * math.log(p) for p in right])
    assert loss(loss="focal", focal_gamma=gamma) == pytest.approx(expected, rel=1e-6)


def test_focal_takes_pos_weight_too():
    shift = math.log(3)
    right = [sigmoid(2 + shift), sigmoid(-1 + shift), 1 - sigmoid(0.5 + shift)]
    expected = mean([-w * (1 - p) ** 2 * math.log(p) for p, w in zip(right, (3, 3, 1), strict=True)])
    assert loss(loss="focal", pos_weight=3.0) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("pos_weight", [1.0, 3.0, 0.2])
def test_the_optimal_logit_matches_the_true_share_with_any_weight(pos_weight):
    labels = torch.tensor([1.0] * 3 + [0.0] * 7)
    logit = torch.zeros(10, requires_grad=True)
    method = Supervised(Fixed(), pos_weight=pos_weight)
    optimizer = torch.optim.LBFGS([logit], max_iter=100, tolerance_grad=1e-9)

    def closure():
        optimizer.zero_grad()
        loss = method({"pixels": logit.mean().expand(10), "label": labels})["loss"]
        loss.backward()
        return loss

    optimizer.step(closure)
    assert sigmoid(logit.mean().item()) == pytest.approx(0.3, abs=1e-3)


@pytest.mark.parametrize(("kind", "gamma"), [("bce", 0), ("focal", 2)])
@pytest.mark.parametrize("pos_weight", [None, 3.0])
def test_weights_of_pseudo_labels_multiply_their_terms(kind, gamma, pos_weight):
    weights, tumor = (1.0, 0.25, 0.5), pos_weight or 1
    shift = math.log(tumor)
    right = [sigmoid(2 + shift), sigmoid(-1 + shift), 1 - sigmoid(0.5 + shift)]
    terms = [w * t * -((1 - p) ** gamma) * math.log(p) for p, w, t in zip(right, weights, (tumor, tumor, 1), strict=True)]
    assert loss(weights, loss=kind, pos_weight=pos_weight) == pytest.approx(mean(terms), rel=1e-6)


def test_auto_pos_weight_is_negatives_over_positives():
    method = Supervised.build(Fixed(), np.array([0, 0, 0, 1, 0, 1]), pos_weight="auto")
    assert method.pos_weight.item() == 2.0


def test_no_pos_weight_is_one():
    assert Supervised.build(Fixed(), np.array([0, 1, 0])).pos_weight.item() == 1.0


def test_the_logit_is_returned():
    method = Supervised(Fixed())
    assert method({"pixels": torch.tensor(LOGITS), "label": torch.tensor(LABELS)})["logit"].tolist() == list(LOGITS)
