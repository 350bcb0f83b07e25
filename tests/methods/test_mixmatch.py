"""MixMatch by hand: a network whose logits are its pixels."""

import math

import pytest
import torch
from torch import nn

from pcam_ssl.methods.mixmatch import MixMatch
from pcam_ssl.models.network import build_network


class Fixed(nn.Module):
    """A network whose logits are its pixels; it remembers how it was called."""

    backbone_frozen = False

    def __init__(self):
        super().__init__()
        self.calls = []

    def forward(self, pixels):
        self.calls.append(pixels.tolist())
        return {"logit": pixels}


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def bce(logit: float, target: float) -> float:
    return -target * math.log(sigmoid(logit)) - (1 - target) * math.log(sigmoid(-logit))


def sharpened(prob: float, temperature: float) -> float:
    """As in the paper, from the probs of both classes."""
    own, other = prob ** (1 / temperature), (1 - prob) ** (1 / temperature)
    return own / (own + other)


def batch(**changed) -> dict[str, torch.Tensor]:
    """One labelled patch and one unlabelled patch in two views; nothing is mixed unless `share` is changed."""
    parts = {
        "pixels": torch.tensor([2.0]),
        "label": torch.tensor([1.0]),
        "weak": torch.tensor([1.0, -0.5]),
        "ramp": torch.tensor(1.0),
        "share": torch.ones(3),
        "partner": torch.tensor([1, 2, 0]),
    }
    return parts | {key: torch.tensor(value) for key, value in changed.items()}


def loss(parts, **options) -> float:
    return MixMatch(Fixed(), **options)(parts)["loss"].item()


MEAN = (sigmoid(1.0) + sigmoid(-0.5)) / 2


def test_the_guess_is_the_sharpened_mean_prob_of_the_views():
    guess = MixMatch(Fixed(), temperature=0.5).guess(torch.tensor([9.0, 1.0, 3.0, -0.5, -2.0]), 1)
    other = (sigmoid(3.0) + sigmoid(-2.0)) / 2
    assert guess.tolist() == pytest.approx([sharpened(MEAN, 0.5), sharpened(other, 0.5)], rel=1e-5)


def test_temperature_1_leaves_the_mean():
    assert MixMatch(Fixed(), temperature=1.0).guess(torch.tensor([1.0, -0.5]), 0).item() == pytest.approx(MEAN, rel=1e-5)


def test_a_certain_guess_is_finite():
    assert MixMatch(Fixed(), temperature=0.1).guess(torch.tensor([1e4, 1e4]), 0).isfinite().all()


def test_unmixed_the_loss_is_that_of_labels_and_guesses():
    guess = sharpened(MEAN, 0.5)
    apart = ((sigmoid(1.0) - guess) ** 2 + (sigmoid(-0.5) - guess) ** 2) / 2
    assert loss(batch(ramp=0.5), weight=4.0) == pytest.approx(bce(2.0, 1) + 2 * apart, rel=1e-5)


def test_patches_and_targets_are_mixed_alike():
    """The labelled patch with the first view, that with the second, and the second with the labelled patch."""
    guess = sharpened(MEAN, 0.5)
    labelled = bce(0.8 * 2.0 + 0.2 * 1.0, 0.8 + 0.2 * guess)
    first = (sigmoid(0.6 * 1.0 + 0.4 * -0.5) - guess) ** 2
    second = (sigmoid(0.5 * -0.5 + 0.5 * 2.0) - (0.5 * guess + 0.5 * 1)) ** 2
    assert loss(batch(share=[0.8, 0.6, 0.5]), weight=4.0) == pytest.approx(labelled + 4 * (first + second) / 2, rel=1e-5)


def test_one_view_is_its_own_guess():
    parts = batch(weak=[1.0], share=[1.0, 1.0], partner=[1, 0])
    apart = (sigmoid(1.0) - sharpened(sigmoid(1.0), 0.5)) ** 2
    assert loss(parts, weight=1.0, views=1) == pytest.approx(bce(2.0, 1) + apart, rel=1e-5)


def test_all_mixed_patches_share_one_pass():
    network = Fixed()
    MixMatch(network)(batch(share=[0.8, 0.6, 0.5]))
    assert network.calls == [[2.0, 1.0, -0.5], pytest.approx([1.8, 0.4, 0.75])]


def test_no_gradient_reaches_the_guess():
    """Unmixed, a view's gradient is that of its own squared error to a constant."""
    parts = batch()
    weak = parts["weak"].requires_grad_()
    MixMatch(Fixed(), weight=1.0)(parts)["loss"].backward()
    guess = sharpened(MEAN, 0.5)
    expected = [(sigmoid(x) - guess) * sigmoid(x) * (1 - sigmoid(x)) for x in (1.0, -0.5)]
    assert weak.grad.tolist() == pytest.approx(expected, rel=1e-5)


def test_weights_of_patches_count():
    parts = batch(weight=[0.25])
    assert loss(batch()) - loss(parts) == pytest.approx(0.75 * bce(2.0, 1), rel=1e-5)


def uint8_batch(n: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    pixels, weak = (torch.randint(0, 256, (k * n, 32, 32, 3), dtype=torch.uint8, generator=generator) for k in (1, 2))
    return {
        "pixels": pixels,
        "label": (torch.arange(n) % 2).float(),
        "weak": weak,
        "ramp": torch.tensor(1.0),
        "share": torch.linspace(0.5, 1, 3 * n),
        "partner": torch.randperm(3 * n, generator=generator),
    }


def test_guesses_leave_the_statistics_of_batch_norms_alone():
    torch.manual_seed(0)
    network = build_network("test_resnet", False, 32).train()
    before = {name: value.clone() for name, value in network.named_buffers() if "running" in name}
    parts = uint8_batch(4)
    method = MixMatch(network)
    method.guess(torch.cat([parts["pixels"], parts["weak"]]), 4)
    after = dict(network.named_buffers())
    assert before and all(torch.equal(value, after[name]) for name, value in before.items())
    method(parts)
    assert not all(torch.equal(value, after[name]) for name, value in before.items())


def test_pixels_are_mixed_before_the_network_and_features_of_a_frozen_one_after_its_backbone():
    torch.manual_seed(0)
    network = build_network("test_resnet", False, 32).train()
    network.freeze_backbone(True)
    parts = uint8_batch(4)
    with torch.no_grad():
        features = {key: network.features(parts[key]) for key in ("pixels", "weak")}
        on_pixels = MixMatch(network)(parts)["loss"].item()
        assert MixMatch(network)(parts | features)["loss"].item() == pytest.approx(on_pixels, rel=1e-6)
        network.freeze_backbone(False)
        network.eval()
        assert MixMatch(network)(parts)["loss"].item() != pytest.approx(on_pixels, rel=1e-6)
