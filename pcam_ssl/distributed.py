"""Processes that train together (`torchrun`): rank, size, device, gather, and batch norm over the whole batch of all processes."""

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from pcam_ssl.errors import UserError


@dataclass(frozen=True)
class World:
    """One process among `size`; alone, every method is the identity."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """True in the one process that writes and talks."""
        return self.rank == 0

    @property
    def loader_workers(self) -> int:
        """Loader processes that suit this process: its share of the cores beside a GPU, none on CPU, where they would take its cores."""
        return min(12, max(1, (os.cpu_count() or 1) // self.size - 1)) if self.device.type == "cuda" else 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients averaged over processes; its batch norms must see the whole batch (`models.batchnorm`)."""
        if self.size == 1 or not any(parameter.requires_grad for parameter in module.parameters()):
            return module
        ids = [self.device.index] if self.device.type == "cuda" else None
        with warnings.catch_warnings():
            # The name that replaces broadcast_buffers in torch 2.15 is unknown to the older ones.
            warnings.simplefilter("ignore", FutureWarning)
            return nn.parallel.DistributedDataParallel(
                module, device_ids=ids, broadcast_buffers=False, gradient_as_bucket_view=True
            )

    def mean(self, value: torch.Tensor) -> torch.Tensor:
        """Mean of a tensor over processes."""
        if self.size == 1:
            return value
        value = value.detach().clone()
        torch.distributed.all_reduce(value)
        return value / self.size

    def gather(self, value: Any) -> list[Any]:
        """The picklable values of all processes, in rank order, on every process."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        torch.distributed.all_gather_object(values, value)
        return values

    def run_on_main(self, work: Callable[[], Any]) -> Any:
        """Do `work` in the leader alone; its picklable result, or its UserError, reaches every process. Also a barrier."""
        if self.size == 1:
            return work()
        outcome = [None, None]
        if self.is_main:
            try:
                outcome[0] = work()
            except UserError as error:
                outcome[1] = error
        torch.distributed.broadcast_object_list(outcome, src=0)
        if outcome[1] is not None:
            raise self.agreed(outcome[1])
        return outcome[0]

    def agreed(self, error: UserError) -> UserError:
        """An error that every process raises at the same place: the leader tells it for all."""
        error.told = not self.is_main
        return error

    def share(self, total: int, what: str) -> int:
        """`total` over the processes. Raises UserError where it does not divide."""
        if total % self.size:
            raise self.agreed(
                UserError(f"{what} is {total}, which {self.size} processes cannot share evenly; make it a multiple of {self.size}")
            )
        return total // self.size


def join_world(device: str = "auto") -> World:
    """The world that `torchrun` set up in the environment, or a world of one. Raises UserError for a device that is not here."""
    size, rank = int(os.environ.get("WORLD_SIZE", 1)), own_rank()
    chosen = choose_device(device)
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(chosen)
    if size > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
    return World(rank, size, chosen)


def own_rank() -> int:
    """This process's number under `torchrun`, else 0."""
    return int(os.environ.get("RANK", 0))


def choose_device(device: str = "auto") -> torch.device:
    """CUDA, then Apple MPS, then CPU; or the one named."""
    here = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return torch.device(next(name for name, present in here.items() if present))
    if not here[device]:
        raise UserError(f"train.device: {device} is not available here; set train.device=auto (`pcam-ssl doctor` shows what is)")
    return torch.device(device)


def gather_with_gradient(value: torch.Tensor) -> torch.Tensor:
    """The equal shares `[b, ...]` of all processes as one `[B, ...]`, on every process; gradients flow back to their shares.

    Each process then computes the same loss of the whole batch, and the mean of gradients over processes is its gradient.
    """
    if not (torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1):
        return value
    parts = [torch.zeros_like(value) for _ in range(torch.distributed.get_world_size())]
    parts[torch.distributed.get_rank()] = value
    return sum_over_processes(torch.cat(parts))


def sum_over_processes(value: torch.Tensor) -> torch.Tensor:
    """Sum of a tensor over processes, on every process; gradients are summed on their way back too."""
    return _Sum.apply(value)


class _Sum(torch.autograd.Function):
    """As `torch.distributed.nn.functional.all_reduce`, which torch 2.15 deprecates for one that torch 2.6 does not have."""

    @staticmethod
    def forward(ctx, value: torch.Tensor) -> torch.Tensor:
        total = value.detach().clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        torch.distributed.all_reduce(total)
        return total


class WorldBatchNorm2d(nn.BatchNorm2d):
    """`nn.BatchNorm2d` whose training statistics are those of all processes' equal shares; works on CPU, where torch's SyncBatchNorm does not.

    Also stands in for timm's `BatchNormAct2d`, whose dropout and activation it keeps.
    """

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if not self.training:
            normed = functional.batch_norm(
                images, self.running_mean, self.running_var, self.weight, self.bias, False, 0.0, self.eps
            )
        else:
            normed = self._normalise(images.float()).to(images.dtype)
        return self.act(self.drop(normed)) if hasattr(self, "act") else normed

    def _normalise(self, images: torch.Tensor) -> torch.Tensor:
        size = torch.distributed.get_world_size()
        # Two passes: E[x^2] - E[x]^2 would lose the digits that world-size invariance asks for.
        mean = sum_over_processes(images.mean((0, 2, 3))) / size
        centred = images - mean[:, None, None]
        variance = sum_over_processes(centred.square().mean((0, 2, 3))) / size
        with torch.no_grad():
            count = images.numel() / images.shape[1] * size
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
        scale = (variance + self.eps).rsqrt() * self.weight
        return centred * scale[:, None, None] + self.bias[:, None, None]


def share_batch_norms(module: nn.Module, device: torch.device) -> nn.Module:
    """The module with its batch norms made to see every process's patches; parameter names stay as they are."""
    if device.type == "cuda":
        from timm.layers import convert_sync_batchnorm

        return convert_sync_batchnorm(module)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.__class__ = WorldBatchNorm2d
    return module
