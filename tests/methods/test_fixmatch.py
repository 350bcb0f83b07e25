"""FixMatch by hand: a network whose logits are its pixels."""

import math

import pytest
import torch
from torch import nn

from pcam_ssl.methods.fixmatch import FixMatch


class Fixed(nn.Module):
    """A network whose logits are its pixels; it remembers how it was called."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, pixels):
        self.calls.append(pixels)
        return {"logit": pixels}


def logit(prob: float) -> float:
    return math.log(prob / (1 - prob))


def bce(logit: float, label: float) -> float:
    return math.log(1 + math.exp(-logit)) if label else math.log(1 + math.exp(logit))


def batch(weak, strong, ramp=1.0) -> dict[str, torch.Tensor]:
    return {
        "pixels": torch.tensor([2.0, -1.0]),
        "label": torch.tensor([1.0, 1.0]),
        "weak": torch.tensor([logit(prob) for prob in weak]),
        "strong": torch.tensor(strong),
        "ramp": torch.tensor(ramp),
    }


SUPERVISED = (bce(2.0, 1) + bce(-1.0, 1)) / 2


def loss(weak, strong, ramp=1.0, **options) -> float:
    return FixMatch(Fixed(), **options)(batch(weak, strong, ramp))["loss"].item()


def test_only_labels_count_where_no_patch_is_confident():
    assert loss([0.5, 0.94, 0.06], [3.0, -3.0, 1.0]) == pytest.approx(SUPERVISED, rel=1e-6)


def test_a_confident_tumor_is_the_target_of_its_strong_view():
    assert loss([0.97], [-0.5]) == pytest.approx(SUPERVISED + bce(-0.5, 1), rel=1e-6)


def test_a_confident_normal_is_the_target_of_its_strong_view():
    assert loss([0.03], [-0.5]) == pytest.approx(SUPERVISED + bce(-0.5, 0), rel=1e-6)


def test_the_mean_is_over_all_unlabelled_patches():
    expected = (bce(-0.5, 1) + bce(1.5, 0)) / 4
    assert loss([0.97, 0.5, 0.01, 0.9], [-0.5, 9.0, 1.5, 9.0]) == pytest.approx(SUPERVISED + expected, rel=1e-6)


@pytest.mark.parametrize(("threshold", "counts"), [(0.89, 2), (0.91, 0)])
def test_both_tails_share_one_threshold(threshold, counts):
    expected = SUPERVISED + counts * bce(0.0, 1) / 2
    assert loss([0.9, 0.1], [0.0, 0.0], threshold=threshold) == pytest.approx(expected, rel=1e-6)


def test_weight_and_ramp_multiply_the_consistency():
    assert loss([0.97], [-0.5], ramp=0.25, weight=3.0) == pytest.approx(SUPERVISED + 0.75 * bce(-0.5, 1), rel=1e-6)


def test_no_gradient_reaches_the_weak_view():
    parts = batch([0.97, 0.03], [0.3, 0.2])
    weak = parts["weak"].requires_grad_()
    strong = parts["strong"].requires_grad_()
    FixMatch(Fixed())(parts)["loss"].backward()
    assert weak.grad.tolist() == [0.0, 0.0]
    assert strong.grad[0] < 0 < strong.grad[1]


def test_labelled_weak_and_strong_views_share_one_pass():
    network = Fixed()
    FixMatch(network)(batch([0.5, 0.5], [0.3, 0.2]))
    assert [len(pixels) for pixels in network.calls] == [6]


def test_weights_of_patches_count():
    parts = {**batch([0.5], [0.0]), "weight": torch.tensor([1.0, 0.0])}
    assert FixMatch(Fixed())(parts)["loss"].item() == pytest.approx(bce(2.0, 1) / 2, rel=1e-6)


def test_the_logits_of_labelled_patches_are_returned():
    assert FixMatch(Fixed())(batch([0.5], [0.0]))["logit"].tolist() == [2.0, -1.0]
