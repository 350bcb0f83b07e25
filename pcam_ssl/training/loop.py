"""The training loop: one step, then once in a while check, evaluate, save."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn

from pcam_ssl.data.batches import load
from pcam_ssl.device import Precision
from pcam_ssl.distributed import World
from pcam_ssl.errors import UserError
from pcam_ssl.training.checkpoint import Stopped, load_checkpoint, save_checkpoint, stop_requests
from pcam_ssl.training.optim import Schedule

CHECK_STEPS_GPU = 25  # reading a loss waits for the GPU, so losses are read in groups


@dataclass(frozen=True)
class Plan:
    """Length and settings of one training, as plain numbers."""

    epochs: int
    steps_per_epoch: int
    seed: int
    clip_norm: float | None = None
    head_first_epochs: int = 0
    keep_best: bool = False
    checkpoint_s: float = 300.0
    check_steps: int = 1
    """Losses, stop requests and the age of the last checkpoint are checked after this many steps."""
    workers: int = 0

    @property
    def total(self) -> int:
        return self.epochs * self.steps_per_epoch


@dataclass
class Training:
    """Everything that changes while a method trains. `state` returns all that a resume needs."""

    method: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    ema: ModelEmaV3 | None
    scaler: torch.amp.GradScaler
    step: int = 0
    epoch_loss: float = 0.0
    best: dict[str, float] = field(default_factory=dict)

    @property
    def network(self) -> nn.Module:
        """The network that is evaluated and kept: the moving average, the teacher, or the network itself."""
        return self.ema.module if self.ema else getattr(self.method, "evaluated", self.method.network)

    def state(self) -> dict[str, Any]:
        parts = {name: getattr(self, name).state_dict() for name in ("method", "optimizer", "schedule", "scaler")}
        ema = self.ema.module.state_dict() if self.ema else None
        return {**parts, "ema": ema, "step": self.step, "epoch_loss": self.epoch_loss, "best": self.best}

    def load(self, state: dict[str, Any]) -> None:
        for name in ("method", "optimizer", "schedule", "scaler"):
            getattr(self, name).load_state_dict(state[name])
        if self.ema:
            self.ema.module.load_state_dict(state["ema"])
        self.step, self.epoch_loss, self.best = state["step"], state["epoch_loss"], state["best"]


def fit(
    training: Training,
    stream,
    plan: Plan,
    *,
    folder: Path,
    precision: Precision,
    world: World,
    evaluate: Callable[[nn.Module], dict[str, float | None]],
    keep: Callable[[Training], None],
    log: Callable[[dict[str, Any]], None],
    rewind: Callable[[int], None],
    advance: Callable[[int, str], None],
) -> None:
    """Train to the end of the plan, continuing from the checkpoint in `folder` where there is one.

    `evaluate(network)` returns `score` (higher is better, None where undefined), `loss`, and anything else to log.
    `keep(training)` stores the epoch to use: the best by `score`, or the last. `log(event)` gets one event per epoch,
    `rewind(step)` the step at which training starts, `advance(n, text)` the progress. Raises UserError naming the
    step whose loss is not finite, and Stopped after a stop request.
    """
    state = load_checkpoint(folder)
    if state is not None:
        training.load(state)
    rewind(training.step)
    advance(training.step, "")
    pending: list[torch.Tensor] = []
    wrapped, phase = None, None
    begun = saved = time.monotonic()
    with stop_requests() as stop:
        for batch in load(stream, range(training.step, plan.total), plan.workers, world.device):
            epoch = training.step // plan.steps_per_epoch
            if (epoch < plan.head_first_epochs) != phase:
                phase = epoch < plan.head_first_epochs
                if plan.head_first_epochs:
                    training.method.network.freeze_backbone(phase)
                wrapped = world.wrap(training.method.train())

            pending.append(train_step(training, wrapped, batch, plan, precision, world))
            training.step += 1

            at_epoch_end = training.step % plan.steps_per_epoch == 0
            # Decided by the step only: processes that decided by their own clocks would enter different collectives.
            if not (at_epoch_end or training.step % plan.check_steps == 0):
                continue
            losses, stopping, late = _agree(pending, stop.came, time.monotonic() - saved > plan.checkpoint_s, world)
            _check_finite(losses, training.step, world)
            training.epoch_loss += sum(losses)
            advance(len(losses), f"epoch {epoch + 1}/{plan.epochs} loss {losses[-1]:.3f}")
            pending = []

            if at_epoch_end:
                event = _end_epoch(training, plan, evaluate, keep)
                log({**event, "epoch": epoch + 1, "seconds": round(time.monotonic() - begun, 2)})
                training.method.train()
                begun = time.monotonic()
            if at_epoch_end or late or stopping:
                if world.is_main:
                    save_checkpoint(folder, training.state())
                saved = time.monotonic()
            if stopping:
                break
        # This includes a request that came while the last epoch was evaluated.
        if world.mean(torch.tensor(float(stop.came), device=world.device)) > 0:
            raise world.agreed(
                Stopped(f"stopped at step {training.step} of {plan.total}, state saved; the same command goes on from here")
            )


def train_step(
    training: Training, wrapped: nn.Module, batch: dict[str, torch.Tensor], plan: Plan, precision: Precision, world: World
) -> torch.Tensor:
    """Forward, backward, and one step of the optimizer. Returns the detached loss."""
    # The seed depends on the step, so dropout after a resume equals that of an uninterrupted run without saving random states.
    torch.manual_seed(plan.seed * 1_000_003 + training.step * 64 + world.rank)
    batch = {name: value.to(world.device, non_blocking=True) for name, value in batch.items()}
    lr = training.schedule.at(training.step)
    for group in training.optimizer.param_groups:
        group["lr"] = lr
    with precision.autocast(world.device):
        loss = wrapped(batch)["loss"]
    training.optimizer.zero_grad(set_to_none=True)
    training.scaler.scale(loss).backward()
    if plan.clip_norm is not None:
        training.scaler.unscale_(training.optimizer)
        nn.utils.clip_grad_norm_(training.method.parameters(), plan.clip_norm)
    training.scaler.step(training.optimizer)
    training.scaler.update()
    if training.ema:
        training.ema.update(training.method.network, step=training.step + 1)
    return loss.detach()


def _agree(pending: list[torch.Tensor], stop: bool, late: bool, world: World) -> tuple[list[float], bool, bool]:
    """Values shared by all processes: mean losses, whether any process is to stop, whether a checkpoint is due in any process."""
    flags = pending[0].new_tensor([float(stop), float(late)])
    *losses, stopping, due = world.mean(torch.cat([torch.stack(pending), flags])).tolist()
    return losses, stopping > 0, due > 0


def _check_finite(losses: list[float], last_step: int, world: World) -> None:
    for step, loss in enumerate(losses, last_step - len(losses) + 1):
        if not abs(loss) < float("inf"):
            raise world.agreed(
                UserError(
                    f"training stopped: the loss of step {step} is {loss}; lower optim.lr, set train.clip_norm=1,"
                    " or train.precision=fp32 (the checkpoint before it is kept)"
                )
            )


def _end_epoch(training: Training, plan: Plan, evaluate, keep) -> dict[str, Any]:
    lr = training.optimizer.param_groups[0]["lr"]
    result = evaluate(training.network)
    score = result.pop("score")
    loss = result.pop("loss")
    if loss is not None:
        training.schedule.epoch_end(loss)
    epoch = training.step // plan.steps_per_epoch
    if plan.keep_best and score is not None:
        if score > training.best.get("score", float("-inf")):
            training.best = {"score": score, "epoch": epoch}
            keep(training)
    elif epoch == plan.epochs and "score" not in training.best:
        # The last epoch is also kept where no epoch had a score; the caller reports that.
        training.best = {"epoch": epoch}
        keep(training)
    mean_loss, training.epoch_loss = training.epoch_loss / plan.steps_per_epoch, 0.0
    return {"step": training.step, "train_loss": mean_loss, "lr": lr, **result}
