"""Under several processes the metric loss and its gradients are those of one process with the whole batch."""

import numpy as np
import pytest
import torch
from processes import in_every_rank

from pcam_ssl.distributed import World, share_batch_norms
from pcam_ssl.methods import build_method
from pcam_ssl.models.network import build_network
from pcam_ssl.recipe.loading import load_recipe

pytestmark = pytest.mark.processes

LOSSES = ["arcface", "triplet", "supcon", "multi_similarity", "proxy_anchor"]
BATCH = 8


def step(world: World, loss: str):
    """Loss, and gradients of network and class vectors, of one step on this process's share of a fixed batch."""
    torch.manual_seed(0)
    pair = loss in ("triplet", "supcon", "multi_similarity")
    recipe = load_recipe(
        None, ["method.name=metric", f"method.loss={loss}", "method.projection=8", f"method.slide_aware={str(pair).lower()}"]
    )
    network = build_network("test_resnet", False, 64, projection=8)
    if world.size > 1:
        share_batch_norms(network, world.device)
    method = build_method(recipe.method.model_dump(), network, np.arange(10) % 2).train()
    pixels = torch.randint(0, 256, (BATCH, 64, 64, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    whole = {"pixels": pixels, "label": (torch.arange(BATCH) % 2).float(), "slide": torch.arange(BATCH) // 3}
    share = BATCH // world.size
    mine = {name: value[world.rank * share : (world.rank + 1) * share] for name, value in whole.items()}
    wrapped = world.wrap(method)  # kept: its hooks average the gradients
    value = wrapped(mine)["loss"]
    value.backward()
    gradients = {name: p.grad.double().numpy() for name, p in method.named_parameters() if p.grad is not None}
    return world.mean(value.detach()).item(), gradients


@pytest.mark.parametrize("loss", LOSSES)
def test_two_processes_have_the_loss_and_gradients_of_one(loss):
    alone_loss, alone = step(World(0, 1, torch.device("cpu")), loss)
    for together_loss, together in in_every_rank(2, step, loss):
        assert together_loss == pytest.approx(alone_loss, rel=1e-6)
        assert together.keys() == alone.keys()
        scale = max(np.abs(gradient).max() for gradient in alone.values())
        for name, gradient in alone.items():
            np.testing.assert_allclose(together[name], gradient, rtol=1e-3, atol=2e-6 * scale, err_msg=name)
