import copy

import numpy as np
import pytest
import torch
from processes import in_every_rank
from timm.layers import BatchNormAct2d
from torch import nn

from pcam_ssl.distributed import World, WorldBatchNorm2d, share_batch_norms

CPU = torch.device("cpu")


def small() -> nn.Module:
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 5, 3), BatchNormAct2d(5, act_layer=nn.SiLU)]
    module = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 1))
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.weight.uniform_(0.5, 2)
                part.bias.uniform_(-1, 1)
    return module


def images() -> torch.Tensor:
    # Far from zero, where E[x^2] - E[x]^2 would lose its digits.
    return torch.from_numpy(np.random.default_rng(0).normal(50, 3, (8, 3, 9, 9)).astype(np.float32))


def step(module: nn.Module, shown: torch.Tensor) -> tuple[float, dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Loss, gradients and buffers after a forward and backward pass."""
    loss = nn.functional.softplus(module(shown)).mean()
    loss.backward()
    gradients = {name.removeprefix("module."): p.grad.numpy() for name, p in module.named_parameters()}
    return loss.item(), gradients, {name.removeprefix("module."): b.numpy() for name, b in module.named_buffers()}


def shared_step(world: World):
    module = share_batch_norms(small(), CPU).train()
    share = len(images()) // world.size
    loss, gradients, buffers = step(world.wrap(module), images()[world.rank * share : (world.rank + 1) * share])
    return world.mean(torch.tensor(loss)).item(), gradients, buffers


@pytest.fixture(scope="module")
def alone():
    return step(small().train(), images())


@pytest.fixture(scope="module", params=[2, 4])
def together(request):
    return in_every_rank(request.param, shared_step)


@pytest.mark.processes
def test_the_loss_is_that_of_the_whole_batch(alone, together):
    assert [loss for loss, _, _ in together] == pytest.approx([alone[0]] * len(together), rel=1e-6)


@pytest.mark.processes
def test_gradients_are_those_of_the_whole_batch(alone, together):
    for _, gradients, _ in together:
        for name, expected in alone[1].items():
            np.testing.assert_allclose(gradients[name], expected, rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.processes
def test_running_statistics_are_those_of_the_whole_batch(alone, together):
    for _, _, buffers in together:
        for name, expected in alone[2].items():
            np.testing.assert_allclose(buffers[name], expected, rtol=1e-5, err_msg=name)


def test_names_of_the_state_stay(alone):
    assert list(share_batch_norms(small(), CPU).state_dict()) == list(small().state_dict())


def test_in_use_it_is_the_ordinary_batch_norm():
    ordinary = small().eval()
    shared = share_batch_norms(copy.deepcopy(ordinary), CPU).eval()
    assert any(isinstance(part, WorldBatchNorm2d) for part in shared.modules())
    torch.testing.assert_close(shared(images()), ordinary(images()), rtol=1e-5, atol=1e-5)
