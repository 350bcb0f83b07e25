"""The loop in several processes: they leave each step, and write each checkpoint, together."""

import tempfile
import time
from pathlib import Path

import pytest
import torch
from processes import in_every_rank
from torch import nn

from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.training.loop import Plan, Training, fit
from pcam_ssl.training.optim import Schedule

pytestmark = [pytest.mark.trains, pytest.mark.processes]

STEPS = 40


class Linear(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = nn.Linear(3, 1)

    def forward(self, batch):
        return {"loss": nn.functional.mse_loss(self.network(batch["values"]).squeeze(1), batch["label"])}


class Share(torch.utils.data.Dataset):
    """A process's share of a batch of 8; each process has slow steps of its own, so that their clocks disagree."""

    def __init__(self, world):
        self.world = world

    def __getitem__(self, step):
        if self.world.size > 1 and step % 7 == 3 * self.world.rank:
            time.sleep(0.03)
        share = 8 // self.world.size
        mine = slice(self.world.rank * share, (self.world.rank + 1) * share)
        values = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        return {"values": values[mine], "label": values.sum(1)[mine]}


def trained(world: World, check_steps: int, checkpoint_s: float):
    """Weights, epoch losses and the number of checkpoints of a short training."""
    torch.manual_seed(0)
    method = Linear()
    optimizer = torch.optim.SGD(method.parameters(), 0.05)
    training = Training(
        method, optimizer, Schedule({"name": "constant"}, 0.05, 2, STEPS), None, torch.amp.GradScaler("cpu", enabled=False)
    )
    losses, saved = [], []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("pcam_ssl.training.loop.save_checkpoint", lambda *state: saved.append(1))
        fit(
            training,
            Share(world),
            Plan(epochs=2, steps_per_epoch=STEPS, seed=1, check_steps=check_steps, checkpoint_s=checkpoint_s),
            folder=Path(folder),
            precision=Precision("fp32", False, "asked for"),
            world=world,
            evaluate=lambda network: {"score": None, "loss": 0.0},
            keep=lambda training: None,
            log=lambda event: losses.append(event["train_loss"]),
            rewind=lambda step: None,
            advance=lambda n, text: None,
        )
    return [p.detach().double().numpy() for p in method.parameters()], losses, len(saved)


@pytest.mark.parametrize("check_steps", [1, 25])
def test_checkpoints_by_the_clock_change_nothing(check_steps):
    weights, losses, _ = trained(World(0, 1, torch.device("cpu")), 1, 300.0)
    together = in_every_rank(2, trained, check_steps, 0.05)
    assert together[0][2] > 2, "no checkpoint was due between the ends of epochs"
    assert together[1][2] == 0
    for theirs, their_losses, _ in together:
        assert their_losses == pytest.approx(losses, abs=1e-6)
        for mine, other in zip(weights, theirs, strict=True):
            assert other == pytest.approx(mine, abs=1e-6)
