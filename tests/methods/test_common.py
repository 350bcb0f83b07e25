"""Requirements on every method. A method added to METHODS is tested here without an edit."""

import numpy as np
import pytest
import torch
from no_waiting import NoWaiting

from pcam_ssl.methods import METHODS, build_method
from pcam_ssl.models.network import build_network
from pcam_ssl.recipe.loading import load_recipe
from pcam_ssl.training.optim import build_optimizer

BATCH = 8


@pytest.fixture(params=METHODS)
def method(request):
    torch.manual_seed(0)
    recipe = load_recipe(None, [f"method.name={request.param}"])
    projection = getattr(recipe.method, "projection", None)
    network = build_network("test_resnet", False, 32, projection=projection)
    return build_method(recipe.method.model_dump(), network, np.arange(BATCH) % 2).train()


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "pixels": torch.randint(0, 256, (BATCH, 32, 32, 3), dtype=torch.uint8, generator=generator),
        "label": (torch.arange(BATCH) % 2).float(),
        "slide": torch.arange(BATCH) // 2,
        "index": torch.arange(BATCH),
        "weak": torch.randint(0, 256, (2 * BATCH, 32, 32, 3), dtype=torch.uint8, generator=generator),
        "strong": torch.randint(0, 256, (2 * BATCH, 32, 32, 3), dtype=torch.uint8, generator=generator),
        "ramp": torch.tensor(0.5),
        "share": torch.linspace(0.5, 1, 3 * BATCH),
        "partner": torch.arange(3 * BATCH).flip(0),
    }


def test_the_loss_is_a_finite_scalar(method, batch):
    loss = method(batch)["loss"]
    assert loss.shape == ()
    assert torch.isfinite(loss)


def test_every_parameter_that_requires_a_gradient_gets_one(method, batch):
    method(batch)["loss"].backward()
    still = [name for name, parameter in method.named_parameters() if parameter.requires_grad and parameter.grad is None]
    assert still == []


# The losses of pytorch-metric-learning choose values by masks, so there the host waits once a step.
@pytest.mark.parametrize("method", [name for name in METHODS if name != "metric"], indirect=True)
def test_the_host_does_not_wait_for_the_device(method, batch):
    optimizer = build_optimizer(method, load_recipe().optim.model_dump(), torch.device("cpu"))
    with NoWaiting():
        method(batch)["loss"].backward()
        torch.nn.utils.clip_grad_norm_(method.parameters(), 1.0)
        optimizer.step()


def test_a_batch_is_not_changed(method, batch):
    before = {name: value.clone() for name, value in batch.items()}
    method(batch)
    assert all(torch.equal(batch[name], before[name]) for name in before)


def test_a_loaded_state_gives_the_same_loss(method, batch):
    state = {name: value.clone() for name, value in method.state_dict().items()}
    torch.manual_seed(1)
    first = method(batch)["loss"].item()
    method.load_state_dict(state)
    torch.manual_seed(1)
    assert method(batch)["loss"].item() == first


def test_the_loss_falls_on_the_labels(method, batch):
    other = {**batch, "label": 1 - batch["label"]}
    assert method(batch)["loss"].item() != method(other)["loss"].item()


def test_the_network_is_an_attribute(method):
    assert any(name.startswith("network.backbone.") for name in method.state_dict())
