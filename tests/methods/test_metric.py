"""Losses on embeddings laid at known angles, against plain double loops."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from pcam_ssl.methods.metric import EMBEDDING_LOSSES, Metric
from pcam_ssl.models.artefact import load_weights, save_weights
from pcam_ssl.recipe.loading import load_recipe

DEGREES = torch.tensor([0.0, 20.0, 80.0, 110.0])
LABELS = torch.tensor([0, 0, 1, 1])


def at_angles(degrees: torch.Tensor) -> torch.Tensor:
    radians = torch.deg2rad(degrees)
    return torch.stack([radians.cos(), radians.sin()], 1)


def options(*settings: str) -> dict:
    return load_recipe(None, ["method.name=metric", *settings]).method.model_dump()


def loss_of(*settings: str, classes=None) -> float:
    chosen = options(*settings)
    loss = EMBEDDING_LOSSES[chosen["loss"]](chosen, 2)
    if classes is not None:
        loss.W.data = classes
    return float(loss(at_angles(DEGREES), LABELS))


class Fixed(nn.Module):
    """A network that answers with embeddings at `DEGREES` and given logits."""

    embedding_size = 2

    def __init__(self, logits):
        super().__init__()
        self.head = nn.Linear(1, 1)
        self.logits = logits

    def forward(self, pixels):
        return {"embedding": at_angles(DEGREES), "logit": self.logits}


def test_arcface_adds_its_margin_to_the_angle_of_the_true_class():
    class_degrees, margin, scale = [10.0, 90.0], 20.0, 8.0
    expected = 0.0
    for degree, label in zip(DEGREES.tolist(), LABELS.tolist(), strict=True):
        logits = []
        for c, own in enumerate(class_degrees):
            angle = abs(degree - own) + (margin if c == label else 0.0)
            logits.append(scale * math.cos(math.radians(angle)))
        expected += (math.log(sum(math.exp(v) for v in logits)) - logits[label]) / 4
    classes = at_angles(torch.tensor(class_degrees)).T.contiguous()
    found = loss_of("method.loss=arcface", f"method.margin_deg={margin}", f"method.scale={scale}", classes=classes)
    assert found == pytest.approx(expected, rel=1e-5)


def test_triplet_is_the_mean_of_positive_hinges_over_all_triplets():
    margin, points = 0.8, at_angles(DEGREES)
    hinges = []
    for a in range(4):
        for p in range(4):
            for n in range(4):
                if a != p and LABELS[a] == LABELS[p] and LABELS[a] != LABELS[n]:
                    hinge = float((points[a] - points[p]).norm() - (points[a] - points[n]).norm()) + margin
                    hinges.append(max(0.0, hinge))
    hinges = [hinge for hinge in hinges if hinge > 0]
    assert hinges
    assert loss_of("method.loss=triplet", f"method.triplet_margin={margin}") == pytest.approx(sum(hinges) / len(hinges), rel=1e-5)


def test_supcon_is_the_mean_log_share_of_positives():
    temperature, expected = 0.5, 0.0
    degrees = DEGREES.tolist()
    similarity = [[math.cos(math.radians(a - b)) / temperature for b in degrees] for a in degrees]
    for a in range(4):
        others = [b for b in range(4) if b != a]
        total = math.log(sum(math.exp(similarity[a][b]) for b in others))
        positives = [b for b in others if LABELS[a] == LABELS[b]]
        expected -= sum(similarity[a][p] - total for p in positives) / len(positives) / 4
    assert loss_of("method.loss=supcon", f"method.temperature={temperature}") == pytest.approx(expected, rel=1e-5)


def method(*settings: str, logits=None, share=0.5) -> Metric:
    labels = np.array([1] * int(100 * share) + [0] * int(100 - 100 * share))
    return Metric.build(
        Fixed(torch.zeros(4) if logits is None else logits), labels, **{k: v for k, v in options(*settings).items() if k != "name"}
    )


def batch(slides=(0, 1, 2, 3)) -> dict:
    return {"pixels": torch.zeros(4, 1), "label": LABELS.float(), "slide": torch.tensor(slides)}


def test_the_loss_is_classification_plus_weighted_metric_loss():
    whole = method("method.loss=supcon", "method.weight=0.25")(batch())["loss"]
    assert float(whole) == pytest.approx(math.log(2) + 0.25 * loss_of("method.loss=supcon"), rel=1e-5)


def test_without_classification_only_the_metric_loss_counts():
    alone = method("method.loss=supcon", "method.weight=2", "method.classify=false")(batch())["loss"]
    assert float(alone) == pytest.approx(2 * loss_of("method.loss=supcon"), rel=1e-5)


def test_logits_match_the_training_share_although_batches_are_balanced():
    # A classifier that knows only the share of tumor (1 in 5) must have no cheaper logit than that share's log odds.
    def loss(logit):
        return float(method("method.loss=supcon", logits=torch.full((4,), logit), share=0.2)(batch())["loss"])

    right = math.log(0.2 / 0.8)
    assert loss(right) < loss(right + 0.05) and loss(right) < loss(right - 0.05)


def test_slide_aware_changes_which_pairs_count():
    plain, aware = (
        float(method("method.loss=supcon", f"method.slide_aware={flag}")(batch((0, 1, 0, 2)))["loss"]) for flag in ("false", "true")
    )
    assert plain != pytest.approx(aware)


def test_a_batch_of_one_slide_still_has_a_finite_loss():
    for loss in ("triplet", "supcon", "multi_similarity"):
        value = method(f"method.loss={loss}", "method.slide_aware=true")(batch((0, 0, 0, 0)))["loss"]
        assert torch.isfinite(value), loss


@pytest.mark.parametrize("miner", ["multi_similarity", "batch_hard", "semihard", "hard"])
def test_miners_work_with_slides(miner):
    value = method("method.loss=triplet", f"method.miner={miner}", "method.slide_aware=true")(batch())["loss"]
    assert torch.isfinite(value)


def test_slide_aware_mining_leaves_no_anchor_without_a_triplet():
    # Slides 0 and 1 hold both classes: of all pairs batch_hard would take negatives of the other slide, which are not allowed.
    chosen = method("method.loss=triplet", "method.miner=batch_hard", "method.slide_aware=true").miner
    anchors, positives, negatives = chosen(at_angles(DEGREES), LABELS, torch.tensor([0, 1, 0, 1]))
    assert [part.tolist() for part in (anchors, positives, negatives)] == [[0, 1, 2, 3], [1, 0, 3, 2], [2, 3, 0, 1]]


@pytest.mark.parametrize("loss", ["arcface", "subcenter_arcface", "proxy_anchor"])
def test_class_vectors_are_saved_and_loaded_to_the_bit(tmp_path, loss):
    from pcam_ssl.models.network import build_network

    network = build_network("test_resnet", False, 32, projection=4)
    first, second = (EMBEDDING_LOSSES[loss](options(f"method.loss={loss}"), 4) for _ in range(2))
    save_weights(tmp_path, network, first)
    load_weights(tmp_path, network, second)
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert first.state_dict()


def test_class_vectors_stay_float32_under_autocast():
    trained = method("method.loss=arcface")
    with torch.autocast("cpu", torch.bfloat16):
        trained(batch())
    assert trained.metric_loss.W.dtype == torch.float32


def test_without_classification_the_head_does_not_learn():
    alone = method("method.loss=supcon", "method.classify=false")
    assert not any(parameter.requires_grad for parameter in alone.network.head.parameters())
