"""Under several processes consistency losses and their gradients are those of one process with the whole batch."""

import numpy as np
import pytest
import torch
from processes import in_every_rank

from pcam_ssl.distributed import World, share_batch_norms
from pcam_ssl.methods import build_method
from pcam_ssl.models.network import build_network
from pcam_ssl.recipe.loading import load_recipe

pytestmark = pytest.mark.processes

BATCH, RATIO = 4, 2
SETTINGS = {
    "fixmatch": ["method.threshold=0.51"],
    "mean_teacher": [],
    "mixmatch": ["method.temperature=0.8"],
}  # an untrained network is sure of little


def step(world: World, name: str):
    """Loss, gradients and state of a step on this process's share of a fixed batch; the second, for a teacher that lags."""
    torch.manual_seed(0)
    recipe = load_recipe(None, [f"method.name={name}", *SETTINGS[name]])
    network = build_network("test_resnet", False, 64)
    if world.size > 1:
        share_batch_norms(network, world.device)
    method = build_method(recipe.method.model_dump(), network, np.arange(4) % 2)
    generator = torch.Generator().manual_seed(1)
    views = getattr(recipe.method, "views", 1)
    kinds = {"pixels": (1, BATCH), "weak": (views, BATCH * RATIO), "strong": (1, BATCH * RATIO)}
    whole = {key: torch.randint(0, 256, (*n, 64, 64, 3), dtype=torch.uint8, generator=generator) for key, n in kinds.items()}
    mine = {key: value.chunk(world.size, 1)[world.rank].flatten(0, 1) for key, value in whole.items()}
    mine |= {"label": (torch.arange(BATCH) % 2).float().chunk(world.size)[world.rank], "ramp": torch.tensor(0.5)}
    # Draws of MixUp, for labelled patches and every view of the unlabelled ones.
    n = BATCH + views * BATCH * RATIO
    places = torch.arange(n).split([BATCH, *[BATCH * RATIO] * views])
    own = torch.cat([kind.chunk(world.size)[world.rank] for kind in places])
    mine |= {"share": torch.linspace(0.5, 1, n)[own], "partner": torch.randperm(n, generator=generator)[own]}
    wrapped = world.wrap(method.train())
    optimizer = torch.optim.SGD([p for p in method.parameters() if p.requires_grad], lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        value = wrapped(mine)["loss"]
        value.backward()
        optimizer.step()
    gradients = {key: p.grad.double().numpy() for key, p in method.named_parameters() if p.grad is not None}
    state = {key: part.double().numpy() for key, part in method.state_dict().items()}
    return world.mean(value.detach()).item(), gradients, state


@pytest.mark.parametrize("name", SETTINGS)
def test_two_processes_have_the_loss_gradients_and_state_of_one(name):
    alone_loss, alone, alone_state = step(World(0, 1, torch.device("cpu")), name)
    scale = max(np.abs(gradient).max() for gradient in alone.values())
    for together_loss, together, state in in_every_rank(2, step, name):
        assert together_loss == pytest.approx(alone_loss, abs=1e-6)
        assert together.keys() == alone.keys()
        for key, gradient in alone.items():
            np.testing.assert_allclose(together[key], gradient, rtol=1e-3, atol=1e-5 * scale, err_msg=key)
        for key, part in alone_state.items():
            np.testing.assert_allclose(state[key], part, rtol=1e-4, atol=1e-4, err_msg=key)
