"""Mean teacher by hand: a network of one weight that multiplies its pixels."""

import math

import numpy as np
import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from pcam_ssl.methods.mean_teacher import MeanTeacher
from pcam_ssl.models.network import build_network
from pcam_ssl.training.loop import Training


class Scaled(nn.Module):
    """A network whose logits are its pixels times one weight; it remembers what it was shown."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))
        self.calls = []

    def forward(self, pixels):
        self.calls.append(pixels.tolist())
        return {"logit": self.scale * pixels}


BATCH = {
    "pixels": torch.tensor([2.0]),
    "label": torch.tensor([1.0]),
    "weak": torch.tensor([1.0, -2.0]),
    "strong": torch.tensor([0.5, 3.0]),
    "ramp": torch.tensor(1.0),
}


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def move_student(method: MeanTeacher, scale: float) -> None:
    with torch.no_grad():
        method.network.scale.fill_(scale)


def test_the_loss_is_labels_plus_squared_difference_of_probs():
    method = MeanTeacher(Scaled(), weight=3.0)
    apart = ((sigmoid(0.5) - sigmoid(1)) ** 2 + (sigmoid(3) - sigmoid(-2)) ** 2) / 2
    loss = method({**BATCH, "ramp": torch.tensor(0.5)})["loss"].item()
    assert loss == pytest.approx(-math.log(sigmoid(2)) + 1.5 * apart, rel=1e-6)


def test_the_teacher_sees_weak_views_and_the_student_strong_ones():
    method = MeanTeacher(Scaled())
    method(BATCH)
    assert (method.teacher.calls, method.network.calls) == ([[2.0, 1.0, -2.0]], [[2.0, 0.5, 3.0]])


def test_the_teacher_starts_with_the_weights_of_the_student():
    method = MeanTeacher(Scaled(1.0))
    move_student(method, 5.0)  # as weights of another run do, once the method is built
    method(BATCH)
    assert method.teacher.scale.item() == 5.0


def test_the_teacher_starts_as_a_plain_mean():
    method = MeanTeacher(Scaled(), decay=0.99)
    for scale in (1.0, 2.0, 6.0):
        move_student(method, scale)
        method(BATCH)
    assert method.teacher.scale.item() == pytest.approx(3.0, rel=1e-6)


def test_after_warm_up_the_teacher_is_the_moving_average():
    method = MeanTeacher(Scaled(), decay=0.5)
    for scale in (1.0, 2.0, 6.0, 8.0):
        move_student(method, scale)
        method(BATCH)
    expected = 1.0
    for scale in (2.0, 6.0, 8.0):
        expected = 0.5 * expected + 0.5 * scale
    assert method.teacher.scale.item() == pytest.approx(expected, rel=1e-6)


def test_the_teacher_has_no_gradient():
    method = MeanTeacher(Scaled())
    method(BATCH)["loss"].backward()
    assert method.network.scale.grad is not None
    assert method.teacher.scale.grad is None and not method.teacher.scale.requires_grad


def test_the_state_holds_the_teacher_and_its_warm_up():
    method, other = MeanTeacher(Scaled()), MeanTeacher(Scaled(7.0))
    for scale in (1.0, 2.0):
        move_student(method, scale)
        method(BATCH)
    other.load_state_dict(method.state_dict())
    for each in (method, other):
        move_student(each, 6.0)
        each(BATCH)
    assert other.teacher.scale.item() == method.teacher.scale.item() == pytest.approx(3.0, rel=1e-6)


def test_the_teacher_keeps_batch_statistics_of_its_own():
    method = MeanTeacher.build(build_network("test_resnet", False, 32), np.array([0, 1]), weight=1.0, decay=0.9, ratio=1).train()
    pixels = torch.randint(0, 256, (4, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    method({"pixels": pixels, "label": torch.ones(4), "weak": pixels, "strong": pixels // 4, "ramp": torch.tensor(1.0)})
    teacher, student = method.teacher.state_dict(), method.network.state_dict()
    differing = {name.rpartition(".")[2] for name in teacher if not torch.equal(teacher[name], student[name])}
    assert differing == {"running_mean", "running_var"}


def test_the_teacher_is_evaluated_and_kept():
    assert training(None).network.scale.item() == 3.0


def test_the_average_of_the_loop_takes_precedence_over_the_teacher():
    assert training(ModelEmaV3(Scaled(5.0))).network.scale.item() == 5.0


def training(ema) -> Training:
    """A training whose student has the weight 1 and whose teacher has 3."""
    method = MeanTeacher(Scaled(1.0))
    method.teacher = Scaled(3.0)
    return Training(method, None, None, ema, None)
