"""What a unit's training starts from."""

from itertools import product
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pcam_ssl.cross_validation.fitting import _network, unit_seed
from pcam_ssl.data.folds import Unit
from pcam_ssl.device import choose_precision
from pcam_ssl.distributed import World
from pcam_ssl.models import depthwise
from pcam_ssl.recipe.loading import load_recipe

NONE = np.zeros(0, bool)


def seed_of(seed, number, round):
    return unit_seed(seed, Unit(f"fold-{number}", number, NONE, NONE, NONE, round))


def test_every_unit_of_every_round_and_seed_starts_from_a_seed_of_its_own():
    # Five folds, a refit, and the precision checks of all: eleven units.
    cases = list(product(range(5), range(11), range(4)))
    assert len({seed_of(*case) for case in cases}) == len(cases)


def test_a_student_does_not_start_where_its_teacher_did():
    assert seed_of(0, 2, 1) != seed_of(0, 2, 0)


@pytest.mark.parametrize("slow", [True, False])
def test_a_network_trains_with_fast_depthwise_gradients_where_torch_s_are_slow(slow, monkeypatch):
    monkeypatch.setattr(depthwise, "_has_slow_gradients", lambda: slow)
    recipe = load_recipe("smoke", ("model.name=test_efficientnet", "model.pretrained=false"))
    cpu = torch.device("cpu")
    context = SimpleNamespace(
        recipe=recipe,
        dataset=SimpleNamespace(size_px=32),
        world=World(0, 1, cpu),
        precision=choose_precision(cpu),
        frozen=None,
    )
    parts = list(_network(context, None).modules())
    assert any(isinstance(part, depthwise.FastDepthwise) for part in parts) == slow
